//! What clients send and the API server reads, as targets for a fuzzer: none may panic, hang, or grow without end.

#[cfg(test)]
#[path = "../../fuzz/driver.rs"]
mod driver;

use serde_json::{Map, Value};

use crate::cel::{self, Type};
use crate::schema::{self, Schema};
use crate::selector::{FieldSelector, LabelSelector};
use crate::{decode, patch, protobuf};

fn pod() -> &'static Schema {
    schema::by_name("io.k8s.api.core.v1.Pod").expect("pods have a schema")
}

/// A body in JSON. What was understood is understood in the same way again.
pub fn json(data: &[u8]) {
    body(data, "application/json");
}

/// A body in YAML.
pub fn yaml(data: &[u8]) {
    body(data, "application/yaml");
}

fn body(data: &[u8], content_type: &str) {
    // That it is refused is as good.
    decode::decode(data, content_type, None).ok();
    let Ok(decoded) = decode::decode(data, content_type, Some(pod())) else { return };
    let value = decoded.object.into_value();
    let again = decode::check(value.clone(), Some(pod())).expect("what was read can be read");
    assert!(again.faults.is_empty(), "{}", again.faults);
    assert_eq!(again.object.into_value(), value);
}

/// An object and a patch, one a line: as a JSON patch, a merge patch and a strategic merge patch. The latter two
/// change nothing the second time, unless they say more than values.
pub fn patch(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (Ok(original), Ok(patch)) = (decode::json(&data[..end]), decode::json(&data[end..])) else { return };
    patch::json_patch(&original, &patch).ok();
    if let Ok(merged) = patch::merge_patch(&original, &patch) {
        assert_eq!(patch::merge_patch(&merged, &patch).ok(), Some(merged));
    }
    if let Ok(merged) = patch::strategic_merge(pod(), &original, &patch) {
        patch::strategic_merge(pod(), &merged, &patch).ok();
    }
}

/// A label selector and a field selector.
pub fn selector(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(selector) = LabelSelector::parse(&text) {
        let labels = [("app", "web"), ("tier", ""), ("5", "5")];
        let labels: Map<String, Value> =
            labels.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
        let by_map = selector.matches_labels(Some(&labels));
        assert_eq!(by_map, selector.matches(|key| labels.get(key)?.as_str()));
        assert!(!selector.is_everything() || by_map);
    }
    if let Ok(selector) = FieldSelector::parse(&text) {
        assert_eq!(selector.is_everything(), selector.terms().is_empty());
    }
    if let Ok(json) = decode::json(data) {
        LabelSelector::validate(&json, "spec.selector");
        LabelSelector::from_json(&json).ok();
    }
}

/// A body in protobuf. What was read is the same once it is written again.
pub fn protobuf(data: &[u8]) {
    let Ok(object) = protobuf::decode(data) else { return };
    let json = object.clone().into_value().to_string();
    let written = protobuf::document(json.as_bytes()).expect("what was read can be written");
    let again = protobuf::decode(&written.expect("its kind is known")).expect("what was written can be read");
    assert_eq!(again, object);
}

/// An expression over an object: compiled, estimated, and run with little to spend.
pub fn cel(data: &[u8]) {
    const LIMIT: u64 = 5_000;
    let source = String::from_utf8_lossy(data);
    let variables = [("self", Type::Dyn), ("oldSelf", Type::Dyn)];
    let Ok(program) = cel::compile(&source, &variables) else { return };
    program.cost(&variables);
    let object = serde_json::json!({
        "replicas": 3, "name": "web", "ratio": 0.5, "ready": true, "none": null,
        "ports": [{ "name": "http", "port": 80 }, { "name": "dns", "port": 53 }],
        "labels": { "app": "web", "tier": "front" },
    });
    let of = || cel::Value::from_json(&object, &Type::Dyn);
    let mut spent = 0;
    program.run(&[("self", of()), ("oldSelf", of())], LIMIT, &mut spent).ok();
}

#[cfg(test)]
mod tests {
    use super::driver;

    #[test]
    fn every_json_body_is_read_or_refused() {
        driver::run("json", super::json);
    }

    #[test]
    fn every_yaml_body_is_read_or_refused() {
        driver::run("yaml", super::yaml);
    }

    #[test]
    fn every_patch_is_applied_or_refused() {
        driver::run("patch", super::patch);
    }

    #[test]
    fn every_selector_is_read_or_refused() {
        driver::run("selector", super::selector);
    }

    #[test]
    fn every_protobuf_body_is_read_or_refused() {
        driver::run("protobuf", super::protobuf);
    }

    #[test]
    fn every_expression_is_run_or_refused() {
        driver::run("cel", super::cel);
    }
}
