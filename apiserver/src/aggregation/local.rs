//! APIServices of the groups that this server serves itself: upstream makes one for each group and version.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{Kind, Object, Status, kinds};
use serde_json::json;

use super::api_services;
use crate::{registry::Registry, request::DeleteOptions};

const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// How long to wait after a pass that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Group priorities of upstream's own groups; custom resources come after all of them.
const GROUPS: &[(&str, i64)] = &[
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("storagemigration.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("resource.k8s.io", 15_900),
    // As metrics-server has it, which others may put in our place.
    ("metrics.k8s.io", 100),
    // The aggregator's own group is before all others.
    ("apiregistration.k8s.io", 20_000),
];
const CUSTOM_GROUP: i64 = 1000;
const CUSTOM_VERSION: i64 = 100;
const BUILT_IN_VERSION: i64 = 15;

/// How important a group of this server is.
pub(super) fn group_priority(group: &str) -> i64 {
    GROUPS.iter().find(|(name, _)| *name == group).map_or(CUSTOM_GROUP, |(_, priority)| *priority)
}

/// How important a version is within its group.
pub(super) fn version_priority(group: &str, version: &str) -> i64 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io", "v1") => 21,
        (group, _) if GROUPS.iter().any(|(name, _)| *name == group) => BUILT_IN_VERSION,
        _ => CUSTOM_VERSION,
    }
}

/// Keeps the rows.
pub(super) struct Rows {
    registry: Arc<Registry>,
}

impl Rows {
    pub(super) fn new(registry: Arc<Registry>) -> Rows {
        Rows { registry }
    }

    pub(super) async fn run(self) {
        loop {
            let Err(error) = self.follow().await;
            tracing::warn!(%error, "cannot keep the APIServices of local groups, will retry");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, Status> {
        let mut changes = self.registry.changes(api_services()).await?;
        let mut kinds = self.registry.kinds().changes();
        self.registry.kinds().loaded().await;
        loop {
            changes.mark_unchanged();
            kinds.mark_unchanged();
            self.pass().await?;
            let woken = tokio::select! {
                changed = changes.changed() => changed.is_ok(),
                changed = kinds.changed() => changed.is_ok(),
            };
            if !woken {
                return Err(Status::internal("the cache of APIServices has ended"));
            }
        }
    }

    async fn pass(&self) -> Result<(), Status> {
        let present = self.registry.list(api_services(), None).await?;
        let actions = plan(&self.registry.kinds().all(), &present);
        let carried_out = actions.into_iter().map(|action| self.carry_out(action));
        futures::future::try_join_all(carried_out).await.map(drop)
    }

    async fn carry_out(&self, action: Action) -> Result<(), Status> {
        let kind = api_services();
        let done = match action {
            Action::Create(object) => self.registry.create(kind, object).await.map(drop),
            Action::Update(object) => {
                let set = |mut present: Object| {
                    present.set(&["spec"], object.at(&["spec"]).cloned().unwrap_or_default());
                    Ok(present)
                };
                self.registry.update(kind, "", object.name(), set).await.map(drop)
            }
            Action::Delete(name) => {
                self.registry.delete(kind, "", &name, &DeleteOptions::default()).await.map(drop)
            }
        };
        match done {
            // Another server was faster with the same thing.
            Err(status) if status.reason == "AlreadyExists" || status.code == 404 => Ok(()),
            other => other,
        }
    }
}

#[derive(Debug, PartialEq)]
enum Action {
    Create(Object),
    Update(Object),
    Delete(String),
}

/// The rows for the groups that are built in.
pub(crate) fn rows() -> Vec<Object> {
    let mut rows = BTreeMap::new();
    for kind in kinds::KINDS {
        let row = row(kind);
        rows.entry(row.name().to_string()).or_insert(row);
    }
    rows.into_values().collect()
}

/// What would bring the APIServices to what is served. Those that nobody manages are their users', and so are those
/// that lead to another server.
fn plan(kinds: &[&'static Kind], present: &[Object]) -> Vec<Action> {
    let mut desired = BTreeMap::new();
    for kind in kinds {
        let row = row(kind);
        desired.entry(row.name().to_string()).or_insert(row);
    }
    let mut actions = Vec::new();
    for object in present.iter().filter(|object| is_managed(object)) {
        match desired.get(object.name()) {
            Some(row) if row.at(&["spec"]) != object.at(&["spec"]) => {
                actions.push(Action::Update(row.clone()))
            }
            Some(_) => {}
            None => actions.push(Action::Delete(object.name().to_string())),
        }
    }
    for object in present {
        desired.remove(object.name());
    }
    actions.extend(desired.into_values().map(Action::Create));
    actions
}

fn is_managed(object: &Object) -> bool {
    let leads_elsewhere = object.at(&["spec", "service"]).is_some_and(|service| !service.is_null());
    !leads_elsewhere
        && object
            .at(&["metadata", "labels", LABEL])
            .is_some_and(|label| label == "true" || label == "onstart")
}

fn row(kind: &Kind) -> Object {
    let (group, version) = (kind.group, kind.version);
    let managed = if kind.custom.is_some() { "true" } else { "onstart" };
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": group_priority(group),
        "versionPriority": version_priority(group, version),
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    let row = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {LABEL: managed}},
        "spec": spec,
    });
    Object::from_value(row).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(group: &str) -> Vec<&'static Kind> {
        api::kinds::KINDS.iter().filter(|kind| kind.group == group).collect()
    }

    #[test]
    fn each_group_and_version_has_a_row() {
        let actions = plan(&kinds("autoscaling"), &[]);
        let names: Vec<&str> = actions
            .iter()
            .map(|action| match action {
                Action::Create(object) => object.name(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, ["v1.autoscaling", "v2.autoscaling"]);
        let Action::Create(core) = &plan(&kinds(""), &[])[0] else { panic!("nothing is there") };
        assert_eq!(core.name(), "v1.");
        assert_eq!(
            core.at(&["spec"]),
            Some(&json!({"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}))
        );
    }

    #[test]
    fn rows_of_users_are_left_alone_and_managed_ones_kept() {
        let good = row(kinds("batch")[0]);
        assert_eq!(plan(&kinds("batch"), std::slice::from_ref(&good)), []);
        let mut changed = good.clone();
        changed.set(&["spec", "versionPriority"], 1);
        assert_eq!(plan(&kinds("batch"), std::slice::from_ref(&changed)), [Action::Update(good)]);
        changed.set(&["metadata", "labels"], json!({}));
        assert_eq!(plan(&kinds("batch"), std::slice::from_ref(&changed)), []);
        let mut gone = row(kinds("apps")[0]);
        assert_eq!(plan(&[], std::slice::from_ref(&gone)), [Action::Delete("v1.apps".into())]);
        gone.set(&["metadata", "labels"], json!({}));
        assert_eq!(plan(&[], std::slice::from_ref(&gone)), []);
    }

    #[test]
    fn every_built_in_group_is_before_custom_ones() {
        for kind in api::kinds::KINDS.iter().filter(|kind| kind.group != "metrics.k8s.io") {
            assert!(group_priority(kind.group) > CUSTOM_GROUP, "{}", kind.group);
        }
    }
}
