//! Priority: a pod's priority follows from its class.

use std::sync::Arc;

use api::{Object, Status};
use serde_json::Value;

use super::forbidden;
use crate::hooks::Attributes;

/// Fills in class, priority and preemption policy.
pub(super) fn admit(
    attributes: &Attributes<'_>,
    classes: &[Arc<Object>],
    pod: &mut Object,
) -> Result<(), Status> {
    let class = match pod.text(&["spec", "priorityClassName"]) {
        "" => default_of(classes),
        name => {
            let found = classes.iter().find(|class| class.name() == name);
            let why = format!("no PriorityClass with name {name} was found");
            Some(found.ok_or_else(|| forbidden(attributes, Some(pod), &why))?)
        }
    };
    apply(pod, class.map(Arc::as_ref)).map_err(|why| forbidden(attributes, Some(pod), &why))
}

/// Refuses a second default.
pub(super) fn validate_class(
    attributes: &Attributes<'_>,
    classes: &[Arc<Object>],
    class: &Object,
) -> Result<(), Status> {
    if !is_default(class) {
        return Ok(());
    }
    match classes.iter().find(|other| is_default(other) && other.name() != class.name()) {
        Some(other) => {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name()
            );
            Err(forbidden(attributes, Some(class), &why))
        }
        None => Ok(()),
    }
}

fn is_default(class: &Object) -> bool {
    class.at(&["globalDefault"]) == Some(&Value::Bool(true))
}

/// The default class; of several, which only old data can have, the lowest.
fn default_of(classes: &[Arc<Object>]) -> Option<&Arc<Object>> {
    classes.iter().filter(|class| is_default(class)).min_by_key(|class| class.number(&["value"]))
}

fn apply(pod: &mut Object, class: Option<&Object>) -> Result<(), String> {
    let priority = class.and_then(|class| class.number(&["value"])).unwrap_or_default();
    if let Some(given) = pod.number(&["spec", "priority"]).filter(|given| *given != priority) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    if let Some(class) = class {
        pod.set(&["spec", "priorityClassName"], class.name());
    }
    pod.set(&["spec", "priority"], priority);
    let policy = class.map(|class| class.text(&["preemptionPolicy"])).filter(|policy| !policy.is_empty());
    let policy = policy.unwrap_or("PreemptLowerPriority");
    match pod.text(&["spec", "preemptionPolicy"]) {
        "" => pod.set(&["spec", "preemptionPolicy"], policy),
        given if given != policy => {
            return Err(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            ));
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(name: &str, value: i64) -> Object {
        Object::from_value(json!({"metadata": {"name": name}, "value": value, "globalDefault": true}))
            .unwrap()
    }

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn the_class_gives_the_number() {
        let mut pod = pod(json!({}));
        apply(&mut pod, Some(&class("high", 1000))).unwrap();
        assert_eq!(pod.number(&["spec", "priority"]), Some(1000));
        assert_eq!(pod.text(&["spec", "priorityClassName"]), "high");
        assert_eq!(pod.text(&["spec", "preemptionPolicy"]), "PreemptLowerPriority");
    }

    #[test]
    fn without_a_class_the_priority_is_zero() {
        let mut plain = pod(json!({}));
        apply(&mut plain, None).unwrap();
        assert_eq!(plain.number(&["spec", "priority"]), Some(0));
        let refused = apply(&mut pod(json!({"priority": 5})), None).unwrap_err();
        assert!(refused.starts_with("the integer value of priority (5) must not be provided in pod spec"));
    }

    #[test]
    fn of_two_defaults_the_lower_counts() {
        assert_eq!(default_of(&[class("a", 10), class("b", 5)].map(Arc::new)).unwrap().name(), "b");
    }
}
