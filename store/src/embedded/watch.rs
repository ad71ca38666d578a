//! Watches: who is told about which change.
//!
//! A watch that keeps up is handed each event by the writer, in a queue of its own. One that does not
//! loses its queue and reads the history instead until it has caught up: it costs no memory, and
//! nobody waits for it. If compaction overtakes it, it ends.
//!
//! Locks are taken in this order: state, hub, slot.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::state::{State, event_key};
use crate::{ReadError, Revision, Watch, WatchEvent};

/// How many events wait for a watch before it is left to read the history.
const QUEUE: usize = 1024;

/// How many events of the history are looked at while the state is locked.
const HISTORY_STEP: usize = 8 * 1024;

/// All running watches, by the prefix that they watch.
#[derive(Default)]
pub(super) struct Hub {
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_prefix: HashMap<Arc<str>, Vec<Arc<Slot>>>,
    /// The lengths of these prefixes, each with how many there are: what to look up for a key.
    lengths: BTreeMap<usize, usize>,
    closed: bool,
}

/// The writer's end of one watch.
struct Slot {
    inbox: Mutex<Inbox>,
    wake: Notify,
}

struct Inbox {
    queue: VecDeque<Arc<WatchEvent>>,
    mode: Mode,
    /// Whether the watch should say how far it has come even if nothing has happened.
    progress_wanted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The writer queues events.
    Live,
    /// The watch reads the history by itself.
    Behind,
    /// The store is gone.
    Closed,
}

impl Hub {
    /// Queues events for the watches that keep up, and returns those that sleep. The caller has the state locked
    /// for writing.
    pub fn publish(&self, events: &[Arc<WatchEvent>]) -> Sleepers {
        let slots = self.slots.lock();
        let mut sleepers = Sleepers::default();
        for event in events {
            let key = event_key(event);
            for &length in slots.lengths.range(..=key.len()).map(|(length, _)| length) {
                let watching = key.get(..length).and_then(|prefix| slots.by_prefix.get(prefix));
                for slot in watching.into_iter().flatten() {
                    if slot.push(event) {
                        sleepers.0.push(slot.clone());
                    }
                }
            }
        }
        sleepers
    }

    /// Lets the watches of `prefix`, or all of them, say how far they have come.
    pub fn want_progress(&self, prefix: Option<&str>) {
        let slots = self.slots.lock();
        let wanted: Vec<_> = match prefix {
            Some(prefix) => slots.by_prefix.get(prefix).into_iter().flatten().collect(),
            None => slots.by_prefix.values().flatten().collect(),
        };
        for slot in wanted {
            slot.inbox.lock().progress_wanted = true;
            slot.wake.notify_one();
        }
    }

    /// Ends all watches.
    pub fn close(&self) {
        let mut slots = self.slots.lock();
        slots.closed = true;
        for slot in slots.by_prefix.values().flatten() {
            slot.inbox.lock().mode = Mode::Closed;
            slot.wake.notify_one();
        }
    }

    fn add(&self, prefix: &str) -> (Arc<str>, Arc<Slot>) {
        let mut slots = self.slots.lock();
        let mode = if slots.closed { Mode::Closed } else { Mode::Behind };
        let inbox = Inbox { queue: VecDeque::new(), mode, progress_wanted: false };
        let slot = Arc::new(Slot { inbox: Mutex::new(inbox), wake: Notify::new() });
        let known = slots.by_prefix.get_key_value(prefix).map(|(known, _)| known.clone());
        let prefix = known.unwrap_or_else(|| {
            *slots.lengths.entry(prefix.len()).or_default() += 1;
            prefix.into()
        });
        slots.by_prefix.entry(prefix.clone()).or_default().push(slot.clone());
        (prefix, slot)
    }

    fn remove(&self, prefix: &str, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        let Some(watching) = slots.by_prefix.get_mut(prefix) else { return };
        watching.retain(|other| !Arc::ptr_eq(other, slot));
        if watching.is_empty() {
            slots.by_prefix.remove(prefix);
            let same_length = slots.lengths.entry(prefix.len()).or_default();
            *same_length -= 1;
            if *same_length == 0 {
                slots.lengths.remove(&prefix.len());
            }
        }
    }
}

/// Watches that have something to tell and do not know it yet.
#[must_use]
#[derive(Default)]
pub(super) struct Sleepers(Vec<Arc<Slot>>);

impl Sleepers {
    /// Lets them go on.
    pub fn wake(self) {
        self.0.iter().for_each(|slot| slot.wake.notify_one());
    }
}

impl Slot {
    /// Queues an event; whether it is the first that waits.
    fn push(&self, event: &Arc<WatchEvent>) -> bool {
        let mut inbox = self.inbox.lock();
        if inbox.mode != Mode::Live {
            return false;
        }
        if inbox.queue.len() == QUEUE {
            inbox.queue = VecDeque::new();
            inbox.mode = Mode::Behind;
            return false;
        }
        inbox.queue.push_back(event.clone());
        inbox.queue.len() == 1
    }
}

/// One watch of the embedded store.
pub(super) struct EmbeddedWatch {
    state: Arc<RwLock<State>>,
    hub: Arc<Hub>,
    slot: Arc<Slot>,
    prefix: Arc<str>,
    /// Everything up to here has been told.
    told: Revision,
}

impl EmbeddedWatch {
    pub fn new(state: Arc<RwLock<State>>, hub: Arc<Hub>, prefix: &str, after: Revision) -> EmbeddedWatch {
        let (prefix, slot) = hub.add(prefix);
        EmbeddedWatch { state, hub, slot, prefix, told: after }
    }

    /// The events that the history holds for us next; none once we have caught up.
    fn read_history(&mut self) -> Result<Vec<WatchEvent>, ReadError> {
        loop {
            let state = self.state.read();
            let (events, reached) = state.events_after(self.told, HISTORY_STEP)?;
            let ours = events.filter(|event| event_key(event).starts_with(&*self.prefix));
            let found: Vec<WatchEvent> = ours.map(|event| (**event).clone()).collect();
            self.told = reached;
            let caught_up = reached >= state.revision();
            if caught_up {
                let mut inbox = self.slot.inbox.lock();
                if inbox.mode == Mode::Behind {
                    inbox.mode = Mode::Live;
                }
            }
            if caught_up || !found.is_empty() {
                return Ok(found);
            }
        }
    }

    /// How far we have come, if nothing is waiting for us.
    fn progress(&mut self) -> Option<Revision> {
        let state = self.state.read();
        let mut inbox = self.slot.inbox.lock();
        if inbox.mode != Mode::Live || !inbox.queue.is_empty() {
            return None;
        }
        inbox.progress_wanted = false;
        self.told = self.told.max(state.revision());
        Some(self.told)
    }
}

#[async_trait]
impl Watch for EmbeddedWatch {
    async fn next(&mut self) -> Result<(Vec<WatchEvent>, Revision), ReadError> {
        loop {
            let (mode, queued, progress_wanted) = {
                let mut inbox = self.slot.inbox.lock();
                (inbox.mode, std::mem::take(&mut inbox.queue), inbox.progress_wanted)
            };
            match mode {
                Mode::Closed => return Err(super::closed("the changes")),
                Mode::Behind => {
                    let events = self.read_history()?;
                    if !events.is_empty() {
                        return Ok((events, self.told));
                    }
                }
                Mode::Live => {
                    // A watch that was asked for from a revision to come skips what is before that.
                    let new = queued.iter().filter(|event| event.revision() > self.told);
                    let events: Vec<WatchEvent> = new.map(|event| (**event).clone()).collect();
                    if let Some(last) = events.last() {
                        self.told = last.revision();
                        return Ok((events, self.told));
                    }
                    if progress_wanted {
                        if let Some(revision) = self.progress() {
                            return Ok((Vec::new(), revision));
                        }
                    } else {
                        self.slot.wake.notified().await;
                    }
                }
            }
        }
    }
}

impl Drop for EmbeddedWatch {
    fn drop(&mut self) {
        self.hub.remove(&self.prefix, &self.slot);
    }
}
