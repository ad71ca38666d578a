//! Roles and role bindings.

use super::check::{Faults, Field};
use super::fill::Fill;
use crate::{FieldError, Object, name};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Rules of Roles and ClusterRoles.
pub struct Role;

impl crate::Strategy for Role {
    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let is_namespaced = !object.namespace().is_empty();
        for rule in Field::at(object, &["rules"]).items() {
            validate_rule(&rule, is_namespaced, &mut faults);
        }
        let aggregation = Field::at(object, &["aggregationRule"]);
        let selectors = aggregation.get("clusterRoleSelectors");
        if aggregation.is_set() && selectors.is_empty() {
            let text = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            faults.required(&selectors, text);
        }
        for selector in selectors.items() {
            super::label_selector::validate(&selector, &mut faults);
        }
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::path_segment(name)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn validate_rule(rule: &Field, is_namespaced: bool, faults: &mut Faults) {
    let [verbs, groups, kinds, urls] =
        ["verbs", "apiGroups", "resources", "nonResourceURLs"].map(|name| rule.get(name));
    if verbs.is_empty() {
        faults.required(&verbs, "verbs must contain at least one value");
    }
    if !urls.is_empty() {
        if is_namespaced {
            faults.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if !groups.is_empty() || !kinds.is_empty() || !rule.get("resourceNames").is_empty() {
            faults.invalid(&urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if groups.is_empty() {
        faults.required(&groups, "resource rules must supply at least one api group");
    }
    if kinds.is_empty() {
        faults.required(&kinds, "resource rules must supply at least one resource");
    }
}

/// Rules of RoleBindings and ClusterRoleBindings.
pub struct RoleBinding;

impl crate::Strategy for RoleBinding {
    fn set_defaults(&self, object: &mut Object) {
        if object.text(&["roleRef", "apiGroup"]).is_empty() {
            object.set(&["roleRef", "apiGroup"], GROUP);
        }
        for subject in object.0.maps_at("subjects") {
            let group = match subject.text_at("kind") {
                "User" | "Group" => GROUP,
                _ => "",
            };
            if subject.text_at("apiGroup").is_empty() && !group.is_empty() {
                subject.insert("apiGroup".into(), group.into());
            }
        }
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let role = Field::at(object, &["roleRef"]);
        if role.get("apiGroup").text() != GROUP {
            faults.not_supported(&role.get("apiGroup"), &[GROUP]);
        }
        let kinds: &[&str] =
            if object.namespace().is_empty() { &["ClusterRole"] } else { &["ClusterRole", "Role"] };
        if !kinds.contains(&role.get("kind").text()) {
            faults.not_supported(&role.get("kind"), kinds);
        }
        faults.must_keep(&role.get("name"), name::path_segment);
        for subject in Field::at(object, &["subjects"]).items() {
            validate_subject(&subject, !object.namespace().is_empty(), &mut faults);
        }
        if let Some(old) = old
            && old.at(&["roleRef"]) != object.at(&["roleRef"])
        {
            faults.invalid(&role, "cannot change roleRef");
        }
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::path_segment(name)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn validate_subject(subject: &Field, is_namespaced: bool, faults: &mut Faults) {
    let (name, group) = (subject.get("name"), subject.get("apiGroup"));
    if name.text().is_empty() {
        faults.required(&name, "");
    }
    match subject.get("kind").text() {
        "ServiceAccount" => {
            faults.keeps(&name, name::dns_subdomain);
            if !group.text().is_empty() {
                faults.not_supported(&group, &[""]);
            }
            let namespace = subject.get("namespace");
            if namespace.text().is_empty() && !is_namespaced {
                faults.required(&namespace, "");
            }
        }
        "User" | "Group" => {
            if group.text() != GROUP {
                faults.not_supported(&group, &[GROUP]);
            }
        }
        _ => faults.not_supported(&subject.get("kind"), &["Group", "ServiceAccount", "User"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Strategy as _;

    fn binding(role: &str) -> Object {
        let mut object = Object::from_value(json!({
            "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": "ann"}],
        }))
        .unwrap();
        RoleBinding.set_defaults(&mut object);
        object
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let faults = RoleBinding.validate(&binding("edit"), Some(&binding("view")));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().ends_with(": cannot change roleRef"));
        assert_eq!(RoleBinding.validate(&binding("view"), Some(&binding("view"))), []);
    }

    #[test]
    fn a_rule_is_about_resources_or_urls() {
        let role = Object::from_value(json!({"rules": [
            {"verbs": ["get"]}, {"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]},
        ]}))
        .unwrap();
        let faults: Vec<String> = Role.validate(&role, None).iter().map(|it| it.field.clone()).collect();
        assert_eq!(faults, ["rules[0].apiGroups", "rules[0].resources", "rules[1].nonResourceURLs"]);
    }
}
