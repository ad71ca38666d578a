//! The rules of pod specs, shared by pods and everything that has a pod template.

mod claim;
mod container;
mod defaults;
mod probe;
mod scheduling;
mod security;
pub mod source;
pub mod total;
mod volume;

pub use defaults::{host_network_ports, requests_from_limits, set_defaults, source_defaults};
pub use scheduling::{validate_node_selector, validate_toleration, validate_topology_constraints};

use std::collections::HashSet;

use super::check::{Faults, Field};
use super::{label_selector, ports, resources};
use crate::name;

/// All faults of a pod spec.
pub fn validate(spec: &Field, faults: &mut Faults) {
    validate_mounting(spec, &Field::NOTHING, faults);
}

/// All faults of a pod spec whose pods mount the volumes of these claim templates as well.
pub fn validate_mounting<'a>(spec: &Field<'a>, claims: &Field<'a>, faults: &mut Faults) {
    let mut volumes = volume::validate_all(&spec.get("volumes"), faults);
    volumes.extend(claims.items().map(|claim| (claim.get("metadata").get("name").text(), volume::CLAIM)));
    container::validate_all(spec, &volumes, faults);
    claim::validate(spec, faults);
    total::validate(spec, faults);
    faults.must_be_one_of(&spec.get("restartPolicy"), &["Always", "OnFailure", "Never"]);
    faults.must_be_one_of(
        &spec.get("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    label_selector::validate_labels(&spec.get("nodeSelector"), faults);
    security::validate_pod(spec, faults);
    scheduling::validate(spec, faults);
    validate_names(spec, faults);
    validate_host_aliases(&spec.get("hostAliases"), faults);
    validate_dns(spec, faults);
    faults.between(&spec.get("activeDeadlineSeconds"), 1, i64::from(i32::MAX));
    faults.one_of(&spec.get("preemptionPolicy"), &["Never", "PreemptLowerPriority"]);
    resources::validate_overhead(&spec.get("overhead").path, &spec.get("overhead"), faults);
    for gate in spec.get("readinessGates").items() {
        let condition = gate.get("conditionType");
        faults.fits(&condition, name::qualified_name);
    }
    if spec.get("os").is_set() {
        faults.must_be_one_of(&spec.get("os").get("name"), &["linux", "windows"]);
    }
}

fn validate_names(spec: &Field, faults: &mut Faults) {
    for name in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        faults.keeps(&spec.get(name), name::dns_subdomain);
    }
    for name in ["hostname", "subdomain"] {
        faults.keeps(&spec.get(name), name::dns_label);
    }
    let mut gates = HashSet::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name");
        faults.must_keep(&name, name::qualified_name);
        if !gates.insert(name.text()) {
            faults.duplicate(&gate);
        }
    }
    if !gates.is_empty() && !spec.get("nodeName").text().is_empty() {
        faults.forbidden(&spec.get("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

fn validate_host_aliases(aliases: &Field, faults: &mut Faults) {
    for alias in aliases.items() {
        ports::validate_address(&alias.get("ip"), faults);
        for host in alias.get("hostnames").items() {
            faults.fits(&host, name::dns_subdomain);
        }
    }
}

fn validate_dns(spec: &Field, faults: &mut Faults) {
    const SERVERS: usize = 3;
    const SEARCHES: usize = 32;
    const SEARCHES_LENGTH: usize = 2048;
    let config = spec.get("dnsConfig");
    let servers = config.get("nameservers");
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            faults.required(&config, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if servers.is_empty() {
            faults.required(&servers, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.len() > SERVERS {
        faults.invalid(&servers, format!("must not have more than {SERVERS} nameservers"));
    }
    for server in servers.items() {
        ports::validate_address(&server, faults);
    }
    let searches = config.get("searches");
    if searches.len() > SEARCHES {
        faults.invalid(&searches, format!("must not have more than {SEARCHES} search paths"));
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        if let Err(message) = name::dns_search(search.text().strip_suffix('.').unwrap_or(search.text())) {
            faults.invalid(&search, message);
        }
    }
    let length: usize = searches.items().map(|search| search.text().len() + 1).sum();
    if length > SEARCHES_LENGTH + 1 {
        let text = format!(
            "must not have more than {SEARCHES_LENGTH} characters (including spaces) in the search list"
        );
        faults.invalid(&searches, text);
    }
    for option in config.get("options").items() {
        faults.must_be_given(&option.get("name"));
    }
}
