//! Follows the metadata of all objects of one kind and keeps the graph up to date.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use client::{ClientError, ObjectKey, Queue, Wake, informer::without_time_limit};
use futures::TryStreamExt;
use kube::{
    Client,
    api::{ListParams, ObjectList, WatchEvent, WatchParams},
};
use tokio::sync::{Notify, watch};

use super::graph::{Graph, Node, Uid};
use crate::resources::{MetadataOnly, Resource};

pub const CUSTOM_RESOURCES: &str = "customresourcedefinitions";
const PAGE: u32 = 500;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The graph, and who is told of its changes.
#[derive(Clone)]
pub struct Shared {
    pub graph: Arc<Mutex<Graph>>,
    pub queue: Queue,
    /// Told when a custom kind came or went.
    pub custom_kinds: Arc<Notify>,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, resource: &Resource, about: &ObjectKey, verb: &'static str, concerned: Vec<Uid>) {
        if resource.plural == CUSTOM_RESOURCES {
            self.custom_kinds.notify_one();
        }
        for uid in concerned {
            let kind = resource.kind.clone().into();
            self.queue.add(ObjectKey::cluster(uid), Wake::Change { kind, object: about.clone(), verb });
        }
    }
}

/// Follows one kind.
pub struct Monitor {
    pub client: Client,
    pub resource: Arc<Resource>,
    pub shared: Shared,
    /// Told when the first list is complete.
    pub synced: watch::Sender<bool>,
}

impl Monitor {
    /// Follows until it is dropped.
    pub async fn run(self) {
        let mut revision = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let before = revision.clone();
            match self.follow(&mut revision).await {
                Ok(()) => {}
                Err(ClientError::Api(status)) if status.code == 410 => revision = None,
                // The kind is gone, or was never to be listed: what we knew of it is all there is.
                Err(ClientError::Api(status)) if matches!(status.code, 404 | 405) => {
                    self.replace(Vec::new());
                    self.synced.send_replace(true);
                    pause = LONGEST_PAUSE;
                }
                Err(error) => {
                    let resource = self.resource.qualified();
                    tracing::warn!(
                        resource,
                        error = &error as &dyn std::error::Error,
                        "watch interrupted, will resume"
                    );
                }
            }
            pause = if revision != before { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn follow(&self, revision: &mut Option<String>) -> Result<(), ClientError> {
        let from = match revision {
            Some(revision) => revision.clone(),
            None => self.list().await?,
        };
        *revision = Some(from.clone());
        self.synced.send_replace(true);
        let request = self
            .resource
            .requests(None)
            .watch_metadata(&WatchParams::default(), &from)
            .map_err(ClientError::BuildRequest)?;
        let mut events =
            pin!(self.client.request_events::<MetadataOnly>(without_time_limit(request)?).await?);
        while let Some(event) = events.try_next().await? {
            let seen = match event {
                WatchEvent::Added(object) => self.upsert(object, "added"),
                WatchEvent::Modified(object) => self.upsert(object, "updated"),
                WatchEvent::Deleted(object) => self.remove(object),
                WatchEvent::Bookmark(mark) => mark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(ClientError::Api(status)),
            };
            *revision = Some(seen);
        }
        Ok(())
    }

    async fn list(&self) -> Result<String, ClientError> {
        let mut page = ListParams::default().limit(PAGE);
        let mut objects = Vec::new();
        loop {
            let request =
                self.resource.requests(None).list_metadata(&page).map_err(ClientError::BuildRequest)?;
            let list: ObjectList<MetadataOnly> = self.client.request(request).await?;
            objects.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => {
                    self.replace(objects);
                    return Ok(list.metadata.resource_version.unwrap_or_default());
                }
            }
        }
    }

    fn replace(&self, objects: Vec<MetadataOnly>) {
        let present: HashSet<&str> = objects.iter().map(|object| object.metadata.uid.as_str()).collect();
        let gone = self.shared.lock().of_resource(&self.resource);
        for uid in gone.iter().filter(|uid| !present.contains(&***uid)) {
            let concerned = self.shared.lock().remove(uid);
            self.shared.wake(&self.resource, &ObjectKey::cluster(uid), "deleted", concerned);
        }
        for object in objects {
            self.upsert(object, "added");
        }
    }

    /// Returns the resourceVersion.
    fn upsert(&self, object: MetadataOnly, verb: &'static str) -> String {
        let metadata = object.metadata;
        let (revision, uid): (String, Uid) =
            (metadata.resource_version.clone(), metadata.uid.as_str().into());
        let key = ObjectKey::new(&metadata.namespace, &metadata.name);
        let concerned = self.shared.lock().insert(uid, Node::new(self.resource.clone(), metadata));
        self.shared.wake(&self.resource, &key, verb, concerned);
        revision
    }

    fn remove(&self, object: MetadataOnly) -> String {
        let key = ObjectKey::new(&object.metadata.namespace, &object.metadata.name);
        let concerned = self.shared.lock().delete(&object.metadata.uid);
        self.shared.wake(&self.resource, &key, "deleted", concerned);
        object.metadata.resource_version
    }
}
