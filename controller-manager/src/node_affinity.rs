//! Whether a pod's node selector and required node affinity let it run on a node.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use kube::ResourceExt;

/// Whether a node is among those that a pod asks for.
pub fn matches(pod: &PodSpec, node: &Node) -> bool {
    let has_labels =
        pod.node_selector.iter().flatten().all(|(key, value)| node.labels().get(key) == Some(value));
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    has_labels
        && required
            .is_none_or(|required| required.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

/// All requirements of a term must hold; an empty term matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (labels, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    let is_empty = labels.clone().next().is_none() && fields.clone().next().is_none();
    let name = node.name_any();
    !is_empty
        && labels.into_iter().all(|wanted| holds(wanted, node.labels().get(&wanted.key).map(String::as_str)))
        && fields.into_iter().all(|wanted| wanted.key == "metadata.name" && holds(wanted, Some(&name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let compare = || {
        let (value, bound): (i64, i64) = (value?.parse().ok()?, values.first()?.parse().ok()?);
        Some(value.cmp(&bound))
    };
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare().is_some_and(|ordering| ordering.is_gt()),
        "Lt" => compare().is_some_and(|ordering| ordering.is_lt()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_hold_as_the_api_says() {
        let wanted = |operator: &str, values: &[&str]| NodeSelectorRequirement {
            key: "k".into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).into()).collect()),
        };
        for (requirement, value, expected) in [
            (wanted("In", &["a", "b"]), Some("b"), true),
            (wanted("In", &["a"]), None, false),
            (wanted("NotIn", &["a"]), None, true),
            (wanted("NotIn", &["a"]), Some("a"), false),
            (wanted("Exists", &[]), Some(""), true),
            (wanted("DoesNotExist", &[]), Some(""), false),
            (wanted("Gt", &["5"]), Some("6"), true),
            (wanted("Lt", &["5"]), Some("x"), false),
        ] {
            assert_eq!(holds(&requirement, value), expected, "{requirement:?} {value:?}");
        }
    }
}
