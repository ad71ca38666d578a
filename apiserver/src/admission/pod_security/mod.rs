//! PodSecurity: the namespace's labels say which level its pods must keep (enforce) or should keep (warn).

mod baseline;
mod restricted;

use std::collections::BTreeSet;

use api::{FieldError, Object, Status};
use serde_json::{Value, json};

use super::forbidden;
use crate::hooks::Attributes;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

/// A fault: its short name, and what of the pod is at fault.
struct Violation {
    what: &'static str,
    detail: String,
}

/// Refuses pods beyond the enforced level; returns warnings about those beyond the other one.
pub(super) fn admit(
    attributes: &Attributes<'_>,
    namespace: Option<&Object>,
    pod: &Object,
) -> Result<Vec<String>, Status> {
    let Some(namespace) = namespace else { return Ok(Vec::new()) };
    let labels = Labels(namespace);
    let (enforced, version) = labels.level("enforce");
    let faults = describe(&violations(pod, enforced));
    if !faults.is_empty() {
        let why = format!("violates PodSecurity \"{}:{version}\": {faults}", enforced.name());
        return Err(forbidden(attributes, Some(pod), &why));
    }
    Ok(labels.warning(pod).into_iter().collect())
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
    let labels = Labels(namespace?);
    let (level, _) = labels.level("warn");
    if level == Level::Privileged {
        return None;
    }
    labels.warning(&workload.at(path).cloned().and_then(Object::from_value)?)
}

/// Refuses namespaces whose labels name no level.
pub(super) fn validate_labels(
    attributes: &Attributes<'_>,
    namespace: &Object,
) -> Result<Vec<String>, Status> {
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let label = format!("{PREFIX}{mode}");
        let Some(value) = namespace.at(&["metadata", "labels", &label]).and_then(Value::as_str) else {
            continue;
        };
        if Level::parse(value).is_none() {
            let field = format!("metadata.labels[{label}]");
            errors.push(FieldError::invalid(
                field,
                &json!(value),
                "must be one of privileged, baseline, restricted",
            ));
        }
    }
    match errors.as_slice() {
        [] => Ok(Vec::new()),
        errors => Err(Status::invalid("", attributes.kind.kind, namespace.name(), errors)),
    }
}

/// A namespace's labels.
struct Labels<'a>(&'a Object);

impl Labels<'_> {
    /// Level and version for a mode; a label that names no level counts as the strictest one.
    fn level(&self, mode: &str) -> (Level, &str) {
        let label = |key: String| self.0.at(&["metadata", "labels", &key]).and_then(Value::as_str);
        let level = label(format!("{PREFIX}{mode}"))
            .map(|text| Level::parse(text).unwrap_or(Level::Restricted))
            .unwrap_or_default();
        (level, label(format!("{PREFIX}{mode}-version")).unwrap_or("latest"))
    }

    fn warning(&self, pod: &Object) -> Option<String> {
        let (level, version) = self.level("warn");
        let faults = describe(&violations(pod, level));
        (!faults.is_empty())
            .then(|| format!("would violate PodSecurity \"{}:{version}\": {faults}", level.name()))
    }
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|level| level.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// Everything about the pod that is beyond a level, baseline's rules first.
fn violations(pod: &Object, level: Level) -> Vec<Violation> {
    let mut found = Vec::new();
    if level >= Level::Baseline {
        found.extend(baseline::CHECKS.iter().filter_map(|check| check(pod)));
    }
    match level {
        Level::Privileged => {}
        // Restricted has stricter rules in place of these.
        Level::Baseline => found.extend(baseline::RELAXED_CHECKS.iter().filter_map(|check| check(pod))),
        Level::Restricted => found.extend(restricted::CHECKS.iter().filter_map(|check| check(pod))),
    }
    found
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
    use super::*;

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
    }

    fn faults(spec: Value, level: Level) -> String {
        describe(&violations(&pod(spec), level))
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
            "host namespaces (hostNetwork=true, hostPID=true), hostPort (container \"a\" uses hostPort 80), \
             privileged (container \"a\" must not set securityContext.privileged=true), \
             non-default capabilities (container \"b\" must not include \"NET_ADMIN\" in securityContext.capabilities.add), \
             hostPath volumes (volume \"v\")"
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
}
