//! Which names a definition gets, and what its conditions say about that.

use serde_json::{Map, Value, json};

use crate::Object;

/// What a definition's status should say.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// The names that are its own.
    pub accepted: Value,
    /// `type`, `status`, `reason` and `message` of each condition.
    pub conditions: Vec<[String; 4]>,
}

impl Conditions {
    /// Whether the definition's objects are served.
    pub fn is_established(&self) -> bool {
        self.conditions.iter().any(|[kind, status, ..]| kind == "Established" && status == "True")
    }

    /// The status with these conditions. A condition that says the same as before keeps its time.
    pub fn write(&self, object: &mut Object, now: &str) {
        let mut conditions: Vec<Value> = object.list(&["status", "conditions"]).to_vec();
        for [kind, status, reason, message] in &self.conditions {
            set_condition(&mut conditions, [kind, status, reason, message], now);
        }
        object.set(&["status", "conditions"], conditions);
        object.set(&["status", "acceptedNames"], self.accepted.clone());
    }
}

/// Sets one condition: `type`, `status`, `reason`, `message`.
pub fn set_condition(conditions: &mut Vec<Value>, [kind, status, reason, message]: [&str; 4], now: &str) {
    let mut condition = json!({
        "type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    });
    match conditions.iter_mut().find(|condition| condition["type"] == *kind) {
        Some(known) => {
            if known["status"] == condition["status"] {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
}

/// Decides which names `crd` gets, given all definitions.
pub fn conditions(crd: &Object, all: &[Object]) -> Conditions {
    let group = crd.text(&["spec", "group"]);
    let others: Vec<&Object> = all
        .iter()
        .filter(|other| other.text(&["spec", "group"]) == group && other.name() != crd.name())
        .collect();
    // Resources and kinds are two sets of names.
    let is_taken = |name: &str, fields: &[&str]| {
        others.iter().any(|other| {
            fields.iter().any(|field| match other.at(&["status", "acceptedNames", field]) {
                Some(Value::Array(names)) => names.iter().any(|taken| taken == name),
                Some(Value::String(taken)) => taken == name,
                _ => false,
            })
        })
    };
    const RESOURCES: [&str; 3] = ["plural", "singular", "shortNames"];
    const KINDS: [&str; 2] = ["kind", "listKind"];
    let mut accepted = Map::new();
    let mut refusal: Option<(&str, String)> = None;
    let mut refuse = |reason: &'static str, name: &str| {
        refusal.get_or_insert_with(|| (reason, format!("{name:?} is already in use")));
    };
    for (field, reason, taken) in [
        ("plural", "PluralConflict", &RESOURCES[..]),
        ("singular", "SingularConflict", &RESOURCES[..]),
        ("kind", "KindConflict", &KINDS[..]),
        ("listKind", "ListKindConflict", &KINDS[..]),
    ] {
        let wanted = crd.text(&["spec", "names", field]);
        let name = match is_taken(wanted, taken) {
            true => {
                refuse(reason, wanted);
                crd.text(&["status", "acceptedNames", field])
            }
            false => wanted,
        };
        if !name.is_empty() || matches!(field, "plural" | "kind") {
            accepted.insert(field.into(), name.into());
        }
    }
    let short = crd.list(&["spec", "names", "shortNames"]);
    match short.iter().filter_map(Value::as_str).find(|name| is_taken(name, &RESOURCES)) {
        Some(name) => {
            refuse("ShortNamesConflict", name);
            let kept = crd.list(&["status", "acceptedNames", "shortNames"]).to_vec();
            accepted.extend((!kept.is_empty()).then(|| ("shortNames".into(), kept.into())));
        }
        None => accepted.extend((!short.is_empty()).then(|| ("shortNames".into(), short.to_vec().into()))),
    }
    let categories = crd.list(&["spec", "names", "categories"]);
    accepted.extend((!categories.is_empty()).then(|| ("categories".into(), categories.to_vec().into())));

    let condition = |parts: [&str; 4]| parts.map(str::to_string);
    let was_established = crd
        .list(&["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let mut conditions = vec![match &refusal {
        None => condition(["NamesAccepted", "True", "NoConflicts", "no conflicts found"]),
        Some((reason, message)) => condition(["NamesAccepted", "False", reason, message]),
    }];
    if refusal.is_none() || was_established {
        conditions.push(condition([
            "Established",
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        ]));
    } else {
        conditions.push(condition(["Established", "False", "NotAccepted", "not all names are accepted"]));
    }
    conditions.extend(approval(crd));
    Conditions { accepted: Value::Object(accepted), conditions }
}

/// The annotation that groups of the project itself need.
pub(crate) const APPROVAL: &str = "api-approved.kubernetes.io";

/// Whether a group belongs to the project.
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|owner| group == *owner || group.ends_with(&format!(".{owner}")))
}

fn approval(crd: &Object) -> Option<[String; 4]> {
    if !is_protected(crd.text(&["spec", "group"])) {
        return None;
    }
    let kind = "KubernetesAPIApprovalPolicyConformant";
    let parts = match crd.annotation(APPROVAL) {
        None | Some("") => {
            let message = format!(
                "protected groups must have approval annotation {APPROVAL:?}, see https://github.com/kubernetes/enhancements/pull/1111"
            );
            [kind.to_string(), "False".into(), "MissingAnnotation".into(), message]
        }
        Some(value) if value.starts_with("unapproved") => {
            [kind.into(), "False".into(), "UnapprovedAnnotation".into(), format!("not approved: {value:?}")]
        }
        Some(value) if value.starts_with("https://") || value.starts_with("http://") => {
            [kind.into(), "True".into(), "ApprovedAnnotation".into(), format!("approved in {value}")]
        }
        Some(value) => {
            let message = format!(
                "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111: {value:?}"
            );
            [kind.into(), "False".into(), "InvalidAnnotation".into(), message]
        }
    };
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(plural: &str, kind: &str, short: &str) -> Object {
        Object::from_value(json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": [short],
            }},
        }))
        .unwrap()
    }

    #[test]
    fn who_comes_first_gets_the_names() {
        let mut first = crd("foos", "Foo", "f");
        let granted = conditions(&first, &[]);
        assert!(granted.is_established());
        granted.write(&mut first, "2026-01-01T00:00:00Z");
        assert_eq!(first.text(&["status", "acceptedNames", "kind"]), "Foo");
        let second = conditions(&crd("bars", "Foo", "b"), &[first.clone()]);
        assert!(!second.is_established());
        assert_eq!(
            second.conditions[0],
            ["NamesAccepted", "False", "SingularConflict", "\"foo\" is already in use"].map(str::to_string)
        );
        let third = conditions(&crd("bars", "Bar", "f"), &[first.clone()]);
        assert_eq!(third.conditions[0][2], "ShortNamesConflict");
        // Another group is another world; deciding again changes nothing.
        let mut elsewhere = crd("bars", "Foo", "f");
        elsewhere.set(&["spec", "group"], "example.org");
        assert!(conditions(&elsewhere, &[first.clone()]).is_established());
        let again = conditions(&first, &[first.clone()]);
        let mut same = first.clone();
        again.write(&mut same, "2027-01-01T00:00:00Z");
        assert_eq!(same, first);
    }
}
