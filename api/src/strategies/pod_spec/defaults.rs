//! What upstream fills in where a pod spec leaves it out.

use serde_json::{Map, Value, json};

use crate::strategies::fill::Fill;
use crate::strategies::persistent_volume_claim;

const OCTAL_0644: i64 = 0o644;

/// Fills in a pod spec, be it a pod's own or one in a template.
pub fn set_defaults(spec: &mut Map<String, Value>) {
    spec.fill("restartPolicy", "Always");
    spec.fill("dnsPolicy", "ClusterFirst");
    spec.fill("schedulerName", "default-scheduler");
    spec.fill("terminationGracePeriodSeconds", 30);
    spec.fill("securityContext", json!({}));
    same_service_account(spec);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        spec.maps_at(list).for_each(container);
    }
    spec.maps_at("volumes").for_each(volume);
}

/// The old field `serviceAccount` always says what `serviceAccountName` says.
fn same_service_account(spec: &mut Map<String, Value>) {
    if spec.text_at("serviceAccountName").is_empty() && !spec.text_at("serviceAccount").is_empty() {
        let name = spec.text_at("serviceAccount").to_string();
        spec.insert("serviceAccountName".into(), name.into());
    }
    match spec.text_at("serviceAccountName").to_string() {
        name if name.is_empty() => spec.remove("serviceAccount"),
        name => spec.insert("serviceAccount".into(), name.into()),
    };
}

/// On the host's network a container's port is the host's port.
pub fn host_network_ports(spec: &mut Map<String, Value>) {
    if spec.get("hostNetwork") != Some(&Value::Bool(true)) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for port in spec.maps_at(list).flat_map(|container| container.maps_at("ports")) {
            if let Some(number) = port.get("containerPort").cloned() {
                port.fill("hostPort", number);
            }
        }
    }
}

/// What is limited and not requested is requested up to its limit. Upstream does this to pods only,
/// not to templates.
pub fn requests_from_limits(spec: &mut Map<String, Value>) {
    for list in ["initContainers", "containers"] {
        for resources in spec.maps_at(list).filter_map(|container| container.map_at("resources")) {
            let limits = resources.map_at("limits").cloned().unwrap_or_default();
            if limits.is_empty() {
                continue;
            }
            let requests = resources.map_made("requests");
            for (name, limit) in limits {
                requests.fill(&name, limit);
            }
        }
    }
}

fn container(container: &mut Map<String, Value>) {
    container.fill("imagePullPolicy", pull_policy(container.text_at("image")));
    container.fill("terminationMessagePath", "/dev/termination-log");
    container.fill("terminationMessagePolicy", "File");
    container.fill("resources", json!({}));
    for port in container.maps_at("ports") {
        port.fill("protocol", "TCP");
    }
    for source in container.maps_at("env").filter_map(|variable| variable.map_at("valueFrom")) {
        field_references(source);
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = container.map_at(name) {
            probe(value);
        }
    }
    if let Some(lifecycle) = container.map_at("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.map_at(hook) {
                http_get(handler);
            }
        }
    }
}

/// Images that may move under their name are pulled each time, others once.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Map<String, Value>) {
    probe.fill("timeoutSeconds", 1);
    probe.fill("periodSeconds", 10);
    probe.fill("successThreshold", 1);
    probe.fill("failureThreshold", 3);
    if let Some(grpc) = probe.map_at("grpc") {
        grpc.fill("service", "");
    }
    http_get(probe);
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = handler.map_at("httpGet") {
        if get.text_at("path").is_empty() {
            get.insert("path".into(), "/".into());
        }
        get.fill("scheme", "HTTP");
    }
}

fn field_references(source: &mut Map<String, Value>) {
    if let Some(reference) = source.map_at("fieldRef") {
        reference.fill("apiVersion", "v1");
    }
    if let Some(reference) = source.map_at("resourceFieldRef") {
        reference.fill("divisor", "0");
    }
}

fn volume(volume: &mut Map<String, Value>) {
    if volume.iter().all(|(key, value)| key == "name" || value.is_null()) {
        volume.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.map_at(source) {
            source.fill("defaultMode", OCTAL_0644);
        }
    }
    if let Some(downward) = volume.map_at("downwardAPI") {
        downward.maps_at("items").for_each(field_references);
    }
    if let Some(projected) = volume.map_at("projected") {
        for source in projected.maps_at("sources") {
            if let Some(token) = source.map_at("serviceAccountToken") {
                token.fill("expirationSeconds", 3600);
            }
            if let Some(downward) = source.map_at("downwardAPI") {
                downward.maps_at("items").for_each(field_references);
            }
        }
    }
    if let Some(template) = volume.map_at("ephemeral").and_then(|it| it.map_at("volumeClaimTemplate")) {
        persistent_volume_claim::set_spec_defaults(template.map_made("spec"));
    }
    if let Some(image) = volume.map_at("image") {
        image.fill("pullPolicy", pull_policy(image.text_at("reference")));
    }
    source_defaults(volume);
}

/// Fields of single volume sources, shared with PersistentVolumes.
pub fn source_defaults(volume: &mut Map<String, Value>) {
    const DEFAULTS: &[(&str, &[(&str, &str)])] = &[
        ("hostPath", &[("type", "")]),
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ];
    for (name, fields) in DEFAULTS {
        if let Some(source) = volume.map_at(name) {
            for (key, value) in *fields {
                source.fill(key, *value);
            }
        }
    }
    if let Some(disk) = volume.map_at("azureDisk") {
        disk.fill("readOnly", false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_that_may_move_are_always_pulled() {
        let policies =
            ["busybox", "busybox:latest", "registry:5000/busybox", "busybox:1.36", "busybox@sha256:00"]
                .map(pull_policy);
        assert_eq!(policies, ["Always", "Always", "Always", "IfNotPresent", "IfNotPresent"]);
    }

    #[test]
    fn a_bare_pod_spec_is_filled_in() {
        let mut spec = json!({
            "serviceAccountName": "robot",
            "containers": [{
                "name": "web", "image": "web:1", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}}
            }],
            "volumes": [{"name": "scratch"}, {"name": "config", "configMap": {"name": "web"}}],
        });
        set_defaults(spec.as_object_mut().unwrap());
        assert_eq!(
            spec,
            json!({
                "serviceAccountName": "robot", "serviceAccount": "robot",
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "terminationGracePeriodSeconds": 30, "securityContext": {},
                "containers": [{
                    "name": "web", "image": "web:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3
                    }
                }],
                "volumes": [
                    {"name": "scratch", "emptyDir": {}},
                    {"name": "config", "configMap": {"name": "web", "defaultMode": 420}}
                ],
            })
        );
    }

    #[test]
    fn limits_are_requested_where_nothing_else_is() {
        let mut spec = json!({"containers": [{"resources": {
            "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}
        }}]});
        requests_from_limits(spec.as_object_mut().unwrap());
        assert_eq!(spec["containers"][0]["resources"]["requests"], json!({"cpu": "100m", "memory": "1Gi"}));
    }
}
