//! What a Deployment reads from its ReplicaSets and writes to them: revisions, sizes, the new set.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{ResourceExt, api::ObjectMeta};

use crate::{
    fraction::{self, Round},
    hash, ownership,
};

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its sets do not inherit.
const NOT_INHERITED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// A revision history longer than this loses its oldest entries.
const LONGEST_HISTORY: usize = 2000;

/// The numbers of a Deployment, with its fractions worked out.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub replicas: i32,
    pub max_surge: i32,
    pub max_unavailable: i32,
}

impl Size {
    pub fn of(deployment: &Deployment) -> Size {
        let replicas = deployment.spec.replicas.unwrap_or(1);
        if is_recreate(deployment) {
            return Size { replicas, max_surge: 0, max_unavailable: 0 };
        }
        let strategy =
            deployment.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = strategy.and_then(|update| update.max_surge.as_ref());
        let unavailable = strategy.and_then(|update| update.max_unavailable.as_ref());
        let max_surge = fraction::resolve(surge, replicas, Round::Up);
        // With neither, a rollout could not move: upstream lets one pod go.
        let max_unavailable = match fraction::resolve(unavailable, replicas, Round::Down) {
            0 if max_surge == 0 => 1,
            number => number,
        };
        Size { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
    }

    /// As many pods as there may be at once during a rollout.
    pub fn most(self) -> i32 {
        self.replicas + self.max_surge
    }

    /// As many pods as must be available during a rollout.
    pub fn least_available(self) -> i32 {
        self.replicas - self.max_unavailable
    }

    /// The annotations by which a set remembers the size that it was made for.
    pub fn annotations(self) -> BTreeMap<String, String> {
        [(DESIRED_REPLICAS, self.replicas), (MAX_REPLICAS, self.most())]
            .map(|(key, number)| (key.to_string(), number.to_string()))
            .into()
    }
}

pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    strategy == Some("Recreate")
}

/// How many pods a set asks for.
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// How many of its pods are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

/// A set's, or a Deployment's, revision; 0 when it has none.
pub fn revision(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The size of the Deployment that a set was last scaled for.
pub fn desired_replicas(set: &ReplicaSet) -> Option<i32> {
    set.annotations().get(DESIRED_REPLICAS)?.parse().ok()
}

/// The most pods that the Deployment allowed when a set was last scaled.
pub fn max_replicas(set: &ReplicaSet) -> Option<i32> {
    set.annotations().get(MAX_REPLICAS)?.parse().ok()
}

/// The set that has the Deployment's present template, the oldest where there are several.
pub fn current<'a>(
    deployment: &Deployment,
    oldest_first: &'a [Arc<ReplicaSet>],
) -> Option<&'a Arc<ReplicaSet>> {
    let wanted = without_hash(&deployment.spec.template);
    oldest_first.iter().find(|set| set.spec.template.as_ref().map(without_hash).as_ref() == Some(&wanted))
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata
        && let Some(labels) = &mut metadata.labels
    {
        labels.remove(HASH_LABEL);
    }
    template
}

/// The set for the Deployment's present template, as it is created.
pub fn new_set(deployment: &Deployment, size: Size, replicas: i32, revision: i64) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash::of(&deployment.spec.template, collisions);
    let with_hash = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(HASH_LABEL.into(), hash.clone());
        Some(labels)
    };
    let mut template = deployment.spec.template.clone();
    let template_metadata = template.metadata.get_or_insert_default();
    template_metadata.labels = with_hash(template_metadata.labels.take());
    let labels = template_metadata.labels.clone();

    let mut annotations = inherited(deployment);
    annotations.insert(REVISION.into(), revision.to_string());
    annotations.extend(size.annotations());
    let selector = deployment.spec.selector.clone();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![ownership::owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: deployment.spec.min_ready_seconds,
            selector: LabelSelector { match_labels: with_hash(selector.match_labels), ..selector },
            template: Some(template),
        },
        status: None,
    }
}

/// Whether a set that is in the way of a new one is that one: ours, with the same template.
pub fn is_same(deployment: &Deployment, existing: &ReplicaSet) -> bool {
    let ours = existing.owner_references().iter().any(|owner| Some(&owner.uid) == deployment.uid().as_ref());
    let template = existing.spec.template.as_ref().map(without_hash);
    ours && template == Some(without_hash(&deployment.spec.template))
}

/// The annotations that a set of the present template lacks or has otherwise: what it inherits, and its
/// revision, which a rollback moves to the front.
pub fn outdated_annotations(
    deployment: &Deployment,
    set: &ReplicaSet,
    revision: i64,
) -> BTreeMap<String, String> {
    let have = set.annotations();
    let mut wanted = inherited(deployment);
    let old = self::revision(have);
    if old < revision {
        wanted.insert(REVISION.into(), revision.to_string());
        if let Some(old) = have.get(REVISION) {
            wanted.insert(REVISION_HISTORY.into(), longer_history(have.get(REVISION_HISTORY), old));
        }
    }
    wanted.retain(|key, value| have.get(key) != Some(value));
    wanted
}

fn longer_history(history: Option<&String>, revision: &str) -> String {
    let mut history: String = match history {
        Some(history) if !history.is_empty() => format!("{history},{revision}"),
        _ => revision.to_string(),
    };
    while history.len() > LONGEST_HISTORY
        && let Some((_, rest)) = history.split_once(',')
    {
        history = rest.to_string();
    }
    history
}

fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    let own = deployment.annotations().iter();
    own.filter(|(key, _)| !NOT_INHERITED.contains(&key.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
