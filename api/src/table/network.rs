//! What Services, endpoints, Ingresses and policies print.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cells::{first_three, joined, labels_at, selector_at, text_or};
use super::{AGE, Column};
use crate::Object;

/// Columns of Services.
pub const SERVICE: &[Column] = &[
    Column::text("Type", "How the service is reached.", |service, _| text_or(service, &["spec", "type"], "")),
    Column::text("Cluster-IP", "Address inside the cluster.", |service, _| {
        let first = service.list(&["spec", "clusterIPs"]).first().and_then(Value::as_str);
        first.map_or_else(|| text_or(service, &["spec", "clusterIP"], "<none>"), Value::from)
    }),
    Column::text("External-IP", "Addresses outside the cluster.", |service, _| external(service).into()),
    Column::text("Port(s)", "Ports of the service, and those of the nodes.", |service, _| {
        let ports: Vec<String> = service.list(&["spec", "ports"]).iter().map(port).collect();
        joined(&ports, "<none>").into()
    }),
    AGE,
    Column::text("Selector", "Labels of the pods behind the service.", |service, _| {
        labels_at(service, &["spec", "selector"])
    })
    .wide(),
];

fn port(port: &Value) -> String {
    let number = port["port"].as_i64().unwrap_or_default();
    let protocol = port["protocol"].as_str().unwrap_or_default();
    match port["nodePort"].as_i64().unwrap_or_default() {
        0 => format!("{number}/{protocol}"),
        node_port => format!("{number}:{node_port}/{protocol}"),
    }
}

fn external(service: &Object) -> String {
    let addresses: Vec<&str> =
        service.list(&["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match service.text(&["spec", "type"]) {
        "ClusterIP" | "NodePort" => joined(&addresses, "<none>"),
        "LoadBalancer" => {
            let mut all = balancers(service);
            all.extend(addresses);
            joined(&all, "<pending>")
        }
        "ExternalName" => service.text(&["spec", "externalName"]).to_string(),
        _ => "<unknown>".into(),
    }
}

/// Where load balancers answer, each place once.
fn balancers(object: &Object) -> Vec<&str> {
    let list = object.list(&["status", "loadBalancer", "ingress"]);
    let places: BTreeSet<&str> =
        list.iter().filter_map(|it| it["ip"].as_str().or_else(|| it["hostname"].as_str())).collect();
    places.into_iter().collect()
}

/// Columns of Endpoints.
pub const ENDPOINTS: &[Column] = &[
    Column::text("Endpoints", "Addresses and ports that answer.", |object, _| {
        let texts: Vec<String> = object.list(&["subsets"]).iter().flat_map(subset).collect();
        first_three(&texts, if object.list(&["subsets"]).is_empty() { "<none>" } else { "" }).into()
    }),
    AGE,
];

fn subset(subset: &Value) -> Vec<String> {
    let list = |name: &str| subset[name].as_array().map_or(&[][..], Vec::as_slice);
    let addresses: Vec<&str> = list("addresses").iter().filter_map(|it| it["ip"].as_str()).collect();
    if list("ports").is_empty() {
        return addresses.iter().map(ToString::to_string).collect();
    }
    let of_port = |port: &Value| {
        let number = port["port"].as_i64().unwrap_or_default();
        addresses.iter().map(|address| with_port(address, number)).collect::<Vec<String>>()
    };
    list("ports").iter().flat_map(of_port).collect()
}

fn with_port(address: &str, port: i64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Columns of EndpointSlices.
pub const ENDPOINT_SLICE: &[Column] = &[
    Column::text("AddressType", "What sort of addresses the slice holds.", |object, _| {
        text_or(object, &["addressType"], "")
    }),
    Column::text("Ports", "Ports that answer.", |object, _| {
        let name = |port: &Value| port["name"].as_str().unwrap_or("*").to_string();
        let port =
            |port: &Value| port["port"].as_i64().map_or_else(|| name(port), |number| number.to_string());
        let ports: Vec<String> = object.list(&["ports"]).iter().map(port).collect();
        first_three(&ports, "<unset>").into()
    }),
    Column::text("Endpoints", "Addresses that answer.", |object, _| {
        let lists =
            object.list(&["endpoints"]).iter().filter_map(|endpoint| endpoint["addresses"].as_array());
        let addresses: Vec<&str> = lists.flatten().filter_map(Value::as_str).collect();
        first_three(&addresses, "<unset>").into()
    }),
    AGE,
];

/// Columns of Ingresses.
pub const INGRESS: &[Column] = &[
    Column::text("Class", "Which controller serves the ingress.", |object, _| {
        text_or(object, &["spec", "ingressClassName"], "<none>")
    }),
    Column::text("Hosts", "Names that requests are sent to.", |object, _| {
        let hosts: Vec<&str> = object
            .list(&["spec", "rules"])
            .iter()
            .filter_map(|rule| rule["host"].as_str())
            .filter(|host| !host.is_empty())
            .collect();
        first_three(&hosts, "*").into()
    }),
    Column::text("Address", "Where the ingress answers.", |object, _| joined(&balancers(object), "").into()),
    Column::text("Ports", "Ports that are open.", |object, _| {
        let has_tls = !object.list(&["spec", "tls"]).is_empty();
        if has_tls { "80, 443".into() } else { "80".into() }
    }),
    AGE,
];

/// Columns of IngressClasses.
pub const INGRESS_CLASS: &[Column] = &[
    Column::text("Controller", "Controller of the class.", |object, _| {
        text_or(object, &["spec", "controller"], "")
    }),
    Column::text("Parameters", "Settings of the class.", |object, _| {
        let text = |name: &str| object.text(&["spec", "parameters", name]);
        let kind = match text("apiGroup") {
            _ if text("kind").is_empty() => return "<none>".into(),
            "" => text("kind").to_string(),
            group => format!("{}.{group}", text("kind")),
        };
        format!("{kind}/{}", text("name")).into()
    }),
    AGE,
];

/// Columns of NetworkPolicies.
pub const NETWORK_POLICY: &[Column] = &[
    Column::text("Pod-Selector", "Which pods the policy is about.", |object, _| {
        selector_at(object, &["spec", "podSelector"])
    }),
    AGE,
];

/// Columns of IPAddresses.
pub const IP_ADDRESS: &[Column] = &[
    Column::text("ParentRef", "The object that has the address.", |object, _| {
        let text = |name: &str| object.text(&["spec", "parentRef", name]);
        let kind = match text("group") {
            "" => text("resource").to_string(),
            group => format!("{}.{group}", text("resource")),
        };
        match text("namespace") {
            "" => format!("{kind}/{}", text("name")).into(),
            namespace => format!("{kind}/{namespace}/{}", text("name")).into(),
        }
    }),
    AGE,
];

/// Columns of ServiceCIDRs.
pub const SERVICE_CIDR: &[Column] = &[
    Column::text("CIDRs", "Ranges that services get their addresses from.", |object, _| {
        let ranges: Vec<&str> = object.list(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        joined(&ranges, "").into()
    }),
    AGE,
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cell(columns: &[Column], name: &str, value: Value) -> String {
        let column = columns.iter().find(|column| column.name == name).unwrap();
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        (column.cell)(&Object::from_value(value).unwrap(), now).as_str().unwrap().to_string()
    }

    #[test]
    fn ports_of_a_service_name_those_of_the_nodes() {
        let service = json!({"spec": {"type": "NodePort", "ports": [
            {"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"},
        ]}});
        assert_eq!(cell(SERVICE, "Port(s)", service.clone()), "80:30080/TCP,53/UDP");
        assert_eq!(cell(SERVICE, "External-IP", service), "<none>");
    }

    #[test]
    fn a_load_balancer_is_awaited() {
        let mut service = json!({"spec": {"type": "LoadBalancer"}});
        assert_eq!(cell(SERVICE, "External-IP", service.clone()), "<pending>");
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        assert_eq!(cell(SERVICE, "External-IP", service), "192.0.2.1");
    }

    #[test]
    fn long_lists_of_endpoints_are_cut() {
        let addresses: Vec<Value> = (1..=5).map(|number| json!({"ip": format!("10.0.0.{number}")})).collect();
        let endpoints = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        let expected = "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...";
        assert_eq!(cell(ENDPOINTS, "Endpoints", endpoints), expected);
        assert_eq!(cell(ENDPOINTS, "Endpoints", json!({})), "<none>");
    }
}
