//! The restricted level: current practice of hardening, at the price of some compatibility.

use api::Object;
use serde_json::Value;

use super::{
    Check, USER_NAMESPACES, Version, Violation, about, added_capabilities, baseline, containers, faulty,
    has_own_users, is_windows, named, quoted,
};

/// The rules beyond baseline's, in the order in which faults are told.
pub(super) const CHECKS: &[Check] = &[
    Check::new(privilege_escalation).since(8),
    Check::new(capabilities).since(22),
    Check::new(baseline::masked_proc).since(USER_NAMESPACES),
    Check::new(volumes),
    Check::new(non_root),
    Check::new(root_user).since(23),
    Check::new(seccomp).since(19),
];

/// Since then pods for Windows need not say what has no meaning there.
const WINDOWS: u16 = 25;

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
];

fn privilege_escalation(pod: &Object, version: Version) -> Option<Violation> {
    if version.has(WINDOWS) && is_windows(pod) {
        return None;
    }
    let names = faulty(pod, |container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    about(
        "allowPrivilegeEscalation != false",
        &names,
        "must set securityContext.allowPrivilegeEscalation=false",
    )
}

fn capabilities(pod: &Object, version: Version) -> Option<Violation> {
    if version.has(WINDOWS) && is_windows(pod) {
        return None;
    }
    let drops_all = |container: &Value| {
        let dropped = container["securityContext"]["capabilities"]["drop"].as_array();
        dropped.is_some_and(|dropped| dropped.iter().any(|one| one == "ALL"))
    };
    let keeping = faulty(pod, |container| !drops_all(container));
    let (adding, added) = added_capabilities(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !adding.is_empty() {
        let added = quoted(&added.into_iter().collect::<Vec<_>>());
        details
            .push(format!("{} must not include {added} in securityContext.capabilities.add", named(&adding)));
    }
    (!details.is_empty()).then(|| Violation { what: "unrestricted capabilities", detail: details.join("; ") })
}

fn volumes(pod: &Object, _: Version) -> Option<Violation> {
    let mut names = Vec::new();
    let mut types = Vec::new();
    for volume in pod.list(&["spec", "volumes"]).iter().filter_map(Value::as_object) {
        let source = volume.keys().find(|key| *key != "name");
        if let Some(source) = source.filter(|source| !VOLUMES.contains(&source.as_str())) {
            names.extend(volume.get("name").and_then(Value::as_str));
            types.push(source.as_str());
        }
    }
    types.sort_unstable();
    types.dedup();
    let (word, verb) = if names.len() == 1 { ("volume", "uses") } else { ("volumes", "use") };
    let kinds = if types.len() == 1 { "type" } else { "types" };
    let detail = format!("{word} {} {verb} restricted volume {kinds} {}", quoted(&names), quoted(&types));
    (!types.is_empty()).then_some(Violation { what: "restricted volume types", detail })
}

fn non_root(pod: &Object, version: Version) -> Option<Violation> {
    if has_own_users(pod, version) {
        return None;
    }
    let what = "runAsNonRoot != true";
    let of_pod = pod.at(&["spec", "securityContext", "runAsNonRoot"]).and_then(Value::as_bool);
    let of = |container: &Value| container["securityContext"]["runAsNonRoot"].as_bool();
    let explicit = faulty(pod, |container| of(container) == Some(false));
    let mut details = Vec::new();
    if of_pod == Some(false) {
        details.push("pod must not set securityContext.runAsNonRoot=false".to_string());
    }
    if !explicit.is_empty() {
        details.push(format!("{} must not set securityContext.runAsNonRoot=false", named(&explicit)));
    }
    if details.is_empty() && of_pod.is_none() {
        let silent = faulty(pod, |container| of(container).is_none());
        if !silent.is_empty() {
            details.push(format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)));
        }
    }
    (!details.is_empty()).then(|| Violation { what, detail: details.join(" and ") })
}

fn root_user(pod: &Object, version: Version) -> Option<Violation> {
    if has_own_users(pod, version) {
        return None;
    }
    let mut who = Vec::new();
    if pod.number(&["spec", "securityContext", "runAsUser"]) == Some(0) {
        who.push("pod".to_string());
    }
    let names = faulty(pod, |container| container["securityContext"]["runAsUser"] == 0);
    if !names.is_empty() {
        who.push(named(&names));
    }
    let detail = format!("{} must not set runAsUser=0", who.join(" and "));
    (!who.is_empty()).then_some(Violation { what: "runAsUser=0", detail })
}

fn seccomp(pod: &Object, version: Version) -> Option<Violation> {
    if version.has(WINDOWS) && is_windows(pod) {
        return None;
    }
    let what = "seccompProfile";
    let kind = |context: &Value| context["seccompProfile"]["type"].as_str().map(str::to_string);
    let is_good = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let of_pod = pod.at(&["spec", "securityContext"]).and_then(kind);
    let bad: Vec<String> = containers(pod)
        .filter_map(|container| kind(&container["securityContext"]))
        .filter(|kind| !is_good(kind))
        .collect();
    let mut details = Vec::new();
    if let Some(kind) = of_pod.as_deref().filter(|kind| !is_good(kind)) {
        details.push(format!("pod must not set securityContext.seccompProfile.type to {kind:?}"));
    }
    if !bad.is_empty() {
        let names =
            faulty(pod, |container| kind(&container["securityContext"]).is_some_and(|kind| !is_good(&kind)));
        details.push(format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            named(&names),
            quoted(&bad)
        ));
    }
    if details.is_empty() && of_pod.is_none() {
        let silent = faulty(pod, |container| kind(&container["securityContext"]).is_none());
        if !silent.is_empty() {
            details.push(format!(
                "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
                named(&silent)
            ));
        }
    }
    (!details.is_empty()).then(|| Violation { what, detail: details.join(" and ") })
}
