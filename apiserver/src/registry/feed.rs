//! Fills a cache from the store: one list, then a watch for as long as the server lives.

use std::{sync::Arc, time::Duration};

use api::Kind;
use store::{KeyValue, ReadError, Revision, Store, Watch, WatchEvent};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    cache::{Cache, Update},
    entry::Entry,
    key,
    ring::MEMORY,
};

/// How long to wait before a store that failed is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// A cache of all objects that are stored as `kind`, and a task that keeps it up to date until `stop`.
pub(crate) async fn start(
    store: Arc<dyn Store>,
    kind: &'static Kind,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<Arc<Cache>, ReadError> {
    let feed = Feed { store, kind, prefix: key::kind_prefix(kind) };
    let (entries, revision, watch) = feed.begin().await?;
    let cache = Arc::new(Cache::new(entries, revision, stop.clone()));
    let kept = cache.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(feed.run(kept, watch)).await;
    });
    Ok(cache)
}

struct Feed {
    store: Arc<dyn Store>,
    kind: &'static Kind,
    prefix: String,
}

impl Feed {
    async fn begin(&self) -> Result<(Vec<Arc<Entry>>, Revision, Box<dyn Watch>), ReadError> {
        let range = self.store.range(&self.prefix, None, None, 0).await?;
        let watch = self.store.watch(&self.prefix, range.revision).await?;
        let entries = range.items.iter().filter_map(|item| self.entry(item)).collect();
        Ok((entries, range.revision, watch))
    }

    async fn run(&self, cache: Arc<Cache>, mut watch: Box<dyn Watch>) {
        let mut forget_at = None;
        loop {
            match next(&mut *watch, &cache, &mut forget_at).await {
                Ok((events, revision)) => {
                    let updates: Vec<_> = events.iter().filter_map(|event| self.update(event)).collect();
                    if !updates.is_empty() {
                        forget_at.get_or_insert_with(|| Instant::now() + MEMORY);
                    }
                    cache.apply(updates, revision);
                }
                Err(error) => {
                    report(&error, &self.prefix, "watch of the store broke, listing again");
                    watch = self.begin_again(&cache).await;
                }
            }
        }
    }

    async fn begin_again(&self, cache: &Cache) -> Box<dyn Watch> {
        loop {
            match self.begin().await {
                Ok((entries, revision, watch)) => {
                    cache.reset(entries, revision);
                    return watch;
                }
                Err(error) => {
                    report(&error, &self.prefix, "listing the store failed, trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn update(&self, event: &WatchEvent) -> Option<Update> {
        match event {
            WatchEvent::Put { current, .. } => self.entry(current).map(Update::Put),
            WatchEvent::Delete { previous, revision } => {
                Some(Update::Delete(previous.key.clone(), *revision))
            }
        }
    }

    /// A stored object; one that cannot be read is left out, aloud.
    fn entry(&self, stored: &KeyValue) -> Option<Arc<Entry>> {
        match Entry::new(self.kind, stored) {
            Ok(entry) => Some(Arc::new(entry)),
            Err(status) => {
                tracing::error!(key = &*stored.key, error = %status, "unreadable object in the store");
                None
            }
        }
    }
}

/// What the store tells next; meanwhile the cache forgets what is old.
async fn next(
    watch: &mut dyn Watch,
    cache: &Cache,
    forget_at: &mut Option<Instant>,
) -> Result<(Vec<WatchEvent>, Revision), ReadError> {
    // One call of the store's, never begun again: it need not bear to be dropped half-way.
    let mut next = watch.next();
    loop {
        tokio::select! {
            next = &mut next => return next,
            () = sleep_until(*forget_at) => *forget_at = cache.forget(Instant::now()),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn report(error: &ReadError, prefix: &str, what: &'static str) {
    tracing::warn!(error = error as &dyn std::error::Error, prefix, what, "the store does not answer");
}
