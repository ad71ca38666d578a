//! Watches: every change of the objects that are meant, in order, none missing, none twice.
//!
//! A watcher is a position in the cache's ring of changes. It holds no more than one batch of lines, so
//! a client that reads slowly costs nothing; one that falls behind the ring gets 410 and lists again.
//! What is there at the start is no exception: it is walked through key by key, a batch at a time, and before each
//! batch the client is told what has happened to the objects that it knows already.

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
    registry::{
        Registry,
        cache::{Cache, Page, TooOld},
        encode::Happened,
        entry::Entry,
        ring::Change,
        selection::Selection,
    },
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
    /// How far the walk through what is there is, until all of it has been told.
    walk: Option<Walk>,
    /// Whether a bookmark is due behind it.
    marks_initial_end: bool,
    lines: VecDeque<Bytes>,
    ends_at: Instant,
    bookmarks: Option<Interval>,
    stop: CancellationToken,
    is_over: bool,
}

/// A walk through the objects that are there, in the order of their keys.
struct Walk {
    /// Those of the last batch that are yet to be told, as they were at the watcher's position.
    batch: std::vec::IntoIter<Arc<Entry>>,
    /// The last key of the last batch: of objects up to here the client knows what they were at that position, of
    /// others nothing.
    passed: Arc<str>,
    is_last: bool,
}

impl Walk {
    /// Goes on with a batch.
    fn new(page: Page, passed: Arc<str>) -> Walk {
        let passed = page.entries.last().map_or(passed, |last| last.key().clone());
        Walk { batch: page.entries.into_iter(), passed, is_last: page.is_last }
    }
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
            walk: None,
            marks_initial_end: options.send_initial_events == Some(true) && options.bookmarks,
            lines: VecDeque::new(),
            ends_at: now + lifetime,
            bookmarks,
            stop,
            is_over: false,
        };
        if options.has_initial_events() {
            // Everything that is there, as if it had just been created.
            let page = watcher.target.cache.first_page(&watcher.target.prefix, BATCH);
            watcher.position = page.revision;
            watcher.walk = Some(Walk::new(page, "".into()));
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
            if let Some(walk) = self.walk.take() {
                if let Err(status) = self.walk_on(walk).await {
                    self.fail(&status);
                }
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

    /// Tells the next object that is there; at the end of a batch, what has become of those before, and takes the
    /// next.
    async fn walk_on(&mut self, mut walk: Walk) -> Result<(), Status> {
        if let Some(entry) = walk.batch.next() {
            // As if it had just been created.
            self.lines.extend(self.target.line(&entry, None, false).await?);
            self.walk = Some(walk);
            return Ok(());
        }
        if walk.is_last {
            if std::mem::take(&mut self.marks_initial_end) {
                self.lines.push_back(self.target.view.bookmark(self.position, true)?);
            }
            return Ok(());
        }
        let Target { cache, prefix, .. } = &self.target;
        let mut page = cache
            .next_page(prefix, &walk.passed, self.position, BATCH)
            .map_err(|too_old| self.fell_behind(&too_old))?;
        for change in std::mem::take(&mut page.changes) {
            if **change.entry.key() <= *walk.passed {
                self.lines.extend(self.target.line_of(&change).await?);
            }
        }
        self.position = page.revision;
        self.walk = Some(Walk::new(page, walk.passed));
        Ok(())
    }

    /// Turns the next changes into lines; whether there may be more at once.
    async fn read_on(&mut self) -> bool {
        match self.target.cache.changes_after(self.position, BATCH) {
            Ok((changes, position)) => {
                for change in &changes {
                    match self.target.line_of(change).await {
                        Ok(Some(line)) => self.lines.push_back(line),
                        Ok(None) => {}
                        Err(status) => return self.fail(&status),
                    }
                }
                self.position = position;
                !changes.is_empty()
            }
            Err(too_old) => self.fail(&self.fell_behind(&too_old)),
        }
    }

    fn fell_behind(&self, too_old: &TooOld) -> Status {
        Status::expired(format!("too old resource version: {} ({})", self.position, too_old.oldest))
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
    async fn line_of(&self, change: &Change) -> Result<Option<Bytes>, Status> {
        let Change { entry, previous, is_deletion, at: _ } = change;
        match entry.key().starts_with(&self.prefix) {
            true => self.line(entry, previous.as_ref(), *is_deletion).await,
            false => Ok(None),
        }
    }

    /// What a change looks like to this watcher, if it is any of its business.
    async fn line(
        &self,
        entry: &Arc<Entry>,
        previous: Option<&Arc<Entry>>,
        is_deletion: bool,
    ) -> Result<Option<Bytes>, Status> {
        if !self.selection.needs_conversion() {
            return self.told(entry, previous, is_deletion).await;
        }
        // Who cannot be meant is not converted: the webhook may refuse what is none of this watcher's business.
        let previous = match previous.filter(|previous| self.selection.may_match(previous)) {
            Some(previous) => Some(self.shown(previous).await?),
            None => None,
        };
        match self.selection.may_match(entry) {
            true => self.told(&self.shown(entry).await?, previous.as_ref(), is_deletion).await,
            false => self.told(entry, previous.as_ref(), is_deletion).await,
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

#[cfg(test)]
mod tests {
    use api::{Object, kinds};
    use serde_json::json;
    use store::embedded::Embedded;

    use super::*;
    use crate::{answer::Wanted, registry::key, request::Query};

    /// Three batches and a little more.
    const MANY: usize = 3 * BATCH + 10;

    async fn filled() -> Arc<Registry> {
        let store = Arc::new(Embedded::in_memory().unwrap());
        let registry = Registry::new(store, false, CancellationToken::new());
        let kind = kinds::built_in("", "configmaps");
        let object = |number: usize| {
            let metadata = json!({"name": format!("c{number:04}"), "namespace": "default"});
            Object::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}))
                .unwrap()
        };
        let writes = (0..MANY).map(|number| registry.create(kind, object(number)));
        futures::future::try_join_all(writes).await.unwrap();
        registry
    }

    async fn watcher(registry: &Arc<Registry>) -> Watcher {
        let kind = kinds::built_in("", "configmaps");
        let uri =
            "/?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
        let query = Query::of(&uri.parse().unwrap()).unwrap();
        let options = ListOptions::read(&query, true).unwrap();
        let target = Target {
            registry: registry.clone(),
            cache: registry.fresh_cache(kind).await.unwrap(),
            view: View::new(kind, Wanted::default(), &Query::default()).unwrap(),
            prefix: key::prefix(kind, ""),
            selection: Selection::new(kind, options.labels.clone(), options.fields.clone()).unwrap(),
        };
        Watcher::new(target, &options, CancellationToken::new())
    }

    #[tokio::test]
    async fn a_watcher_that_does_not_read_holds_a_batch_of_what_was_there_and_no_more() {
        let registry = filled().await;
        let cache = registry.fresh_cache(kinds::built_in("", "configmaps")).await.unwrap();
        let references = || {
            // One is the cache's, one the ring's, one this list's own.
            cache.list("").0.iter().map(Arc::strong_count).sum::<usize>()
        };
        let alone = references();
        let mut watcher = watcher(&registry).await;
        assert!(references() <= alone + BATCH, "{} and {alone}", references());
        let mut told = 0;
        while watcher.marks_initial_end {
            watcher.next().await.unwrap();
            assert!(references() <= alone + BATCH && watcher.lines.len() <= BATCH);
            told += 1;
        }
        assert_eq!(told, MANY + 1, "each object once, and the bookmark");
    }
}
