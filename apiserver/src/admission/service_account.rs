//! ServiceAccount: every pod runs as one, with its token, the CA and the namespace mounted.

use std::{sync::Arc, time::Duration};

use api::meta::MIRROR;
use api::{Object, Status, items};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{forbidden, kind};
use crate::{
    authz::references_of,
    follow::{Follow, Objects},
    hooks::Attributes,
    registry::Registry,
};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Holds an account's pods to the Secrets that it names.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
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
        return Ok(());
    }
    set_name(pod);
    let account = account_of(registry, accounts, attributes, pod).await?;
    equip(pod, &account, &suffix());
    Ok(())
}

/// Refuses what a mirror pod may not have, and Secrets that the account does not lend to its pods.
pub(super) async fn check(
    registry: &Registry,
    accounts: &Follow<Objects>,
    attributes: &Attributes<'_>,
    pod: &Object,
) -> Result<(), Status> {
    let refused = match pod.annotation(MIRROR) {
        Some(_) => refuse_mirror(pod).map(str::to_string),
        None => {
            let account = account_of(registry, accounts, attributes, pod).await?;
            refuse_secrets(&account, pod)
        }
    };
    judged(attributes, pod, refused)
}

/// Refuses Secrets that the account does not lend to the containers that are added. What else the pod has, it has got
/// already.
pub(super) async fn check_ephemeral(
    registry: &Registry,
    accounts: &Follow<Objects>,
    attributes: &Attributes<'_>,
    pod: &Object,
) -> Result<(), Status> {
    if pod.text(&["spec", "serviceAccountName"]).is_empty() {
        let why = format!("no service account specified for pod {}/{}", attributes.namespace, pod.name());
        return judged(attributes, pod, Some(why));
    }
    let account = account_of(registry, accounts, attributes, pod).await?;
    judged(attributes, pod, refuse_ephemeral(&account, pod))
}

fn judged(attributes: &Attributes<'_>, pod: &Object, refused: Option<String>) -> Result<(), Status> {
    match refused {
        Some(why) => Err(forbidden(attributes, Some(pod), &why)),
        None => Ok(()),
    }
}

/// Such a pod is a kubelet's own work: it gets at nothing that is a user's.
fn refuse_mirror(pod: &Object) -> Option<&'static str> {
    let has_token = || {
        let volumes = pod.list(&["spec", "volumes"]).iter();
        let mut sources = volumes.flat_map(|volume| items(&volume["projected"]["sources"]));
        sources.any(|source| !source["serviceAccountToken"].is_null())
    };
    if !pod.text(&["spec", "serviceAccountName"]).is_empty() {
        Some("a mirror pod may not reference service accounts")
    } else if references_of(pod).iter().any(|reference| reference.resource == "secrets") {
        Some("a mirror pod may not reference secrets")
    } else {
        has_token().then_some("a mirror pod may not use service account token volume projections")
    }
}

/// An account may name the Secrets that its pods can have, and hold them to it.
fn refuse_secrets(account: &Object, pod: &Object) -> Option<String> {
    if !is_enforcing(account) {
        return None;
    }
    let owner = account.name();
    for volume in pod.list(&["spec", "volumes"]) {
        let name = &volume["secret"]["secretName"];
        if !name.is_null() && !lends(account, "secrets", name) {
            return Some(format!(
                "volume with secret.secretName={name} is not allowed because service account {owner} does not reference that \
                 secret"
            ));
        }
    }
    let refused = refuse_containers(account, pod, "initContainers", "init container")
        .or_else(|| refuse_containers(account, pod, "containers", "container"));
    if refused.is_some() {
        return refused;
    }
    let mut secrets = pod.list(&["spec", "imagePullSecrets"]).iter().enumerate();
    let other = secrets.find(|(_, secret)| !lends(account, "imagePullSecrets", &secret["name"]));
    other.map(|(index, secret)| {
        format!(
            "imagePullSecrets[{index}].name={} is not allowed because service account {owner} does not reference that \
             imagePullSecret",
            secret["name"]
        )
    })
}

fn refuse_ephemeral(account: &Object, pod: &Object) -> Option<String> {
    let refuse = || refuse_containers(account, pod, "ephemeralContainers", "ephemeral container");
    is_enforcing(account).then(refuse).flatten()
}

fn refuse_containers(account: &Object, pod: &Object, list: &str, what: &str) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    pod.list(&["spec", list]).iter().find_map(|container| {
        let single = items(&container["env"])
            .iter()
            .map(|it| (format!("envVar {}", text(&it["name"])), &it["valueFrom"]["secretKeyRef"]["name"]));
        let whole =
            items(&container["envFrom"]).iter().map(|it| ("envFrom".to_string(), &it["secretRef"]["name"]));
        let is_refused = |name: &Value| !name.is_null() && !lends(account, "secrets", name);
        let (source, name) = single.chain(whole).find(|(_, name)| is_refused(name))?;
        Some(format!(
            "{what} {} with {source} referencing secret.secretName={name} is not allowed because service account {} \
             does not reference that secret",
            text(&container["name"]),
            account.name()
        ))
    })
}

/// Read as Go reads what is true.
fn is_enforcing(account: &Object) -> bool {
    matches!(account.annotation(ENFORCE), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn lends(account: &Object, list: &str, name: &Value) -> bool {
    account.list(&[list]).iter().any(|secret| secret["name"] == *name)
}

/// The account's name, written to both fields that have it.
fn set_name(pod: &mut Object) {
    let given = ["serviceAccountName", "serviceAccount"].map(|field| pod.text(&["spec", field]).to_string());
    let name = given.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "default".into());
    pod.set(&["spec", "serviceAccountName"], name.clone());
    pod.set(&["spec", "serviceAccount"], name);
}

async fn account_of(
    registry: &Registry,
    accounts: &Follow<Objects>,
    attributes: &Attributes<'_>,
    pod: &Object,
) -> Result<Arc<Object>, Status> {
    let (namespace, name) = (attributes.namespace, pod.text(&["spec", "serviceAccountName"]));
    let found = find(registry, accounts, namespace, name).await?;
    found.ok_or_else(|| {
        let why =
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        forbidden(attributes, Some(pod), &why)
    })
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
        let names = |spec: Value| {
            let mut pod = pod(spec);
            set_name(&mut pod);
            ["serviceAccountName", "serviceAccount"].map(|field| pod.text(&["spec", field]).to_string())
        };
        assert_eq!(names(json!({})), ["default", "default"]);
        assert_eq!(names(json!({"serviceAccountName": "web"})), ["web", "web"]);
    }

    #[test]
    fn a_mirror_pod_has_nothing_of_a_users() {
        assert_eq!(refuse_mirror(&pod(json!({"containers": [{"name": "a"}]}))), None);
        let of = |spec: Value| refuse_mirror(&pod(spec)).unwrap_or_default();
        assert_eq!(of(json!({"serviceAccountName": "a"})), "a mirror pod may not reference service accounts");
        let pulls = json!({"imagePullSecrets": [{"name": "a"}]});
        assert_eq!(of(pulls), "a mirror pod may not reference secrets");
        let token = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
        assert_eq!(
            of(json!({"volumes": [token]})),
            "a mirror pod may not use service account token volume projections"
        );
    }

    #[test]
    fn an_account_may_hold_its_pods_to_its_secrets() {
        let enforcing = account(json!({
            "metadata": {"name": "web", "annotations": {ENFORCE: "true"}},
            "secrets": [{"name": "own"}],
            "imagePullSecrets": [{"name": "registry"}],
        }));
        let volume = |name: &str| pod(json!({"volumes": [{"name": "v", "secret": {"secretName": name}}]}));
        let env = |name: &str| {
            let variable = json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}});
            pod(json!({"containers": [{"name": "c", "env": [variable]}]}))
        };
        let all = |list: &str, name: &str| {
            let map = json!({"configMapRef": {"name": "x"}});
            pod(json!({list: [{"name": "c", "envFrom": [map, {"secretRef": {"name": name}}]}]}))
        };
        let pull = |name: &str| pod(json!({"imagePullSecrets": [{"name": name}]}));
        for pod in [volume("own"), env("own"), all("containers", "own"), pull("registry"), pod(json!({}))] {
            assert_eq!(refuse_secrets(&enforcing, &pod), None);
        }
        let refused = |pod: &Object| refuse_secrets(&enforcing, pod).unwrap_or_default();
        let ending = "is not allowed because service account web does not reference that";
        assert_eq!(refused(&volume("x")), format!(r#"volume with secret.secretName="x" {ending} secret"#));
        assert_eq!(
            refused(&env("x")),
            format!(r#"container c with envVar A referencing secret.secretName="x" {ending} secret"#)
        );
        let by_container = |what: &str| {
            format!(r#"{what} c with envFrom referencing secret.secretName="x" {ending} secret"#)
        };
        for (list, what) in [("initContainers", "init container"), ("containers", "container")] {
            assert_eq!(refused(&all(list, "x")), by_container(what));
        }
        // What is added later is judged alone: the rest may be from before the account was so strict.
        let mut added = all("ephemeralContainers", "own");
        added.set(&["spec", "volumes"], volume("x").list(&["spec", "volumes"]).to_vec());
        assert_eq!(refuse_ephemeral(&enforcing, &added), None);
        let refused_later = refuse_ephemeral(&enforcing, &all("ephemeralContainers", "x"));
        assert_eq!(refused_later, Some(by_container("ephemeral container")));
        assert_eq!(refused(&pull("x")), format!(r#"imagePullSecrets[0].name="x" {ending} imagePullSecret"#));
        let free = account(json!({"metadata": {"name": "web"}}));
        assert_eq!(refuse_secrets(&free, &volume("x")), None);
    }

    #[test]
    fn what_go_reads_as_true_is_enforced() {
        let says = |text: &str| {
            is_enforcing(&account(json!({"metadata": {"name": "web", "annotations": {ENFORCE: text}}})))
        };
        assert!(["1", "t", "T", "true", "TRUE", "True"].into_iter().all(says));
        assert!(!["", "0", "false", "yes", "tRUE"].into_iter().any(says));
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
