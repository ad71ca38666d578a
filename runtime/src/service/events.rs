//! What happens to containers, told to whoever listens.

use cri::v1;
use cri::{Code, Error, EventStream};
use futures::StreamExt;
use futures::stream::unfold;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// How many events a slow listener may be behind before it is told that it lost some.
const MOST_WAITING: usize = 1024;

/// The place where events are told.
pub(super) struct Events {
    sender: broadcast::Sender<v1::ContainerEventResponse>,
}

impl Default for Events {
    fn default() -> Events {
        Events { sender: broadcast::Sender::new(MOST_WAITING) }
    }
}

impl Events {
    /// Tells all who listen.
    pub(super) fn tell(&self, event: v1::ContainerEventResponse) {
        // Without listeners there is nobody to miss it.
        self.sender.send(event).ok();
    }

    /// Everything from now on. A listener that lost events gets an error, and is to list everything anew.
    pub(super) fn listen(&self) -> EventStream {
        let events = unfold(Some(self.sender.subscribe()), |receiver| async {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), Some(receiver))),
                Err(RecvError::Lagged(lost)) => {
                    Some((Err(Error::new(Code::DataLoss, format!("{lost} events were lost"))), None))
                }
                Err(RecvError::Closed) => None,
            }
        });
        events.boxed()
    }
}
