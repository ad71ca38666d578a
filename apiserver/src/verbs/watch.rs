//! Watches: every change of the objects that are meant, in order, none missing, none twice.
//!
//! A watcher is a position in the cache's ring of changes. It holds no more than one batch of lines, so
//! a client that reads slowly costs nothing; one that falls behind the ring gets 410 and lists again.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use api::Status;
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, header};
use store::Revision;
use tokio::{
    sync::watch::Receiver,
    time::{Instant, Interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::View,
    registry::{Registry, cache::Cache, encode::Happened, entry::Entry, ring::Change, selection::Selection},
    request::ListOptions,
};

/// How many changes are taken from the ring at once.
const BATCH: usize = 256;
/// How often an idle watch tells how far it is.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// Upstream's least lifetime of a watch; a random share is added, so that not all come back at once.
const MIN_LIFETIME: Duration = Duration::from_secs(1800);
/// Clients may name any number of seconds; no server lives that long, and it must be possible to add them to a time.
const MAX_LIFETIME: Duration = Duration::from_secs(u32::MAX as u64);

/// What a watch is about.
pub(super) struct Target {
    pub(super) registry: Arc<Registry>,
    pub(super) cache: Arc<Cache>,
    pub(super) view: View,
    /// Of the keys that are meant.
    pub(super) prefix: String,
    pub(super) selection: Selection,
}

/// The answer to a watch. The cache must have reached the resourceVersion that the options name.
pub(super) fn respond(target: Target, options: &ListOptions, stop: CancellationToken) -> Response<Body> {
    let content_type = target.view.stream_type();
    let watcher = Watcher::new(target, options, stop);
    let lines = stream::unfold(watcher, |mut watcher| async {
        let line = watcher.next().await?;
        Some((Ok::<Bytes, Infallible>(line), watcher))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

struct Watcher {
    target: Target,
    /// Every change up to here has been turned into lines.
    position: Revision,
    progress: Receiver<Revision>,
    /// What was there at the start, not sent yet.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// Whether a bookmark is due behind it.
    marks_initial_end: bool,
    lines: VecDeque<Bytes>,
    ends_at: Instant,
    bookmarks: Option<Interval>,
    stop: CancellationToken,
    is_over: bool,
}

impl Watcher {
    fn new(target: Target, options: &ListOptions, stop: CancellationToken) -> Watcher {
        let lifetime = options.timeout.unwrap_or_else(|| MIN_LIFETIME.mul_f32(1.0 + fastrand::f32()));
        let lifetime = lifetime.min(MAX_LIFETIME);
        let now = Instant::now();
        let bookmarks =
            options.bookmarks.then(|| tokio::time::interval_at(now + BOOKMARK_PERIOD, BOOKMARK_PERIOD));
        let mut watcher = Watcher {
            progress: target.cache.progress(),
            position: Revision(options.resource_version.unwrap_or_default()),
            target,
            initial: Vec::new().into_iter(),
            marks_initial_end: options.send_initial_events == Some(true) && options.bookmarks,
            lines: VecDeque::new(),
            ends_at: now + lifetime,
            bookmarks,
            stop,
            is_over: false,
        };
        if options.has_initial_events() {
            // Everything that is there, as if it had just been created.
            let (entries, revision) = watcher.target.cache.list(&watcher.target.prefix);
            watcher.initial = entries.into_iter();
            watcher.position = revision;
        } else if watcher.position == Revision(0) {
            watcher.position = watcher.target.cache.revision();
        }
        watcher
    }

    /// The next line; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.is_over {
                return None;
            }
            if let Some(line) = self.initial_line().await {
                self.lines.push_back(line);
                continue;
            }
            // Seen before the ring is read: what comes after wakes us.
            self.progress.mark_unchanged();
            if self.read_on().await {
                continue;
            }
            // What has happened is told before the end.
            tokio::select! {
                biased;
                changed = self.progress.changed() => self.is_over = changed.is_err(),
                () = self.stop.cancelled() => self.is_over = true,
                () = tokio::time::sleep_until(self.ends_at) => self.is_over = true,
                () = tick(&mut self.bookmarks) => self.bookmark(),
            }
        }
    }

    async fn initial_line(&mut self) -> Option<Bytes> {
        let line = match self.next_initial().await {
            Ok(Some(entry)) => self.target.event(Happened::Added, &entry).await,
            Ok(None) if std::mem::take(&mut self.marks_initial_end) => {
                self.target.view.bookmark(self.position, true)
            }
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        match line {
            Ok(line) => Some(line),
            Err(status) => {
                self.fail(&status);
                self.lines.pop_back()
            }
        }
    }

    async fn next_initial(&mut self) -> Result<Option<Arc<Entry>>, Status> {
        if !self.target.selection.needs_conversion() {
            return Ok(self.initial.find(|entry| self.target.selection.matches(entry)));
        }
        while let Some(entry) = self.initial.find(|entry| self.target.selection.may_match(entry)) {
            let shown = self.target.shown(&entry).await?;
            if self.target.selection.matches(&shown) {
                return Ok(Some(shown));
            }
        }
        Ok(None)
    }

    /// Turns the next changes into lines; whether there may be more at once.
    async fn read_on(&mut self) -> bool {
        match self.target.cache.changes_after(self.position, BATCH) {
            Ok((changes, position)) => {
                for change in &changes {
                    match self.target.line(change).await {
                        Ok(Some(line)) => self.lines.push_back(line),
                        Ok(None) => {}
                        Err(status) => return self.fail(&status),
                    }
                }
                self.position = position;
                !changes.is_empty()
            }
            Err(too_old) => {
                let message = format!("too old resource version: {} ({})", self.position, too_old.oldest);
                self.fail(&Status::expired(message))
            }
        }
    }

    fn fail(&mut self, status: &Status) -> bool {
        self.lines.push_back(self.target.view.error(status));
        self.is_over = true;
        true
    }

    fn bookmark(&mut self) {
        match self.target.view.bookmark(self.position, false) {
            Ok(line) => self.lines.push_back(line),
            Err(status) => {
                self.fail(&status);
            }
        }
    }
}

impl Target {
    /// What a change looks like to this watcher, if it is any of its business.
    async fn line(&self, change: &Change) -> Result<Option<Bytes>, Status> {
        let Change { entry, previous, is_deletion, at: _ } = change;
        if !entry.key().starts_with(&self.prefix) {
            return Ok(None);
        }
        if !self.selection.needs_conversion() {
            return self.told(entry, previous.as_ref(), *is_deletion).await;
        }
        // Who cannot be meant is not converted: the webhook may refuse what is none of this watcher's business.
        let previous = match previous.as_ref().filter(|previous| self.selection.may_match(previous)) {
            Some(previous) => Some(self.shown(previous).await?),
            None => None,
        };
        match self.selection.may_match(entry) {
            true => self.told(&self.shown(entry).await?, previous.as_ref(), *is_deletion).await,
            false => self.told(entry, previous.as_ref(), *is_deletion).await,
        }
    }

    /// An object that comes to be meant is added, one that is meant no longer is deleted.
    async fn told(
        &self,
        entry: &Arc<Entry>,
        previous: Option<&Arc<Entry>>,
        is_deletion: bool,
    ) -> Result<Option<Bytes>, Status> {
        let is_meant = |entry: &Arc<Entry>| self.selection.matches(entry);
        let was_meant = previous.filter(|previous| is_meant(previous));
        Ok(Some(match (was_meant, !is_deletion && is_meant(entry)) {
            (None, false) => return Ok(None),
            (None, true) => self.event(Happened::Added, entry).await?,
            (Some(_), true) => self.event(Happened::Modified, entry).await?,
            (Some(_), false) if is_deletion => self.event(Happened::Deleted, entry).await?,
            (Some(previous), false) => {
                let gone = Arc::new(previous.deleted(entry.revision()));
                self.event(Happened::Deleted, &gone).await?
            }
        }))
    }

    async fn event(&self, happened: Happened, entry: &Arc<Entry>) -> Result<Bytes, Status> {
        if !self.view.kind.custom.is_some_and(|version| version.needs_webhook()) {
            return self.view.event(happened, entry);
        }
        let shown = self.shown(entry).await?;
        self.view.event(happened, &shown)
    }

    /// An object as the watcher's kind has it.
    async fn shown(&self, entry: &Arc<Entry>) -> Result<Arc<Entry>, Status> {
        self.registry.shown_one(self.view.kind, entry.clone()).await
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
