//! Nobody hands out more than they have: checks on writes of roles and bindings.
//!
//! Writing a role needs every permission in it, or the verb `escalate` on it; binding one needs every
//! permission in the role, or the verb `bind`.

use api::{Object, Status};
use serde_json::Value;

use super::{
    Question,
    policy::Policy,
    rule::{Rule, quoted},
};
use crate::request::User;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Who writes what.
pub struct Write<'a> {
    /// Who writes.
    pub user: &'a User,
    /// `roles` and so on.
    pub resource: &'a str,
    /// In which namespace; empty for the whole cluster.
    pub namespace: &'a str,
    /// The name in the URL. Who may escalate some roles by name may make them by PUT or apply, but not by POST: there
    /// their names stand in no URL.
    pub addressed: &'a str,
}

/// May the user write this object? Kinds other than roles and bindings are nobody's concern here.
pub fn check(
    policy: &Policy,
    write: &Write<'_>,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    if write.user.is_in("system:masters") || old.is_some_and(|old| is_for_collection(object, old)) {
        return Ok(());
    }
    match write.resource {
        "roles" | "clusterroles" => check_role(policy, write, object, old),
        "rolebindings" | "clusterrolebindings" => check_binding(policy, write, object),
        _ => Ok(()),
    }
}

fn check_role(policy: &Policy, write: &Write<'_>, role: &Object, old: Option<&Object>) -> Result<(), Status> {
    let Write { user, resource, namespace, addressed } = *write;
    if may(policy, user, "escalate", resource, namespace, addressed) {
        return Ok(());
    }
    hold(policy, user, namespace, &Rule::all_of(role)).map_err(|why| refused(resource, role.name(), &why))?;
    let aggregates = |role: &Object| !role.list(&["aggregationRule", "clusterRoleSelectors"]).is_empty();
    if aggregates(role) || old.is_some_and(aggregates) {
        let everything = || vec!["*".to_string()];
        let all =
            Rule { verbs: everything(), groups: everything(), resources: everything(), ..Rule::default() };
        let paths = Rule { verbs: everything(), urls: everything(), ..Rule::default() };
        if !missing(policy, user, "", &[all, paths]).is_empty() {
            return Err(refused(
                resource,
                role.name(),
                "must have cluster-admin privileges to use the aggregationRule",
            ));
        }
    }
    Ok(())
}

fn check_binding(policy: &Policy, write: &Write<'_>, binding: &Object) -> Result<(), Status> {
    let Write { user, resource, namespace, .. } = *write;
    let reference = binding.at(&["roleRef"]).unwrap_or(&Value::Null);
    let role = reference["name"].as_str().unwrap_or_default();
    let role_resource = match reference["kind"].as_str() {
        Some("ClusterRole") => "clusterroles",
        _ => "roles",
    };
    if may(policy, user, "bind", role_resource, namespace, role) {
        return Ok(());
    }
    let rules =
        policy.role(reference, namespace).ok_or_else(|| Status::not_found(GROUP, role_resource, role))?;
    hold(policy, user, namespace, rules).map_err(|why| refused(resource, binding.name(), &why))
}

/// Whether only that changes which the collector of garbage changes. All else counts: a label may gather a role into
/// another.
fn is_for_collection(object: &Object, old: &Object) -> bool {
    let rest = |object: &Object| {
        let mut rest = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            rest.remove(&["metadata", field]);
        }
        rest
    };
    rest(object) == rest(old)
}

/// Whether the user has all of `rules`; the error names what is missing, as upstream does.
fn hold(policy: &Policy, user: &User, namespace: &str, rules: &[Rule]) -> Result<(), String> {
    let missing = missing(policy, user, namespace, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
    lines.sort();
    lines.dedup();
    Err(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        lines.join("\n")
    ))
}

/// What of `rules` the user does not have; for one source rule in one piece, as it would be written.
fn missing(policy: &Policy, user: &User, namespace: &str, rules: &[Rule]) -> Vec<Rule> {
    let held: Vec<&Rule> = policy.rules_of(user, namespace).collect();
    let mut missing: Vec<Rule> = Vec::new();
    for atom in rules.iter().flat_map(Rule::atoms) {
        if held.iter().any(|rule| rule.covers(&atom)) {
            continue;
        }
        // Verbs on the same thing read better in one line; upstream does it for resources alone.
        let same = missing.iter_mut().find(|rule| {
            rule.urls.is_empty()
                && Rule { verbs: Vec::new(), ..(*rule).clone() } == Rule { verbs: Vec::new(), ..atom.clone() }
        });
        match same {
            Some(rule) => rule.verbs.extend(atom.verbs),
            None => missing.push(atom),
        }
    }
    missing
}

fn may(policy: &Policy, user: &User, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let question =
        Question { is_resource: true, verb, group: GROUP, resource, namespace, name, ..Question::default() };
    policy.allows(user, &question)
}

fn refused(resource: &str, name: &str, why: &str) -> Status {
    Status::forbidden(GROUP, resource, name, why)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{super::policy::Sources, *};

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn role(name: &str, verbs: &[&str], resource: &str) -> Object {
        object(json!({
            "metadata": {"name": name},
            "rules": [{"verbs": verbs, "apiGroups": ["" ], "resources": [resource]}],
        }))
    }

    /// Ann may read pods everywhere and write roles; that does not let her hand out more.
    fn policy() -> Policy {
        let binding = object(json!({
            "metadata": {"name": "ann"},
            "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "User", "name": "ann"}],
        }));
        Policy::compile(&Sources {
            cluster_roles: vec![
                Arc::new(role("reader", &["get", "list"], "pods")),
                Arc::new(role("secret-reader", &["get"], "secrets")),
            ],
            cluster_role_bindings: vec![Arc::new(binding)],
            ..Sources::default()
        })
    }

    /// A post.
    fn by<'a>(user: &'a User, resource: &'a str, namespace: &'a str) -> Write<'a> {
        Write { user, resource, namespace, addressed: "" }
    }

    #[test]
    fn a_name_in_a_rule_is_a_name_in_the_url() {
        let escalate = |names: Value| {
            let rule = json!({"verbs": ["escalate"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": names});
            let binding = json!({
                "metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "escalator"},
                "subjects": [{"kind": "User", "name": "eve"}],
            });
            Policy::compile(&Sources {
                cluster_roles: vec![Arc::new(object(
                    json!({"metadata": {"name": "escalator"}, "rules": [rule]}),
                ))],
                cluster_role_bindings: vec![Arc::new(object(binding))],
                ..Sources::default()
            })
        };
        let eve = User::new("eve", &[]);
        let may = |policy: &Policy, addressed: &str| {
            let write = Write { addressed, ..by(&eve, "clusterroles", "") };
            check(policy, &write, &role("x", &["delete"], "pods"), None).is_ok()
        };
        let named = escalate(json!(["x"]));
        assert!(!may(&named, "") && may(&named, "x") && !may(&named, "y"));
        assert!(may(&escalate(Value::Null), ""));
    }

    #[test]
    fn a_role_may_hold_what_its_writer_holds() {
        let ann = User::new("ann", &["system:authenticated"]);
        let write = |role: &Object| check(&policy(), &by(&ann, "clusterroles", ""), role, None);
        assert_eq!(write(&role("x", &["get"], "pods")), Ok(()));
        let refused = write(&role("x", &["get", "delete", "watch"], "pods")).unwrap_err();
        assert_eq!(refused.code, 403);
        assert_eq!(
            refused.message,
            "clusterroles.rbac.authorization.k8s.io \"x\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) \
             is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}"
        );
    }

    #[test]
    fn a_label_may_make_a_role_part_of_another() {
        let ann = User::new("ann", &[]);
        let old = role("x", &["delete"], "pods");
        let change = |path: &[&str], value: Value| {
            let mut new = old.clone();
            new.set(path, value);
            check(&policy(), &by(&ann, "clusterroles", ""), &new, Some(&old)).is_ok()
        };
        let label = "rbac.authorization.k8s.io/aggregate-to-view";
        assert!(!change(&["metadata", "labels", label], json!("true")));
        assert!(change(&["metadata", "finalizers"], json!(["example.com/wait"])));
    }

    #[test]
    fn whoever_may_bind_in_a_namespace_does_so_there_alone() {
        let rules = json!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["reader"]}]);
        let grantor = object(json!({"metadata": {"name": "grantor"}, "rules": rules}));
        let reference = json!({"kind": "ClusterRole", "name": "grantor"});
        let subjects = json!([{"kind": "User", "name": "bob"}]);
        let policy = Policy::compile(&Sources {
            cluster_roles: vec![Arc::new(grantor), Arc::new(role("reader", &["get"], "pods"))],
            role_bindings: vec![Arc::new(object(json!({
                "metadata": {"name": "b", "namespace": "a"}, "roleRef": reference, "subjects": subjects,
            })))],
            ..Sources::default()
        });
        let bind = |resource, namespace| {
            let binding = json!({
                "metadata": {"name": "c", "namespace": namespace},
                "roleRef": {"kind": "ClusterRole", "name": "reader"},
            });
            check(&policy, &by(&User::new("bob", &[]), resource, namespace), &object(binding), None).is_ok()
        };
        assert!(bind("rolebindings", "a"));
        assert!(!bind("rolebindings", "b") && !bind("clusterrolebindings", ""));
    }

    #[test]
    fn a_role_may_be_bound_by_those_who_hold_it() {
        let ann = User::new("ann", &[]);
        let bind = |role: &str| {
            let binding = object(json!({
                "metadata": {"name": "b", "namespace": "a"},
                "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": "bob"}],
            }));
            check(&policy(), &by(&ann, "rolebindings", "a"), &binding, None).map_err(|status| status.code)
        };
        assert_eq!(bind("reader"), Ok(()));
        assert_eq!(bind("secret-reader"), Err(403));
        assert_eq!(bind("gone"), Err(404));
    }
}
