//! FlowSchemas: which requests they mean. Pure.

use api::{Object, items};
use serde_json::Value;

use crate::request::{RequestInfo, User};

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What a FlowSchema says, read once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: String,
    /// Less goes first; among equals the name decides.
    pub(super) precedence: i64,
    pub(super) level: String,
    pub(super) distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// What makes two requests of one schema belong to different flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<Resources>,
    paths: Vec<Paths>,
}

#[derive(Clone, Debug, PartialEq)]
enum Subject {
    Anybody,
    User(String),
    Group(String),
    /// The beginning of the user names of a namespace's accounts.
    Accounts(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Resources {
    verbs: Words,
    groups: Words,
    resources: Words,
    namespaces: Words,
    of_cluster: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Paths {
    verbs: Words,
    paths: Words,
}

/// A list of words, or all there are.
#[derive(Clone, Debug, PartialEq)]
enum Words {
    All,
    Some(Vec<String>),
}

impl Schema {
    pub(super) fn of(object: &Object) -> Schema {
        let distinguisher = match object.text(&["spec", "distinguisherMethod", "type"]) {
            "ByUser" => Distinguisher::User,
            "ByNamespace" => Distinguisher::Namespace,
            _ => Distinguisher::Nothing,
        };
        Schema {
            name: object.name().to_string(),
            uid: object.uid().to_string(),
            precedence: object.number(&["spec", "matchingPrecedence"]).unwrap_or(1000),
            level: object.text(&["spec", "priorityLevelConfiguration", "name"]).to_string(),
            distinguisher,
            rules: object.list(&["spec", "rules"]).iter().map(Rule::of).collect(),
        }
    }

    /// Whether it means a request.
    pub(super) fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }

    /// What the request has that tells its flow from others.
    pub(super) fn flow<'a>(&self, user: &'a User, info: &'a RequestInfo) -> &'a str {
        match self.distinguisher {
            Distinguisher::Nothing => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace if info.is_resource => &info.namespace,
            Distinguisher::Namespace => "",
        }
    }
}

impl Rule {
    fn of(rule: &Value) -> Rule {
        let list = |key: &str| items(&rule[key]).iter();
        Rule {
            subjects: list("subjects").filter_map(Subject::of).collect(),
            resources: list("resourceRules").map(Resources::of).collect(),
            paths: list("nonResourceRules").map(Paths::of).collect(),
        }
    }

    fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.matches(user))
            && match info.is_resource {
                true => self.resources.iter().any(|resources| resources.matches(info)),
                false => self.paths.iter().any(|paths| paths.matches(info)),
            }
    }
}

impl Subject {
    fn of(subject: &Value) -> Option<Subject> {
        let text = |of: &str, key: &str| subject[of][key].as_str().unwrap_or_default().to_string();
        Some(match subject["kind"].as_str()? {
            "User" if text("user", "name") == "*" => Subject::Anybody,
            "User" => Subject::User(text("user", "name")),
            "Group" if text("group", "name") == "*" => Subject::Anybody,
            "Group" => Subject::Group(text("group", "name")),
            "ServiceAccount" => {
                let (namespace, name) = (text("serviceAccount", "namespace"), text("serviceAccount", "name"));
                match name.as_str() {
                    "*" => Subject::Accounts(format!("{SERVICE_ACCOUNT}{namespace}:")),
                    name => Subject::User(format!("{SERVICE_ACCOUNT}{namespace}:{name}")),
                }
            }
            _ => return None,
        })
    }

    fn matches(&self, user: &User) -> bool {
        match self {
            Subject::Anybody => true,
            Subject::User(name) => user.name == *name,
            Subject::Group(name) => user.is_in(name),
            Subject::Accounts(prefix) => user.name.starts_with(prefix.as_str()),
        }
    }
}

impl Resources {
    fn of(rule: &Value) -> Resources {
        Resources {
            verbs: Words::of(&rule["verbs"]),
            groups: Words::of(&rule["apiGroups"]),
            resources: Words::of(&rule["resources"]),
            namespaces: Words::of(&rule["namespaces"]),
            of_cluster: rule["clusterScope"] == true,
        }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let has_place = match info.namespace.as_str() {
            "" => self.of_cluster,
            namespace => self.namespaces.have(namespace),
        };
        has_place && self.verbs.have(info.verb) && self.groups.have(&info.group) && self.has_resource(info)
    }

    fn has_resource(&self, info: &RequestInfo) -> bool {
        match &self.resources {
            Words::All => true,
            Words::Some(words) => words.iter().any(|word| match word.split_once('/') {
                None => info.subresource.is_empty() && *word == info.resource,
                Some((resource, subresource)) => subresource == info.subresource && resource == info.resource,
            }),
        }
    }
}

impl Paths {
    fn of(rule: &Value) -> Paths {
        Paths { verbs: Words::of(&rule["verbs"]), paths: Words::of(&rule["nonResourceURLs"]) }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let is_below = |path: &String| match path.strip_suffix('*') {
            Some(prefix) => info.path.starts_with(prefix),
            None => info.path.trim_end_matches('/') == path.trim_end_matches('/'),
        };
        self.verbs.have(info.verb)
            && match &self.paths {
                Words::All => true,
                Words::Some(paths) => paths.iter().any(is_below),
            }
    }
}

impl Words {
    fn of(list: &Value) -> Words {
        let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        let words: Vec<String> = words.map(str::to_string).collect();
        if words.iter().any(|word| word == "*") { Words::All } else { Words::Some(words) }
    }

    fn have(&self, wanted: &str) -> bool {
        match self {
            Words::All => true,
            Words::Some(words) => words.iter().any(|word| word == wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::request::Query;

    fn schema(rule: Value) -> Schema {
        let object = json!({"metadata": {"name": "s"}, "spec": {"rules": [rule]}});
        Schema::of(&Object::from_value(object).unwrap())
    }

    fn info(method: Method, uri: &str) -> RequestInfo {
        let uri = uri.parse().unwrap();
        RequestInfo::read(&method, &uri, &Query::of(&uri).unwrap())
    }

    fn everything(subject: Value) -> Value {
        json!({
            "subjects": [subject],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        })
    }

    #[test]
    fn subjects_are_users_groups_and_accounts() {
        let alice = User::new("alice", &["devs"]);
        let account = User::new("system:serviceaccount:kube-system:builder", &[]);
        let request = info(Method::GET, "/api/v1/pods");
        for (subject, user, expected) in [
            (json!({"kind": "User", "user": {"name": "alice"}}), &alice, true),
            (json!({"kind": "User", "user": {"name": "bob"}}), &alice, false),
            (json!({"kind": "User", "user": {"name": "*"}}), &alice, true),
            (json!({"kind": "Group", "group": {"name": "devs"}}), &alice, true),
            (json!({"kind": "Group", "group": {"name": "ops"}}), &alice, false),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "builder"}}),
                &account,
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}),
                &account,
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube", "name": "*"}}),
                &account,
                false,
            ),
        ] {
            let schema = schema(everything(subject.clone()));
            assert_eq!(schema.matches(user, &request), expected, "{subject}");
        }
    }

    #[test]
    fn rules_name_verbs_groups_resources_and_places() {
        let anybody = json!({"kind": "Group", "group": {"name": "*"}});
        let schema = schema(json!({
            "subjects": [anybody],
            "resourceRules": [
                {"verbs": ["get", "update"], "apiGroups": [""], "resources": ["pods", "pods/status"], "namespaces": ["a"]},
                {"verbs": ["list"], "apiGroups": [""], "resources": ["nodes"], "clusterScope": true},
            ],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/logs/*"]}],
        }));
        let user = User::default();
        for (method, uri, expected) in [
            (Method::GET, "/api/v1/namespaces/a/pods/x", true),
            (Method::PUT, "/api/v1/namespaces/a/pods/x/status", true),
            (Method::GET, "/api/v1/namespaces/a/pods/x/log", false),
            (Method::GET, "/api/v1/namespaces/b/pods/x", false),
            (Method::DELETE, "/api/v1/namespaces/a/pods/x", false),
            (Method::GET, "/apis/apps/v1/namespaces/a/pods/x", false),
            (Method::GET, "/api/v1/nodes", true),
            (Method::GET, "/api/v1/pods", false),
            (Method::GET, "/healthz", true),
            (Method::GET, "/healthz/ping", false),
            (Method::GET, "/logs/x", true),
        ] {
            assert_eq!(schema.matches(&user, &info(method.clone(), uri)), expected, "{method} {uri}");
        }
    }

    #[test]
    fn flows_are_told_apart_as_the_schema_says() {
        let user = User::new("alice", &[]);
        let request = info(Method::GET, "/api/v1/namespaces/a/pods");
        let by = |method: &str| {
            let object =
                json!({"metadata": {"name": "s"}, "spec": {"distinguisherMethod": {"type": method}}});
            Schema::of(&Object::from_value(object).unwrap())
        };
        assert_eq!(by("ByUser").flow(&user, &request), "alice");
        assert_eq!(by("ByNamespace").flow(&user, &request), "a");
        assert_eq!(by("").flow(&user, &request), "");
    }
}
