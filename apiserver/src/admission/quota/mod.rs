//! ResourceQuota: a namespace uses no more than its quotas allow, also when many write at once.
//!
//! What is in use is counted from the objects that are there, not from a status that may lag behind. An object that was
//! admitted but is not there yet is remembered until it is, or until its write must have failed. [`status`] writes
//! down what is used, for people to read.

pub mod status;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::{Kind, Object, Status, quantity::Quantity};
use serde_json::Value;

use super::{forbidden, kind};
use crate::{
    follow::{Follow, View},
    hooks::{Attributes, Operation},
    registry::Registry,
};

/// After this an admitted object that did not appear has failed to be written.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Amounts by the names that quotas use for them.
type Amounts = BTreeMap<String, Quantity>;

/// What is in use, by kind.
pub(super) struct Usage {
    kinds: Vec<(&'static Kind, Follow<InUse>)>,
    admitted: Mutex<HashMap<Key, Admitted>>,
}

type Key = (&'static str, String, String);

struct Admitted {
    at: Instant,
    charge: Charge,
}

/// What one object uses, and what decides whether a scoped quota counts it.
#[derive(Clone, Debug, PartialEq)]
struct Charge {
    amounts: Amounts,
    scopes: Scopes,
}

/// The scopes that a pod is in; other objects are in none.
#[derive(Clone, Debug, Default, PartialEq)]
struct Scopes {
    is_pod: bool,
    best_effort: bool,
    terminating: bool,
    priority_class: String,
}

impl Usage {
    pub(super) fn new() -> Usage {
        let core =
            ["pods", "services", "configmaps", "secrets", "persistentvolumeclaims", "replicationcontrollers"];
        let counted = core
            .map(|plural| kind("", plural))
            .into_iter()
            .chain(
                ["deployments", "replicasets", "statefulsets", "daemonsets"]
                    .map(|plural| kind("apps", plural)),
            )
            .chain(["jobs", "cronjobs"].map(|plural| kind("batch", plural)))
            .chain([kind("networking.k8s.io", "ingresses")]);
        Usage { kinds: counted.map(|kind| (kind, Follow::new(kind))).collect(), admitted: Mutex::default() }
    }

    /// What a namespace uses of what a quota limits.
    async fn used(&self, registry: &Registry, quota: &Object) -> Result<Amounts, Status> {
        let hard = quota.at(&["spec", "hard"]).and_then(Value::as_object);
        let names: Vec<&String> = hard.into_iter().flatten().map(|(name, _)| name).collect();
        let mut used: Amounts = names.iter().map(|name| (name.to_string(), Quantity::default())).collect();
        for (_, in_use) in &self.kinds {
            let of_kind: Amounts = in_use
                .ask(registry, |in_use| {
                    let charges: Vec<&Charge> = in_use
                        .others(quota.namespace(), "")
                        .filter(|charge| charge.scopes.match_quota(quota))
                        .collect();
                    let sum = |name: &str| {
                        charges.iter().filter_map(|charge| charge.amounts.get(canonical(name)).copied()).sum()
                    };
                    names.iter().map(|name| (name.to_string(), sum(name))).collect()
                })
                .await?;
            of_kind.into_iter().for_each(|(name, amount)| *used.entry(name).or_default() += amount);
        }
        Ok(used)
    }

    /// Refuses what a quota has no room for; what it has room for is remembered as used.
    pub(super) async fn charge(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: &Object,
        old: Option<&Object>,
        quotas: &[Arc<Object>],
    ) -> Result<(), Status> {
        let kind = attributes.kind;
        let Some((_, in_use)) = self.kinds.iter().find(|(counted, _)| counted.storage == kind.storage) else {
            return Ok(());
        };
        if quotas.is_empty() || attributes.operation == Operation::Delete {
            return Ok(());
        }
        let charge = Charge::of(kind, object);
        if old.is_some_and(|old| Charge::of(kind, old) == charge) {
            return Ok(());
        }
        let admitted: Result<(), String> = in_use
            .ask(registry, |in_use| {
                let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
                admitted.retain(|key, one| {
                    one.at.elapsed() < WRITE_PATIENCE
                        && !(key.0 == kind.storage && in_use.has(&key.1, &key.2))
                });
                let (namespace, name) = (attributes.namespace, object.name());
                let under_way = admitted
                    .iter()
                    .filter(|(key, _)| key.0 == kind.storage && key.1 == namespace && key.2 != name)
                    .map(|(_, one)| &one.charge);
                let used: Vec<&Charge> = in_use.others(namespace, name).chain(under_way).collect();
                for quota in quotas {
                    check(quota, &charge, &used)?;
                }
                if attributes.operation == Operation::Create && !attributes.dry_run {
                    let key = (kind.storage, namespace.to_string(), name.to_string());
                    admitted.insert(key, Admitted { at: Instant::now(), charge: charge.clone() });
                }
                Ok(())
            })
            .await?;
        admitted.map_err(|why| forbidden(attributes, Some(object), &why))
    }
}

/// Whether one quota has room for the charge beside what is used.
fn check(quota: &Object, charge: &Charge, used: &[&Charge]) -> Result<(), String> {
    if !charge.scopes.match_quota(quota) {
        return Ok(());
    }
    let hard = quota.at(&["spec", "hard"]).and_then(Value::as_object);
    let mut missing = Vec::new();
    let mut exceeded: Vec<[String; 3]> = Vec::new();
    for (name, limit) in hard.into_iter().flatten() {
        let Ok(limit) = Quantity::from_json(limit) else { continue };
        let Some(asked) = charge.amounts.get(canonical(name)) else {
            if charge.scopes.is_pod && is_compute(name) && !charge.scopes.best_effort_only(quota) {
                missing.push(name.clone());
            }
            continue;
        };
        let counted = used.iter().filter(|other| other.scopes.match_quota(quota));
        let now: Quantity = counted.filter_map(|other| other.amounts.get(canonical(name)).copied()).sum();
        if !asked.is_zero() && now + *asked > limit {
            exceeded.push([asked, &now, &limit].map(|amount| format!("{name}={amount}")));
        }
    }
    if !missing.is_empty() {
        return Err(format!("failed quota: {}: must specify {}", quota.name(), missing.join(",")));
    }
    if exceeded.is_empty() {
        return Ok(());
    }
    let column = |index: usize| exceeded.iter().map(|row| row[index].clone()).collect::<Vec<_>>().join(",");
    let [requested, used, limited] = [0, 1, 2].map(column);
    Err(format!("exceeded quota: {}, requested: {requested}, used: {used}, limited: {limited}", quota.name()))
}

impl Charge {
    fn of(kind: &Kind, object: &Object) -> Charge {
        let mut amounts = Amounts::new();
        let mut add = |name: &str, amount: Quantity| *amounts.entry(name.to_string()).or_default() += amount;
        let one = Quantity::from_value(1);
        let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
        let mut scopes = Scopes::default();
        if kind.plural != "pods" {
            add(&format!("count/{}{group}", kind.plural), one);
        }
        match kind.plural {
            "pods" => {
                add("count/pods", one);
                if !is_finished(object) {
                    add("pods", one);
                    pod_amounts(object).into_iter().for_each(|(name, amount)| add(&name, amount));
                }
                scopes = Scopes::of(object);
            }
            "services" => {
                add("services", one);
                let kind = object.text(&["spec", "type"]);
                let ports = object.list(&["spec", "ports"]).len();
                let ports = Quantity::from_value(i64::try_from(ports).unwrap_or(i64::MAX));
                match kind {
                    "LoadBalancer" => {
                        add("services.loadbalancers", one);
                        add("services.nodeports", ports);
                    }
                    "NodePort" => add("services.nodeports", ports),
                    _ => {}
                }
            }
            "persistentvolumeclaims" => {
                add("persistentvolumeclaims", one);
                let class = object.text(&["spec", "storageClassName"]);
                let size = object.at(&["spec", "resources", "requests", "storage"]);
                let size = size.and_then(|size| Quantity::from_json(size).ok()).unwrap_or_default();
                add("requests.storage", size);
                if !class.is_empty() {
                    add(&format!("{class}.storageclass.storage.k8s.io/requests.storage"), size);
                    add(&format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one);
                }
            }
            plural @ ("configmaps" | "secrets" | "replicationcontrollers") => add(plural, one),
            _ => {}
        }
        Charge { amounts, scopes }
    }
}

impl Scopes {
    fn of(pod: &Object) -> Scopes {
        Scopes {
            is_pod: true,
            best_effort: pod_amounts(pod)
                .keys()
                .all(|name| !name.ends_with("cpu") && !name.ends_with("memory")),
            terminating: pod.number(&["spec", "activeDeadlineSeconds"]).is_some(),
            priority_class: pod.text(&["spec", "priorityClassName"]).to_string(),
        }
    }

    fn match_quota(&self, quota: &Object) -> bool {
        let plain = quota.list(&["spec", "scopes"]).iter().filter_map(Value::as_str);
        let selected = quota.list(&["spec", "scopeSelector", "matchExpressions"]);
        let mut terms = plain.map(|scope| self.is_in(scope, &Value::Null)).chain(
            selected.iter().map(|term| self.is_in(term["scopeName"].as_str().unwrap_or_default(), term)),
        );
        terms.all(|is_in| is_in)
    }

    fn is_in(&self, scope: &str, term: &Value) -> bool {
        if !self.is_pod {
            return false;
        }
        match scope {
            "BestEffort" => self.best_effort,
            "NotBestEffort" => !self.best_effort,
            "Terminating" => self.terminating,
            "NotTerminating" => !self.terminating,
            "PriorityClass" => {
                let is_listed = term["values"]
                    .as_array()
                    .is_some_and(|values| values.iter().any(|value| *value == self.priority_class.as_str()));
                match term["operator"].as_str() {
                    Some("In") => is_listed,
                    Some("NotIn") => !is_listed,
                    Some("DoesNotExist") => self.priority_class.is_empty(),
                    _ => !self.priority_class.is_empty(),
                }
            }
            _ => false,
        }
    }

    /// Whether a quota counts pods that ask for nothing, so that nothing need be asked for.
    fn best_effort_only(&self, quota: &Object) -> bool {
        quota.list(&["spec", "scopes"]).iter().any(|scope| scope == "BestEffort")
    }
}

/// `cpu` in a quota means the requests.
fn canonical(name: &str) -> &str {
    match name {
        "cpu" => "requests.cpu",
        "memory" => "requests.memory",
        "ephemeral-storage" => "requests.ephemeral-storage",
        name => name,
    }
}

fn is_compute(name: &str) -> bool {
    matches!(canonical(name), "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory")
}

fn is_finished(pod: &Object) -> bool {
    matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed")
}

/// `requests.cpu`, `limits.memory` and so on: containers together, or the hungriest init container; plus overhead.
fn pod_amounts(pod: &Object) -> Amounts {
    let mut total = Amounts::new();
    let each = |container: &Value, join: &mut dyn FnMut(String, Quantity)| {
        for part in ["requests", "limits"] {
            for (resource, amount) in container["resources"][part].as_object().into_iter().flatten() {
                if let Ok(amount) = Quantity::from_json(amount) {
                    join(format!("{part}.{resource}"), amount);
                }
            }
        }
    };
    for container in pod.list(&["spec", "containers"]) {
        each(container, &mut |name, amount| *total.entry(name).or_default() += amount);
    }
    for container in pod.list(&["spec", "initContainers"]) {
        each(container, &mut |name, amount| {
            let present = total.entry(name).or_default();
            *present = (*present).max(amount);
        });
    }
    for (resource, amount) in pod.at(&["spec", "overhead"]).and_then(Value::as_object).into_iter().flatten() {
        if let (Ok(amount), Some(present)) =
            (Quantity::from_json(amount), total.get_mut(&format!("requests.{resource}")))
        {
            *present += amount;
        }
    }
    total
}

/// What the objects of a kind use, by namespace and name.
#[derive(Default)]
struct InUse(HashMap<String, HashMap<String, Charge>>);

impl InUse {
    fn has(&self, namespace: &str, name: &str) -> bool {
        self.0.get(namespace).is_some_and(|objects| objects.contains_key(name))
    }

    fn others<'a>(&'a self, namespace: &str, name: &'a str) -> impl Iterator<Item = &'a Charge> {
        let objects = self.0.get(namespace).into_iter().flatten();
        objects.filter(move |(other, _)| *other != name).map(|(_, charge)| charge)
    }
}

impl View for InUse {
    fn add(&mut self, object: &Arc<Object>) {
        let (group, version) = object.api_version().split_once('/').unwrap_or(("", object.api_version()));
        let Some(kind) = api::kinds::find_kind(group, version, object.kind()) else { return };
        let objects = self.0.entry(object.namespace().to_string()).or_default();
        objects.insert(object.name().to_string(), Charge::of(kind, object));
    }

    fn remove(&mut self, object: &Object) {
        if let Some(objects) = self.0.get_mut(object.namespace()) {
            objects.remove(object.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn pod(cpu: &str) -> Charge {
        let pod = object(json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}}));
        Charge::of(kind("", "pods"), &pod)
    }

    fn quota(hard: Value) -> Object {
        object(json!({"metadata": {"name": "small"}, "spec": {"hard": hard}}))
    }

    #[test]
    fn a_full_quota_says_what_was_asked_and_what_there_is() {
        let quota = quota(json!({"pods": "2", "requests.cpu": "1"}));
        let used = [pod("500m"), pod("400m")];
        let used: Vec<&Charge> = used.iter().collect();
        assert_eq!(check(&quota, &pod("100m"), &used[..1]), Ok(()));
        assert_eq!(
            check(&quota, &pod("200m"), &used),
            Err("exceeded quota: small, requested: pods=1,requests.cpu=200m, used: pods=2,requests.cpu=900m, limited: pods=2,requests.cpu=1".into())
        );
    }

    #[test]
    fn a_pod_must_say_what_a_quota_counts() {
        let quiet = Charge::of(kind("", "pods"), &object(json!({"spec": {"containers": [{}]}})));
        assert_eq!(
            check(&quota(json!({"limits.memory": "1Gi", "cpu": "1"})), &quiet, &[]),
            Err("failed quota: small: must specify cpu,limits.memory".into())
        );
        assert_eq!(check(&quota(json!({"pods": "1"})), &quiet, &[]), Ok(()));
    }

    #[test]
    fn objects_of_any_kind_can_be_counted() {
        let deployment = Charge::of(kind("apps", "deployments"), &object(json!({})));
        let full = check(&quota(json!({"count/deployments.apps": "1"})), &deployment, &[&deployment]);
        assert!(full.unwrap_err().starts_with("exceeded quota: small, requested: count/deployments.apps=1"));
    }

    #[test]
    fn a_finished_pod_uses_nothing_but_its_place() {
        let finished = object(json!({
            "spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Succeeded"},
        }));
        let charge = Charge::of(kind("", "pods"), &finished);
        assert_eq!(charge.amounts.keys().collect::<Vec<_>>(), ["count/pods"]);
    }

    #[test]
    fn a_scoped_quota_counts_only_what_is_in_scope() {
        let mut quota = quota(json!({"pods": "0"}));
        quota.set(&["spec", "scopes"], json!(["BestEffort"]));
        assert_eq!(check(&quota, &pod("1"), &[]), Ok(()));
        let best_effort = Charge::of(kind("", "pods"), &object(json!({"spec": {"containers": [{}]}})));
        assert!(check(&quota, &best_effort, &[]).is_err());
    }
}
