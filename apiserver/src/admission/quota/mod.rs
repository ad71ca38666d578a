//! ResourceQuota: a namespace uses no more than its quotas allow, also when many write at once.
//!
//! What is in use is counted from the objects that are there, not from a status that may lag behind. An object that was
//! admitted but is not there yet is remembered until it is, or until its write must have failed. [`charge`] says what
//! one object uses; [`status`] writes down what is used, for people to read.

mod charge;
pub mod status;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::{Kind, Object, Status, quantity::Quantity};
use jiff::Timestamp;
use serde_json::Value;

use super::{forbidden, kind};
use crate::{
    follow::{Follow, View},
    hooks::{Attributes, Operation},
    registry::Registry,
};
use charge::{Amounts, Charge, count_name, silent_containers};

/// After this an admitted object that did not appear has failed to be written.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// What is in use, by kind.
pub(super) struct Usage {
    /// The kinds that most quotas are about.
    kinds: Vec<(&'static Kind, Follow<InUse>)>,
    /// Held while objects of other kinds are counted, one write after the other.
    counting: tokio::sync::Mutex<()>,
    admitted: Mutex<HashMap<Key, Admitted>>,
}

type Key = (&'static str, String, String);

struct Admitted {
    at: Instant,
    charge: Charge,
}

impl Usage {
    pub(super) fn new() -> Usage {
        let core = [
            "pods",
            "services",
            "configmaps",
            "secrets",
            "persistentvolumeclaims",
            "replicationcontrollers",
            "resourcequotas",
        ];
        let counted = core
            .map(|plural| kind("", plural))
            .into_iter()
            .chain(
                ["deployments", "replicasets", "statefulsets", "daemonsets"]
                    .map(|plural| kind("apps", plural)),
            )
            .chain(["jobs", "cronjobs"].map(|plural| kind("batch", plural)))
            .chain([kind("networking.k8s.io", "ingresses"), kind("resource.k8s.io", "resourceclaims")]);
        Usage {
            kinds: counted.map(|kind| (kind, Follow::new(kind))).collect(),
            counting: tokio::sync::Mutex::default(),
            admitted: Mutex::default(),
        }
    }

    /// What a namespace uses of what a quota limits, and when that becomes less by itself.
    async fn used(
        &self,
        registry: &Registry,
        quota: &Object,
        now: Timestamp,
    ) -> Result<(Amounts, Option<Timestamp>), Status> {
        let mut used: Amounts =
            limited(quota).into_iter().map(|name| (name.to_string(), Quantity::default())).collect();
        let mut until = None;
        let mut sum = |in_use: &InUse| {
            let charges = in_use.others(quota.namespace(), "");
            for charge in charges.filter(|charge| charge.scopes.match_quota(quota)) {
                used.iter_mut().for_each(|(name, used)| *used += charge.amount(name, now));
                until = until.into_iter().chain(charge.until.filter(|until| *until >= now)).min();
            }
        };
        for (_, in_use) in &self.kinds {
            in_use.ask(registry, |in_use| sum(in_use)).await?;
        }
        for kind in self.others(registry, std::slice::from_ref(quota)) {
            sum(&InUse::listed(registry, kind, quota.namespace()).await?);
        }
        Ok((used, until))
    }

    /// The kinds beyond the usual ones that quotas count.
    fn others(&self, registry: &Registry, quotas: &[Object]) -> Vec<&'static Kind> {
        let wanted: BTreeSet<&str> =
            quotas.iter().flat_map(limited).filter(|name| name.starts_with("count/")).collect();
        let usual: BTreeSet<String> = self.kinds.iter().map(|(kind, _)| count_name(kind)).collect();
        let mut found: Vec<&'static Kind> = Vec::new();
        for kind in registry.kinds().all() {
            let name = count_name(kind);
            let is_new = !usual.contains(&name) && found.iter().all(|other| count_name(other) != name);
            if kind.is_namespaced() && is_new && wanted.contains(name.as_str()) {
                found.push(kind);
            }
        }
        found
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
        if quotas.is_empty() || attributes.operation == Operation::Delete {
            return Ok(());
        }
        let charge = Charge::of(kind, object);
        let before = old.map(|old| Charge::of(kind, old));
        if before.as_ref() == Some(&charge) {
            return Ok(());
        }
        let now = Timestamp::now();
        let write =
            Write { usage: self, attributes, object, charge: &charge, before: before.as_ref(), quotas, now };
        let usual = self.kinds.iter().find(|(counted, _)| counted.storage == kind.storage);
        let admitted = match usual {
            Some((_, in_use)) => in_use.ask(registry, |in_use| write.admit(in_use)).await?,
            None if quotas.iter().any(|quota| limited(quota).contains(&count_name(kind).as_str())) => {
                let _one_after_the_other = self.counting.lock().await;
                write.admit(&InUse::listed(registry, kind, attributes.namespace).await?)
            }
            None => Ok(()),
        };
        admitted.map_err(|why| forbidden(attributes, Some(object), &why))
    }
}

/// What a quota limits, by name.
fn limited(quota: &Object) -> Vec<&str> {
    let hard = quota.at(&["spec", "hard"]).and_then(Value::as_object);
    hard.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

/// A write that has to have room.
struct Write<'a> {
    usage: &'a Usage,
    attributes: &'a Attributes<'a>,
    object: &'a Object,
    charge: &'a Charge,
    before: Option<&'a Charge>,
    quotas: &'a [Arc<Object>],
    now: Timestamp,
}

impl Write<'_> {
    /// Finds room beside what is there and what is under way.
    fn admit(&self, in_use: &InUse) -> Result<(), String> {
        let storage = self.attributes.kind.storage;
        let mut admitted = self.usage.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        admitted.retain(|key, one| {
            one.at.elapsed() < WRITE_PATIENCE && !(key.0 == storage && in_use.has(&key.1, &key.2))
        });
        let (namespace, name) = (self.attributes.namespace, self.object.name());
        let under_way = admitted
            .iter()
            .filter(|(key, _)| key.0 == storage && key.1 == namespace && key.2 != name)
            .map(|(_, one)| &one.charge);
        let used: Vec<&Charge> = in_use.others(namespace, name).chain(under_way).collect();
        for quota in self.quotas {
            if self.charge.scopes.match_quota(quota) {
                self.check_complete(quota)?;
                check(quota, self.charge, self.before, &used, self.now)?;
            }
        }
        if self.attributes.operation == Operation::Create && !self.attributes.dry_run {
            let key = (storage, namespace.to_string(), name.to_string());
            admitted.insert(key, Admitted { at: Instant::now(), charge: self.charge.clone() });
        }
        Ok(())
    }

    /// A pod's containers have to say what the quota counts.
    fn check_complete(&self, quota: &Object) -> Result<(), String> {
        if self.charge.scopes.sort != charge::Sort::Pod {
            return Ok(());
        }
        let mut missing = Vec::new();
        for name in limited(quota) {
            let silent = silent_containers(self.object, name);
            if !silent.is_empty() {
                missing.push(format!("{name} for: {}", silent.into_iter().collect::<Vec<_>>().join(",")));
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("failed quota: {}: must specify {}", quota.name(), missing.join("; "))),
        }
    }
}

/// Whether one quota has room for the charge beside what is used by others. What got less is never too much.
fn check(
    quota: &Object,
    charge: &Charge,
    before: Option<&Charge>,
    used: &[&Charge],
    now: Timestamp,
) -> Result<(), String> {
    let hard = quota.at(&["spec", "hard"]).and_then(Value::as_object);
    let mut exceeded: Vec<[String; 3]> = Vec::new();
    for (name, limit) in hard.into_iter().flatten() {
        let Ok(limit) = Quantity::from_json(limit) else { continue };
        let amount = |charge: &Charge| charge.amount(name, now);
        let counted = |charge: &&&Charge| charge.scopes.match_quota(quota);
        let asked = amount(charge);
        let had = before.as_ref().filter(counted).map(|before| amount(before)).unwrap_or_default();
        let others: Quantity = used.iter().filter(counted).map(|other| amount(other)).sum();
        if asked > had && others + asked > limit {
            exceeded.push([asked - had, others + had, limit].map(|amount| format!("{name}={amount}")));
        }
    }
    if exceeded.is_empty() {
        return Ok(());
    }
    let column = |index: usize| exceeded.iter().map(|row| row[index].clone()).collect::<Vec<_>>().join(",");
    let [requested, used, limited] = [0, 1, 2].map(column);
    Err(format!("exceeded quota: {}, requested: {requested}, used: {used}, limited: {limited}", quota.name()))
}

/// What the objects of a kind use, by namespace and name.
#[derive(Default)]
struct InUse(HashMap<String, HashMap<String, Charge>>);

impl InUse {
    /// The objects of a kind that is not followed.
    async fn listed(registry: &Registry, kind: &'static Kind, namespace: &str) -> Result<InUse, Status> {
        let objects = registry.list(kind, Some(namespace)).await?;
        let charges = objects.iter().map(|object| (object.name().to_string(), Charge::of(kind, object)));
        Ok(InUse(HashMap::from([(namespace.to_string(), charges.collect())])))
    }

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

    fn check(
        quota: &Object,
        charge: &Charge,
        before: Option<&Charge>,
        used: &[&Charge],
    ) -> Result<(), String> {
        super::check(quota, charge, before, used, Timestamp::UNIX_EPOCH)
    }

    fn quota(hard: Value) -> Object {
        object(json!({"metadata": {"name": "small"}, "spec": {"hard": hard}}))
    }

    #[test]
    fn a_full_quota_says_what_was_asked_and_what_there_is() {
        let quota = quota(json!({"pods": "2", "requests.cpu": "1"}));
        let used = [pod("500m"), pod("400m")];
        let used: Vec<&Charge> = used.iter().collect();
        assert_eq!(check(&quota, &pod("100m"), None, &used[..1]), Ok(()));
        assert_eq!(
            check(&quota, &pod("200m"), None, &used),
            Err("exceeded quota: small, requested: pods=1,requests.cpu=200m, used: pods=2,requests.cpu=900m, limited: pods=2,requests.cpu=1".into())
        );
    }

    #[test]
    fn what_gets_less_is_never_too_much() {
        let quota = quota(json!({"requests.cpu": "1"}));
        let others = pod("2");
        assert_eq!(check(&quota, &pod("100m"), Some(&pod("200m")), &[&others]), Ok(()));
        assert_eq!(
            check(&quota, &pod("300m"), Some(&pod("200m")), &[&others]),
            Err("exceeded quota: small, requested: requests.cpu=100m, used: requests.cpu=2200m, limited: requests.cpu=1".into())
        );
    }

    #[test]
    fn objects_of_any_kind_can_be_counted() {
        let deployment = Charge::of(kind("apps", "deployments"), &object(json!({})));
        let full = check(&quota(json!({"count/deployments.apps": "1"})), &deployment, None, &[&deployment]);
        assert!(full.unwrap_err().starts_with("exceeded quota: small, requested: count/deployments.apps=1"));
    }

    #[test]
    fn a_scoped_quota_counts_only_what_is_in_scope() {
        let mut quota = quota(json!({"pods": "0"}));
        quota.set(&["spec", "scopes"], json!(["BestEffort"]));
        assert!(!pod("1").scopes.match_quota(&quota));
        let best_effort = Charge::of(kind("", "pods"), &object(json!({"spec": {"containers": [{}]}})));
        assert!(best_effort.scopes.match_quota(&quota));
        assert!(check(&quota, &best_effort, None, &[]).is_err());
    }
}
