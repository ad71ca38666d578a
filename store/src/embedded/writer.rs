//! The one thread that changes the store.
//!
//! It takes all the writes that are waiting, decides them in order, makes the accepted ones durable
//! together, and only then lets anybody see them: readers, watches, and the writers themselves. While
//! it waits for the disk the next batch gathers, so batches grow with the load and nobody is delayed
//! to fill one. It also deletes what has expired and forgets old history.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::{
    directory::Directory,
    journal::{Journal, record::Record},
    retention::Marks,
    state::{Deadline, State},
    transaction::{Transaction, Write, Written},
    watch::{Hub, Sleepers},
};
use crate::{ReadError, Revision, WriteError};

/// What callers send to the writer. The queue is as long as there are callers waiting, no longer.
pub(super) enum Request {
    Write { write: Write, reply: oneshot::Sender<Result<Written, WriteError>> },
    Compact { revision: Revision, reply: oneshot::Sender<Result<(), ReadError>> },
}

/// How much is written at once, beyond which a batch is closed.
const BATCH_SIZE: usize = 1 << 20;
/// A batch that follows another so soon is one of many.
const SOON: Duration = Duration::from_micros(500);
/// How many keys expire at once.
const EXPIRE_STEP: usize = 1024;
/// How many events are forgotten while the state is locked.
const COMPACT_STEP: usize = 1024;

/// See the module.
pub(super) struct Writer {
    pub state: Arc<RwLock<State>>,
    pub hub: Arc<Hub>,
    pub marks: Marks,
    pub requests: Receiver<Request>,
    /// When the last batch was done.
    pub served_at: Option<Instant>,
    /// None keeps everything in memory only. After a failure it is gone, and the store read-only.
    pub medium: Medium,
}

/// Where writes are made durable.
pub(super) enum Medium {
    /// Nowhere.
    Memory,
    /// On the disk. The journal goes first when this is dropped, then the lock on its directory.
    Disk { journal: Box<Journal>, _directory: Directory },
    /// On a disk that has failed, for this reason.
    Failed(String),
}

/// Why the store takes no more writes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store's log could not be written, restart the server to go on: {cause}")]
struct LogFailed {
    cause: String,
}

impl Writer {
    /// Serves until the store is dropped.
    pub fn run(mut self) {
        self.marks.note(Instant::now(), self.state.read().revision());
        loop {
            match self.next_request() {
                Ok(first) => self.serve(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.expire();
            self.forget();
            self.snapshot();
        }
        self.hub.close();
    }

    fn next_request(&self) -> Result<Request, RecvTimeoutError> {
        let expiry = self.state.read().next_deadline().filter(|_| !self.has_failed()).map(until);
        let due = self.marks.next_due().map(|at| at.saturating_duration_since(Instant::now()));
        match expiry.into_iter().chain(due).min() {
            Some(timeout) => self.requests.recv_timeout(timeout),
            None => self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn serve(&mut self, first: Request) {
        if self.served_at.is_some_and(|at| at.elapsed() < SOON) {
            // Others are about to write. Where processors are short they go first, and share one write to the disk; the
            // kernel would rather run the one that has just slept. A writer alone is not that quick.
            std::thread::yield_now();
        }
        let (mut writes, mut replies, mut size) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Write { write, reply } => {
                    size += write.size();
                    writes.push(write);
                    replies.push(reply);
                }
                Request::Compact { revision, reply } => {
                    // The caller may have stopped waiting; the compaction stands.
                    reply.send(self.compact_on_request(revision)).ok();
                }
            }
            next = if size < BATCH_SIZE { self.requests.try_recv().ok() } else { None };
        }
        let (results, sleepers) = self.commit(writes);
        for (reply, result) in replies.into_iter().zip(results) {
            // The caller may have stopped waiting; the write stands.
            reply.send(result).ok();
        }
        // Those who wrote wait for an answer; they go first.
        sleepers.wake();
        self.served_at = Some(Instant::now());
    }

    /// Decides a batch, makes it durable, and shows it to the world; the watches that sleep are still to be woken.
    fn commit(&mut self, writes: Vec<Write>) -> (Vec<Result<Written, WriteError>>, Sleepers) {
        let state = self.state.read();
        let mut transaction = Transaction::new(&state);
        let keys: Vec<Arc<str>> = writes.iter().map(|write| write.key().clone()).collect();
        let results: Vec<_> = writes.into_iter().map(|write| transaction.decide(write)).collect();
        let records: Vec<Record> = transaction.into_changes().into_iter().map(Record::Change).collect();
        drop(state);
        if records.is_empty() {
            return (results, Sleepers::default());
        }
        if let Err(failure) = self.make_durable(&records) {
            let unavailable = |key: Arc<str>| WriteError::Unavailable {
                key: key.to_string(),
                source: Box::new(failure.clone()),
            };
            let results = keys.into_iter().map(|key| Err(unavailable(key))).collect();
            return (results, Sleepers::default());
        }
        let mut state = self.state.write();
        let changes = records.into_iter().filter_map(|record| match record {
            Record::Change(change) => Some(change),
            Record::Compacted(_) => None,
        });
        let events: Vec<_> = changes.map(|change| state.apply(change)).collect();
        let sleepers = self.hub.publish(&events);
        self.marks.note(Instant::now(), state.revision());
        (results, sleepers)
    }

    fn make_durable(&mut self, records: &[Record]) -> Result<(), LogFailed> {
        let cause = match &mut self.medium {
            Medium::Memory => return Ok(()),
            Medium::Disk { journal, .. } => match journal.append(records) {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            },
            Medium::Failed(cause) => return Err(LogFailed { cause: cause.clone() }),
        };
        // What is on the disk is unknown now, so nothing may be added to it.
        tracing::error!(error = %cause, "the store's log could not be written, the store is read-only");
        self.medium = Medium::Failed(cause.clone());
        Err(LogFailed { cause })
    }

    fn has_failed(&self) -> bool {
        matches!(self.medium, Medium::Failed(_))
    }

    fn expire(&mut self) {
        let now = now();
        loop {
            let expired = self.state.read().expired(now, EXPIRE_STEP);
            if expired.is_empty() || self.has_failed() {
                return;
            }
            let (_, sleepers) =
                self.commit(expired.into_iter().map(|key| Write::Expire { key, now }).collect());
            sleepers.wake();
        }
    }

    /// Forgets what is too old or too much.
    fn forget(&mut self) {
        let surplus = {
            let state = self.state.read();
            self.marks.surplus(state.history_bytes()).map(|bytes| state.revision_after(bytes))
        };
        if let Some(revision) = self.marks.take_due(Instant::now()).max(surplus) {
            self.compact(revision);
        }
    }

    fn compact_on_request(&mut self, revision: Revision) -> Result<(), ReadError> {
        {
            let state = self.state.read();
            if revision > state.revision() {
                return Err(ReadError::Future { requested: revision, current: Some(state.revision()) });
            }
            if revision <= state.compacted() {
                return Err(ReadError::Compacted { requested: revision, oldest: Some(state.compacted()) });
            }
        }
        self.make_durable(&[Record::Compacted(revision)]).map_err(|failure| ReadError::Unavailable {
            what: format!("the history up to revision {revision}, to forget it"),
            source: Box::new(failure),
        })?;
        self.compact(revision);
        Ok(())
    }

    fn compact(&mut self, revision: Revision) {
        // An idle watch would otherwise be resumed from before the compaction.
        self.hub.want_progress(None);
        self.state.write().begin_compaction(revision);
        while self.state.write().compact(COMPACT_STEP) {}
    }

    fn snapshot(&mut self) {
        let Medium::Disk { journal, .. } = &mut self.medium else { return };
        let finished = journal.finish_snapshot();
        let state = self.state.read();
        let started = if journal.wants_snapshot(state.compacted(), state.live_bytes()) {
            journal.start_snapshot(state.compacted(), state.at(state.compacted()))
        } else {
            Ok(())
        };
        if let Err(error) = finished.and(started) {
            // The log still has everything; it only grows until a snapshot succeeds.
            tracing::warn!(%error, "the store's snapshot could not be written");
        }
    }
}

/// The time of day: deadlines outlive the process.
pub(super) fn now() -> Deadline {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Deadline(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

fn until(deadline: Deadline) -> Duration {
    Duration::from_millis(deadline.0.saturating_sub(now().0))
}
