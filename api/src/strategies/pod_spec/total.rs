//! What a pod asks for in all, and what it may say about that itself (`spec.resources`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::strategies::{
    check::{Faults, Field},
    fill::Fill,
    resources::{self, is_huge_pages, is_of_pods, quantity},
};
use crate::{Object, quantity::Quantity};

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// The `requests` or `limits` of a pod without its overhead: its own where it says so, else its containers'.
pub fn of_pod(pod: &Object, part: &str) -> Amounts {
    let Some(Value::Object(spec)) = pod.at(&["spec"]) else { return Amounts::new() };
    let mut total = of_containers(spec, part);
    let own = amounts(spec.get("resources").unwrap_or(&Value::Null), part);
    total.extend(own.into_iter().filter(|(resource, _)| is_of_pods(resource)));
    total
}

/// The `requests` or `limits` of the containers that run together with the sidecars, or of the hungriest init
/// container beside the sidecars before it.
pub fn of_containers(spec: &Map<String, Value>, part: &str) -> Amounts {
    let list = |name: &str| spec.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut total = Amounts::new();
    for container in list("containers") {
        add(&mut total, &amounts(&container["resources"], part));
    }
    let (mut sidecars, mut hungriest) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let mut own = amounts(&container["resources"], part);
        if container["restartPolicy"] == "Always" {
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut hungriest, &own);
    }
    add(&mut total, &sidecars);
    raise(&mut total, &hungriest);
    total
}

fn amounts(resources: &Value, part: &str) -> Amounts {
    let entries = resources[part].as_object().into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), quantity(amount)?))).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    more.iter().for_each(|(name, amount)| *total.entry(name.clone()).or_default() += *amount);
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let present = total.entry(name.clone()).or_default();
        *present = (*present).max(*amount);
    }
}

/// A pod that says something for itself says all of it: huge pages as its containers, requests as its containers or,
/// where they are silent, up to its limits.
pub fn set_defaults(spec: &mut Map<String, Value>) {
    let Some(own) = spec.get("resources").filter(|own| own.is_object()) else { return };
    let says_something = ["limits", "requests"].iter().any(|part| !amounts(own, part).is_empty());
    if !says_something {
        return;
    }
    let (limits, requests) = (of_containers(spec, "limits"), of_containers(spec, "requests"));
    let own = spec.map_made("resources");
    for (resource, amount) in limits.into_iter().filter(|(resource, _)| is_huge_pages(resource)) {
        own.map_made("limits").fill(&resource, amount.to_string());
    }
    let limits = own.map_at("limits").cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let can_be_shared = |resource: &String| is_of_pods(resource) && !is_huge_pages(resource);
    for (resource, amount) in requests.into_iter().filter(|(resource, _)| can_be_shared(resource)) {
        own.map_made("requests").fill(&resource, amount.to_string());
    }
    for (resource, limit) in limits.into_iter().filter(|(resource, _)| is_of_pods(resource)) {
        own.map_made("requests").fill(&resource, limit);
    }
}

/// The rules of `spec.resources`.
pub fn validate(spec: &Field, faults: &mut Faults) {
    let own = spec.get("resources");
    if !own.is_set() {
        return;
    }
    if spec.get("os").get("name").text() == "windows" {
        return faults.forbidden(&own, "may not be set for a windows pod");
    }
    if own.get("claims").is_set() {
        faults.forbidden(&own.get("claims"), "claims may not be set for Resources at pod-level");
    }
    resources::validate_of_pod(&own, faults);
    let Some(containers) = spec.map() else { return };
    for (part, counts) in
        [("requests", (|_: &str| true) as fn(&str) -> bool), ("limits", is_huge_pages as fn(&str) -> bool)]
    {
        for (resource, sum) in of_containers(containers, part).iter().filter(|(name, _)| counts(name)) {
            let given = own.get(part).entry(resource);
            if quantity(given.value).is_some_and(|given| given < *sum) {
                faults.invalid(
                    &given,
                    format!("must be greater than or equal to aggregate container {part} of {sum}"),
                );
            }
        }
    }
    for (index, container) in spec.get("containers").items().enumerate() {
        for (resource, limit) in container.get("resources").get("limits").entries() {
            let most = quantity(own.get("limits").entry(resource).value);
            if let (Some(given), Some(most)) = (quantity(limit.value), most)
                && given > most
            {
                // Upstream's path begins at the pod's own resources.
                let path = format!("{}.containers[{index}][{resource}].limits", own.path);
                let text = format!("must be less than or equal to pod limits of {most}");
                faults.invalid(&Field { path, value: limit.value }, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cpu(part: &str, amount: &str) -> Value {
        json!({"resources": {part: {"cpu": amount}}})
    }

    #[test]
    fn sidecars_run_beside_the_containers_and_init_containers_before_them() {
        let mut sidecar = cpu("requests", "100m");
        sidecar["restartPolicy"] = "Always".into();
        let containers = [cpu("requests", "200m"), cpu("requests", "200m")];
        let pod = |init: &str, own: Value| {
            let init = [sidecar.clone(), cpu("requests", init)];
            let spec = json!({"initContainers": init, "containers": containers, "resources": own});
            of_pod(&Object::from_value(json!({"spec": spec})).unwrap(), "requests")["cpu"].to_string()
        };
        assert_eq!(pod("1m", Value::Null), "500m");
        assert_eq!(pod("1", Value::Null), "1100m");
        assert_eq!(pod("1", json!({"requests": {"cpu": "300m"}})), "300m");
    }

    #[test]
    fn a_pod_asks_for_what_its_containers_do_or_for_its_limits() {
        let defaulted = |own: Value, container: Value| {
            let mut spec = json!({"resources": own, "containers": [container]});
            set_defaults(spec.as_object_mut().unwrap());
            spec["resources"].clone()
        };
        let limits = json!({"limits": {"cpu": "2", "memory": "1Gi"}});
        assert_eq!(
            defaulted(limits.clone(), cpu("requests", "500m")),
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})
        );
        assert_eq!(defaulted(limits, json!({}))["requests"], json!({"cpu": "2", "memory": "1Gi"}));
        assert_eq!(defaulted(json!({}), cpu("requests", "1")), json!({}));
        let requests = json!({"requests": {"cpu": "1"}});
        assert_eq!(defaulted(requests.clone(), cpu("requests", "1")), requests);
    }

    #[test]
    fn a_pod_and_its_containers_do_not_contradict_each_other() {
        let spec = json!({
            "resources": {
                "requests": {"cpu": "1", "ephemeral-storage": "1"}, "limits": {"cpu": "2"}, "claims": [],
            },
            "containers": [
                {"resources": {"requests": {"cpu": "700m"}, "limits": {"cpu": "3"}}}, cpu("requests", "700m"),
            ],
        });
        let mut faults = Faults::new();
        validate(&Field { path: "spec".into(), value: &spec }, &mut faults);
        let told: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level",
                r#"spec.resources.requests[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory""#,
                r#"spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 1400m"#,
                r#"spec.resources.containers[0][cpu].limits: Invalid value: "3": must be less than or equal to pod limits of 2"#,
            ]
        );
    }
}
