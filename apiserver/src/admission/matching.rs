//! Which requests a webhook or a policy is meant for: rules about resources, selectors, and `matchPolicy`.
//!
//! One reading serves webhooks (`rules`, `namespaceSelector`, ...) and policies (`matchConstraints`, `matchResources`).
//! [`Criteria::matches`] is pure: the namespace, and the other versions of the resource, are arguments.

use api::{Kind, Object, Status, Verbs, items, selector::LabelSelector};
use serde_json::Value;

use crate::{
    hooks::{Attributes, Operation},
    registry::Kinds,
};

/// What a hook wants to see.
#[derive(Clone, Debug)]
pub(crate) struct Criteria {
    /// None where every resource is meant.
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    namespaces: LabelSelector,
    objects: LabelSelector,
    is_exact: bool,
}

/// One `rule`: operations, resources, and for policies names.
#[derive(Clone, Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

/// A resource under one of the names that it has.
#[derive(Clone, Copy)]
struct Place<'a> {
    attributes: &'a Attributes<'a>,
    kind: &'static Kind,
}

impl Criteria {
    /// The criteria of one entry of a webhook configuration, which sees nothing without rules.
    pub(crate) fn of_webhook(webhook: &Value) -> Result<Criteria, String> {
        Criteria::read(webhook, Some(Rule::list(&webhook["rules"])))
    }

    /// Those of a policy's `matchConstraints` or a binding's `matchResources`, which mean every resource when there
    /// are no rules.
    pub(crate) fn of_policy(resources: &Value) -> Result<Criteria, String> {
        let rules = Rule::list(&resources["resourceRules"]);
        Criteria::read(resources, (!rules.is_empty()).then_some(rules))
    }

    fn read(source: &Value, rules: Option<Vec<Rule>>) -> Result<Criteria, String> {
        let selector = |field: &str| match &source[field] {
            Value::Null => Ok(LabelSelector::everything()),
            selector => LabelSelector::from_json(selector),
        };
        Ok(Criteria {
            rules,
            excluded: Rule::list(&source["excludeResourceRules"]),
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
            is_exact: source["matchPolicy"] == "Exact",
        })
    }

    /// The kind in which the hook wants to see the object, when it wants to see it at all. `others` are the other
    /// rows of the same objects ([`equivalents`]); `namespace` is the one the object is in, if it is in one.
    pub(crate) fn matches(
        &self,
        attributes: &Attributes<'_>,
        others: &[&'static Kind],
        namespace: Option<&Object>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Option<&'static Kind>, Status> {
        // A namespace that is not there is an error only for those whom the rest would concern.
        let is_in_namespace = self.matches_namespace(attributes, namespace, object, old);
        if matches!(is_in_namespace, Ok(false)) || !self.matches_object(object, old) {
            return Ok(None);
        }
        if self.find(&self.excluded, attributes, others).is_some() {
            return Ok(None);
        }
        let found = match &self.rules {
            None => Some(attributes.kind),
            Some(rules) => self.find(rules, attributes, others),
        };
        match found {
            None => Ok(None),
            Some(kind) => is_in_namespace.map(|_| Some(kind)),
        }
    }

    /// The first name of the resource that a rule knows.
    fn find(
        &self,
        rules: &[Rule],
        attributes: &Attributes<'_>,
        others: &[&'static Kind],
    ) -> Option<&'static Kind> {
        let knows = |kind: &&'static Kind| {
            let place = Place { attributes, kind };
            rules.iter().any(|rule| rule.matches(place))
        };
        let others = if self.is_exact { &[] } else { others };
        std::iter::once(attributes.kind).chain(others.iter().copied()).find(knows)
    }

    fn matches_namespace(
        &self,
        attributes: &Attributes<'_>,
        namespace: Option<&Object>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<bool, Status> {
        if self.namespaces.is_everything() {
            return Ok(true);
        }
        if is_namespace(attributes.kind) {
            // The labels that it will have; on deletion those it has.
            let is_itself = attributes.subresource.is_empty();
            let shown = if is_itself { object.or(old) } else { namespace.or(old) };
            return Ok(shown.is_none_or(|namespace| self.namespaces.matches_object(namespace)));
        }
        match namespace {
            Some(namespace) => Ok(self.namespaces.matches_object(namespace)),
            // Nobody is exempt for what belongs to the whole cluster.
            None if attributes.namespace.is_empty() => Ok(true),
            None => Err(Status::not_found("", "namespaces", attributes.namespace)),
        }
    }

    /// Either state of the object is enough: nobody gets away by taking a label off.
    fn matches_object(&self, object: Option<&Object>, old: Option<&Object>) -> bool {
        self.objects.is_everything()
            || [object, old].into_iter().flatten().any(|object| self.objects.matches_object(object))
    }
}

impl Rule {
    fn list(rules: &Value) -> Vec<Rule> {
        items(rules).iter().map(Rule::read).collect()
    }

    fn read(rule: &Value) -> Rule {
        let texts = |field: &str| -> Vec<String> {
            let texts = items(&rule[field]).iter();
            texts.filter_map(|text| text.as_str().map(str::to_string)).collect()
        };
        Rule {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            scope: rule["scope"].as_str().unwrap_or("*").to_string(),
        }
    }

    fn matches(&self, place: Place<'_>) -> bool {
        let Place { attributes, kind } = place;
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        has(&self.operations, word(attributes.operation))
            && has(&self.groups, kind.group)
            && has(&self.versions, kind.version)
            && self.resources.iter().any(|resource| is_meant(resource, kind.plural, attributes.subresource))
            && self.matches_scope(attributes)
            && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name))
    }

    fn matches_scope(&self, attributes: &Attributes<'_>) -> bool {
        let is_of_cluster = attributes.namespace.is_empty() || is_namespace(attributes.kind);
        match self.scope.as_str() {
            "Namespaced" => !is_of_cluster,
            "Cluster" => is_of_cluster,
            _ => true,
        }
    }
}

/// `pods`, `pods/status`, `pods/*`, `*/scale`, `*`, `*/*`. Without a slash the object itself is meant, no subresource.
fn is_meant(resource: &str, plural: &str, subresource: &str) -> bool {
    let (name, part) = resource.split_once('/').unwrap_or((resource, ""));
    (name == "*" || name == plural) && (part == "*" || part == subresource)
}

fn is_namespace(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "namespaces"
}

/// The other names of the same objects, such as `events.k8s.io/v1` for core Events, and the other served versions
/// of a custom resource.
pub(crate) fn equivalents(kinds: &Kinds, attributes: &Attributes<'_>) -> Vec<&'static Kind> {
    let kind = attributes.kind;
    let has_part = |other: &Kind| match attributes.subresource {
        "" => true,
        "status" => other.status,
        "scale" => other.scale.is_some(),
        part => other.subresources.contains(&part),
    };
    let is_other = |other: &&'static Kind| {
        other.storage == kind.storage
            && (other.group, other.version) != (kind.group, kind.version)
            && has_part(other)
    };
    kinds.all().into_iter().filter(is_other).collect()
}

const GROUP: &str = "admissionregistration.k8s.io";

/// Whether a request is about the configuration of admission itself, which no webhook may get hold of: nobody could
/// repair it.
pub(crate) fn is_exempt(kind: &Kind) -> bool {
    kind.group == GROUP
}

/// Whether a request is no policy's business: about policies themselves, or one of the questions without whose answers
/// nobody could put things right again. Webhooks are as any other object to them.
pub(crate) fn is_exempt_from_policies(kind: &Kind) -> bool {
    const POLICIES: [&str; 4] = [
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ];
    match kind.group {
        GROUP => POLICIES.contains(&kind.plural),
        "authentication.k8s.io" | "authorization.k8s.io" => kind.verbs == Verbs::Create,
        _ => false,
    }
}

/// An operation as rules and reviews write it.
pub(crate) fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::User;
    use api::kinds;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    /// What `criteria` says of a write to `group/version/plural[/subresource]` called `name`.
    fn seen_as(criteria: &Criteria, resource: &str, operation: Operation) -> Option<String> {
        let mut parts = resource.split('/');
        let mut next = || parts.next().unwrap_or_default();
        let kind = kinds::find(next(), next(), next()).unwrap();
        let user = User::default();
        let namespace = if kind.is_namespaced() { "prod" } else { "" };
        let attributes = Attributes {
            user: &user,
            operation,
            kind,
            subresource: next(),
            namespace,
            name: "web",
            addressed: "",
            dry_run: false,
            options: &Value::Null,
            deadline: None,
        };
        let prod = object(json!({"metadata": {"name": "prod", "labels": {"tier": "prod"}}}));
        let namespace = kind.is_namespaced().then_some(&prod);
        let new = object(json!({"metadata": {"name": "web", "labels": {"app": "new"}}}));
        let old = object(json!({"metadata": {"name": "web", "labels": {"app": "old"}}}));
        let others = equivalents(&Kinds::default(), &attributes);
        let found = criteria.matches(&attributes, &others, namespace, Some(&new), Some(&old)).unwrap();
        found.map(|kind| format!("{}/{}", kind.api_version(), kind.plural))
    }

    fn rule(groups: &str, versions: &str, resources: &[&str]) -> Value {
        json!({"operations": ["CREATE", "UPDATE"], "apiGroups": [groups], "apiVersions": [versions], "resources": resources})
    }

    fn webhook(rules: Value, more: Value) -> Criteria {
        let mut webhook = json!({"rules": rules});
        webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Criteria::of_webhook(&webhook).unwrap()
    }

    #[test]
    fn rules_mean_operations_resources_and_subresources() {
        let cases = [
            (rule("", "v1", &["pods"]), "/v1/pods", true),
            (rule("", "v1", &["pods"]), "/v1/pods/status", false),
            (rule("", "v1", &["pods/*"]), "/v1/pods", true),
            (rule("", "v1", &["pods/*"]), "/v1/pods/status", true),
            (rule("", "v1", &["*/status"]), "/v1/pods/status", true),
            (rule("", "v1", &["*/status"]), "/v1/pods", false),
            (rule("*", "*", &["*"]), "/v1/pods", true),
            (rule("*", "*", &["*"]), "/v1/pods/status", false),
            (rule("*", "*", &["*/*"]), "/v1/pods/status", true),
            (rule("apps", "v1", &["pods"]), "/v1/pods", false),
            (rule("", "v2", &["pods"]), "/v1/pods", false),
        ];
        for (rule, resource, expected) in cases {
            let criteria = webhook(json!([rule]), json!({}));
            let found = seen_as(&criteria, resource, Operation::Create);
            assert_eq!(found.is_some(), expected, "{rule} {resource}");
        }
        let criteria = webhook(json!([rule("", "v1", &["pods"])]), json!({}));
        assert_eq!(seen_as(&criteria, "/v1/pods", Operation::Delete), None);
    }

    #[test]
    fn policies_are_for_webhooks_but_not_for_policies() {
        let kinds = kinds::KINDS.iter().filter(|kind| kind.group == GROUP);
        let (mut policies, mut others) = (0, 0);
        for kind in kinds {
            assert!(is_exempt(kind), "{}", kind.plural);
            let is_policy = kind.plural.contains("policies") || kind.plural.contains("policybindings");
            assert_eq!(is_exempt_from_policies(kind), is_policy, "{}", kind.plural);
            *if is_policy { &mut policies } else { &mut others } += 1;
        }
        assert!(policies >= 4 && others >= 2, "{policies} {others}");
        assert!(!is_exempt_from_policies(kinds::find("", "v1", "pods").unwrap()));
        let review = kinds::find("authorization.k8s.io", "v1", "subjectaccessreviews").unwrap();
        assert!(is_exempt_from_policies(review) && !is_exempt(review));
    }

    #[test]
    fn a_policy_without_rules_means_everything_and_a_webhook_nothing() {
        let policy = Criteria::of_policy(&Value::Null).unwrap();
        assert!(seen_as(&policy, "/v1/pods", Operation::Delete).is_some());
        let webhook = Criteria::of_webhook(&json!({})).unwrap();
        assert_eq!(seen_as(&webhook, "/v1/pods", Operation::Create), None);
    }

    #[test]
    fn exclusion_and_names_narrow_a_policy() {
        let mut excluded = rule("", "v1", &["pods"]);
        excluded["resourceNames"] = json!(["web"]);
        let policy = json!({"resourceRules": [rule("", "v1", &["*"])], "excludeResourceRules": [excluded]});
        let criteria = Criteria::of_policy(&policy).unwrap();
        assert_eq!(seen_as(&criteria, "/v1/pods", Operation::Create), None);
        assert!(seen_as(&criteria, "/v1/secrets", Operation::Create).is_some());
        let mut named = rule("", "v1", &["*"]);
        named["resourceNames"] = json!(["other"]);
        let criteria = Criteria::of_policy(&json!({"resourceRules": [named]})).unwrap();
        assert_eq!(seen_as(&criteria, "/v1/secrets", Operation::Create), None);
    }

    #[test]
    fn scope_and_selectors_narrow_a_rule() {
        let mut scoped = rule("*", "*", &["*"]);
        scoped["scope"] = "Cluster".into();
        let criteria = webhook(json!([scoped]), json!({}));
        assert_eq!(seen_as(&criteria, "/v1/pods", Operation::Create), None);
        assert!(seen_as(&criteria, "/v1/namespaces", Operation::Create).is_some());
        assert!(seen_as(&criteria, "/v1/nodes", Operation::Create).is_some());

        let cases = [
            (json!({"namespaceSelector": {"matchLabels": {"tier": "prod"}}}), true),
            (json!({"namespaceSelector": {"matchLabels": {"tier": "test"}}}), false),
            (json!({"objectSelector": {"matchLabels": {"app": "new"}}}), true),
            (json!({"objectSelector": {"matchLabels": {"app": "old"}}}), true),
            (json!({"objectSelector": {"matchLabels": {"app": "none"}}}), false),
        ];
        for (more, expected) in cases {
            let criteria = webhook(json!([rule("", "v1", &["pods"])]), more.clone());
            assert_eq!(seen_as(&criteria, "/v1/pods", Operation::Create).is_some(), expected, "{more}");
        }
        let elsewhere = json!({"namespaceSelector": {"matchLabels": {"tier": "test"}}});
        let criteria = webhook(json!([rule("*", "*", &["*"])]), elsewhere);
        assert!(seen_as(&criteria, "/v1/nodes", Operation::Create).is_some(), "not in a namespace at all");
        assert_eq!(seen_as(&criteria, "/v1/namespaces", Operation::Create), None, "by its own labels");
    }

    #[test]
    fn the_same_object_is_seen_under_its_other_name_unless_exactly_one_is_meant() {
        let rules = json!([rule("events.k8s.io", "v1", &["events"])]);
        let others = webhook(json!([rule("autoscaling", "v2", &["horizontalpodautoscalers"])]), json!({}));
        let found = seen_as(&others, "autoscaling/v1/horizontalpodautoscalers", Operation::Create);
        assert_eq!(found.as_deref(), Some("autoscaling/v2/horizontalpodautoscalers"));
        let exact = webhook(rules, json!({"matchPolicy": "Exact"}));
        assert_eq!(seen_as(&exact, "/v1/events", Operation::Create), None);
    }

    #[test]
    fn a_missing_namespace_is_an_error_for_those_concerned_only() {
        let kind = kinds::find("", "v1", "pods").unwrap();
        let user = User::default();
        let (operation, namespace) = (Operation::Create, "gone");
        let attributes = Attributes {
            user: &user,
            operation,
            kind,
            subresource: "",
            namespace,
            name: "web",
            addressed: "",
            dry_run: false,
            options: &Value::Null,
            deadline: None,
        };
        let selector = json!({"namespaceSelector": {"matchLabels": {"tier": "prod"}}});
        let concerned = webhook(json!([rule("", "v1", &["pods"])]), selector.clone());
        let found = concerned.matches(&attributes, &[], None, None, None);
        assert!(found.is_err_and(|status| status.reason == "NotFound"));
        let other = webhook(json!([rule("", "v1", &["secrets"])]), selector);
        assert!(other.matches(&attributes, &[], None, None, None).unwrap().is_none());
    }
}
