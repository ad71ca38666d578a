//! What one Service needs: pure, given what is taken.

use std::net::IpAddr;

use api::{FieldError, FieldErrorKind, Object, Status, network::Network};
use serde_json::{Value, json};

use super::PortRange;

/// What there is to hand out.
pub(super) struct Ranges {
    /// Service addresses, in the order in which they are used up.
    pub(super) networks: Vec<Network>,
    /// Node ports.
    pub(super) ports: PortRange,
}

/// Addresses and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<u16>,
}

/// What others hold, and the choice among the rest.
pub(super) trait Taken {
    fn has_address(&self, address: IpAddr) -> bool;
    fn has_port(&self, port: u16) -> bool;
    fn choose_address(&self, network: &Network) -> Option<IpAddr>;
    fn choose_port(&self, range: &PortRange, also_taken: &[u16]) -> Option<u16>;
}

impl Held {
    /// What a stored Service holds.
    pub(super) fn by(service: &Object) -> Held {
        let mut held = Held::default();
        if needs_address(service) {
            let addresses = service.list(&["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
            held.addresses =
                addresses.chain([cluster_ip(service)]).filter_map(|text| text.parse().ok()).collect();
            held.addresses.sort_unstable();
            held.addresses.dedup();
        }
        let ports = service.list(&["spec", "ports"]).iter().filter_map(node_port);
        held.ports = ports.chain(health_check_port(service)).collect();
        held.ports.sort_unstable();
        held.ports.dedup();
        held
    }
}

/// Fills in addresses, families and node ports; returns what is to be reserved, beyond what `old` holds.
/// What an update does not mention was carried over by the kind's strategy before.
pub(super) fn fill(
    service: &mut Object,
    old: Option<&Object>,
    ranges: &Ranges,
    taken: &impl Taken,
) -> Result<Held, Status> {
    let before = old.map(Held::by).unwrap_or_default();
    let mut filling = Filling { service, before, ranges, taken, wanted: Held::default() };
    filling.fill_address()?;
    filling.fill_ports()?;
    filling.fill_health_check_port()?;
    Ok(filling.wanted)
}

struct Filling<'a, T> {
    service: &'a mut Object,
    before: Held,
    ranges: &'a Ranges,
    taken: &'a T,
    wanted: Held,
}

impl<T: Taken> Filling<'_, T> {
    fn fill_address(&mut self) -> Result<(), Status> {
        if !needs_address(self.service) {
            if self.service.text(&["spec", "type"]) == "ExternalName" {
                for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                    self.service.remove(&["spec", field]);
                }
            } else {
                self.service.set_if_absent(&["spec", "clusterIPs"], json!(["None"]));
                self.fill_families()?;
            }
            return Ok(());
        }
        self.fill_families()?;
        let given = match cluster_ip(self.service) {
            "" => {
                self.service.list(&["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or_default()
            }
            given => given,
        };
        let address = match given {
            "" => {
                let found = self.networks().find_map(|network| self.taken.choose_address(network));
                found.ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?
            }
            given => {
                let parsed: Option<IpAddr> = given.parse().ok();
                let address = parsed.ok_or_else(|| self.refuse_address(given, "invalid IP"))?;
                if self.before.addresses.contains(&address) {
                    self.set_address(address);
                    return Ok(());
                }
                if !self.networks().any(|network| network.has_host(address)) {
                    let why = "the provided network does not match the current range";
                    return Err(self.refuse_address(given, why));
                }
                if self.taken.has_address(address) {
                    return Err(self.refuse_address(given, "provided IP is already allocated"));
                }
                address
            }
        };
        self.wanted.addresses.push(address);
        self.set_address(address);
        Ok(())
    }

    /// The ranges of the family that Services have here.
    fn networks(&self) -> impl Iterator<Item = &Network> {
        self.ranges.networks.iter().filter(|network| network.is_ipv4())
    }

    fn set_address(&mut self, address: IpAddr) {
        self.service.set(&["spec", "clusterIP"], address.to_string());
        self.service.set(&["spec", "clusterIPs"], json!([address.to_string()]));
    }

    /// One family, IPv4: all that this cluster's Services have.
    fn fill_families(&mut self) -> Result<(), Status> {
        if self.service.text(&["spec", "ipFamilyPolicy"]) == "RequireDualStack" {
            let detail = "this cluster is not configured for dual-stack services";
            let value = json!("RequireDualStack");
            return Err(self.refuse(FieldError::invalid("spec.ipFamilyPolicy", &value, detail)));
        }
        let families = self.service.list(&["spec", "ipFamilies"]);
        let foreign = families.iter().position(|family| *family != "IPv4");
        if let Some(index) = foreign {
            let field = format!("spec.ipFamilies[{index}]");
            return Err(self.refuse(FieldError::invalid(
                field,
                &families[index],
                "not configured on this cluster",
            )));
        }
        self.service.set_if_absent(&["spec", "ipFamilies"], json!(["IPv4"]));
        self.service.set_if_absent(&["spec", "ipFamilyPolicy"], "SingleStack");
        Ok(())
    }

    fn fill_ports(&mut self) -> Result<(), Status> {
        if !needs_ports(self.service) {
            return Ok(());
        }
        let mut ports = self.service.list(&["spec", "ports"]).to_vec();
        let mut own: Vec<u16> = Vec::new();
        // Those that are asked for come first, so that none of them is chosen for another port.
        for (index, port) in ports.iter().enumerate() {
            if let Some(number) = node_port(port)
                && !own.contains(&number)
            {
                self.reserve_port(number, &format!("spec.ports[{index}].nodePort"))?;
                own.push(number);
            }
        }
        if self.service.at(&["spec", "allocateLoadBalancerNodePorts"]) == Some(&Value::Bool(false))
            && self.service.text(&["spec", "type"]) == "LoadBalancer"
        {
            return Ok(());
        }
        for index in 0..ports.len() {
            if node_port(&ports[index]).is_some() {
                continue;
            }
            // One number serves a port under both protocols.
            let twin = ports.iter().find_map(|other| {
                let is_twin =
                    other["port"] == ports[index]["port"] && other["protocol"] != ports[index]["protocol"];
                node_port(other).filter(|_| is_twin)
            });
            let number = match twin {
                Some(number) => number,
                None => self.choose_port(&own)?,
            };
            own.push(number);
            ports[index]["nodePort"] = number.into();
        }
        self.service.set(&["spec", "ports"], ports);
        Ok(())
    }

    fn fill_health_check_port(&mut self) -> Result<(), Status> {
        if !needs_health_check_port(self.service) {
            return Ok(());
        }
        if let Some(port) = health_check_port(self.service) {
            return self.reserve_port(port, "spec.healthCheckNodePort");
        }
        let own: Vec<u16> = self.service.list(&["spec", "ports"]).iter().filter_map(node_port).collect();
        let port = self.choose_port(&own)?;
        self.service.set(&["spec", "healthCheckNodePort"], port);
        Ok(())
    }

    fn choose_port(&mut self, own: &[u16]) -> Result<u16, Status> {
        let chosen = self.taken.choose_port(&self.ranges.ports, own);
        let port = chosen.ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
        self.wanted.ports.push(port);
        Ok(port)
    }

    fn reserve_port(&mut self, port: u16, field: &str) -> Result<(), Status> {
        if self.before.ports.contains(&port) || self.wanted.ports.contains(&port) {
            return Ok(());
        }
        let fault = if !self.ranges.ports.has(port) {
            let range = self.ranges.ports;
            Some(format!("provided port is not in the valid range. The range of valid ports is {range}"))
        } else {
            self.taken.has_port(port).then(|| "provided port is already allocated".to_string())
        };
        match fault {
            Some(fault) => Err(self.refuse(FieldError::invalid(field, &port.into(), fault))),
            None => {
                self.wanted.ports.push(port);
                Ok(())
            }
        }
    }

    fn refuse_address(&self, address: &str, why: &str) -> Status {
        let value = format!("[{address:?}]");
        let detail = format!("failed to allocate IP {address}: {why}");
        self.refuse(FieldError::new(FieldErrorKind::Invalid, "spec.clusterIPs", value, detail))
    }

    fn refuse(&self, error: FieldError) -> Status {
        Status::invalid("", "Service", self.service.name(), &[error])
    }
}

fn cluster_ip(service: &Object) -> &str {
    service.text(&["spec", "clusterIP"])
}

fn needs_address(service: &Object) -> bool {
    let is_headless = cluster_ip(service) == "None"
        || service.list(&["spec", "clusterIPs"]).first().is_some_and(|address| address == "None");
    service.text(&["spec", "type"]) != "ExternalName" && !is_headless
}

fn needs_ports(service: &Object) -> bool {
    matches!(service.text(&["spec", "type"]), "NodePort" | "LoadBalancer")
}

fn needs_health_check_port(service: &Object) -> bool {
    service.text(&["spec", "type"]) == "LoadBalancer"
        && service.text(&["spec", "externalTrafficPolicy"]) == "Local"
}

fn node_port(port: &Value) -> Option<u16> {
    u16::try_from(port["nodePort"].as_u64()?).ok().filter(|port| *port > 0)
}

fn health_check_port(service: &Object) -> Option<u16> {
    let port = service.number(&["spec", "healthCheckNodePort"])?;
    u16::try_from(port).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{super::numbers::free_address, *};

    #[derive(Default)]
    struct Table {
        addresses: HashSet<IpAddr>,
        ports: HashSet<u16>,
    }

    impl Taken for Table {
        fn has_address(&self, address: IpAddr) -> bool {
            self.addresses.contains(&address)
        }

        fn has_port(&self, port: u16) -> bool {
            self.ports.contains(&port)
        }

        fn choose_address(&self, network: &Network) -> Option<IpAddr> {
            free_address(network, |address| !self.has_address(address), |_| 0)
        }

        fn choose_port(&self, range: &PortRange, also_taken: &[u16]) -> Option<u16> {
            range.free(|port| !self.has_port(port) && !also_taken.contains(&port), |_| 0)
        }
    }

    fn ranges() -> Ranges {
        ranges_of(&["10.96.0.0/12"])
    }

    fn ranges_of(networks: &[&str]) -> Ranges {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        Ranges { networks, ports: "30000-32767".parse().unwrap() }
    }

    fn service(spec: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap()
    }

    fn taken() -> Table {
        Table { addresses: ["10.96.0.10".parse().unwrap()].into(), ports: [30080].into() }
    }

    #[test]
    fn a_plain_service_gets_an_address_and_its_family() {
        let mut object = service(json!({"type": "ClusterIP", "ports": [{"port": 80}]}));
        let wanted = fill(&mut object, None, &ranges(), &Table::default()).unwrap();
        assert_eq!(object.text(&["spec", "clusterIP"]), "10.96.1.1");
        assert_eq!(object.at(&["spec", "clusterIPs"]), Some(&json!(["10.96.1.1"])));
        assert_eq!(object.at(&["spec", "ipFamilies"]), Some(&json!(["IPv4"])));
        assert_eq!(wanted.addresses.len(), 1);
    }

    #[test]
    fn a_second_range_is_used_when_the_first_is_full_or_an_address_of_it_is_wanted() {
        let ranges = ranges_of(&["fd00::/112", "10.0.0.0/30", "192.0.2.0/24"]);
        let mut table = Table::default();
        let mut given = Vec::new();
        for _ in 0..3 {
            let mut object = service(json!({}));
            let wanted = fill(&mut object, None, &ranges, &table).unwrap();
            table.addresses.extend(&wanted.addresses);
            given.extend(wanted.addresses);
        }
        let expected: Vec<IpAddr> =
            ["10.0.0.1", "10.0.0.2", "192.0.2.17"].map(|address| address.parse().unwrap()).into();
        assert_eq!(given, expected);
        let mut object = service(json!({"clusterIP": "192.0.2.7"}));
        fill(&mut object, None, &ranges, &Table::default()).unwrap();
        assert_eq!(object.text(&["spec", "clusterIP"]), "192.0.2.7");
        let none = fill(&mut service(json!({})), None, &ranges_of(&["fd00::/112"]), &table).unwrap_err();
        assert_eq!(
            (none.code, none.message.ends_with("failed to allocate a serviceIP: range is full")),
            (500, true)
        );
    }

    #[test]
    fn what_another_service_holds_is_refused_in_upstreams_words() {
        let fault = |spec| fill(&mut service(spec), None, &ranges(), &taken()).unwrap_err().message;
        assert_eq!(
            fault(json!({"clusterIP": "10.96.0.10"})),
            r#"Service "x" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"#
        );
        assert_eq!(
            fault(json!({"clusterIP": "10.0.0.1"})),
            r#"Service "x" is invalid: spec.clusterIPs: Invalid value: ["10.0.0.1"]: failed to allocate IP 10.0.0.1: the provided network does not match the current range"#
        );
        assert_eq!(
            fault(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]})),
            r#"Service "x" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"#
        );
        assert_eq!(
            fault(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]})),
            r#"Service "x" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"#
        );
    }

    #[test]
    fn one_number_serves_both_protocols() {
        let ports = json!([{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]);
        let mut object = service(json!({"type": "NodePort", "ports": ports}));
        let wanted = fill(&mut object, None, &ranges(), &Table::default()).unwrap();
        let ports = object.list(&["spec", "ports"]);
        assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);
        assert_eq!(wanted.ports.len(), 1);
    }

    #[test]
    fn an_update_reserves_only_what_is_new() {
        let mut old = service(json!({"type": "NodePort", "ports": [{"name": "http", "port": 80}]}));
        fill(&mut old, None, &ranges(), &Table::default()).unwrap();
        let held = Held::by(&old);
        let others = Table {
            addresses: held.addresses.iter().copied().collect(),
            ports: held.ports.iter().copied().collect(),
        };
        let mut new = old.clone();
        let mut ports = new.list(&["spec", "ports"]).to_vec();
        ports.push(json!({"name": "admin", "port": 81}));
        new.set(&["spec", "ports"], ports);
        let wanted = fill(&mut new, Some(&old), &ranges(), &others).unwrap();
        assert!(wanted.addresses.is_empty());
        assert_eq!(wanted.ports.len(), 1);
        assert!(!held.ports.contains(&wanted.ports[0]));
    }

    #[test]
    fn headless_and_external_services_hold_no_address() {
        let mut headless = service(json!({"clusterIP": "None"}));
        assert_eq!(fill(&mut headless, None, &ranges(), &Table::default()).unwrap(), Held::default());
        assert_eq!(headless.at(&["spec", "clusterIPs"]), Some(&json!(["None"])));
        let mut external = service(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert_eq!(fill(&mut external, None, &ranges(), &Table::default()).unwrap(), Held::default());
        assert_eq!(external.at(&["spec", "clusterIPs"]), None);
        assert_eq!(Held::by(&headless), Held::default());
    }

    #[test]
    fn a_local_load_balancer_gets_a_health_check_port_of_its_own() {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
        let mut object = service(spec);
        let wanted = fill(&mut object, None, &ranges(), &Table::default()).unwrap();
        assert_eq!(wanted.ports, [30086, 30087]);
        assert_eq!(object.number(&["spec", "healthCheckNodePort"]), Some(30087));
    }
}
