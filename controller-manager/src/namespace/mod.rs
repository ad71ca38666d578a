//! Empties namespaces that are being deleted, then lets them go.
//!
//! Pods go first, as they may need what else is there while they end; then everything of every kind that the
//! server knows. The namespace goes when nothing is left; until then its conditions say what.

mod plan;

use std::{sync::Arc, time::Duration};

use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, message, turn};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, ObjectList, Patch, PostParams, PropagationPolicy},
};
use plan::Remains;
use serde_json::json;

use crate::{
    Context,
    resources::{self, MetadataOnly, Resource},
};

const FINALIZER: &str = "kubernetes";
/// Pods wake us when they are gone; of everything else we must ask.
const ASK_AGAIN: Duration = Duration::from_millis(250);
const ASK_AGAIN_WITH_PODS: Duration = Duration::from_secs(5);
const REQUESTS_AT_ONCE: usize = 8;

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (namespaces, pods) = (context.cache::<Namespace>(), context.cache::<Pod>());
    let controller = Namespaces {
        namespaces: namespaces.clone(),
        pods: pods.clone(),
        writer: context.writer("namespace-controller"),
    };
    let dying = namespaces.clone();
    let runner = Runner::new("namespace", controller)
        .concurrency(10)
        .watch_map(&namespaces, |change| match change.after() {
            Some(namespace) if namespace.metadata.deletion_timestamp.is_some() => vec![change.key()],
            _ => Vec::new(),
        })
        .watch_map(&pods, move |change| {
            let namespace = change.key().namespace;
            let is_dying = |namespace: Arc<Namespace>| namespace.metadata.deletion_timestamp.is_some();
            match change.after().is_none() && dying.get("", &namespace).is_some_and(is_dying) {
                true => vec![ObjectKey::cluster(namespace)],
                false => Vec::new(),
            }
        });
    context.run(runner);
}

struct Namespaces {
    namespaces: Arc<Cache<Namespace>>,
    pods: Arc<Cache<Pod>>,
    writer: Writer,
}

impl Reconcile for Namespaces {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(namespace) = self.namespaces.get_key(key) else { return Ok(Next::OnChange) };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|name| name == FINALIZER)
        {
            return Ok(Next::OnChange);
        }
        let remains = self.empty(&key.name).await?;
        turn::describe("an empty namespace", remains.describe());
        self.report(&namespace, &remains).await?;
        if remains.is_empty() {
            self.finalize(&namespace).await?;
            return Ok(Next::OnChange);
        }
        let has_pods = remains.objects.contains_key("pods.");
        Ok(Next::After(if has_pods { ASK_AGAIN_WITH_PODS } else { ASK_AGAIN }))
    }
}

impl Namespaces {
    /// Deletes what can be deleted now; returns what is left.
    async fn empty(&self, namespace: &str) -> Result<Remains, ClientError> {
        let known = resources::discover(self.writer.client()).await?;
        let deletable = known.into_iter().filter(|resource| {
            // Events of the events.k8s.io group are the core ones under another name.
            let is_alias = resource.group == "events.k8s.io";
            resource.namespaced && resource.can("list") && resource.can("delete") && !is_alias
        });
        let (pods, others): (Vec<_>, Vec<_>) =
            deletable.partition(|resource| resource.group.is_empty() && resource.plural == "pods");
        let mut remains = Remains::default();
        self.empty_of(namespace, pods, &mut remains).await?;
        if remains.is_empty() && self.pods.in_namespace(namespace).is_empty() {
            self.empty_of(namespace, others, &mut remains).await?;
        }
        Ok(remains)
    }

    async fn empty_of(
        &self,
        namespace: &str,
        resources: Vec<Resource>,
        remains: &mut Remains,
    ) -> Result<(), ClientError> {
        let emptied = stream::iter(resources.into_iter().map(|resource| async move {
            let left = self.empty_resource(namespace, &resource).await?;
            Ok::<_, ClientError>((resource, left))
        }));
        let results: Vec<(Resource, Result<Vec<MetadataOnly>, String>)> =
            emptied.buffer_unordered(REQUESTS_AT_ONCE).try_collect().await?;
        for (resource, left) in results {
            match left {
                Err(failure) => remains.failures.push(failure),
                Ok(left) if left.is_empty() => {}
                Ok(left) => {
                    for name in left.iter().flat_map(|object| object.metadata.finalizers.clone()) {
                        *remains.finalizers.entry(name).or_default() += 1;
                    }
                    remains.objects.insert(resource.qualified(), left.len());
                }
            }
        }
        Ok(())
    }

    /// Deletes all objects of one kind. A refusal is not ours to fail with: it is told in the conditions.
    async fn empty_resource(
        &self,
        namespace: &str,
        resource: &Resource,
    ) -> Result<Result<Vec<MetadataOnly>, String>, ClientError> {
        let present = self.list(namespace, resource).await?;
        if present.is_empty() {
            return Ok(Ok(present));
        }
        turn::acted(format!("delete {} {} in {namespace}", present.len(), resource.plural));
        let how = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let requests = resource.requests(Some(namespace));
        let deleted = if resource.can("deletecollection") {
            let request = requests
                .delete_collection(&how, &ListParams::default())
                .map_err(ClientError::BuildRequest)?;
            self.writer.client().request_text(request).await.map(drop)
        } else {
            stream::iter(present.iter().map(Ok))
                .try_for_each_concurrent(REQUESTS_AT_ONCE, |object| async {
                    let request =
                        requests.delete(&object.metadata.name, &how).map_err(ClientError::BuildRequest)?;
                    self.writer.client().request_text(request).await.or_not_found().map(drop)
                })
                .await
        };
        match deleted {
            Err(error @ ClientError::Api(_)) => Ok(Err(message(&error))),
            Err(error) => Err(error),
            Ok(()) => self.list(namespace, resource).await.map(Ok),
        }
    }

    async fn list(&self, namespace: &str, resource: &Resource) -> Result<Vec<MetadataOnly>, ClientError> {
        let request = resource
            .requests(Some(namespace))
            .list_metadata(&ListParams::default())
            .map_err(ClientError::BuildRequest)?;
        let list: Option<ObjectList<MetadataOnly>> =
            self.writer.client().request(request).await.or_not_found()?;
        Ok(list.map(|list| list.items).unwrap_or_default())
    }

    async fn report(&self, namespace: &Namespace, remains: &Remains) -> Result<(), ClientError> {
        let old = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let conditions = plan::conditions(&old, remains, Timestamp::now());
        if conditions == old || remains.is_empty() {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": namespace.uid()}, "status": {"conditions": conditions}});
        let key = ObjectKey::of(namespace);
        self.writer
            .patch_subresource::<Namespace, _>("status", &key, &Patch::Merge(patch))
            .await
            .or_not_found()
            .map(drop)
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), ClientError> {
        let mut finalized = namespace.clone();
        if let Some(finalizers) = finalized.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|name| name != FINALIZER);
        }
        // What counts here is who may do it, not that the status was just reported: no condition on the version.
        finalized.metadata.resource_version = None;
        let body = serde_json::to_vec(&finalized).map_err(ClientError::SerdeError)?;
        let request = kube::core::Request::new("/api/v1/namespaces")
            .replace_subresource("finalize", &namespace.name_any(), &PostParams::default(), body)
            .map_err(ClientError::BuildRequest)?;
        turn::acted(format!("finalize Namespace {}", namespace.name_any()));
        self.writer.client().request_text(request).await.or_not_found().map(drop)
    }
}
