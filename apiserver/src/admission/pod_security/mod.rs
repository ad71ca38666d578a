//! PodSecurity: the namespace's labels say which level its pods must keep (enforce), and which they should keep (warn,
//! audit).

mod baseline;
mod policy;
mod restricted;

use std::collections::{BTreeMap, BTreeSet};

use api::{Object, Status};
use serde_json::Value;

use super::forbidden;
use crate::{
    audit::annotate,
    hooks::{Attributes, Operation},
};
use policy::{Bar, Level, Policy, Version};

/// A fault: its short name, and what of the pod is at fault.
struct Violation {
    what: &'static str,
    detail: String,
}

/// One rule.
struct Check {
    /// The minor version that it came with.
    since: u16,
    /// Since when the restricted level has a stricter rule in its place, if it has.
    replaced: Option<u16>,
    run: fn(&Object, Version) -> Option<Violation>,
}

impl Check {
    const fn new(run: fn(&Object, Version) -> Option<Violation>) -> Check {
        Check { since: 0, replaced: None, run }
    }

    const fn since(self, since: u16) -> Check {
        Check { since, ..self }
    }

    const fn replaced(self, since: u16) -> Check {
        Check { replaced: Some(since), ..self }
    }
}

/// Refuses pods beyond the enforced level; returns warnings about those beyond the other one.
pub(super) fn admit(
    attributes: &Attributes<'_>,
    namespace: Option<&Object>,
    pod: &Object,
) -> Result<Vec<String>, Status> {
    let Some(namespace) = namespace else { return Ok(Vec::new()) };
    let (policy, _) = Policy::of(namespace);
    annotate("pod-security.kubernetes.io/enforce-policy", policy.enforce.to_string());
    let faults = describe(&violations(pod, policy.enforce));
    if !faults.is_empty() {
        let why = format!("violates PodSecurity \"{}\": {faults}", policy.enforce);
        return Err(forbidden(attributes, Some(pod), &why));
    }
    Ok(remark(&policy, pod).into_iter().collect())
}

/// Warnings about the pods that a workload would make.
pub(super) fn warn_about_template(
    attributes: &Attributes<'_>,
    namespace: Option<&Object>,
    workload: &Object,
) -> Option<String> {
    let path: &[&str] = match attributes.kind.kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" | "ReplicationController" => {
            &["spec", "template"]
        }
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        "PodTemplate" => &["template"],
        _ => return None,
    };
    let (policy, _) = Policy::of(namespace?);
    if policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged {
        return None;
    }
    remark(&policy, &workload.at(path).cloned().and_then(Object::from_value)?)
}

/// Notes what should not be in the audit log, and says it to the client.
fn remark(policy: &Policy, pod: &Object) -> Option<String> {
    let said = |bar: Bar| {
        let faults = describe(&violations(pod, bar));
        (!faults.is_empty()).then(|| format!("would violate PodSecurity \"{bar}\": {faults}"))
    };
    if let Some(text) = said(policy.audit) {
        annotate("pod-security.kubernetes.io/audit-violations", text);
    }
    said(policy.warn)
}

/// Refuses namespaces whose labels make no sense; what was there before may stay.
pub(super) fn validate_labels(
    attributes: &Attributes<'_>,
    namespace: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let (_, errors) = Policy::of(namespace);
    let is_old = old.is_some_and(|old| Policy::of(old).1.len() >= errors.len());
    match errors.is_empty() || (attributes.operation == Operation::Update && is_old) {
        true => Ok(()),
        false => Err(Status::invalid("", attributes.kind.kind, namespace.name(), &errors)),
    }
}

/// Whether pods that are there have to be looked at, because a namespace asks for more than before.
pub(super) fn is_tightened(namespace: &Object, old: Option<&Object>) -> bool {
    let Some(old) = old else { return false };
    let (now, before) = (Policy::of(namespace).0.enforce, Policy::of(old).0.enforce);
    now != before && now.level != Level::Privileged && now.level >= before.level
}

/// Warnings about the pods that are there already and would not get in any more.
pub(super) fn warn_about_present(namespace: &Object, pods: &[Object]) -> Vec<String> {
    let enforce = Policy::of(namespace).0.enforce;
    let mut by_fault: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods {
        let found = violations(pod, enforce);
        if !found.is_empty() {
            let what: Vec<&str> = found.iter().map(|violation| violation.what).collect();
            by_fault.entry(what.join(", ")).or_default().push(pod.name());
        }
    }
    let mut warnings: Vec<String> = by_fault
        .into_iter()
        .map(|(what, mut names)| {
            names.sort_unstable();
            match names.len() {
                1 => format!("{}: {what}", names[0]),
                2 => format!("{} (and 1 other pod): {what}", names[0]),
                count => format!("{} (and {} other pods): {what}", names[0], count - 1),
            }
        })
        .collect();
    if !warnings.is_empty() {
        warnings.sort_unstable();
        let name = namespace.name();
        let first = format!(
            "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{enforce}\""
        );
        warnings.insert(0, first);
    }
    warnings
}

/// Everything about the pod that is beyond a level, baseline's rules first.
fn violations(pod: &Object, bar: Bar) -> Vec<Violation> {
    let checks = match bar.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => baseline::CHECKS.iter().collect(),
        Level::Restricted => {
            let is_kept = |check: &&Check| !check.replaced.is_some_and(|since| bar.version.has(since));
            let kept = baseline::CHECKS.iter().filter(is_kept);
            kept.chain(restricted::CHECKS).collect::<Vec<_>>()
        }
    };
    let valid = checks.into_iter().filter(|check| bar.version.has(check.since));
    valid.filter_map(|check| (check.run)(pod, bar.version)).collect()
}

/// Since then it matters less who a process is where that is nobody outside of the pod.
const USER_NAMESPACES: u16 = 35;

/// Whether a pod has a user namespace of its own, and the version knows what that means.
fn has_own_users(pod: &Object, version: Version) -> bool {
    version.has(USER_NAMESPACES) && pod.at(&["spec", "hostUsers"]) == Some(&Value::Bool(false))
}

/// Whether a pod says that it is for Windows, where some rules have no meaning.
fn is_windows(pod: &Object) -> bool {
    pod.text(&["spec", "os", "name"]) == "windows"
}

fn describe(violations: &[Violation]) -> String {
    let text = |violation: &Violation| format!("{} ({})", violation.what, violation.detail);
    violations.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// All containers of a pod, the way they are checked.
fn containers(pod: &Object) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| pod.list(&["spec", list]))
}

/// The names of the containers that are at fault.
fn faulty(pod: &Object, is_faulty: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(pod).filter(|one| is_faulty(one)).filter_map(|one| one["name"].as_str()).collect()
}

/// `container "a"` or `containers "a", "b"`.
fn named(names: &[&str]) -> String {
    format!("{} {}", if names.len() == 1 { "container" } else { "containers" }, quoted(names))
}

/// `"a", "b"`.
fn quoted<T: AsRef<str>>(items: &[T]) -> String {
    items.iter().map(|item| format!("{:?}", item.as_ref())).collect::<Vec<_>>().join(", ")
}

/// A violation about containers, if there are any.
fn about(what: &'static str, names: &[&str], must: &str) -> Option<Violation> {
    (!names.is_empty()).then(|| Violation { what, detail: format!("{} {must}", named(names)) })
}

/// What containers add to their capabilities beyond `allowed`: the containers, and the capabilities.
fn added_capabilities<'a>(pod: &'a Object, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut names = Vec::new();
    let mut all = BTreeSet::new();
    for container in containers(pod) {
        let added = container["securityContext"]["capabilities"]["add"].as_array();
        let beyond: Vec<&str> = added
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|one| !allowed.contains(one))
            .collect();
        if !beyond.is_empty() {
            names.extend(container["name"].as_str());
            all.extend(beyond);
        }
    }
    (names, all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
    }

    fn faults(spec: Value, level: Level) -> String {
        faults_as_of(spec, level, Version::Latest)
    }

    fn faults_as_of(spec: Value, level: Level, version: Version) -> String {
        describe(&violations(&pod(spec), Bar { level, version }))
    }

    #[test]
    fn a_plain_pod_is_baseline_and_lacks_what_restricted_asks_for() {
        let spec = json!({"containers": [{"name": "c"}]});
        assert_eq!(faults(spec.clone(), Level::Baseline), "");
        assert_eq!(
            faults(spec, Level::Restricted),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
    }

    #[test]
    fn root_of_a_user_namespace_is_nobody() {
        let spec = |host_users: Value| {
            json!({
                "hostUsers": host_users,
                "securityContext": {"runAsUser": 0, "runAsNonRoot": false, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "c", "securityContext": {
                    "procMount": "Unmasked", "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            })
        };
        let proc = r#"procMount (container "c" must not set securityContext.procMount to "Unmasked")"#;
        let root = "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0)";
        let both = format!("{proc}, {root}");
        let own = json!(false);
        let cases = [
            (own.clone(), Level::Baseline, Version::Latest, ""),
            (own.clone(), Level::Restricted, Version::Minor(35), proc),
            (own.clone(), Level::Baseline, Version::Minor(34), proc),
            (own, Level::Restricted, Version::Minor(34), &both),
            (Value::Null, Level::Baseline, Version::Latest, proc),
            (json!(true), Level::Restricted, Version::Latest, &both),
        ];
        for (host_users, level, version, expected) in cases {
            assert_eq!(faults_as_of(spec(host_users), level, version), expected, "{version}");
        }
    }

    #[test]
    fn an_old_version_of_restricted_holds_to_baseline_where_it_has_nothing_stricter() {
        let spec = json!({"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]});
        let faults = faults_as_of(spec, Level::Restricted, Version::Minor(21));
        assert!(
            faults.contains(r#"must not include "NET_ADMIN" in securityContext.capabilities.add"#),
            "{faults}"
        );
    }

    #[test]
    fn what_reaches_into_the_host_is_beyond_baseline() {
        let spec = json!({
            "hostNetwork": true,
            "hostPID": true,
            "containers": [
                {"name": "a", "securityContext": {"privileged": true}, "ports": [{"hostPort": 80}]},
                {"name": "b", "securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}},
            ],
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        });
        assert_eq!(
            faults(spec, Level::Baseline),
            "non-default capabilities (container \"b\" must not include \"NET_ADMIN\" in securityContext.capabilities.add), \
             host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"v\"), \
             hostPort (container \"a\" uses hostPort 80), \
             privileged (container \"a\" must not set securityContext.privileged=true)"
        );
    }

    #[test]
    fn a_careful_pod_is_restricted() {
        let spec = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            }}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "t", "projected": {}}],
        });
        assert_eq!(faults(spec, Level::Restricted), "");
    }

    #[test]
    fn root_is_refused_wherever_it_is_asked_for() {
        let spec = json!({
            "securityContext": {"runAsNonRoot": true, "runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {
                "runAsNonRoot": false, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            }}],
        });
        assert_eq!(
            faults(spec, Level::Restricted),
            "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false), \
             runAsUser=0 (pod must not set runAsUser=0)"
        );
    }

    #[test]
    fn levels_are_as_they_were_in_a_version() {
        let spec = json!({
            "containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "example.com"}}}],
            "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]},
        });
        let as_of = |minor| faults_as_of(spec.clone(), Level::Baseline, Version::Minor(minor));
        assert_eq!(as_of(31), "forbidden sysctls (net.ipv4.tcp_rmem)");
        assert_eq!(as_of(32), "");
        assert_eq!(
            as_of(34),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"example.com\")"
        );
        let plain = json!({"containers": [{"name": "c"}]});
        let old = faults_as_of(plain, Level::Restricted, Version::Minor(7));
        assert_eq!(
            old,
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)"
        );
    }

    #[test]
    fn pods_for_windows_need_none_of_what_it_does_not_have() {
        let spec = json!({
            "os": {"name": "windows"}, "containers": [{"name": "c"}], "securityContext": {"runAsNonRoot": true},
        });
        assert_eq!(faults(spec.clone(), Level::Restricted), "");
        assert!(
            faults_as_of(spec, Level::Restricted, Version::Minor(24)).starts_with("allowPrivilegeEscalation")
        );
    }

    #[test]
    fn a_tighter_namespace_tells_of_the_pods_that_are_there() {
        let namespace = |level: &str| {
            let labels = json!({"pod-security.kubernetes.io/enforce": level});
            Object::from_value(json!({"metadata": {"name": "n", "labels": labels}})).unwrap()
        };
        assert!(is_tightened(&namespace("baseline"), Some(&namespace("privileged"))));
        assert!(!is_tightened(&namespace("baseline"), Some(&namespace("restricted"))));
        assert!(!is_tightened(&namespace("baseline"), None));
        let named = |name: &str, spec: Value| {
            Object::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
        };
        let host = json!({"hostNetwork": true, "containers": []});
        let pods = [
            named("c", host.clone()),
            named("a", host.clone()),
            named("b", host),
            named("d", json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]})),
            named("e", json!({"containers": []})),
        ];
        assert_eq!(
            warn_about_present(&namespace("baseline"), &pods),
            [
                "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
                "a (and 2 other pods): host namespaces",
                "d: privileged",
            ]
        );
    }
}
