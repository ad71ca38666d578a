//! Where a request goes: the address of a node, a pod or one of a Service's endpoints.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use api::{Object, Status};
use serde_json::Value;

use super::target::{container_port, number};

const KUBELET_PORT: u16 = 10250;

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint(SocketAddr);

impl Endpoint {
    /// A node's kubelet.
    pub(super) fn of_node(node: &Object) -> Result<Endpoint, Status> {
        let addresses = node.list(&["status", "addresses"]);
        let of_type = |wanted: &str| {
            let found = addresses.iter().filter(|address| address["type"] == wanted);
            found.filter_map(|address| address["address"].as_str()?.parse::<IpAddr>().ok()).next()
        };
        let address = ["InternalIP", "ExternalIP", "Hostname"].into_iter().find_map(of_type);
        let address = address.ok_or_else(|| {
            let text = |address: &Value, key: &str| address[key].as_str().unwrap_or_default().to_string();
            let known: Vec<String> = addresses
                .iter()
                .map(|address| format!("{{{} {}}}", text(address, "type"), text(address, "address")))
                .collect();
            let known = known.join(" ");
            Status::new(500, "", format!("no preferred addresses found; known addresses: [{known}]"))
        })?;
        let port = node.number(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        Ok(Endpoint(SocketAddr::new(address, port.unwrap_or(KUBELET_PORT))))
    }

    /// A pod; `port` is a number, the name of one of its ports, or empty for its first one.
    pub(super) fn of_pod(pod: &Object, port: &str) -> Result<Endpoint, Status> {
        let address = pod.text(&["status", "podIP"]);
        let address: IpAddr = address.parse().map_err(|_| Status::bad_request("address not allowed"))?;
        let port = match port {
            "" => container_port(pod, "").unwrap_or(80),
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => number(text)?,
            name => container_port(pod, name)
                .ok_or_else(|| Status::bad_request(format!("pod {:?} has no port {name:?}", pod.name())))?,
        };
        Ok(Endpoint(SocketAddr::new(address, port)))
    }

    /// A Service's ready endpoints behind one of its ports; never empty.
    pub(super) fn of_service(
        service: &Object,
        slices: &[Object],
        port: &str,
    ) -> Result<Vec<Endpoint>, Status> {
        let ports = service.list(&["spec", "ports"]);
        let found = match port {
            "" => ports.first().filter(|_| ports.len() == 1),
            port => {
                let number: Option<u64> = port.parse().ok();
                ports
                    .iter()
                    .find(|one| one["name"] == port || number.is_some() && one["port"].as_u64() == number)
            }
        };
        let none = || {
            let message = match port.parse::<u64>() {
                Ok(number) => format!("no service port {number} found for service {:?}", service.name()),
                Err(_) => format!("no endpoints available for service {:?}", service.name()),
            };
            Status::new(503, "ServiceUnavailable", message)
        };
        let name = found.ok_or_else(none)?["name"].as_str().unwrap_or_default();
        let of_service = slices.iter().filter(|slice| {
            slice.at(&["metadata", "labels", "kubernetes.io/service-name"])
                == Some(&Value::from(service.name()))
        });
        let endpoints: Vec<Endpoint> = of_service.flat_map(|slice| ready_endpoints(slice, name)).collect();
        match endpoints.is_empty() {
            true => {
                let message = format!("no endpoints available for service {:?}", service.name());
                Err(Status::new(503, "ServiceUnavailable", message))
            }
            false => Ok(endpoints),
        }
    }

    pub(super) fn with_port(self, port: u16) -> Endpoint {
        Endpoint(SocketAddr::new(self.0.ip(), port))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn ready_endpoints(slice: &Object, port_name: &str) -> Vec<Endpoint> {
    let port =
        slice.list(&["ports"]).iter().find(|port| port["name"].as_str().unwrap_or_default() == port_name);
    let port = port.and_then(|port| port["port"].as_u64()).and_then(|port| u16::try_from(port).ok());
    let Some(port) = port else { return Vec::new() };
    let ready = slice.list(&["endpoints"]).iter().filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse::<IpAddr>().ok());
    addresses.map(|address| Endpoint(SocketAddr::new(address, port))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn a_kubelet_is_found_by_its_nodes_internal_address_and_port() {
        let node = object(json!({"status": {
            "addresses": [{"type": "Hostname", "address": "lab1"}, {"type": "InternalIP", "address": "192.0.2.7"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10999}},
        }}));
        assert_eq!(Endpoint::of_node(&node).unwrap().to_string(), "192.0.2.7:10999");
        let lost = object(json!({"status": {"addresses": []}}));
        assert!(Endpoint::of_node(&lost).unwrap_err().message.contains("no preferred addresses found"));
    }

    #[test]
    fn a_pod_has_its_first_port_unless_another_is_asked_for() {
        let pod = object(json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}, {"name": "admin", "containerPort": 9090}]}]},
            "status": {"podIP": "10.244.0.5"},
        }));
        let endpoint = |port| Endpoint::of_pod(&pod, port).unwrap().to_string();
        assert_eq!(endpoint(""), "10.244.0.5:8080");
        assert_eq!(endpoint("admin"), "10.244.0.5:9090");
        assert_eq!(endpoint("81"), "10.244.0.5:81");
        assert!(Endpoint::of_pod(&pod, "gone").is_err());
    }

    #[test]
    fn a_service_leads_to_its_ready_endpoints() {
        let service =
            object(json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}}));
        let slice = object(json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.244.0.5"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.6"], "conditions": {"ready": false}},
            ],
        }));
        for port in ["", "http", "80"] {
            let found = Endpoint::of_service(&service, std::slice::from_ref(&slice), port).unwrap();
            assert_eq!(found.iter().map(Endpoint::to_string).collect::<Vec<_>>(), ["10.244.0.5:8080"]);
        }
        let nobody = Endpoint::of_service(&service, &[], "http").unwrap_err();
        assert_eq!(
            (nobody.code, nobody.message.as_str()),
            (503, r#"no endpoints available for service "web""#)
        );
    }
}
