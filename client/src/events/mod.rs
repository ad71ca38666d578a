//! Events: what users read in `kubectl describe`.
//!
//! [`Recorder`] takes events without ever blocking its caller and writes them from a task of its own, in a rush no
//! faster than its pace allows: telling of things must not slow the things themselves. What is written is decided
//! by [`Correlator`]: an event that repeats counts up the one that is there, many similar ones are combined, and an
//! object that floods is cut off, all with upstream's numbers.

mod correlate;
mod pace;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Client, Resource,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    core::Request,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use pace::Pace;

pub use correlate::{Correlator, Verdict};

use crate::{ClientError, is_not_found};

/// Events that wait to be written; what comes on top is dropped. Half a kilobyte each.
const WAITING: usize = 4096;
const TRIES: u32 = 5;

/// How an event is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Things go as they should.
    Normal,
    /// Somebody may have to look.
    Warning,
}

impl EventType {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The object that it is about, with uid.
    pub regarding: ObjectReference,
    /// How it is meant.
    pub kind: EventType,
    /// Why, in CamelCase.
    pub reason: String,
    /// What happened, for people.
    pub message: String,
    /// When it happened.
    pub at: Timestamp,
}

/// Tells users what a component did to their objects. Clones share one writer.
#[derive(Clone)]
pub struct Recorder {
    notes: mpsc::Sender<Note>,
    /// How many found no room since that was last said.
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// A recorder for a component such as `deployment-controller`; `host` is the node it runs on where that
    /// matters. Its task ends with the last clone, after everything is written.
    pub fn new(client: Client, component: impl Into<Arc<str>>, host: Option<&str>) -> Recorder {
        let (notes, waiting) = mpsc::channel(WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let (component, host) = (component.into(), host.map(str::to_owned));
        let writer = EventWriter { client, component, host, dropped: dropped.clone() };
        tokio::spawn(writer.run(waiting));
        Recorder { notes, dropped }
    }

    /// A Normal event about an object.
    pub fn normal<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(object.object_ref(&()), EventType::Normal, reason, message);
    }

    /// A Warning event about an object.
    pub fn warning<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(object.object_ref(&()), EventType::Warning, reason, message);
    }

    /// An event about whatever the reference names; set its `field_path` for a part of an object.
    pub fn event(
        &self,
        regarding: ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let at = Timestamp::now();
        let note = Note { regarding, kind, reason: reason.into(), message: message.into(), at };
        if let Err(mpsc::error::TrySendError::Full(_)) = self.notes.try_send(note) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct EventWriter {
    client: Client,
    component: Arc<str>,
    host: Option<String>,
    dropped: Arc<AtomicU64>,
}

impl EventWriter {
    async fn run(self, mut notes: mpsc::Receiver<Note>) {
        let mut correlator = Correlator::default();
        let mut pace = Pace::default();
        while let Some(note) = notes.recv().await {
            if notes.is_empty() {
                self.tell_of_dropped();
            }
            let written = match correlator.decide(&note) {
                Verdict::Drop => continue,
                Verdict::Create { name, message } => {
                    let event = self.event(&note, name, message, 1, (note.at, note.at));
                    pace.wait().await;
                    self.persist(|| self.create(&event)).await
                }
                Verdict::CountUp { name, message, count, first } => {
                    let event = self.event(&note, name, message, count, (first, note.at));
                    pace.wait().await;
                    self.persist(|| self.count_up(&event)).await
                }
            };
            if let Err(error) = written {
                tracing::debug!(
                    reason = note.reason,
                    error = crate::message(&error),
                    "the server refused an event"
                );
            }
        }
    }

    /// Once for a whole rush: a line for each would take longer than what it is about.
    fn tell_of_dropped(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(
                dropped,
                component = &*self.component,
                "too many events were waiting, some were dropped"
            );
        }
    }

    /// Tries again while the server cannot be reached; what it refuses stays refused.
    async fn persist<F: Future<Output = Result<(), ClientError>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<(), ClientError> {
        let mut pause = Duration::from_millis(50);
        for _ in 1..TRIES {
            match attempt().await {
                Ok(()) => return Ok(()),
                Err(error @ ClientError::Api(_)) => return Err(error),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 4;
        }
        attempt().await
    }

    async fn create(&self, event: &Event) -> Result<(), ClientError> {
        let body = serde_json::to_vec(event).map_err(ClientError::SerdeError)?;
        let request =
            resource(event).create(&PostParams::default(), body).map_err(ClientError::BuildRequest)?;
        self.client.request_text(request).await.map(drop)
    }

    async fn count_up(&self, event: &Event) -> Result<(), ClientError> {
        let patch: Value =
            json!({"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message});
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let request = resource(event)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .map_err(ClientError::BuildRequest)?;
        match self.client.request_text(request).await {
            // It has expired meanwhile: tell it anew.
            Err(error) if is_not_found(&error) => self.create(event).await,
            answer => answer.map(drop),
        }
    }

    fn event(
        &self,
        note: &Note,
        name: String,
        message: String,
        count: i32,
        (first, last): (Timestamp, Timestamp),
    ) -> Event {
        let namespace = note.regarding.namespace.clone().unwrap_or_else(|| "default".into());
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: note.regarding.clone(),
            type_: Some(note.kind.as_str().into()),
            reason: Some(note.reason.clone()),
            message: Some(message),
            source: Some(EventSource {
                component: Some(self.component.to_string()),
                host: self.host.clone(),
            }),
            reporting_component: Some(self.component.to_string()),
            reporting_instance: self.host.clone(),
            count: Some(count),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(last)),
            ..Event::default()
        }
    }
}

fn resource(event: &Event) -> Request {
    Request::new(Event::url_path(&(), event.metadata.namespace.as_deref()))
}
