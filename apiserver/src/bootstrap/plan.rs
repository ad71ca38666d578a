//! What to do about one bootstrap object, given what is there.

use api::Object;
use serde_json::Value;

use super::objects::{Desired, Keep};
use crate::{authz::Rule, fairness::objects::AUTO_UPDATE as AUTO_UPDATE_SPEC};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// It is as it should be.
    Nothing,
    /// It is missing.
    Create,
    /// It lacks something; this is how it should look.
    Update(Object),
    /// It differs in what cannot be changed.
    Replace,
}

/// Compares what should be with what is.
pub(super) fn plan(desired: &Desired, present: Option<&Object>) -> Action {
    let Some(present) = present else { return Action::Create };
    let mut wanted = present.clone();
    match desired.keep {
        Keep::AsItIs => return Action::Nothing,
        Keep::Role | Keep::Binding if present.annotation(AUTO_UPDATE) == Some("false") => {
            return Action::Nothing;
        }
        Keep::Binding if present.at(&["roleRef"]) != desired.object.at(&["roleRef"]) => {
            return Action::Replace;
        }
        Keep::Role => {
            add_rules(&mut wanted, &desired.object);
            match desired.object.at(&["aggregationRule"]).is_some() {
                true => {
                    add_missing(&mut wanted, &desired.object, &["aggregationRule", "clusterRoleSelectors"])
                }
                // It is not meant to gather others at all.
                false => drop(wanted.remove(&["aggregationRule"])),
            }
        }
        Keep::Binding => add_missing(&mut wanted, &desired.object, &["subjects"]),
        // Somebody wants it otherwise.
        Keep::Fairness { is_mandatory: false } if !is_kept_up_to_date(present) => return Action::Nothing,
        Keep::Fairness { .. } => {
            wanted.set(&["metadata", "annotations", AUTO_UPDATE_SPEC], "true");
            wanted.set(&["spec"], desired.object.at(&["spec"]).cloned().unwrap_or_default());
        }
        Keep::Data => {
            let Some(Value::Object(entries)) = desired.object.at(&["data"]) else { return Action::Nothing };
            entries.iter().for_each(|(key, value)| wanted.set(&["data", key], value.clone()));
        }
        Keep::Fields(fields) => {
            for field in fields {
                if let Some(value) = desired.object.at(&[field]) {
                    wanted.set(&[field], value.clone());
                }
            }
        }
    }
    if matches!(desired.keep, Keep::Role | Keep::Binding) {
        for map in ["labels", "annotations"] {
            let Some(Value::Object(entries)) = desired.object.at(&["metadata", map]) else { continue };
            entries
                .iter()
                .for_each(|(key, value)| wanted.set_if_absent(&["metadata", map, key], value.clone()));
        }
    }
    if wanted == *present { Action::Nothing } else { Action::Update(wanted) }
}

/// As upstream: an object that does not say has been left alone as long as it is in its first generation.
fn is_kept_up_to_date(present: &Object) -> bool {
    match present.annotation(AUTO_UPDATE_SPEC) {
        Some(value) => value == "true",
        None => present.generation() == 1,
    }
}

/// Adds of the rules what nothing in the role covers yet, in the smallest pieces, as upstream.
fn add_rules(wanted: &mut Object, desired: &Object) {
    let held = Rule::all_of(wanted);
    let is_missing = |atom: &Rule| !held.iter().any(|held| held.covers(atom));
    let rules = Rule::all_of(desired);
    let missing = rules.iter().flat_map(Rule::atoms).filter(is_missing);
    append(wanted, &["rules"], missing.map(|atom| atom.to_json()).collect());
}

fn add_missing(wanted: &mut Object, desired: &Object, path: &[&str]) {
    let present = wanted.list(path);
    let missing: Vec<Value> =
        desired.list(path).iter().filter(|item| !present.contains(item)).cloned().collect();
    append(wanted, path, missing);
}

fn append(wanted: &mut Object, path: &[&str], items: Vec<Value>) {
    if !items.is_empty() {
        let all: Vec<Value> = wanted.list(path).iter().cloned().chain(items).collect();
        wanted.set(path, all);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn desired(keep: Keep, object: Value) -> Desired {
        let kind = api::kinds::find("rbac.authorization.k8s.io", "v1", "clusterroles").unwrap();
        Desired { kind, object: Object::from_value(object).unwrap(), keep }
    }

    fn rule(verb: &str) -> Value {
        json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]})
    }

    #[test]
    fn users_additions_stay_and_what_is_missing_comes_back() {
        let desired =
            desired(Keep::Role, json!({"metadata": {"name": "a"}, "rules": [rule("get"), rule("list")]}));
        let present =
            Object::from_value(json!({"metadata": {"name": "a"}, "rules": [rule("delete"), rule("get")]}));
        let Action::Update(wanted) = plan(&desired, present.as_ref()) else { panic!("an update") };
        assert_eq!(wanted.list(&["rules"]), [rule("delete"), rule("get"), rule("list")]);
        assert_eq!(plan(&desired, Some(&wanted)), Action::Nothing);
        assert_eq!(plan(&desired, None), Action::Create);
    }

    #[test]
    fn only_what_is_missing_of_a_rule_comes_back() {
        let wide = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "services"]});
        let desired = desired(Keep::Role, json!({"metadata": {"name": "a"}, "rules": [wide]}));
        let present = json!({"metadata": {"name": "a"}, "aggregationRule": {}, "rules": [
            {"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}, {"verbs": ["get"], "apiGroups": [""], "resources": ["services"]},
        ]});
        let present = Object::from_value(present).unwrap();
        let Action::Update(wanted) = plan(&desired, Some(&present)) else { panic!("an update") };
        let piece = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["services"]});
        assert_eq!(wanted.list(&["rules"])[2..], [piece]);
        assert_eq!(wanted.at(&["aggregationRule"]), None);
        assert_eq!(plan(&desired, Some(&wanted)), Action::Nothing);
    }

    #[test]
    fn labels_come_back_and_keep_what_somebody_chose() {
        let desired = desired(
            Keep::Role,
            json!({"metadata": {"name": "a", "labels": {"x": "1", "y": "1"}, "annotations": {AUTO_UPDATE: "true"}}, "rules": []}),
        );
        let present =
            Object::from_value(json!({"metadata": {"name": "a", "labels": {"y": "2"}}, "rules": []}));
        let Action::Update(wanted) = plan(&desired, present.as_ref()) else { panic!("an update") };
        assert_eq!(wanted.at(&["metadata", "labels"]), Some(&json!({"x": "1", "y": "2"})));
        assert_eq!(wanted.annotation(AUTO_UPDATE), Some("true"));
    }

    #[test]
    fn a_role_that_opted_out_is_left_alone() {
        let desired = desired(Keep::Role, json!({"metadata": {"name": "a"}, "rules": [rule("get")]}));
        let present = json!({"metadata": {"name": "a", "annotations": {AUTO_UPDATE: "false"}}, "rules": []});
        assert_eq!(plan(&desired, Object::from_value(present).as_ref()), Action::Nothing);
    }

    #[test]
    fn a_binding_to_another_role_is_replaced() {
        let desired = desired(Keep::Binding, json!({"roleRef": {"name": "a"}}));
        let present = Object::from_value(json!({"roleRef": {"name": "b"}}));
        assert_eq!(plan(&desired, present.as_ref()), Action::Replace);
    }

    #[test]
    fn a_priority_level_is_brought_back_unless_somebody_wants_it_otherwise() {
        let keep = |is_mandatory| Keep::Fairness { is_mandatory };
        let object = |value: &str, shares: u32| json!({"metadata": {"name": "a", "annotations": {AUTO_UPDATE_SPEC: value}}, "spec": {"shares": shares}});
        let present = Object::from_value(object("true", 5));
        let Action::Update(wanted) = plan(&desired(keep(false), object("true", 9)), present.as_ref()) else {
            panic!("an update")
        };
        assert_eq!(wanted.number(&["spec", "shares"]), Some(9));
        let present = Object::from_value(object("false", 5));
        assert_eq!(plan(&desired(keep(false), object("true", 9)), present.as_ref()), Action::Nothing);
        assert!(matches!(plan(&desired(keep(true), object("true", 9)), present.as_ref()), Action::Update(_)));
    }

    #[test]
    fn others_entries_stay_beside_those_that_are_set() {
        let desired = desired(Keep::Data, json!({"data": {"kubeconfig": "new"}}));
        let present = Object::from_value(json!({"data": {"kubeconfig": "old", "jws-kubeconfig-a": "x"}}));
        let Action::Update(wanted) = plan(&desired, present.as_ref()) else { panic!("an update") };
        assert_eq!(wanted.at(&["data"]), Some(&json!({"kubeconfig": "new", "jws-kubeconfig-a": "x"})));
    }

    #[test]
    fn an_endpoint_that_moved_is_corrected() {
        let desired = desired(Keep::Fields(&["subsets"]), json!({"subsets": ["new"]}));
        let present = Object::from_value(json!({"metadata": {"name": "kubernetes"}, "subsets": ["old"]}));
        let Action::Update(wanted) = plan(&desired, present.as_ref()) else { panic!("an update") };
        assert_eq!(wanted.list(&["subsets"]), ["new"]);
    }
}
