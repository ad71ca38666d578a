//! FlowSchemas and PriorityLevelConfigurations: who is served when the API server is asked too much.

use serde_json::{Value, json};

use super::check::{Faults, Field};
use super::fill::Fill;
use super::status;
use crate::{FieldError, Object, name};

/// The schema and the level that take what must never wait.
const EXEMPT: &str = "exempt";
/// The schema and the level of what nothing else takes.
const CATCH_ALL: &str = "catch-all";

/// What the spec of a schema has to be without which not every request is classified; nothing for other names.
pub fn mandatory_schema(name: &str) -> Option<Value> {
    let groups = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
    };
    let everything = |groups: Vec<Value>| {
        let all = ["*"];
        let resources = json!({"verbs": all, "apiGroups": all, "resources": all, "namespaces": all, "clusterScope": true});
        let paths = json!({"verbs": all, "nonResourceURLs": all});
        json!([{"subjects": groups, "resourceRules": [resources], "nonResourceRules": [paths]}])
    };
    match name {
        EXEMPT => Some(json!({
            "priorityLevelConfiguration": {"name": name},
            "matchingPrecedence": 1,
            "rules": everything(groups(&["system:masters"])),
        })),
        CATCH_ALL => Some(json!({
            "priorityLevelConfiguration": {"name": name},
            "matchingPrecedence": 10_000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": everything(groups(&["system:unauthenticated", "system:authenticated"])),
        })),
        _ => None,
    }
}

/// The same for a level. How many seats the exempt level may lend is the administrator's, though.
pub fn mandatory_level(name: &str) -> Option<Value> {
    match name {
        EXEMPT => {
            Some(json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}))
        }
        CATCH_ALL => Some(json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
        }})),
        _ => None,
    }
}

/// Rules of FlowSchemas.
pub struct FlowSchema;

impl crate::Strategy for FlowSchema {
    fn row_rank(&self) -> Option<fn(&Object) -> i64> {
        Some(|schema| schema.number(&["spec", "matchingPrecedence"]).unwrap_or_default())
    }

    fn set_defaults(&self, object: &mut Object) {
        object.map_mut(&["spec"]).fill_zero("matchingPrecedence", 1000);
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        status::distinct_conditions(object)
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let precedence = spec.get("matchingPrecedence");
        match precedence.number().unwrap_or_default() {
            number if number <= 0 => faults.invalid(&precedence, "must be a positive value"),
            number if number > 10_000 => {
                faults.invalid(&precedence, "must not be greater than 10000");
            }
            1 if object.name() != EXEMPT => {
                faults.invalid(&precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
            }
            _ => {}
        }
        let method = spec.get("distinguisherMethod");
        if method.is_set() {
            faults.must_be_one_of(&method.get("type"), &["ByNamespace", "ByUser"]);
        }
        let level = spec.get("priorityLevelConfiguration").get("name");
        match level.text() {
            "" => faults.required(&level, "must reference a priority level"),
            _ => faults.keeps(&level, name::dns_subdomain),
        }
        for rule in spec.get("rules").items() {
            validate_rule(&rule, &mut faults);
        }
        if mandatory_schema(object.name()).is_some_and(|fixed| fixed != *spec.value) {
            faults.invalid(&spec, format!("spec of '{}' must equal the fixed value", object.name()));
        }
        faults.0
    }

    fn status_is_apart(&self) -> bool {
        true
    }
}

fn validate_rule(rule: &Field, faults: &mut Faults) {
    let subjects = rule.get("subjects");
    if subjects.is_empty() {
        faults.required(&subjects, "subjects must contain at least one value");
    }
    subjects.items().for_each(|subject| validate_subject(&subject, faults));
    let (resources, paths) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        faults.required(rule, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for resource in resources.items() {
        validate_verbs(&resource.get("verbs"), faults);
        let groups = resource.get("apiGroups");
        validate_words(&groups, "resource rules must supply at least one api group", "api groups", faults);
        let resources = resource.get("resources");
        validate_words(&resources, "resource rules must supply at least one resource", "resources", faults);
        let namespaces = resource.get("namespaces");
        if namespaces.is_empty() && !resource.get("clusterScope").is_true() {
            faults.required(
                &namespaces,
                "resource rules that are not cluster scoped must supply at least one namespace",
            );
        }
        validate_alone(&namespaces, "namespaces", faults);
        for namespace in resource.get("namespaces").items().filter(|namespace| namespace.text() != "*") {
            if let Err(message) = name::dns_label(namespace.text()) {
                let text = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                faults.invalid(&namespace, text);
            }
        }
    }
    for path in paths.items() {
        validate_verbs(&path.get("verbs"), faults);
        let urls = path.get("nonResourceURLs");
        validate_words(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", faults);
        path.get("nonResourceURLs").items().for_each(|path| validate_path(&path, faults));
    }
}

fn validate_subject(subject: &Field, faults: &mut Faults) {
    let kind = subject.get("kind");
    for (name, part) in [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")] {
        let part = subject.get(part);
        let is_meant = kind.text() == name;
        if is_meant && !part.is_set() {
            faults.required(&part, &format!("{} is required when subject kind is '{name}'", word(name)));
        } else if is_meant && name == "ServiceAccount" {
            match part.get("name").text() {
                "*" => {}
                _ => faults.must_keep(&part.get("name"), name::dns_subdomain),
            }
            faults.must_keep(&part.get("namespace"), name::dns_label);
        } else if is_meant {
            faults.must_be_given(&part.get("name"));
        } else if part.is_set() {
            faults.forbidden(&part, format!("{} is forbidden when subject kind is not '{name}'", word(name)));
        }
    }
    faults.must_be_one_of(&kind, &["Group", "ServiceAccount", "User"]);
}

fn word(kind: &str) -> &'static str {
    match kind {
        "ServiceAccount" => "serviceAccount",
        "User" => "user",
        _ => "group",
    }
}

/// What may be done, in words that requests are described by.
fn validate_verbs(verbs: &Field, faults: &mut Faults) {
    const VERBS: &[&str] =
        &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
    validate_words(verbs, "verbs must contain at least one value", "verbs", faults);
    let is_any = verbs.items().any(|verb| verb.text() == "*");
    if !is_any && !verbs.items().all(|verb| VERBS.contains(&verb.text())) {
        faults.not_supported(verbs, VERBS);
    }
}

/// A path of no resource; `*` stands at its end, if at all.
fn validate_path(path: &Field, faults: &mut Faults) {
    let text = path.text();
    let why = match text.strip_suffix('*').unwrap_or(text) {
        _ if text.is_empty() => "must not be empty",
        _ if text == "*" => return,
        _ if !text.starts_with('/') => "must start with slash",
        _ if text.contains(' ') => "must not contain white-space",
        _ if text.contains("//") => "must not contain double slash",
        start if start.contains('*') => "wildcard can only do suffix matching",
        start if start.len() < text.len() && !start.ends_with('/') => "wildcard can only do suffix matching",
        _ => return,
    };
    faults.invalid(path, why);
}

/// A list that is not empty, and says `*` only alone.
fn validate_words(words: &Field, needed: &str, plural: &str, faults: &mut Faults) {
    if words.is_empty() {
        faults.required(words, needed);
    }
    validate_alone(words, plural, faults);
}

fn validate_alone(words: &Field, plural: &str, faults: &mut Faults) {
    if words.len() > 1 && words.items().any(|word| word.text() == "*") {
        faults.invalid(words, format!("if '*' is present, must not specify other {plural}"));
    }
}

/// Rules of PriorityLevelConfigurations.
pub struct PriorityLevel;

impl crate::Strategy for PriorityLevel {
    fn set_defaults(&self, object: &mut Object) {
        if object.at(&["spec", "exempt"]).is_some() {
            object.set_if_absent(&["spec", "exempt", "nominalConcurrencyShares"], 0);
            object.set_if_absent(&["spec", "exempt", "lendablePercent"], 0);
        }
        if object.at(&["spec", "limited"]).is_some() {
            object.set_if_absent(&["spec", "limited", "nominalConcurrencyShares"], 30);
            object.set_if_absent(&["spec", "limited", "lendablePercent"], 0);
        }
        let queuing = ["spec", "limited", "limitResponse", "queuing"];
        if object.at(&queuing).is_some() {
            let queuing = object.map_mut(&queuing);
            for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                queuing.fill_zero(field, value);
            }
        }
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        status::distinct_conditions(object)
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let (sort, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
        let is_exempt = object.name() == EXEMPT;
        if is_exempt != (sort.text() == "Exempt") {
            let why = "type must be 'Exempt' if and only if name is 'exempt'";
            faults.invalid(&sort, why);
        }
        match sort.text() {
            "Exempt" => {
                if limited.is_set() {
                    faults.forbidden(&limited, "must be nil if the type is not Limited");
                }
                faults.not_negative(&exempt.get("nominalConcurrencyShares"));
                faults.between(&exempt.get("lendablePercent"), 0, 100);
            }
            "Limited" => {
                if exempt.is_set() {
                    faults.forbidden(&exempt, "must be nil if the type is Limited");
                }
                match limited.is_set() {
                    true => validate_limited(&limited, &mut faults),
                    false => faults.required(&limited, "must not be empty when type is Limited"),
                }
            }
            _ => faults.not_supported(&sort, &["Exempt", "Limited"]),
        }
        // The rules above leave nothing else of the exempt level to be changed.
        if !is_exempt && mandatory_level(object.name()).is_some_and(|fixed| fixed != *spec.value) {
            faults.invalid(&spec, format!("spec of '{}' must equal the fixed value", object.name()));
        }
        faults.0
    }

    fn status_is_apart(&self) -> bool {
        true
    }
}

fn validate_limited(limited: &Field, faults: &mut Faults) {
    faults.not_negative(&limited.get("nominalConcurrencyShares"));
    faults.between(&limited.get("lendablePercent"), 0, 100);
    faults.not_negative(&limited.get("borrowingLimitPercent"));
    let response = limited.get("limitResponse");
    let (sort, queuing) = (response.get("type"), response.get("queuing"));
    match sort.text() {
        "Reject" if queuing.is_set() => {
            faults.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if !queuing.is_set() => {
            faults.required(&queuing, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => validate_queuing(&queuing, faults),
        _ => faults.not_supported(&sort, &["Queue", "Reject"]),
    }
}

fn validate_queuing(queuing: &Field, faults: &mut Faults) {
    let number = |name: &str| queuing.get(name).number().unwrap_or_default();
    for name in ["queueLengthLimit", "queues", "handSize"] {
        if number(name) <= 0 {
            faults.invalid(&queuing.get(name), "must be positive");
        }
    }
    if number("queues") > 10_000_000 {
        faults.invalid(&queuing.get("queues"), "must not be greater than 10000000");
    }
    if number("handSize") > number("queues") {
        let why = format!("should not be greater than queues ({})", number("queues"));
        faults.invalid(&queuing.get("handSize"), why);
    } else if entropy_bits(number("queues"), number("handSize")) > 60 {
        let bits = entropy_bits(number("queues"), number("handSize"));
        let why = format!(
            "required entropy bits of deckSize {} and handSize {} should not be greater than 60, it is {bits}",
            number("queues"),
            number("handSize")
        );
        faults.invalid(&queuing.get("handSize"), why);
    }
}

/// How many bits of a hash it takes to deal such a hand.
fn entropy_bits(deck: i64, hand: i64) -> i64 {
    let hands: f64 = (0..hand.clamp(0, 64)).map(|dealt| ((deck - dealt).max(1) as f64).log2()).sum();
    hands.ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy;

    fn faults(strategy: &dyn Strategy, name: &str, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        let mut object = Object::from_value(object).unwrap();
        strategy.set_defaults(&mut object);
        strategy.validate(&object, None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_level_says_how_it_limits() {
        let level = |name, spec| faults(&PriorityLevel, name, spec);
        let limited = |response: Value| json!({"type": "Limited", "limited": {"limitResponse": response}});
        assert_eq!(level("a", limited(json!({"type": "Reject"}))), [""; 0]);
        assert_eq!(level("a", limited(json!({"type": "Queue", "queuing": {}}))), [""; 0]);
        assert_eq!(
            level("a", json!({"type": "Limited"})),
            ["spec.limited: Required value: must not be empty when type is Limited"]
        );
        assert_eq!(level("a", json!({"type": "Exempt"})).len(), 1);
        assert_eq!(
            level("a", limited(json!({"type": "Queue", "queuing": {"queues": 4, "handSize": 8}}))),
            [
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)"
            ]
        );
        let wide = json!({"type": "Queue", "queuing": {"queues": 512, "handSize": 8}});
        assert!(
            level("a", limited(wide))[0].contains("required entropy bits of deckSize 512 and handSize 8")
        );
    }

    #[test]
    fn what_takes_every_request_stays_as_it_is() {
        for (strategy, fixed) in [
            (&FlowSchema as &dyn Strategy, mandatory_schema as fn(&str) -> Option<Value>),
            (&PriorityLevel, mandatory_level),
        ] {
            for name in [EXEMPT, CATCH_ALL] {
                assert_eq!(faults(strategy, name, fixed(name).unwrap()), [""; 0]);
            }
            assert_eq!(fixed("global-default"), None);
        }
        let mut level = mandatory_level(CATCH_ALL).unwrap();
        level["limited"]["nominalConcurrencyShares"] = 6.into();
        assert!(
            faults(&PriorityLevel, CATCH_ALL, level)[0]
                .ends_with("spec of 'catch-all' must equal the fixed value")
        );
        let mut schema = mandatory_schema(CATCH_ALL).unwrap();
        schema["rules"] = json!([]);
        assert!(
            faults(&FlowSchema, CATCH_ALL, schema)[0]
                .ends_with("spec of 'catch-all' must equal the fixed value")
        );
        let mut exempt = mandatory_level(EXEMPT).unwrap();
        exempt["exempt"]["lendablePercent"] = 50.into();
        assert_eq!(faults(&PriorityLevel, EXEMPT, exempt), [""; 0]);
    }

    #[test]
    fn a_schema_says_whom_it_means() {
        let schema = |spec| faults(&FlowSchema, "a", spec);
        let rule = json!({
            "subjects": [{"kind": "User", "user": {"name": "alice"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}],
        });
        let level = json!({"name": "global-default"});
        assert_eq!(schema(json!({"priorityLevelConfiguration": level, "rules": [rule]})), [""; 0]);
        assert_eq!(
            schema(json!({"priorityLevelConfiguration": level, "matchingPrecedence": 1})),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"
            ]
        );
        assert_eq!(
            schema(json!({"rules": [{}]})),
            [
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ]
        );
    }
}
