//! One RBAC rule: what it allows, and whether it covers another.

use std::fmt;

use api::items;
use serde_json::{Value, json};

use super::Question;

/// What a role allows in one breath; `*` stands for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Such as `get`.
    pub verbs: Vec<String>,
    /// API groups; the core group is the empty text.
    pub groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`.
    pub resources: Vec<String>,
    /// Empty: any name.
    pub names: Vec<String>,
    /// Paths outside the resource API, a `*` at the end stands for any rest.
    pub urls: Vec<String>,
}

impl Rule {
    /// A rule as it stands in a Role.
    pub fn from_json(rule: &Value) -> Rule {
        Rule {
            verbs: texts(&rule["verbs"]),
            groups: texts(&rule["apiGroups"]),
            resources: texts(&rule["resources"]),
            names: texts(&rule["resourceNames"]),
            urls: texts(&rule["nonResourceURLs"]),
        }
    }

    /// The rules of a Role or ClusterRole.
    pub fn all_of(role: &api::Object) -> Vec<Rule> {
        role.list(&["rules"]).iter().map(Rule::from_json).collect()
    }

    /// The rule as it stands in a Role.
    pub fn to_json(&self) -> Value {
        let mut rule = json!({"verbs": self.verbs});
        let lists = [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                rule[key] = json!(list);
            }
        }
        rule
    }

    /// Whether the rule allows what is asked.
    pub fn allows(&self, question: &Question<'_>) -> bool {
        if !has(&self.verbs, question.verb) {
            return false;
        }
        if !question.is_resource {
            return self.urls.iter().any(|url| url_covers(url, question.path));
        }
        has(&self.groups, question.group)
            && self
                .resources
                .iter()
                .any(|rule| resource_matches(rule, question.resource, question.subresource))
            && (self.names.is_empty() || self.names.iter().any(|name| name == question.name))
    }

    /// The smallest rules that together say the same: one verb, group, resource and name each.
    pub fn atoms(&self) -> Vec<Rule> {
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            let verbs = vec![verb.clone()];
            for url in &self.urls {
                atoms.push(Rule { verbs: verbs.clone(), urls: vec![url.clone()], ..Rule::default() });
            }
            for (group, resource) in pairs(&self.groups, &self.resources) {
                let atom = Rule {
                    verbs: verbs.clone(),
                    groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                };
                match self.names.as_slice() {
                    [] => atoms.push(atom),
                    names => atoms
                        .extend(names.iter().map(|name| Rule { names: vec![name.clone()], ..atom.clone() })),
                }
            }
        }
        atoms
    }

    /// Whether everything that the atom `asked` allows is allowed here as well.
    pub fn covers(&self, asked: &Rule) -> bool {
        asked.verbs.iter().all(|verb| has(&self.verbs, verb))
            && asked.groups.iter().all(|group| has(&self.groups, group))
            && asked.resources.iter().all(|resource| {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                self.resources.iter().any(|rule| resource_matches(rule, resource, subresource))
            })
            && (self.names.is_empty()
                || !asked.names.is_empty() && asked.names.iter().all(|name| self.names.contains(name)))
            && asked.urls.iter().all(|url| self.urls.iter().any(|rule| url_covers(rule, url)))
    }
}

/// As upstream prints rules in messages: Go's `%q` of each list.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        let parts = lists.iter().filter(|(_, list)| !list.is_empty());
        let texts: Vec<String> = parts.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
        write!(f, "{{{}}}", texts.join(", "))
    }
}

/// `["a" "b"]`, Go's `%q` of a list of texts.
pub(crate) fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    match rule.split_once('/') {
        _ if rule == "*" => true,
        None => subresource.is_empty() && rule == resource,
        Some((parent, child)) => {
            !subresource.is_empty() && child == subresource && (parent == "*" || parent == resource)
        }
    }
}

fn url_covers(rule: &str, url: &str) -> bool {
    rule == "*" || rule == url || rule.strip_suffix('*').is_some_and(|prefix| url.starts_with(prefix))
}

fn pairs<'a>(first: &'a [String], second: &'a [String]) -> impl Iterator<Item = (&'a String, &'a String)> {
    first.iter().flat_map(move |one| second.iter().map(move |other| (one, other)))
}

fn texts(value: &Value) -> Vec<String> {
    items(value).iter().filter_map(Value::as_str).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &[&str], resources: &str) -> Rule {
        let words = |text: &str| text.split_whitespace().map(str::to_string).collect();
        Rule {
            verbs: words(verbs),
            groups: groups.iter().map(ToString::to_string).collect(),
            resources: words(resources),
            ..Rule::default()
        }
    }

    fn request<'a>(verb: &'a str, resource: &'a str, subresource: &'a str, name: &'a str) -> Question<'a> {
        Question { is_resource: true, verb, resource, subresource, name, ..Question::default() }
    }

    #[test]
    fn a_subresource_needs_a_rule_of_its_own() {
        let pods = rule("get", &[""], "pods");
        assert!(pods.allows(&request("get", "pods", "", "a")));
        assert!(!pods.allows(&request("get", "pods", "log", "a")));
        assert!(rule("get", &[""], "pods/log").allows(&request("get", "pods", "log", "a")));
        assert!(rule("get", &["*"], "*/log").allows(&request("get", "pods", "log", "a")));
        assert!(rule("*", &["*"], "*").allows(&request("get", "pods", "log", "a")));
        assert!(!rule("get", &["apps"], "pods").allows(&request("get", "pods", "", "a")));
    }

    #[test]
    fn names_narrow_a_rule() {
        let named = Rule { names: vec!["a".into()], ..rule("get list", &[""], "secrets") };
        assert!(named.allows(&request("get", "secrets", "", "a")));
        assert!(!named.allows(&request("get", "secrets", "", "b")));
        assert!(!named.allows(&request("list", "secrets", "", "")));
    }

    #[test]
    fn urls_match_exactly_or_by_prefix() {
        let info = |path: &'static str| Question { verb: "get", path, ..Question::default() };
        let rule = |url: &str| Rule { verbs: vec!["get".into()], urls: vec![url.into()], ..Rule::default() };
        assert!(rule("/healthz").allows(&info("/healthz")));
        assert!(!rule("/healthz").allows(&info("/healthz/ping")));
        assert!(rule("/apis/*").allows(&info("/apis/apps/v1")));
        assert!(rule("*").allows(&info("/metrics")));
    }

    #[test]
    fn a_rule_covers_what_is_narrower() {
        let held = rule("get list", &["", "apps"], "pods deployments");
        let narrower = Rule { names: vec!["a".into()], ..rule("get", &[""], "pods") };
        assert!(narrower.atoms().iter().all(|atom| held.covers(atom)));
        let wider = rule("get delete", &[""], "pods");
        let missing: Vec<String> =
            wider.atoms().iter().filter(|atom| !held.covers(atom)).map(ToString::to_string).collect();
        assert_eq!(missing, [r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#]);
        let named = Rule { names: vec!["a".into()], ..rule("get", &[""], "pods") };
        assert!(!named.covers(&rule("get", &[""], "pods")));
    }
}
