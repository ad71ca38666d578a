//! Selectors, and values with a syntax of their own.

use serde_json::{Map, Value, json};

use crate::{
    Object, Quantity,
    cel::duration,
    decode::{self, Decoded},
    schema,
    selector::{FieldSelector, LabelSelector, Operator},
    time,
};

/// A label selector as text or as JSON, and a field selector. Written and read again, each is the same and chooses the
/// same.
pub fn selector(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(selector) = LabelSelector::parse(&text) {
        label_selector(&selector);
    }
    if let Ok(json) = decode::json(data) {
        structured_selector(&json);
        let schema = schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector");
        if let Ok(Decoded { object, .. }) = decode::check(json, schema) {
            let typed = object.into_value();
            let is_valid = LabelSelector::validate(&typed, "spec.selector").is_empty();
            assert!(structured_selector(&typed) || !is_valid, "it is valid and cannot be read");
        }
    }
    if let Ok(selector) = FieldSelector::parse(&text) {
        field_selector(&selector);
    }
}

/// Whether it can be read.
fn structured_selector(json: &Value) -> bool {
    LabelSelector::validate(json, "spec.selector");
    match LabelSelector::from_json(json) {
        Ok(selector) if json.is_null() => assert_eq!(selector, LabelSelector::nothing()),
        Ok(selector) => label_selector(&selector),
        Err(_) => return false,
    }
    true
}

fn label_selector(selector: &LabelSelector) {
    let again = LabelSelector::parse(&selector.to_string()).expect("what was written can be read");
    assert_eq!(again, *selector);
    assert_eq!(selector.is_everything(), selector.requirements().is_empty());
    // Labels that the selector knows, each with a value that it names or with one that it does not.
    for value in 0..4 {
        let labels: Map<String, Value> = selector
            .requirements()
            .iter()
            .map(|requirement| (requirement.key.clone(), requirement.values.get(value)))
            .map(|(key, value)| (key, value.map_or("7", String::as_str).into()))
            .collect();
        let is_chosen = selector.matches_labels(Some(&labels));
        assert_eq!(is_chosen, selector.matches(|key| labels.get(key)?.as_str()));
        assert_eq!(is_chosen, chooses(selector, &labels));
    }
    assert_eq!(selector.matches_labels(None), chooses(selector, &Map::new()));
}

/// What a selector means, said the long way.
fn chooses(selector: &LabelSelector, labels: &Map<String, Value>) -> bool {
    selector.requirements().iter().all(|requirement| {
        let label = labels.get(&requirement.key).and_then(Value::as_str);
        let is_listed = || requirement.values.iter().any(|value| Some(value.as_str()) == label);
        let numbers = || Some((label?.parse::<i64>().ok()?, requirement.values[0].parse::<i64>().ok()?));
        match requirement.operator {
            Operator::In => is_listed(),
            Operator::NotIn => !is_listed(),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => numbers().is_some_and(|(label, limit)| label > limit),
            Operator::LessThan => numbers().is_some_and(|(label, limit)| label < limit),
        }
    })
}

fn field_selector(selector: &FieldSelector) {
    let again = FieldSelector::parse(&selector.to_string()).expect("what was written can be read");
    assert_eq!(again, *selector);
    assert_eq!(selector.is_everything(), selector.terms().is_empty());
    let name = selector.required_value("metadata.name").unwrap_or("web");
    let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": "a", "hostNetwork": true}});
    let pod = Object::from_value(pod).expect("it is a map");
    assert_eq!(selector.matches(&pod), chooses_by_fields(selector, name));
}

/// What a field selector means to that pod, said the long way. A field that is not there is empty, false and 0.
fn chooses_by_fields(selector: &FieldSelector, name: &str) -> bool {
    selector.terms().iter().all(|term| {
        let has_value = match term.field.as_str() {
            "metadata.name" => term.value == name,
            "spec.nodeName" => term.value == "a",
            "spec.hostNetwork" => term.value == "true",
            _ => matches!(term.value.as_str(), "" | "false" | "0"),
        };
        has_value == term.is_equal
    })
}

/// An amount, a point in time or a length of time. Each has one way to be written, which stays and means the same.
pub fn scalar(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(quantity) = Quantity::parse(&text) {
        amount(quantity);
    }
    if let Ok(moment) = time::parse(&text) {
        for write in [time::format, time::format_micro] {
            let written = write(moment);
            let again = time::parse(&written).expect("what was written can be read");
            assert_eq!(write(again), written);
            assert!(again <= moment, "what is too fine is cut off: {written} is {again}");
        }
    }
    if let Ok(length) = duration::parse(&text) {
        let nanoseconds = i64::try_from(length.as_nanos()).expect("Go has no more of them");
        assert_eq!(duration::parse(&duration::format_go(nanoseconds)), Ok(length));
    }
}

fn amount(quantity: Quantity) {
    let written = quantity.to_string();
    let again = Quantity::parse(&written).expect("what was written can be read");
    assert_eq!(again, quantity);
    assert_eq!(again.to_string(), written);
    assert_eq!(Quantity::from_json(&written.as_str().into()), Ok(quantity));
    assert_eq!(-(-quantity), quantity);
    assert!((quantity + -quantity).is_zero());
    assert_eq!(quantity.is_whole(), (quantity - Quantity::from_value(quantity.value())).is_zero());
    let rounded = Quantity::from_value(quantity.value());
    assert!(if quantity.signum() < 0 { rounded <= quantity } else { rounded >= quantity });
    let sum = quantity + quantity;
    assert_eq!(sum.signum(), quantity.signum());
    assert_eq!(Quantity::parse(&sum.to_string()), Ok(sum));
}
