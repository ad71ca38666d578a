//! Devices that pods claim (`resource.k8s.io`): classes, claims, templates of claims, slices and taint rules.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::check::{Faults, Field, same};
use super::fill::Fill;
use super::pod_spec;
use crate::{FieldError, Object, name};

/// Upstream's limits of lists.
const MOST_REQUESTS: usize = 32;
const MOST_CONSTRAINTS: usize = 32;
const MOST_CONFIGURATIONS: usize = 32;
const MOST_SELECTORS: usize = 32;
const MOST_ALTERNATIVES: usize = 8;
const MOST_DEVICES: usize = 128;
const MOST_RESERVATIONS: usize = 256;
/// How long the source of a CEL selector may be.
const LONGEST_EXPRESSION: usize = 10 * 1024;

/// Rules of ResourceClaims, whose wishes stay as they are.
pub struct ResourceClaim;

impl crate::Strategy for ResourceClaim {
    fn set_defaults(&self, object: &mut Object) {
        set_claim_defaults(object.map_mut(&["spec"]));
    }

    fn status_is_apart(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        match old {
            Some(old) => faults.immutable(&spec, &Field::at(old, &["spec"])),
            None => validate_claim(&spec.get("devices"), &mut faults),
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let (status, before) = (Field::at(object, &["status"]), Field::at(old, &["status"]));
        let (allocation, reserved) = (status.get("allocation"), status.get("reservedFor"));
        faults.at_most(&reserved, MOST_RESERVATIONS);
        let mut users = HashSet::new();
        for user in reserved.items() {
            faults.must_be_given(&user.get("resource"));
            faults.must_be_given(&user.get("name"));
            if faults.must_be_given(&user.get("uid")) && !users.insert(user.get("uid").text()) {
                faults.duplicate(&user.get("uid"));
            }
        }
        let is_new = |user: &Field| !before.get("reservedFor").items().any(|old| old.value == user.value);
        if !reserved.is_empty() && !allocation.is_set() {
            faults.forbidden(&reserved, "may not be specified when `allocated` is not set");
        } else if object.deletion_timestamp().is_some() && reserved.items().any(|user| is_new(&user)) {
            faults.forbidden(
                &reserved,
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            );
        }
        if before.get("allocation").is_set() && allocation.is_set() {
            faults.immutable(&allocation, &before.get("allocation"));
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of ResourceClaimTemplates.
pub struct ResourceClaimTemplate;

impl crate::Strategy for ResourceClaimTemplate {
    fn set_defaults(&self, object: &mut Object) {
        set_claim_defaults(object.map_mut(&["spec", "spec"]));
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        match old {
            Some(old) => faults.immutable(&spec, &Field::at(old, &["spec"])),
            None => validate_claim(&spec.get("spec").get("devices"), &mut faults),
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of DeviceClasses.
pub struct DeviceClass;

impl crate::Strategy for DeviceClass {
    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        validate_selectors(&spec.get("selectors"), &mut faults);
        faults.at_most(&spec.get("config"), MOST_CONFIGURATIONS);
        spec.get("config").items().for_each(|config| validate_configuration(&config, &mut faults));
        faults.keeps(&spec.get("extendedResourceName"), name::qualified_name);
        faults.0
    }
}

/// Rules of ResourceSlices, in which drivers say what devices there are.
pub struct ResourceSlice;

impl crate::Strategy for ResourceSlice {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        faults.must_keep(&spec.get("driver"), name::dns_subdomain);
        let pool = spec.get("pool");
        faults.must_be_given(&pool.get("name"));
        let slices = pool.get("resourceSliceCount");
        if slices.number().unwrap_or_default() <= 0 {
            faults.invalid(&slices, "must be greater than zero");
        }
        faults.not_negative(&pool.get("generation"));
        validate_place(&spec, &mut faults);
        validate_devices(&spec.get("devices"), &mut faults);
        if let Some(old) = old {
            let before = Field::at(old, &["spec"]);
            faults.immutable(&spec.get("driver"), &before.get("driver"));
            faults.immutable(&pool.get("name"), &before.get("pool").get("name"));
            faults.immutable(&spec.get("nodeName"), &before.get("nodeName"));
        }
        faults.0
    }
}

/// Rules of DeviceTaintRules.
pub struct DeviceTaintRule;

impl crate::Strategy for DeviceTaintRule {
    fn status_is_apart(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let chosen = spec.get("deviceSelector");
        faults.keeps(&chosen.get("driver"), name::dns_subdomain);
        faults.keeps(&chosen.get("device"), name::dns_label);
        validate_taint(&spec.get("taint"), &mut faults);
        faults.0
    }
}

fn set_claim_defaults(spec: &mut Map<String, Value>) {
    let Some(devices) = spec.map_at("devices") else { return };
    for request in devices.maps_at("requests") {
        if let Some(exactly) = request.map_at("exactly") {
            set_request_defaults(exactly);
        }
        request.maps_at("firstAvailable").for_each(set_request_defaults);
    }
}

fn set_request_defaults(request: &mut Map<String, Value>) {
    request.fill("allocationMode", "ExactCount");
    let count = request.get("count").and_then(Value::as_i64).unwrap_or_default();
    if request.text_at("allocationMode") == "ExactCount" && count == 0 {
        request.insert("count".into(), json!(1));
    }
    for toleration in request.maps_at("tolerations") {
        toleration.fill("operator", "Equal");
    }
}

fn validate_claim(devices: &Field, faults: &mut Faults) {
    let (requests, constraints) = (devices.get("requests"), devices.get("constraints"));
    faults.at_most(&requests, MOST_REQUESTS);
    let mut names = HashSet::new();
    for request in requests.items() {
        let name = request.get("name");
        faults.must_keep(&name, name::dns_label);
        if !names.insert(name.text().to_string()) {
            faults.duplicate(&name);
        }
        for alternative in request.get("firstAvailable").items() {
            names.insert(format!("{}/{}", name.text(), alternative.get("name").text()));
        }
        validate_request(&request, faults);
    }
    faults.at_most(&constraints, MOST_CONSTRAINTS);
    for constraint in constraints.items() {
        validate_request_names(&constraint.get("requests"), &names, faults);
        match (constraint.get("matchAttribute").is_set(), constraint.get("distinctAttribute").is_set()) {
            (false, false) => faults.required(&constraint.get("matchAttribute"), ""),
            (true, _) => validate_attribute(&constraint.get("matchAttribute"), faults),
            (false, true) => validate_attribute(&constraint.get("distinctAttribute"), faults),
        }
    }
    faults.at_most(&devices.get("config"), MOST_CONFIGURATIONS);
    for config in devices.get("config").items() {
        validate_request_names(&config.get("requests"), &names, faults);
        validate_configuration(&config, faults);
    }
}

fn validate_request(request: &Field, faults: &mut Faults) {
    let (exactly, alternatives) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.is_set(), !alternatives.is_empty()) {
        (false, false) => {
            faults.required(request, "exactly one of `exactly` or `firstAvailable` is required");
        }
        (true, true) => {
            let text =
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            faults.invalid(&Field { path: request.path.clone(), value: &Value::Null }, text);
        }
        (true, false) => validate_wish(&exactly, faults),
        (false, true) => {
            faults.at_most(&alternatives, MOST_ALTERNATIVES);
            let mut names = HashSet::new();
            for alternative in alternatives.items() {
                let name = alternative.get("name");
                faults.must_keep(&name, name::dns_label);
                if !names.insert(name.text()) {
                    faults.duplicate(&name);
                }
                validate_wish(&alternative, faults);
            }
        }
    }
}

/// How many devices of which class, and which of them.
fn validate_wish(wish: &Field, faults: &mut Faults) {
    faults.must_keep(&wish.get("deviceClassName"), name::dns_subdomain);
    validate_selectors(&wish.get("selectors"), faults);
    let (mode, count) = (wish.get("allocationMode"), wish.get("count"));
    match mode.text() {
        "All" if count.number().unwrap_or_default() != 0 => {
            faults.invalid(&count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count.number().unwrap_or_default() <= 0 => {
            faults.invalid(&count, "must be greater than zero");
        }
        "All" | "ExactCount" => {}
        _ => faults.not_supported(&mode, &["All", "ExactCount"]),
    }
    wish.get("tolerations").items().for_each(|toleration| validate_toleration(&toleration, faults));
}

fn validate_selectors(selectors: &Field, faults: &mut Faults) {
    faults.at_most(selectors, MOST_SELECTORS);
    for selector in selectors.items() {
        let cel = selector.get("cel");
        if !cel.is_set() {
            faults.required(&cel, "");
            continue;
        }
        let expression = cel.get("expression");
        faults.must_be_given(&expression);
        if expression.text().len() > LONGEST_EXPRESSION {
            faults.0.push(FieldError::too_long(&expression.path, LONGEST_EXPRESSION));
        }
    }
}

fn validate_request_names(names: &Field, known: &HashSet<String>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for name in names.items() {
        if !known.contains(name.text()) {
            faults.invalid(&name, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'");
        }
        if !seen.insert(name.text()) {
            faults.duplicate(&name);
        }
    }
}

fn validate_attribute(attribute: &Field, faults: &mut Faults) {
    match attribute.text().split_once('/') {
        None => faults.invalid(attribute, "must include a domain"),
        Some((domain, identifier)) => {
            for checked in [name::dns_subdomain(domain), name::c_identifier(identifier)] {
                if let Err(message) = checked {
                    faults.invalid(attribute, message);
                }
            }
        }
    }
}

fn validate_configuration(config: &Field, faults: &mut Faults) {
    let opaque = config.get("opaque");
    if !opaque.is_set() {
        faults.required(&opaque, "");
        return;
    }
    faults.must_keep(&opaque.get("driver"), name::dns_subdomain);
    let parameters = opaque.get("parameters");
    match parameters.value {
        Value::Null => faults.required(&parameters, ""),
        Value::Object(_) => {}
        _ => faults.invalid(&parameters, "must be a valid JSON object"),
    }
}

/// Devices are on one node, on some, on all, or each says so for itself.
fn validate_place(spec: &Field, faults: &mut Faults) {
    let selector = spec.get("nodeSelector");
    let is_set = |name: &str| match spec.get(name).value {
        Value::Bool(flag) => *flag,
        value => !same(value, &Value::Null),
    };
    let given = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"].map(is_set);
    const TEXT: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.iter().filter(|given| **given).count() {
        0 => faults.required(spec, TEXT),
        1 => {}
        _ => {
            let names = Value::from("{`nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection`}");
            let text = format!("{TEXT}, but multiple fields are set");
            faults.invalid(&Field { path: spec.path.clone(), value: &names }, text);
        }
    }
    faults.keeps(&spec.get("nodeName"), name::dns_subdomain);
    if selector.is_set() {
        pod_spec::validate_node_selector(&selector, faults);
        if selector.get("nodeSelectorTerms").len() != 1 {
            faults.invalid(&selector.get("nodeSelectorTerms"), "must have exactly one node selector term");
        }
    }
}

fn validate_devices(devices: &Field, faults: &mut Faults) {
    faults.at_most(devices, MOST_DEVICES);
    let mut names = HashSet::new();
    for device in devices.items() {
        let name = device.get("name");
        faults.must_keep(&name, name::dns_label);
        if !names.insert(name.text()) {
            faults.duplicate(&name);
        }
        for (_, attribute) in device.get("attributes").entries() {
            if attribute.len() != 1 {
                faults.required(&attribute, "exactly one value must be specified");
            }
        }
        device.get("taints").items().for_each(|taint| validate_taint(&taint, faults));
    }
}

fn validate_taint(taint: &Field, faults: &mut Faults) {
    faults.must_keep(&taint.get("key"), name::qualified_name);
    faults.keeps(&taint.get("value"), name::label_value);
    faults.must_be_one_of(&taint.get("effect"), &["NoExecute", "NoSchedule", "None"]);
}

fn validate_toleration(toleration: &Field, faults: &mut Faults) {
    let [key, operator, value] = ["key", "operator", "value"].map(|name| toleration.get(name));
    faults.keeps(&key, name::qualified_name);
    match operator.text() {
        "Exists" if !value.text().is_empty() => {
            faults.invalid(&value, "must be empty for operator `Exists`");
        }
        "Equal" => faults.keeps(&value, name::label_value),
        "Exists" => {}
        "" => faults.required(&operator, ""),
        _ => faults.not_supported(&operator, &["Equal", "Exists"]),
    }
    if !toleration.get("effect").text().is_empty() {
        faults.one_of(&toleration.get("effect"), &["NoExecute", "NoSchedule"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn faults(claim: Value) -> Vec<String> {
        let mut claim = object(json!({"spec": {"devices": claim}}));
        ResourceClaim.set_defaults(&mut claim);
        ResourceClaim.validate(&claim, None).iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_claim_asks_for_one_device_unless_it_says_otherwise() {
        let mut claim = object(json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu"}},
            {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "gpu", "allocationMode": "All"}]},
        ]}}}));
        ResourceClaim.set_defaults(&mut claim);
        let requests = claim.list(&["spec", "devices", "requests"]);
        assert_eq!(requests[0]["exactly"]["count"], 1);
        assert_eq!(requests[0]["exactly"]["allocationMode"], "ExactCount");
        assert_eq!(requests[1]["firstAvailable"][0]["count"], Value::Null);
        assert_eq!(ResourceClaim.validate(&claim, None), []);
    }

    #[test]
    fn every_fault_of_a_claim_is_told() {
        let told = faults(json!({
            "requests": [
                {"name": "a"},
                {"name": "a", "exactly": {"deviceClassName": "", "allocationMode": "Some"}},
                {"name": "b", "exactly": {"deviceClassName": "gpu", "allocationMode": "All", "count": 2}},
            ],
            "constraints": [{"requests": ["c"], "matchAttribute": "model"}],
            "config": [{"requests": ["a"]}],
        }));
        assert_eq!(
            told,
            [
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[1].name: Duplicate value: \"a\"",
                "spec.devices.requests[1].exactly.deviceClassName: Required value",
                "spec.devices.requests[1].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
                "spec.devices.requests[2].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
                "spec.devices.constraints[0].requests[0]: Invalid value: \"c\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                "spec.devices.constraints[0].matchAttribute: Invalid value: \"model\": must include a domain",
                "spec.devices.config[0].opaque: Required value",
            ]
        );
    }

    #[test]
    fn a_slice_is_for_one_node_or_says_for_which() {
        let slice = |more: Value| {
            let mut spec = json!({"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1}});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            ResourceSlice.validate(&object(json!({"spec": spec})), None).len()
        };
        assert_eq!(slice(json!({"nodeName": "a"})), 0);
        assert_eq!(slice(json!({"allNodes": true, "perDeviceNodeSelection": false})), 0);
        assert_eq!(slice(json!({})), 1);
        assert_eq!(slice(json!({"nodeName": "a", "allNodes": true})), 1);
    }

    #[test]
    fn an_allocation_stays_until_it_is_given_up() {
        let claim = |status: Value| object(json!({"status": status}));
        let user = json!([{"resource": "pods", "name": "a", "uid": "1"}]);
        let allocated = claim(json!({"allocation": {"devices": {}}}));
        let reserved = claim(json!({"allocation": {"devices": {}}, "reservedFor": user}));
        assert_eq!(ResourceClaim.validate_status(&reserved, &allocated), []);
        let changed = claim(json!({"allocation": {"devices": {"results": [1]}}}));
        assert_eq!(ResourceClaim.validate_status(&changed, &allocated).len(), 1);
        let unallocated = claim(json!({"reservedFor": user}));
        assert_eq!(ResourceClaim.validate_status(&unallocated, &reserved).len(), 1);
    }
}
