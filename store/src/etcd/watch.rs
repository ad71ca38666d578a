//! One watch, on a stream of its own.

use async_trait::async_trait;
use etcd_client::{Error, Event, EventType, WatchClient, WatchOptions, WatchStream};

use super::{key_value, revision};
use crate::{ReadError, Revision, Watch, WatchEvent};

/// A watch of an etcd cluster.
pub(super) struct EtcdWatch {
    stream: WatchStream,
    prefix: String,
    /// Everything up to here has been told.
    told: Revision,
}

impl EtcdWatch {
    pub async fn start(
        mut client: WatchClient,
        prefix: &str,
        after: Revision,
    ) -> Result<EtcdWatch, ReadError> {
        // To etcd an empty key is none at all.
        let key = if prefix.is_empty() { "\0" } else { prefix };
        let options = WatchOptions::new()
            .with_range(super::prefix_end(prefix))
            .with_start_revision(after.0 as i64 + 1)
            .with_prev_key()
            .with_progress_notify();
        let stream = super::answer(client.watch(key, Some(options))).await;
        let stream = stream.map_err(|error| super::read_failed(prefix, Some(after), error))?;
        Ok(EtcdWatch { stream, prefix: prefix.to_owned(), told: after })
    }

    fn event(&self, event: &Event) -> Result<WatchEvent, ReadError> {
        let previous =
            event.prev_kv().cloned().map(|previous| key_value(previous, &self.prefix)).transpose()?;
        let lost = || self.broken(Error::WatchError("an event came without its key".into()));
        let current = key_value(event.kv().cloned().ok_or_else(lost)?, &self.prefix)?;
        match event.event_type() {
            EventType::Put => Ok(WatchEvent::Put { current, previous }),
            EventType::Delete => match previous {
                Some(previous) => Ok(WatchEvent::Delete { previous, revision: current.mod_revision }),
                // What was deleted has been compacted in the meantime.
                None => Err(ReadError::Compacted { requested: self.told, oldest: None }),
            },
        }
    }

    fn broken(&self, source: Error) -> ReadError {
        ReadError::Unavailable {
            what: format!("the changes below {}", self.prefix),
            source: Box::new(source),
        }
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<(Vec<WatchEvent>, Revision), ReadError> {
        loop {
            let message = self.stream.message().await.map_err(|error| self.broken(error))?;
            let ended = || self.broken(Error::WatchError("the stream has ended".into()));
            let response = message.ok_or_else(ended)?;
            if response.compact_revision() != 0 {
                let oldest = Some(Revision(response.compact_revision() as u64));
                return Err(ReadError::Compacted { requested: self.told, oldest });
            }
            if response.canceled() {
                return Err(self.broken(Error::WatchError(response.cancel_reason().to_owned())));
            }
            if response.created() {
                continue;
            }
            let events =
                response.events().iter().map(|event| self.event(event)).collect::<Result<Vec<_>, _>>()?;
            // The header of a response with events may be ahead of what comes next on this stream.
            let told = events.last().map_or_else(|| revision(response.header()), WatchEvent::revision);
            self.told = self.told.max(told);
            return Ok((events, self.told));
        }
    }
}
