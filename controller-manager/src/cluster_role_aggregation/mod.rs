//! Writes into ClusterRoles with an aggregation rule the rules of those that it selects.

use std::{collections::BTreeMap, sync::Arc};

use api::selector::LabelSelector;
use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, turn};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};

use crate::Context;

/// Starts the controller.
pub fn start(context: &mut Context) {
    let roles = context.cache::<ClusterRole>();
    let controller =
        Aggregation { roles: roles.clone(), writer: context.writer("clusterrole-aggregation-controller") };
    let all = roles.clone();
    // Any role may be, or have been, one that is gathered.
    let runner = Runner::new("ClusterRoleAggregator", controller).watch_map(&roles, move |_| {
        let gathering = all.list().into_iter().filter(|role| role.aggregation_rule.is_some());
        gathering.map(|role| ObjectKey::of(&*role)).collect()
    });
    context.run(runner);
}

struct Aggregation {
    roles: Arc<Cache<ClusterRole>>,
    writer: Writer,
}

impl Reconcile for Aggregation {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(role) = self.roles.get_key(key) else { return Ok(Next::OnChange) };
        let Some(rules) = gathered(&role, &self.roles.list()) else { return Ok(Next::OnChange) };
        turn::describe("the rules of others", format!("{} rules", rules.len()));
        if role.rules.as_deref().unwrap_or_default() != rules {
            let changed = ClusterRole { rules: Some(rules), ..(*role).clone() };
            self.writer.replace(&changed).await.or_not_found().map(drop).or_conflict()?;
        }
        Ok(Next::OnChange)
    }
}

/// The rules that a role is to have: those of the roles that it selects, by name, none twice.
fn gathered(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let selectors: Vec<LabelSelector> = selectors
        .iter()
        .filter_map(|selector| LabelSelector::from_json(&serde_json::to_value(selector).ok()?).ok())
        .collect();
    let name = |role: &ClusterRole| role.metadata.name.clone().unwrap_or_default();
    let no_labels = BTreeMap::new();
    let is_selected = |other: &ClusterRole| {
        let labels = other.metadata.labels.as_ref().unwrap_or(&no_labels);
        name(other) != name(role)
            && selectors.iter().any(|selector| selector.matches(|key| labels.get(key).map(String::as_str)))
    };
    let mut selected: Vec<_> = all.iter().filter(|other| is_selected(other)).collect();
    selected.sort_by_key(|other| name(other));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in selected.iter().flat_map(|other| other.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn role(name: &str, labels: Value, verb: &str) -> Arc<ClusterRole> {
        let rule = json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let role = json!({"metadata": {"name": name, "labels": labels}, "rules": [rule]});
        Arc::new(serde_json::from_value(role).unwrap())
    }

    #[test]
    fn a_role_gathers_each_rule_once() {
        let gathering: ClusterRole = serde_json::from_value(json!({
            "metadata": {"name": "all", "labels": {"to": "all"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "all"}}]},
        }))
        .unwrap();
        let roles = [
            role("b", json!({"to": "all"}), "list"),
            role("a", json!({"to": "all"}), "get"),
            role("c", json!({"to": "all"}), "get"),
            role("d", json!({}), "delete"),
            Arc::new(gathering.clone()),
        ];
        let verbs: Vec<String> =
            gathered(&gathering, &roles).unwrap().into_iter().flat_map(|rule| rule.verbs).collect();
        assert_eq!(verbs, ["get", "list"]);
        assert_eq!(gathered(&roles[0], &roles), None);
    }
}
