//! ServiceAccount: every pod runs as one, with its token, the CA and the namespace mounted.

use std::{sync::Arc, time::Duration};

use api::{Object, Status};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{forbidden, kind};
use crate::{
    follow::{Follow, Objects},
    hooks::Attributes,
    registry::Registry,
};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long a namespace's first pod waits for the controller that makes its `default` account.
const PATIENCE: Duration = Duration::from_secs(2);
/// Letters that make no words, as upstream's generated names have them.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Looks up the pod's account and adds what comes with it.
pub(super) async fn admit(
    registry: &Registry,
    accounts: &Follow<Objects>,
    attributes: &Attributes<'_>,
    pod: &mut Object,
) -> Result<(), Status> {
    if pod.annotation(MIRROR).is_some() {
        return match pod.text(&["spec", "serviceAccountName"]).is_empty() {
            true => Ok(()),
            false => Err(forbidden(attributes, Some(pod), "a mirror pod may not reference service accounts")),
        };
    }
    let name = set_name(pod);
    let account = find(registry, accounts, attributes.namespace, &name).await?;
    let Some(account) = account else {
        let why = format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            attributes.namespace
        );
        return Err(forbidden(attributes, Some(pod), &why));
    };
    equip(pod, &account, &suffix());
    Ok(())
}

/// The account's name, written to both fields that have it.
fn set_name(pod: &mut Object) -> String {
    let given = ["serviceAccountName", "serviceAccount"].map(|field| pod.text(&["spec", field]).to_string());
    let name = given.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "default".into());
    pod.set(&["spec", "serviceAccountName"], name.clone());
    pod.set(&["spec", "serviceAccount"], name.clone());
    name
}

/// The account; the `default` one of a new namespace is waited for.
async fn find(
    registry: &Registry,
    accounts: &Follow<Objects>,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<Object>>, Status> {
    let find = || accounts.ask(registry, |accounts| accounts.get(namespace, name));
    let found = find().await?;
    if found.is_some() || name != "default" {
        return Ok(found);
    }
    let until = Instant::now() + PATIENCE;
    let mut changes = registry.changes(kind("", "serviceaccounts")).await?;
    loop {
        changes.mark_unchanged();
        let found = find().await?;
        if found.is_some() {
            return Ok(found);
        }
        if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
            return Ok(None);
        }
    }
}

/// Adds pull secrets, and the volume with its mounts unless pod or account opt out.
fn equip(pod: &mut Object, account: &Object, suffix: &str) {
    if pod.list(&["spec", "imagePullSecrets"]).is_empty() {
        let secrets = account.list(&["imagePullSecrets"]);
        if !secrets.is_empty() {
            pod.set(&["spec", "imagePullSecrets"], secrets.to_vec());
        }
    }
    let wanted = |object: &Object, path: &[&str]| object.at(path).and_then(Value::as_bool);
    let automount = wanted(pod, &["spec", "automountServiceAccountToken"])
        .or_else(|| wanted(account, &["automountServiceAccountToken"]));
    if automount != Some(false) {
        mount(pod, suffix);
    }
}

fn mount(pod: &mut Object, suffix: &str) {
    let volumes = pod.list(&["spec", "volumes"]).iter();
    let present =
        volumes.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(VOLUME_PREFIX));
    let is_present = present.is_some();
    let volume = present.map_or_else(|| format!("{VOLUME_PREFIX}{suffix}"), str::to_string);
    let mut is_mounted = false;
    for list in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = pod.map_mut(&["spec"]).get_mut(list) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            // Whoever mounts something there themselves wants no token.
            if !mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
                is_mounted = true;
            }
        }
    }
    if is_mounted && !is_present {
        let mut volumes = pod.list(&["spec", "volumes"]).to_vec();
        volumes.push(access_volume(&volume));
        pod.set(&["spec", "volumes"], volumes);
    }
}

fn access_volume(name: &str) -> Value {
    let namespace =
        json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [namespace]}},
            ],
        },
    })
}

fn suffix() -> String {
    (0..5).map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
    }

    fn account(fields: Value) -> Object {
        Object::from_value(fields).unwrap()
    }

    #[test]
    fn a_pod_runs_as_default_unless_it_says_otherwise() {
        let mut plain = pod(json!({}));
        assert_eq!(set_name(&mut plain), "default");
        assert_eq!(plain.text(&["spec", "serviceAccount"]), "default");
        assert_eq!(set_name(&mut pod(json!({"serviceAccountName": "web"}))), "web");
    }

    #[test]
    fn every_container_gets_the_token() {
        let mut pod = pod(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}));
        equip(&mut pod, &account(json!({"imagePullSecrets": [{"name": "registry"}]})), "abcde");
        let mount = json!([{"name": "kube-api-access-abcde", "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(pod.list(&["spec", "containers"])[0]["volumeMounts"], mount);
        assert_eq!(pod.list(&["spec", "initContainers"])[0]["volumeMounts"], mount);
        assert_eq!(
            pod.list(&["spec", "volumes"])[0]["projected"]["sources"][0]["serviceAccountToken"]["path"],
            "token"
        );
        assert_eq!(pod.list(&["spec", "imagePullSecrets"]), [json!({"name": "registry"})]);
    }

    #[test]
    fn a_pod_that_opts_out_or_has_its_own_mount_is_left_alone() {
        let mut out = pod(json!({"automountServiceAccountToken": false, "containers": [{"name": "a"}]}));
        equip(&mut out, &account(json!({"automountServiceAccountToken": true})), "abcde");
        assert!(out.list(&["spec", "volumes"]).is_empty());
        let mut own =
            pod(json!({"containers": [{"volumeMounts": [{"name": "v", "mountPath": MOUNT_PATH}]}]}));
        equip(&mut own, &account(json!({})), "abcde");
        assert!(own.list(&["spec", "volumes"]).is_empty());
    }
}
