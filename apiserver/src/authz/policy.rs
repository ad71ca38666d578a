//! All roles and bindings, compiled so that a question is a few hash look-ups.

use std::{collections::HashMap, sync::Arc};

use api::{Object, selector::LabelSelector};
use serde_json::Value;

use super::{Question, rule::Rule};
use crate::request::User;

/// How far roles that gather roles that gather roles are followed; ends circles.
const MAX_AGGREGATION_DEPTH: usize = 4;

/// The rules that each subject has, across the cluster and in each namespace.
#[derive(Default)]
pub struct Policy {
    cluster: Grants,
    namespaces: HashMap<String, Grants>,
    roles: Roles,
}

/// The objects that a policy is compiled from.
#[derive(Default)]
pub struct Sources {
    /// Every Role.
    pub roles: Vec<Arc<Object>>,
    /// Every ClusterRole.
    pub cluster_roles: Vec<Arc<Object>>,
    /// Every RoleBinding.
    pub role_bindings: Vec<Arc<Object>>,
    /// Every ClusterRoleBinding.
    pub cluster_role_bindings: Vec<Arc<Object>>,
}

/// Rules by subject.
#[derive(Default)]
struct Grants {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
    /// Bindings whose role is missing, with the subjects that miss it.
    dangling: Vec<(Subject, String)>,
}

/// What one binding gives one subject.
struct Grant {
    rules: Arc<[Rule]>,
    /// The binding, as upstream's reasons name it.
    origin: String,
}

#[derive(Default)]
struct Roles {
    cluster: HashMap<String, Arc<[Rule]>>,
    /// By namespace and name.
    namespaced: HashMap<(String, String), Arc<[Rule]>>,
}

#[derive(Clone)]
enum Subject {
    User(String),
    Group(String),
}

impl Policy {
    /// Compiles all roles and bindings.
    pub fn compile(sources: &Sources) -> Policy {
        let mut policy = Policy { roles: Roles::of(sources), ..Policy::default() };
        for binding in &sources.cluster_role_bindings {
            policy.cluster.add(binding, &policy.roles);
        }
        for binding in &sources.role_bindings {
            policy.namespaces.entry(binding.namespace().to_string()).or_default().add(binding, &policy.roles);
        }
        policy
    }

    /// Whether any rule allows it.
    pub fn allows(&self, user: &User, question: &Question<'_>) -> bool {
        self.origin_of(user, question).is_some()
    }

    /// The binding that allows it, if any: `ClusterRoleBinding "admins" of ClusterRole "admin" to Group "ops"`.
    pub fn origin_of<'a>(&'a self, user: &'a User, question: &Question<'_>) -> Option<&'a str> {
        let mut grants = self.grants_of(user, question.namespace);
        let grant = grants.find(|grant| grant.rules.iter().any(|rule| rule.allows(question)))?;
        Some(&grant.origin)
    }

    /// Every rule that the user has in a namespace (empty: those for the whole cluster alone).
    pub fn rules_of<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Rule> {
        self.grants_of(user, namespace).flat_map(|grant| grant.rules.iter())
    }

    fn grants_of<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let namespaced = (!namespace.is_empty()).then(|| self.namespaces.get(namespace)).flatten();
        std::iter::once(&self.cluster).chain(namespaced).flat_map(move |grants| grants.of(user))
    }

    /// Why the user may have less than the bindings say: roles that do not exist.
    pub fn complaints(&self, user: &User, namespace: &str) -> Vec<String> {
        let namespaced = self.namespaces.get(namespace);
        let grants = std::iter::once(&self.cluster).chain(namespaced);
        grants.flat_map(|grants| grants.complaints(user)).collect()
    }

    /// The rules behind a `roleRef`, seen from `namespace`; `None` when there is no such role.
    pub fn role(&self, reference: &Value, namespace: &str) -> Option<&Arc<[Rule]>> {
        self.roles.get(reference, namespace)
    }
}

impl Roles {
    fn of(sources: &Sources) -> Roles {
        let rules = |role: &Object| -> Arc<[Rule]> { Rule::all_of(role).into() };
        let cluster = sources.cluster_roles.iter().map(|role| {
            let rules: Arc<[Rule]> = aggregated(role, &sources.cluster_roles).into();
            (role.name().to_string(), rules)
        });
        let namespaced = sources
            .roles
            .iter()
            .map(|role| ((role.namespace().to_string(), role.name().to_string()), rules(role)));
        Roles { cluster: cluster.collect(), namespaced: namespaced.collect() }
    }

    fn get(&self, reference: &Value, namespace: &str) -> Option<&Arc<[Rule]>> {
        let name = reference["name"].as_str()?;
        match reference["kind"].as_str()? {
            "ClusterRole" => self.cluster.get(name),
            "Role" => self.namespaced.get(&(namespace.to_string(), name.to_string())),
            _ => None,
        }
    }
}

impl Grants {
    fn add(&mut self, binding: &Object, roles: &Roles) {
        let reference = binding.at(&["roleRef"]).unwrap_or(&Value::Null);
        let namespace = binding.namespace();
        let rules = roles.get(reference, namespace);
        for subject in
            binding.list(&["subjects"]).iter().filter_map(|subject| Subject::of(subject, namespace))
        {
            let (subject, shown) = subject;
            let Some(rules) = rules else {
                self.dangling.push((subject, not_found(reference)));
                continue;
            };
            let grant = Grant { rules: rules.clone(), origin: origin(binding, reference, &shown) };
            match subject {
                Subject::User(name) => self.users.entry(name).or_default().push(grant),
                Subject::Group(name) => self.groups.entry(name).or_default().push(grant),
            }
        }
    }

    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let own = self.users.get(&user.name).into_iter();
        let shared = user.groups.iter().filter_map(|group| self.groups.get(group));
        own.chain(shared).flatten()
    }

    fn complaints(&self, user: &User) -> impl Iterator<Item = String> {
        let concerns = |subject: &Subject| match subject {
            Subject::User(name) => *name == user.name,
            Subject::Group(name) => user.is_in(name),
        };
        self.dangling.iter().filter(move |(subject, _)| concerns(subject)).map(|(_, why)| why.clone())
    }
}

impl Subject {
    /// The subject, and how upstream's reasons name it.
    fn of(subject: &Value, namespace: &str) -> Option<(Subject, String)> {
        let name = subject["name"].as_str()?.to_string();
        let kind = subject["kind"].as_str()?;
        match kind {
            "User" => Some((Subject::User(name.clone()), format!("{kind} {name:?}"))),
            "Group" => Some((Subject::Group(name.clone()), format!("{kind} {name:?}"))),
            "ServiceAccount" => {
                let namespace =
                    subject["namespace"].as_str().filter(|text| !text.is_empty()).unwrap_or(namespace);
                let user = format!("system:serviceaccount:{namespace}:{name}");
                let shown = format!("{kind} {:?}", format!("{name}/{namespace}"));
                (!namespace.is_empty()).then_some((Subject::User(user), shown))
            }
            _ => None,
        }
    }
}

/// A binding in upstream's words.
fn origin(binding: &Object, reference: &Value, subject: &str) -> String {
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let (kind, name) = match binding.namespace() {
        "" => ("ClusterRoleBinding", binding.name().to_string()),
        namespace => ("RoleBinding", format!("{}/{namespace}", binding.name())),
    };
    format!("{kind} {name:?} of {} {:?} to {subject}", text("kind"), text("name"))
}

/// A role's own rules and those that its aggregation rule gathers, whether or not they were written down yet.
pub(crate) fn aggregated(role: &Object, all: &[Arc<Object>]) -> Vec<Rule> {
    gathered(role, all, MAX_AGGREGATION_DEPTH)
}

fn gathered(role: &Object, all: &[Arc<Object>], depth: usize) -> Vec<Rule> {
    let mut rules = Rule::all_of(role);
    let selectors: Vec<LabelSelector> = role
        .list(&["aggregationRule", "clusterRoleSelectors"])
        .iter()
        .filter_map(|selector| LabelSelector::from_json(selector).ok())
        .collect();
    let gathers = |other: &Object| {
        other.name() != role.name() && selectors.iter().any(|selector| selector.matches_object(other))
    };
    for other in all.iter().filter(|other| depth > 0 && gathers(other)) {
        for rule in gathered(other, all, depth - 1) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules
}

fn not_found(reference: &Value) -> String {
    let kind = reference["kind"].as_str().unwrap_or_default().to_lowercase();
    let name = reference["name"].as_str().unwrap_or_default();
    format!("{kind}.rbac.authorization.k8s.io {name:?} not found")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Arc<Object> {
        Arc::new(Object::from_value(value).unwrap())
    }

    fn reader(kind: &str, namespace: &str) -> Arc<Object> {
        object(json!({
            "kind": kind,
            "metadata": {"name": "reader", "namespace": namespace},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
        }))
    }

    fn binding(namespace: &str, role_kind: &str, role: &str, subject: Value) -> Arc<Object> {
        object(json!({
            "metadata": {"name": "b", "namespace": namespace},
            "roleRef": {"kind": role_kind, "name": role},
            "subjects": [subject],
        }))
    }

    fn get_pod(namespace: &str) -> Question<'_> {
        Question {
            is_resource: true,
            verb: "get",
            resource: "pods",
            namespace,
            name: "a",
            ..Question::default()
        }
    }

    #[test]
    fn a_cluster_binding_holds_everywhere_and_a_role_binding_in_its_namespace() {
        let policy = Policy::compile(&Sources {
            cluster_roles: vec![reader("ClusterRole", "")],
            role_bindings: vec![binding(
                "a",
                "ClusterRole",
                "reader",
                json!({"kind": "User", "name": "ann"}),
            )],
            cluster_role_bindings: vec![binding(
                "",
                "ClusterRole",
                "reader",
                json!({"kind": "Group", "name": "ops"}),
            )],
            ..Sources::default()
        });
        let (ann, bob) = (User::new("ann", &[]), User::new("bob", &["ops"]));
        assert!(policy.allows(&ann, &get_pod("a")) && !policy.allows(&ann, &get_pod("b")));
        assert!(!policy.allows(&ann, &get_pod("")));
        assert!(policy.allows(&bob, &get_pod("b")) && policy.allows(&bob, &get_pod("")));
        let origin = |user, namespace| policy.origin_of(user, &get_pod(namespace)).unwrap_or_default();
        assert_eq!(origin(&ann, "a"), r#"RoleBinding "b/a" of ClusterRole "reader" to User "ann""#);
        assert_eq!(origin(&bob, "a"), r#"ClusterRoleBinding "b" of ClusterRole "reader" to Group "ops""#);
    }

    #[test]
    fn a_service_account_is_a_user_of_its_namespace() {
        let subject = json!({"kind": "ServiceAccount", "name": "web"});
        let policy = Policy::compile(&Sources {
            roles: vec![reader("Role", "a")],
            role_bindings: vec![binding("a", "Role", "reader", subject)],
            ..Sources::default()
        });
        assert!(policy.allows(&User::new("system:serviceaccount:a:web", &[]), &get_pod("a")));
        assert!(!policy.allows(&User::new("system:serviceaccount:b:web", &[]), &get_pod("a")));
    }

    #[test]
    fn a_binding_to_a_missing_role_grants_nothing_and_says_so() {
        let subject = json!({"kind": "User", "name": "ann"});
        let policy = Policy::compile(&Sources {
            cluster_role_bindings: vec![binding("", "ClusterRole", "gone", subject)],
            ..Sources::default()
        });
        let ann = User::new("ann", &[]);
        assert!(!policy.allows(&ann, &get_pod("a")));
        assert_eq!(
            policy.complaints(&ann, "a"),
            [r#"clusterrole.rbac.authorization.k8s.io "gone" not found"#]
        );
    }
}
