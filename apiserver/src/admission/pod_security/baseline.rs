//! The baseline level: nothing that is known to lead out of the container.

use api::Object;
use serde_json::Value;

use super::{
    Check, USER_NAMESPACES, Version, Violation, about, added_capabilities, containers, faulty, has_own_users,
    named, quoted,
};

/// The rules, in the order in which faults are told.
pub(super) const CHECKS: &[Check] = &[
    Check::new(app_armor),
    Check::new(capabilities).replaced(22),
    Check::new(host_namespaces),
    Check::new(host_path).replaced(0),
    Check::new(host_ports),
    Check::new(host_probes).since(34),
    Check::new(privileged),
    Check::new(proc_mount).replaced(USER_NAMESPACES),
    Check::new(selinux),
    Check::new(seccomp).replaced(19),
    Check::new(sysctls),
    Check::new(windows_host_process),
];

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SELINUX_TYPES: &[(&str, u16)] = &[
    ("", 0),
    ("container_t", 0),
    ("container_init_t", 0),
    ("container_kvm_t", 0),
    ("container_engine_t", 31),
];

fn is_known(list: &[(&str, u16)], name: &str, version: Version) -> bool {
    list.iter().any(|(known, since)| *known == name && version.has(*since))
}

fn host_probes(pod: &Object, _: Version) -> Option<Violation> {
    let hosts = |container: &Value| -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        let handlers = ["postStart", "preStop"].map(|handler| &container["lifecycle"][handler]);
        let actions = probes.into_iter().chain(handlers);
        let actions = actions.flat_map(|action| [&action["httpGet"]["host"], &action["tcpSocket"]["host"]]);
        actions.filter_map(Value::as_str).filter(|host| !host.is_empty()).map(str::to_string).collect()
    };
    let mut names = faulty(pod, |container| !hosts(container).is_empty());
    names.sort_unstable();
    let all: std::collections::BTreeSet<String> = containers(pod).flat_map(hosts).collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let what = if all.len() == 1 { "probe or lifecycle host" } else { "probe or lifecycle hosts" };
    let listed = quoted(&all.into_iter().collect::<Vec<_>>());
    about("probe or lifecycle host", &names, &format!("{verb} {what} {listed}"))
}

fn host_namespaces(pod: &Object, _: Version) -> Option<Violation> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let set: Vec<String> = fields
        .filter(|field| pod.at(&["spec", field]) == Some(&Value::Bool(true)))
        .map(|field| format!("{field}=true"))
        .collect();
    (!set.is_empty()).then(|| Violation { what: "host namespaces", detail: set.join(", ") })
}

fn privileged(pod: &Object, _: Version) -> Option<Violation> {
    let names = faulty(pod, |container| container["securityContext"]["privileged"] == true);
    about("privileged", &names, "must not set securityContext.privileged=true")
}

fn capabilities(pod: &Object, _: Version) -> Option<Violation> {
    let (names, added) = added_capabilities(pod, CAPABILITIES);
    let added = quoted(&added.into_iter().collect::<Vec<_>>());
    about(
        "non-default capabilities",
        &names,
        &format!("must not include {added} in securityContext.capabilities.add"),
    )
}

fn host_path(pod: &Object, _: Version) -> Option<Violation> {
    let volumes = pod.list(&["spec", "volumes"]).iter().filter(|volume| !volume["hostPath"].is_null());
    let names: Vec<&str> = volumes.filter_map(|volume| volume["name"].as_str()).collect();
    let word = if names.len() == 1 { "volume" } else { "volumes" };
    (!names.is_empty())
        .then(|| Violation { what: "hostPath volumes", detail: format!("{word} {}", quoted(&names)) })
}

fn host_ports(pod: &Object, _: Version) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<u64> {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["hostPort"].as_u64()).filter(|port| *port > 0).collect()
    };
    let names = faulty(pod, |container| !ports(container).is_empty());
    let mut all: Vec<u64> = containers(pod).flat_map(ports).collect();
    all.sort_unstable();
    all.dedup();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let word = if all.len() == 1 { "hostPort" } else { "hostPorts" };
    let listed = all.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    about("hostPort", &names, &format!("{verb} {word} {listed}"))
}

fn proc_mount(pod: &Object, version: Version) -> Option<Violation> {
    if has_own_users(pod, version) { None } else { masked_proc(pod, version) }
}

/// The same, whoever a process is.
pub(super) fn masked_proc(pod: &Object, _: Version) -> Option<Violation> {
    let mount = |container: &Value| {
        container["securityContext"]["procMount"]
            .as_str()
            .filter(|mount| *mount != "Default")
            .map(str::to_string)
    };
    let names = faulty(pod, |container| mount(container).is_some());
    let mut mounts: Vec<String> = containers(pod).filter_map(mount).collect();
    mounts.dedup();
    about("procMount", &names, &format!("must not set securityContext.procMount to {}", quoted(&mounts)))
}

fn app_armor(pod: &Object, _: Version) -> Option<Violation> {
    let is_unconfined = |context: &Value| context["appArmorProfile"]["type"] == "Unconfined";
    let mut where_from = Vec::new();
    if pod.at(&["spec", "securityContext"]).is_some_and(is_unconfined) {
        where_from.push("pod".to_string());
    }
    let names = faulty(pod, |container| is_unconfined(&container["securityContext"]));
    if !names.is_empty() {
        where_from.push(named(&names));
    }
    let detail = format!("{} must not set AppArmor profile type to \"Unconfined\"", where_from.join(" and "));
    (!where_from.is_empty()).then_some(Violation { what: "forbidden AppArmor profile", detail })
}

fn selinux(pod: &Object, version: Version) -> Option<Violation> {
    let is_foreign = |context: &Value| {
        let options = &context["seLinuxOptions"];
        let text = |key: &str| options[key].as_str().unwrap_or_default();
        !is_known(SELINUX_TYPES, text("type"), version)
            || !text("user").is_empty()
            || !text("role").is_empty()
    };
    let mut where_from = Vec::new();
    if pod.at(&["spec", "securityContext"]).is_some_and(is_foreign) {
        where_from.push("pod".to_string());
    }
    let names = faulty(pod, |container| is_foreign(&container["securityContext"]));
    if !names.is_empty() {
        where_from.push(named(&names));
    }
    let detail = format!("{} set forbidden securityContext.seLinuxOptions", where_from.join(" and "));
    (!where_from.is_empty()).then_some(Violation { what: "seLinuxOptions", detail })
}

fn seccomp(pod: &Object, _: Version) -> Option<Violation> {
    let is_unconfined = |context: &Value| context["seccompProfile"]["type"] == "Unconfined";
    let mut where_from = Vec::new();
    if pod.at(&["spec", "securityContext"]).is_some_and(is_unconfined) {
        where_from.push("pod".to_string());
    }
    let names = faulty(pod, |container| is_unconfined(&container["securityContext"]));
    if !names.is_empty() {
        where_from.push(named(&names));
    }
    let detail = format!(
        "{} must not set securityContext.seccompProfile.type to \"Unconfined\"",
        where_from.join(" and ")
    );
    (!where_from.is_empty()).then_some(Violation { what: "seccompProfile", detail })
}

fn sysctls(pod: &Object, version: Version) -> Option<Violation> {
    let names =
        pod.list(&["spec", "securityContext", "sysctls"]).iter().filter_map(|sysctl| sysctl["name"].as_str());
    let unsafe_ones: Vec<&str> = names.filter(|name| !is_known(api::sysctl::SAFE, name, version)).collect();
    (!unsafe_ones.is_empty()).then(|| Violation { what: "forbidden sysctls", detail: unsafe_ones.join(", ") })
}

fn windows_host_process(pod: &Object, _: Version) -> Option<Violation> {
    let is_host = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let pod_is_host = pod.at(&["spec", "securityContext"]).is_some_and(is_host);
    let names = faulty(pod, |container| is_host(&container["securityContext"]));
    let who = match (pod_is_host, names.is_empty()) {
        (false, true) => return None,
        (true, true) => "pod".to_string(),
        (false, false) => named(&names),
        (true, false) => format!("pod and {}", named(&names)),
    };
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation { what: "hostProcess", detail })
}
