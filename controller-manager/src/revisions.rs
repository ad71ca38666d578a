//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had, so that it can go back.

use std::sync::Arc;

use client::{ApiObject, Cache, ClientError, Tolerate, Writer, is_already_exists};
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::runtime::RawExtension,
};
use kube::{Api, ResourceExt, api::ObjectMeta};
use serde_json::{Value, json};

use crate::{hash, ownership};

/// Names the revision that a pod is of.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// The revision of the present template, and those before it.
pub struct History {
    /// The present one.
    pub current: Arc<ControllerRevision>,
    /// Earlier ones, oldest first.
    pub earlier: Vec<Arc<ControllerRevision>>,
}

impl History {
    /// The value of [`HASH_LABEL`] on pods of the present revision.
    pub fn current_hash(&self) -> &str {
        revision_hash(&self.current)
    }
}

/// The hash by which a revision's pods are known.
pub fn revision_hash(revision: &ControllerRevision) -> &str {
    revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).map_or("", String::as_str)
}

/// What a step on the history needs.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// The template is one of these already, and the newest.
    Keep(Arc<ControllerRevision>),
    /// It is one of these, but not the newest: a rollback. Give it this number.
    Renumber(Arc<ControllerRevision>, i64),
    /// It is new.
    Create(Box<ControllerRevision>),
}

/// What makes the history, in any order, end with the present template.
pub fn plan<O: ApiObject>(
    owner: &O,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
    history: &[Arc<ControllerRevision>],
) -> Step {
    let data = patch_of(template);
    let newest = history.iter().map(|revision| number(revision)).max().unwrap_or_default();
    let same =
        history.iter().filter(|revision| revision.data.0 == data).max_by_key(|revision| number(revision));
    match same {
        Some(same) if number(same) == newest => Step::Keep(same.clone()),
        Some(same) => Step::Renumber(same.clone(), newest + 1),
        None => Step::Create(Box::new(new_revision(owner, template, data, collisions, newest + 1))),
    }
}

/// The surplus of a history beyond `limit`; revisions that pods are still of stay.
pub fn surplus(
    earlier: &[Arc<ControllerRevision>],
    limit: Option<i32>,
    is_in_use: impl Fn(&str) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let unused: Vec<_> =
        earlier.iter().filter(|revision| !is_in_use(revision_hash(revision))).cloned().collect();
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or_default();
    let surplus = unused.len().saturating_sub(limit);
    unused.into_iter().take(surplus).collect()
}

/// Brings the history up to date. `Err(None)`: the name is taken by another revision, the owner has to count up
/// its collisions.
pub async fn sync<O: ApiObject>(
    writer: &Writer,
    cache: &Cache<ControllerRevision>,
    owner: &O,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
) -> Result<Result<History, Collision>, ClientError> {
    let mut history = cache.owned_by(owner.meta().uid.as_deref().unwrap_or_default());
    history.sort_by_key(|revision| number(revision));
    let current = match plan(owner, template, collisions, &history) {
        Step::Keep(current) => current,
        Step::Renumber(revision, to) => {
            let key = client::ObjectKey::of(&*revision);
            Arc::new(writer.merge::<ControllerRevision>(&key, json!({"revision": to})).await?)
        }
        Step::Create(revision) => match writer.create(&*revision).await {
            Ok(created) => Arc::new(created),
            Err(error) if is_already_exists(&error) => {
                let namespace = revision.namespace().unwrap_or_default();
                let api: Api<ControllerRevision> = Api::namespaced(writer.client().clone(), &namespace);
                match api.get(&revision.name_any()).await.or_not_found()? {
                    Some(present) if present.data.0 == revision.data.0 => Arc::new(present),
                    _ => return Ok(Err(Collision)),
                }
            }
            Err(error) => return Err(error),
        },
    };
    history.retain(|revision| revision.metadata.name != current.metadata.name);
    Ok(Ok(History { current, earlier: history }))
}

/// Another revision has the name that this one would get.
#[derive(Debug)]
pub struct Collision;

/// A template as kubectl applies it to go back: a strategic merge patch that replaces it.
fn patch_of(template: &PodTemplateSpec) -> Value {
    // A template came from JSON, so it can be written as such.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(template) = template.as_object_mut() {
        template.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision holds.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn new_revision<O: ApiObject>(
    owner: &O,
    template: &PodTemplateSpec,
    data: Value,
    collisions: Option<i32>,
    number: i64,
) -> ControllerRevision {
    let hash = hash::of(template, collisions);
    let mut labels =
        template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", owner.name_any())),
        namespace: owner.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![ownership::owner_reference(owner)]),
        ..ObjectMeta::default()
    };
    ControllerRevision { metadata, data: RawExtension(data), revision: Some(number) }
}

fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::PodSpec};

    use super::*;

    fn template(hostname: &str) -> PodTemplateSpec {
        let spec = PodSpec { hostname: Some(hostname.into()), ..PodSpec::default() };
        PodTemplateSpec { metadata: None, spec: Some(spec) }
    }

    fn created(step: Step) -> Arc<ControllerRevision> {
        match step {
            Step::Create(revision) => Arc::new(*revision),
            other => panic!("expected a new revision, got {other:?}"),
        }
    }

    #[test]
    fn going_back_renumbers_the_old_revision() {
        let owner = DaemonSet::default();
        let first = created(plan(&owner, &template("a"), None, &[]));
        let second = created(plan(&owner, &template("b"), None, std::slice::from_ref(&first)));
        let history = [first.clone(), second.clone()];
        assert_eq!(plan(&owner, &template("b"), None, &history), Step::Keep(second));
        assert_eq!(plan(&owner, &template("a"), None, &history), Step::Renumber(first.clone(), 3));
        assert_eq!(template_of(&first), Some(template("a")));
    }

    #[test]
    fn history_beyond_the_limit_goes_unless_pods_are_of_it() {
        let owner = DaemonSet::default();
        let mut history: Vec<Arc<ControllerRevision>> = Vec::new();
        for name in ["a", "b", "c"] {
            let revision = created(plan(&owner, &template(name), None, &history));
            history.push(revision);
        }
        let used = revision_hash(&history[0]).to_string();
        let gone = surplus(&history, Some(1), |hash| hash == used);
        assert_eq!(gone, [history[1].clone()]);
    }
}
