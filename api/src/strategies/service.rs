//! Services.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::check::{Faults, Field, same};
use super::fill::Fill;
use super::{label_selector, load_balancer, ports, warnings};
use crate::{FieldError, Object, name};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// Nobody shall reach a kubelet from outside by accident.
const KUBELET_PORT: i64 = 10250;
const AFFINITY_SECONDS: i64 = 10_800;
const LONGEST_AFFINITY_SECONDS: i64 = 86_400;

/// Rules of Services. Addresses and node ports are given out by the API server's allocators, after the
/// strategy has prepared the object and before it is validated.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        let spec = object.map_mut(&["spec"]);
        spec.fill("type", "ClusterIP");
        spec.fill("sessionAffinity", "None");
        match spec.text_at("sessionAffinity") {
            "None" => drop(spec.remove("sessionAffinityConfig")),
            "ClientIP" => {
                let client = spec.map_made("sessionAffinityConfig").map_made("clientIP");
                client.fill("timeoutSeconds", AFFINITY_SECONDS);
            }
            _ => {}
        }
        for port in spec.maps_at("ports") {
            port.fill("protocol", "TCP");
            let is_unset = matches!(port.get("targetPort"), None | Some(Value::Null))
                || port.get("targetPort").is_some_and(|target| *target == 0 || *target == "");
            if let (true, Some(number)) = (is_unset, port.get("port").cloned()) {
                port.insert("targetPort".into(), number);
            }
        }
        if is_external(spec) {
            spec.fill("externalTrafficPolicy", "Cluster");
        }
        if has_address(spec.text_at("type")) {
            spec.fill("internalTrafficPolicy", "Cluster");
        }
        if spec.text_at("type") == "LoadBalancer" {
            spec.fill("allocateLoadBalancerNodePorts", true);
        }
        if let Some(balancer) = object.0.map_at("status").and_then(|status| status.map_at("loadBalancer")) {
            for ingress in balancer.maps_at("ingress").filter(|ingress| ingress.has("ip")) {
                ingress.fill("ipMode", "VIP");
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({"loadBalancer": {}}));
        let spec = object.map_mut(&["spec"]);
        same_addresses(spec, None);
        if has_address(spec.text_at("type")) {
            spec.fill("ipFamilyPolicy", "SingleStack");
        }
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        let Some(Value::Object(before)) = old.at(&["spec"]) else { return };
        let spec = object.map_mut(&["spec"]);
        same_addresses(spec, Some(before));
        keep_allocations(spec, before);
        drop_what_the_new_type_lacks(spec, before);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        validate_type(&spec, &mut faults);
        validate_ports(&spec, &mut faults);
        validate_affinity(&spec, &mut faults);
        validate_traffic(&spec, &mut faults);
        label_selector::validate_labels(&spec.get("selector"), &mut faults);
        for address in spec.get("externalIPs").items() {
            ports::validate_address(&address, &mut faults);
            ports::validate_endpoint_address(&address, &mut faults);
        }
        if let Some(old) = old {
            validate_update(&spec, &Field::at(old, &["spec"]), &mut faults);
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let ingress = Field::at(object, &["status", "loadBalancer", "ingress"]);
        let is_balanced = object.text(&["spec", "type"]) == "LoadBalancer";
        load_balancer::validate_of_service(&ingress, is_balanced, &mut faults);
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::dns_1035_label(name)
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let spec = Field::at(object, &["spec"]);
        let mut found = Vec::new();
        let (old_hints, hints) =
            ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode");
        if object.annotation(old_hints).is_some() {
            found.push(format!("annotation {old_hints} is deprecated, please use {hints} instead"));
        }
        let kind = spec.get("type").text();
        let is_headless = kind == "ClusterIP" && spec.get("clusterIP").text() == "None";
        if !is_headless {
            spec.get("clusterIPs").items().for_each(|address| warnings::of_address(&address, &mut found));
        }
        let external = spec.get("externalIPs");
        if is_headless {
            let ignored = [
                ("loadBalancerIP", !spec.get("loadBalancerIP").text().is_empty()),
                ("externalIPs", !external.is_empty()),
                ("SessionAffinity", spec.get("sessionAffinity").text() != "None"),
            ];
            let ignored = ignored.into_iter().filter(|(_, is_given)| *is_given);
            found.extend(ignored.map(|(field, _)| format!("spec.{field} is ignored for headless services")));
        }
        external.items().for_each(|address| warnings::of_address(&address, &mut found));
        if !external.is_empty() && !is_headless && kind != "ExternalName" {
            found.push(
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters".into(),
            );
        }
        warnings::of_address(&spec.get("loadBalancerIP"), &mut found);
        spec.get("loadBalancerSourceRanges").items().for_each(|range| warnings::of_range(&range, &mut found));
        if kind == "ExternalName" && !external.is_empty() {
            found.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
        }
        if kind != "ExternalName" && !spec.get("externalName").text().is_empty() {
            found.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
        }
        if spec.get("trafficDistribution").text() == "PreferClose" {
            found.push(
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into(),
            );
        }
        found
    }
}

fn has_address(kind: &str) -> bool {
    matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn has_node_ports(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Whether traffic comes in from outside the cluster.
fn is_external(spec: &Map<String, Value>) -> bool {
    let has_addresses =
        spec.get("externalIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    has_node_ports(spec.text_at("type")) || (spec.text_at("type") == "ClusterIP" && has_addresses)
}

/// `clusterIP` and the first of `clusterIPs` always say the same; a client may know only one of them.
fn same_addresses(spec: &mut Map<String, Value>, before: Option<&Map<String, Value>>) {
    let single = spec.text_at("clusterIP").to_string();
    let has_list = spec.get("clusterIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let Some(before) = before else {
        if !single.is_empty() && !has_list {
            spec.insert("clusterIPs".into(), json!([single]));
        }
        return;
    };
    let is_changed = before.text_at("clusterIP") != single;
    let is_list_changed = before.get("clusterIPs") != spec.get("clusterIPs");
    match (is_changed, is_list_changed) {
        (true, false) if single.is_empty() => drop(spec.remove("clusterIPs")),
        (true, false) => drop(spec.insert("clusterIPs".into(), json!([single]))),
        (false, true) if !has_list && !single.is_empty() => drop(spec.remove("clusterIP")),
        _ => {}
    }
}

/// A client that leaves out what was allocated keeps it.
fn keep_allocations(spec: &mut Map<String, Value>, before: &Map<String, Value>) {
    let (kind, old_kind) = (spec.text_at("type").to_string(), before.text_at("type"));
    if has_address(&kind) && has_address(old_kind) {
        if spec.text_at("clusterIP").is_empty() && spec.text_at("type") != "ExternalName" {
            for key in ["clusterIP", "clusterIPs"] {
                if let Some(value) = before.get(key) {
                    spec.insert(key.into(), value.clone());
                }
            }
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = before.get(key) {
                spec.fill(key, value.clone());
            }
        }
    }
    if has_node_ports(&kind) && has_node_ports(old_kind) {
        keep_node_ports(spec, before);
    }
    if let Some(port) = before.get("healthCheckNodePort")
        && kind == "LoadBalancer"
        && spec.text_at("externalTrafficPolicy") == "Local"
    {
        spec.fill("healthCheckNodePort", port.clone());
    }
}

fn keep_node_ports(spec: &mut Map<String, Value>, before: &Map<String, Value>) {
    let key = |port: &Value| (port["protocol"].clone(), port["port"].clone());
    let node_port = |port: &Value| port["nodePort"].as_i64().filter(|number| *number != 0);
    let old_ports = before.get("ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let new_ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    let Some(new_ports) = new_ports else { return };
    let mut used: HashSet<i64> = new_ports.iter().filter_map(node_port).collect();
    for port in new_ports {
        if node_port(port).is_some() {
            continue;
        }
        let same_port = old_ports.iter().find(|old| key(old) == key(port));
        if let Some(number) = same_port.and_then(node_port)
            && used.insert(number)
        {
            port["nodePort"] = number.into();
        }
    }
}

/// A change of type takes away what the new type has no use for, unless the client changed it as well.
fn drop_what_the_new_type_lacks(spec: &mut Map<String, Value>, before: &Map<String, Value>) {
    let (kind, old_kind) = (spec.text_at("type").to_string(), before.text_at("type"));
    let drop_unchanged = |spec: &mut Map<String, Value>, keys: &[&str]| {
        for key in keys {
            if spec.get(*key) == before.get(*key) {
                spec.remove(*key);
            }
        }
    };
    if has_address(old_kind) && !has_address(&kind) {
        drop_unchanged(
            spec,
            &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"],
        );
    }
    if has_node_ports(old_kind) && !has_node_ports(&kind) {
        let numbers = |spec: &Map<String, Value>| -> Vec<i64> {
            let ports = spec.get("ports").and_then(Value::as_array);
            ports.into_iter().flatten().filter_map(|port| port["nodePort"].as_i64()).collect()
        };
        if numbers(spec) == numbers(before) {
            spec.maps_at("ports").for_each(|port| drop(port.remove("nodePort")));
        }
    }
    if is_external(before) && !is_external(spec) {
        drop_unchanged(spec, &["externalTrafficPolicy"]);
    }
    if old_kind == "LoadBalancer" && kind != "LoadBalancer" {
        drop_unchanged(spec, &["allocateLoadBalancerNodePorts", "healthCheckNodePort", "loadBalancerClass"]);
    }
}

fn validate_type(spec: &Field, faults: &mut Faults) {
    let kind = spec.get("type");
    faults.must_be_one_of(&kind, TYPES);
    let addresses = spec.get("clusterIPs");
    let first = addresses.items().next();
    let is_headless = first.as_ref().is_some_and(|first| first.text() == "None");
    match kind.text() {
        "ExternalName" => {
            if !addresses.is_empty() {
                faults.forbidden(&addresses, "may not be set for ExternalName services");
            }
            let target = spec.get("externalName");
            let name = target.text().strip_suffix('.').unwrap_or(target.text());
            if name.is_empty() {
                faults.required(&target, "");
            } else if let Err(message) = name::dns_subdomain(name) {
                faults.invalid(&target, message);
            }
        }
        kind @ ("LoadBalancer" | "NodePort") => {
            if let (true, Some(first)) = (is_headless, &first) {
                faults.invalid(first, format!("may not be set to 'None' for {kind} services"));
            }
        }
        _ => {}
    }
    if !is_headless {
        addresses.items().for_each(|address| ports::validate_address(&address, faults));
    }
    faults.one_of(&spec.get("ipFamilyPolicy"), &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    for family in spec.get("ipFamilies").items() {
        faults.one_of(&family, &["IPv4", "IPv6"]);
    }
}

fn validate_ports(spec: &Field, faults: &mut Faults) {
    let list = spec.get("ports");
    let kind = spec.get("type");
    let is_headless = spec.get("clusterIP").text() == "None";
    if list.is_empty() && !is_headless && kind.text() != "ExternalName" {
        faults.required(&list, "");
    }
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for port in list.items() {
        validate_port(&port, list.len() > 1, faults);
        let name = port.get("name");
        if !name.text().is_empty() && !names.insert(name.text()) {
            faults.duplicate(&name);
        }
        let protocol = port.get("protocol").text();
        if !numbers.insert((protocol, port.get("port").number())) {
            let value = json!({"port": port.get("port").value, "protocol": protocol});
            faults.duplicate(&Field { path: port.path.clone(), value: &value });
        }
        let node_port = port.get("nodePort");
        if kind.text() == "LoadBalancer" && port.get("port").number() == Some(KUBELET_PORT) {
            let text = "may not expose port 10250 externally since it is used by kubelet";
            faults.invalid(&port.get("port"), text);
        }
        let Some(number) = node_port.number().filter(|number| *number != 0) else { continue };
        if !has_node_ports(kind.text()) {
            let text = format!("may not be used when `type` is '{}'", kind.text());
            faults.forbidden(&node_port, text);
        }
        if !node_ports.insert((protocol, number)) {
            faults.duplicate(&node_port);
        }
    }
}

fn validate_port(port: &Field, needs_name: bool, faults: &mut Faults) {
    let name = port.get("name");
    if needs_name && name.text().is_empty() {
        faults.required(&name, "");
    }
    faults.keeps(&name, name::dns_label);
    let number = port.get("port");
    if number.number().is_some() {
        ports::validate_number(&number, faults);
    } else {
        faults.required(&number, "");
    }
    faults.must_be_one_of(&port.get("protocol"), ports::PROTOCOLS);
    ports::validate_number_or_name(&port.get("targetPort"), faults);
    faults.fits_when_given(&port.get("appProtocol"), name::qualified_name);
}

fn validate_affinity(spec: &Field, faults: &mut Faults) {
    let affinity = spec.get("sessionAffinity");
    faults.must_be_one_of(&affinity, &["ClientIP", "None"]);
    let config = spec.get("sessionAffinityConfig");
    match affinity.text() {
        "ClientIP" => {
            let seconds = config.get("clientIP").get("timeoutSeconds");
            if !seconds.number().is_some_and(|seconds| (1..=LONGEST_AFFINITY_SECONDS).contains(&seconds)) {
                faults.invalid(
                    &seconds,
                    format!("must be greater than 0 and less than {LONGEST_AFFINITY_SECONDS}"),
                );
            }
        }
        "None" if config.is_set() => {
            faults.forbidden(&config, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn validate_traffic(spec: &Field, faults: &mut Faults) {
    let policies = &["Cluster", "Local"];
    let external = spec.get("externalTrafficPolicy");
    if spec.map().is_some_and(is_external) {
        faults.must_be_one_of(&external, policies);
    } else if !external.text().is_empty() {
        faults.invalid(&external, "may only be set for externally-accessible services");
    }
    if has_address(spec.get("type").text()) {
        faults.must_be_one_of(&spec.get("internalTrafficPolicy"), policies);
    }
    let distribution = spec.get("trafficDistribution");
    faults.one_of(&distribution, &["PreferClose", "PreferSameNode", "PreferSameZone"]);
    let is_balancer = spec.get("type").text() == "LoadBalancer";
    let check = spec.get("healthCheckNodePort");
    faults.not_negative(&check);
    if check.number().is_some_and(|port| port != 0) && !(is_balancer && external.text() == "Local") {
        let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        faults.invalid(&check, text);
    }
    for name in ["loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let field = spec.get(name);
        if !is_balancer && !same(field.value, &Value::Null) {
            faults.forbidden(&field, "may only be used when `type` is 'LoadBalancer'");
        }
    }
    for range in spec.get("loadBalancerSourceRanges").items() {
        ports::validate_cidr(&range, faults);
    }
}

/// An address stays for as long as the Service has one.
fn validate_update(spec: &Field, old: &Field, faults: &mut Faults) {
    let has_kept_type = [spec, old].iter().all(|spec| has_address(spec.get("type").text()));
    let first = |spec: &Field| spec.get("clusterIPs").items().next().map(|it| it.text().to_string());
    if let (true, Some(before)) = (has_kept_type, first(old))
        && first(spec).as_ref() != Some(&before)
    {
        let addresses = spec.get("clusterIPs");
        let path = format!("{}[0]", addresses.path);
        faults.invalid(&Field { path, value: addresses.value }, "may not change once set");
    }
    let (class, before) = (spec.get("loadBalancerClass"), old.get("loadBalancerClass"));
    if [spec, old].iter().all(|spec| spec.get("type").text() == "LoadBalancer") && class.value != before.value
    {
        faults.invalid(&class, "may not change once set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn service(spec: Value) -> Object {
        let mut object = Object::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        Strategy.set_defaults(&mut object);
        object
    }

    fn messages(faults: Vec<FieldError>) -> Vec<String> {
        faults.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_bare_service_is_filled_in() {
        let service = service(json!({"ports": [{"port": 80}]}));
        assert_eq!(
            service.at(&["spec"]),
            Some(&json!({
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
            }))
        );
        assert_eq!(Strategy.validate(&service, None), []);
    }

    #[test]
    fn several_ports_need_names_of_their_own() {
        let service = service(json!({"ports": [{"port": 80, "name": "web"}, {"port": 80}]}));
        assert_eq!(
            messages(Strategy.validate(&service, None)),
            [
                "spec.ports[1].name: Required value",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            ]
        );
    }

    #[test]
    fn node_ports_are_for_types_that_have_them() {
        let service = service(json!({"ports": [{"port": 80, "nodePort": 30080}]}));
        assert_eq!(
            messages(Strategy.validate(&service, None)),
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
        );
    }

    #[test]
    fn an_update_keeps_what_was_allocated() {
        let old = service(json!({
            "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ports": [{"port": 80, "nodePort": 30080}],
        }));
        let mut new =
            service(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "name": "b"}]}));
        Strategy.prepare_for_update(&mut new, &old);
        assert_eq!(new.text(&["spec", "clusterIP"]), "10.96.0.7");
        assert_eq!(new.list(&["spec", "clusterIPs"]), [json!("10.96.0.7")]);
        assert_eq!(new.list(&["spec", "ports"])[0]["nodePort"], 30080);
        assert_eq!(new.list(&["spec", "ports"])[1].get("nodePort"), None);

        let mut new = old.clone();
        new.set(&["spec", "type"], "ClusterIP");
        Strategy.prepare_for_update(&mut new, &old);
        assert_eq!(new.list(&["spec", "ports"])[0].get("nodePort"), None);
        assert_eq!(Strategy.validate(&new, Some(&old)), []);
    }

    #[test]
    fn an_address_does_not_change() {
        let old =
            service(json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]}));
        let mut new = old.clone();
        new.set(&["spec", "clusterIP"], "10.96.0.8");
        Strategy.prepare_for_update(&mut new, &old);
        assert_eq!(
            messages(Strategy.validate(&new, Some(&old))),
            ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"]
        );
    }
}
