//! The embedded engine: the whole store in this process's memory, made durable by a log.
//!
//! One thread writes ([`writer`]): it decides batches ([`transaction`]), appends them to the
//! [`journal`], applies them to the [`state`] and tells the [`watch`]es. Everybody reads the state.

mod directory;
mod journal;
mod retention;
mod state;
mod transaction;
mod watch;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::oneshot;

pub use self::retention::Retention;
use self::{
    directory::Directory,
    journal::Journal,
    retention::Marks,
    state::{Deadline, State},
    transaction::{Write, Written},
    watch::{EmbeddedWatch, Hub},
    writer::{Medium, Request, Writer},
};
use crate::{KeyValue, RangeResult, ReadError, Revision, Store, Watch, WriteError};

/// How many keys a range read looks at while the state is locked.
const RANGE_STEP: usize = 2048;

/// A store in this process. Dropping it waits until its last write is on the disk.
pub struct Embedded {
    state: Arc<RwLock<State>>,
    hub: Arc<Hub>,
    /// Taken when the store is dropped, which stops the writer.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the data directory {} is in use by another process: stop that one or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer version of this program has written it.
    #[error(
        "the data directory {} has format {found}, this program understands formats up to {newest}: \
         use a newer version or choose another directory",
        path.display()
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program understands.
        newest: u32,
    },
    /// It does not say what format it has.
    #[error("the data directory {} has the unknown format {found:?}: choose another directory", path.display())]
    UnknownFormat {
        /// The directory.
        path: PathBuf,
        /// What its format file says.
        found: String,
    },
    /// What was once written there has changed since, or is gone.
    #[error("{} is damaged at byte {offset}, {what}: restore the data directory from a backup", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The file system refused.
    #[error("failed to {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The writer could not be started.
    #[error("failed to start the store's writer thread")]
    Thread(#[source] io::Error),
}

/// The store has been dropped, or its writer has panicked.
#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
struct Closed;

fn closed(what: &str) -> ReadError {
    ReadError::Unavailable { what: what.to_owned(), source: Box::new(Closed) }
}

impl Embedded {
    /// Opens the store in a directory of its own, which is created where it is missing.
    pub fn open(directory: impl AsRef<Path>) -> Result<Embedded, OpenError> {
        Embedded::open_with(directory, Retention::default())
    }

    /// As [`Embedded::open`], with a say in how much history is kept.
    pub fn open_with(directory: impl AsRef<Path>, retention: Retention) -> Result<Embedded, OpenError> {
        let directory = Directory::open(directory.as_ref())?;
        let (journal, state) = Journal::open(directory.path())?;
        Embedded::start(state, Medium::Disk { journal: Box::new(journal), _directory: directory }, retention)
    }

    /// A store that is gone when the process is.
    pub fn in_memory() -> Result<Embedded, OpenError> {
        Embedded::in_memory_with(Retention::default())
    }

    /// As [`Embedded::in_memory`], with a say in how much history is kept.
    pub fn in_memory_with(retention: Retention) -> Result<Embedded, OpenError> {
        Embedded::start(State::new(), Medium::Memory, retention)
    }

    fn start(state: State, medium: Medium, retention: Retention) -> Result<Embedded, OpenError> {
        let state = Arc::new(RwLock::new(state));
        let hub = Arc::new(Hub::default());
        let (sender, requests) = mpsc::channel();
        let marks = Marks::new(retention);
        let writer =
            Writer { state: state.clone(), hub: hub.clone(), marks, requests, served_at: None, medium };
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(|| writer.run());
        let writer = Some(thread.map_err(OpenError::Thread)?);
        Ok(Embedded { state, hub, requests: Some(sender), writer })
    }

    async fn write(&self, write: Write) -> Result<Written, WriteError> {
        let key = write.key().clone();
        let (reply, written) = oneshot::channel();
        let sent = self.requests.as_ref().map(|requests| requests.send(Request::Write { write, reply }));
        let unavailable = || WriteError::Unavailable { key: key.to_string(), source: Box::new(Closed) };
        match sent {
            Some(Ok(())) => written.await.map_err(|_| unavailable())?,
            _ => Err(unavailable()),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!("the store's writer had panicked");
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn revision(&self) -> Result<Revision, ReadError> {
        Ok(self.state.read().revision())
    }

    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>, ReadError> {
        let state = self.state.read();
        Ok(state.get(key, state.readable(at)?))
    }

    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<RangeResult, ReadError> {
        let revision = self.state.read().readable(at)?;
        let mut found = RangeResult { items: Vec::new(), revision, more: false, count: 0 };
        let mut next = after.map(Arc::from);
        loop {
            {
                let state = self.state.read();
                state.readable(Some(revision))?;
                next = state.scan(prefix, next.as_deref(), limit, RANGE_STEP, &mut found);
            }
            if next.is_none() {
                return Ok(found);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, WriteError> {
        let write = Write::Create { key: key.into(), value, deadline: ttl.map(deadline_in) };
        Ok(self.write(write).await?.revision)
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, WriteError> {
        let write = Write::Update { key: key.into(), value, expected, deadline: ttl.map(deadline_in) };
        Ok(self.write(write).await?.revision)
    }

    async fn delete(
        &self,
        key: &str,
        expected: Option<Revision>,
    ) -> Result<(KeyValue, Revision), WriteError> {
        let Written { revision, previous } = self.write(Write::Delete { key: key.into(), expected }).await?;
        Ok((previous.expect("a delete that succeeds has deleted something"), revision))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, ReadError> {
        let oldest = self.state.read().compacted();
        if after < oldest {
            return Err(ReadError::Compacted { requested: after, oldest: Some(oldest) });
        }
        Ok(Box::new(EmbeddedWatch::new(self.state.clone(), self.hub.clone(), prefix, after)))
    }

    async fn request_progress(&self, prefix: &str) -> Result<Option<Revision>, ReadError> {
        let state = self.state.read();
        self.hub.want_progress(Some(prefix));
        Ok(Some(state.revision()))
    }

    async fn compact(&self, revision: Revision) -> Result<(), ReadError> {
        let (reply, compacted) = oneshot::channel();
        let sent = self.requests.as_ref().map(|requests| requests.send(Request::Compact { revision, reply }));
        match sent {
            Some(Ok(())) => compacted.await.map_err(|_| closed("the history"))?,
            _ => Err(closed("the history")),
        }
    }
}

fn deadline_in(ttl: Duration) -> Deadline {
    let Deadline(now) = writer::now();
    Deadline(now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
}
