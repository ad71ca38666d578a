//! Lets claims and volumes that are being deleted go as soon as nobody uses them.
//!
//! The server puts a finalizer on each when it is created; here it is taken off: from a claim when no pod that may
//! still run names it, from a volume when it is bound to no claim.

use std::{collections::BTreeSet, sync::Arc};

use client::{ApiObject, Cache, Change, ClientError, Next, ObjectKey, Reconcile, Runner, Writer, turn};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;

use crate::{Context, finalizers::release, pods::PodExt};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Starts the controllers of both kinds.
pub fn start(context: &mut Context) {
    let (claims, pods) = (context.cache::<PersistentVolumeClaim>(), context.cache::<Pod>());
    let volumes = context.cache::<PersistentVolume>();
    let controller = Claims {
        claims: claims.clone(),
        pods: pods.clone(),
        writer: context.writer("pvc-protection-controller"),
    };
    let dying = claims.clone();
    let runner = Runner::new("pvcprotection", controller)
        .watch_map(&claims, going::<PersistentVolumeClaim>)
        .watch_map(&pods, move |change| {
            // A pod stands in the way of a claim until it is gone or has finished.
            let Some(pod) = change.before().filter(|_| change.after().is_none_or(|pod| pod.is_finished()))
            else {
                return Vec::new();
            };
            let namespace = change.key().namespace;
            let waits = |name: &String| {
                dying.get(&namespace, name).is_some_and(|claim| claim.metadata.deletion_timestamp.is_some())
            };
            claims_of(pod).into_iter().filter(waits).map(|name| ObjectKey::new(&namespace, name)).collect()
        });
    context.run(runner);
    let controller = Volumes { volumes: volumes.clone(), writer: context.writer("pv-protection-controller") };
    context.run(Runner::new("pvprotection", controller).watch_map(&volumes, going::<PersistentVolume>));
}

struct Claims {
    claims: Arc<Cache<PersistentVolumeClaim>>,
    pods: Arc<Cache<Pod>>,
    writer: Writer,
}

impl Reconcile for Claims {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(claim) = self.claims.get_key(key) else { return Ok(Next::OnChange) };
        let name = &*key.name;
        let uses = |pod: &Pod| !pod.is_finished() && !pod.node().is_empty() && claims_of(pod).contains(name);
        let users = self.pods.in_namespace_where(&key.namespace, uses);
        turn::describe("no user", format!("{} pods use it", users.len()));
        if users.is_empty() {
            release(&self.writer, &*claim, CLAIM_FINALIZER).await?;
        }
        Ok(Next::OnChange)
    }
}

struct Volumes {
    volumes: Arc<Cache<PersistentVolume>>,
    writer: Writer,
}

impl Reconcile for Volumes {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(volume) = self.volumes.get_key(key) else { return Ok(Next::OnChange) };
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        turn::describe("not bound", phase.unwrap_or("no phase"));
        if phase != Some("Bound") {
            release(&self.writer, &*volume, VOLUME_FINALIZER).await?;
        }
        Ok(Next::OnChange)
    }
}

/// Only objects that are being deleted have turns.
fn going<K: ApiObject>(change: &Change<K>) -> Vec<ObjectKey> {
    let is_going = change.after().is_some_and(|object| object.meta().deletion_timestamp.is_some());
    if is_going { vec![change.key()] } else { Vec::new() }
}

/// The claims that a pod names: as volumes, and those made for its ephemeral volumes.
fn claims_of(pod: &Pod) -> BTreeSet<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name)))
    };
    volumes.filter_map(claim).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        EphemeralVolumeSource, PersistentVolumeClaimVolumeSource, PodSpec, Volume,
    };

    use super::*;

    #[test]
    fn a_pod_uses_its_claims_and_those_of_its_ephemeral_volumes() {
        let claim = PersistentVolumeClaimVolumeSource { claim_name: "data".into(), read_only: None };
        let named = Volume { name: "a".into(), persistent_volume_claim: Some(claim), ..Volume::default() };
        let ephemeral = Volume {
            name: "b".into(),
            ephemeral: Some(EphemeralVolumeSource::default()),
            ..Volume::default()
        };
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        pod.spec = Some(PodSpec { volumes: Some(vec![named, ephemeral]), ..PodSpec::default() });
        assert_eq!(claims_of(&pod), BTreeSet::from(["data".to_string(), "web-b".to_string()]));
    }
}
