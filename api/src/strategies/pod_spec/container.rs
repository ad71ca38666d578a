//! Containers: names, images, ports, environment and mounts.

use std::collections::HashSet;

use super::volume::{CLAIM, Volumes};
use super::{probe, security};
use crate::name;
use crate::strategies::check::{Faults, Field};
use crate::strategies::{ports, resources};

/// What upstream lets a variable refer to.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The fields of pods that have names for this purpose.
const OF_PODS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

/// In what amounts of bytes may be counted.
const UNITS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// All containers of a pod spec. `volumes` holds the names of its volumes.
pub fn validate_all(spec: &Field, volumes: &Volumes, faults: &mut Faults) {
    let lists = ["containers", "initContainers", "ephemeralContainers"].map(|list| spec.get(list));
    let [containers, init, ephemeral] = &lists;
    if containers.is_empty() {
        faults.required(containers, "");
    }
    let mut names = HashSet::new();
    for container in lists.iter().flat_map(Field::items) {
        let name = container.get("name");
        faults.must_keep(&name, name::dns_label);
        if !name.text().is_empty() && !names.insert(name.text()) {
            faults.duplicate(&name);
        }
        validate(&container, volumes, faults);
    }
    for container in containers.items() {
        if container.get("restartPolicy").is_set() && container.get("restartPolicyRules").is_empty() {
            faults.one_of(&container.get("restartPolicy"), &["Always", "Never", "OnFailure"]);
        }
        probe::validate_container(&container, faults);
    }
    for container in init.items() {
        validate_init(&container, faults);
    }
    for container in ephemeral.items() {
        validate_ephemeral(&container, &names, faults);
    }
    validate_host_ports(spec, &lists, faults);
}

fn validate(container: &Field, volumes: &Volumes, faults: &mut Faults) {
    let image = container.get("image");
    if image.text().is_empty() {
        faults.required(&image, "");
    } else if image.text().trim() != image.text() {
        faults.invalid(&image, "must not have leading or trailing whitespace");
    }
    let policy = container.get("terminationMessagePolicy");
    faults.must_be_one_of(&policy, &["File", "FallbackToLogsOnError"]);
    faults.must_be_one_of(&container.get("imagePullPolicy"), &["Always", "IfNotPresent", "Never"]);
    validate_ports(&container.get("ports"), faults);
    container.get("env").items().for_each(|variable| validate_variable(&variable, faults));
    container.get("envFrom").items().for_each(|source| validate_variables_from(&source, faults));
    validate_mounts(container, volumes, faults);
    validate_devices(container, volumes, faults);
    resources::validate(&container.get("resources"), faults);
    security::validate_container(&container.get("securityContext"), faults);
}

/// Init containers that are not sidecars run to their end: nobody probes them.
fn validate_init(container: &Field, faults: &mut Faults) {
    let policy = container.get("restartPolicy");
    faults.one_of(&policy, &["Always", "Never", "OnFailure"]);
    if policy.text() == "Always" {
        probe::validate_container(container, faults);
        return;
    }
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let field = container.get(name);
        if field.is_set() {
            faults.forbidden(&field, "may not be set for init containers without restartPolicy=Always");
        }
    }
}

fn validate_ephemeral(container: &Field, names: &HashSet<&str>, faults: &mut Faults) {
    for name in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        let field = container.get(name);
        if field.is_set() {
            faults.forbidden(&field, "cannot be set for an Ephemeral Container");
        }
    }
    let resources = container.get("resources");
    if !resources.is_empty() {
        faults.forbidden(&resources, "cannot be set for an Ephemeral Container");
    }
    let target = container.get("targetContainerName");
    if !target.text().is_empty() && !names.contains(target.text()) {
        faults.not_found(&target);
    }
}

fn validate_ports(list: &Field, faults: &mut Faults) {
    let mut names = HashSet::new();
    for port in list.items() {
        let name = port.get("name");
        faults.keeps(&name, name::port_name);
        if !name.text().is_empty() && !names.insert(name.text()) {
            faults.duplicate(&name);
        }
        let number = port.get("containerPort");
        match number.number() {
            None | Some(0) => faults.required(&number, ""),
            Some(_) => ports::validate_number(&number, faults),
        }
        let host = port.get("hostPort");
        if host.number() != Some(0) {
            ports::validate_number(&host, faults);
        }
        faults.must_be_one_of(&port.get("protocol"), ports::PROTOCOLS);
    }
}

/// A port of the host can be taken once; on the host's network it is the container's own.
fn validate_host_ports(spec: &Field, lists: &[Field; 3], faults: &mut Faults) {
    let on_host = spec.get("hostNetwork").is_true();
    let [containers, ..] = lists;
    let mut taken = HashSet::new();
    for port in containers.items().flat_map(|container| container.get("ports").items()) {
        let host = port.get("hostPort");
        let Some(number) = host.number().filter(|number| *number != 0) else { continue };
        let container_port = port.get("containerPort");
        if on_host && container_port.number() != Some(number) {
            faults.invalid(&container_port, "must match `hostPort` when `hostNetwork` is true");
        }
        let key = format!("{}/{}/{number}", port.get("protocol").text(), port.get("hostIP").text());
        if !taken.insert(key.clone()) {
            faults.duplicate(&Field { path: host.path.clone(), value: &key.into() });
        }
    }
}

fn validate_variable(variable: &Field, faults: &mut Faults) {
    let name = variable.get("name");
    faults.must_keep(&name, name::env_var_name);
    let from = variable.get("valueFrom");
    if !from.is_set() {
        return;
    }
    let sources: Vec<(&str, Field)> =
        ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"]
            .into_iter()
            .map(|source| (source, from.get(source)))
            .filter(|(_, field)| field.is_set())
            .collect();
    for (source, field) in &sources {
        match *source {
            "fieldRef" => validate_field_reference(field, FIELDS, faults),
            "resourceFieldRef" => validate_resource_reference(field, faults),
            "fileKeyRef" => ["volumeName", "path", "key"].iter().for_each(|key| {
                faults.must_be_given(&field.get(key));
            }),
            _ => validate_key_reference(field, faults),
        }
    }
    if sources.is_empty() {
        faults.invalid(
            &from,
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        );
    } else if !variable.get("value").text().is_empty() {
        faults.invalid(&from, "may not be specified when `value` is not empty");
    } else if sources.len() > 1 {
        faults.invalid(&from, "may not have more than one field specified at a time");
    }
}

/// A field of the pod. `allowed` are those that can be given here.
pub fn validate_field_reference(reference: &Field, allowed: &[&str], faults: &mut Faults) {
    let path = reference.get("fieldPath");
    if !faults.must_be_given(&reference.get("apiVersion")) || !faults.must_be_given(&path) {
        return;
    }
    let text = path.text();
    let entry = text.strip_suffix("']").and_then(|text| text.split_once("['"));
    match entry {
        Some(("metadata.annotations", key)) => check_key(reference, key, &key.to_lowercase(), faults),
        Some(("metadata.labels", key)) => check_key(reference, key, key, faults),
        _ if entry.is_some() || !OF_PODS.contains(&text) => {
            faults.invalid(&path, format!("error converting fieldPath: field label not supported: {text}"));
        }
        _ => faults.one_of(&path, allowed),
    }
}

fn check_key(reference: &Field, key: &str, checked: &str, faults: &mut Faults) {
    if let Err(message) = name::qualified_name(checked) {
        faults.invalid(&Field { path: reference.path.clone(), value: &key.into() }, message);
    }
}

/// An amount that a container may or must have.
pub fn validate_resource_reference(reference: &Field, faults: &mut Faults) {
    let resource = reference.get("resource");
    let is_huge =
        ["limits.hugepages-", "requests.hugepages-"].iter().any(|start| resource.text().starts_with(start));
    if faults.must_be_given(&resource) && !is_huge {
        faults.one_of(&resource, RESOURCES);
    }
    let divisor = reference.get("divisor");
    let (words, allowed) = match resource.text().split_once('.').unwrap_or_default().1 {
        "cpu" => ("cpu resource", ["1m", "1"].as_slice()),
        "memory" => ("memory resource", UNITS),
        "ephemeral-storage" => ("local ephemeral storage resource", UNITS),
        _ if is_huge => ("hugepages resource", UNITS),
        _ => return,
    };
    if divisor.is_set() && divisor.text() != "0" && !allowed.contains(&divisor.text()) {
        let listed = if allowed == UNITS { UNITS.join(", ") } else { allowed.join(" and ") };
        let text = format!("only divisor's values {listed} are supported with the {words}");
        faults.invalid(&Field { path: divisor.path.clone(), value: resource.value }, text);
    }
}

fn validate_key_reference(reference: &Field, faults: &mut Faults) {
    faults.fits(&reference.get("name"), name::dns_subdomain);
    faults.must_keep(&reference.get("key"), name::config_key);
}

fn validate_variables_from(source: &Field, faults: &mut Faults) {
    faults.keeps(&source.get("prefix"), name::env_var_name);
    let given: Vec<Field> = ["configMapRef", "secretRef"]
        .map(|name| source.get(name))
        .into_iter()
        .filter(Field::is_set)
        .collect();
    for reference in &given {
        faults.must_keep(&reference.get("name"), name::dns_subdomain);
    }
    match given.len() {
        0 => faults.invalid(source, "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => faults.invalid(source, "may not have more than one field specified at a time"),
    }
}

fn validate_mounts(container: &Field, volumes: &Volumes, faults: &mut Faults) {
    let mut paths = HashSet::new();
    for mount in container.get("volumeMounts").items() {
        let name = mount.get("name");
        if faults.must_be_given(&name) && !volumes.contains_key(name.text()) {
            faults.not_found(&name);
        }
        let path = mount.get("mountPath");
        if faults.must_be_given(&path) && !paths.insert(path.text()) {
            faults.invalid(&path, "must be unique");
        }
        let (sub_path, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        validate_local_path(&sub_path, faults);
        validate_local_path(&expression, faults);
        if !sub_path.text().is_empty() && !expression.text().is_empty() {
            faults.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
        }
        let propagation = mount.get("mountPropagation");
        faults.one_of(&propagation, &["Bidirectional", "HostToContainer", "None"]);
        let is_privileged = container.get("securityContext").get("privileged").is_true();
        if propagation.text() == "Bidirectional" && !is_privileged {
            let text = "Bidirectional mount propagation is available only to privileged containers";
            faults.forbidden(&propagation, text);
        }
    }
}

/// Volumes that a container sees as devices: claims, each once, and none that is mounted as well.
fn validate_devices(container: &Field, volumes: &Volumes, faults: &mut Faults) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    let mounts = container.get("volumeMounts");
    let is_mounted = |key: &str, text: &str| mounts.items().any(|mount| mount.get(key).text() == text);
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        let source = volumes.get(name.text()).copied();
        if faults.must_be_given(&name) && source.is_none() {
            faults.not_found(&name);
        }
        if !names.insert(name.text()) {
            faults.invalid(&name, "must be unique");
        }
        if source.is_some_and(|source| !matches!(source, CLAIM | "ephemeral")) {
            let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            faults.invalid(&name, text);
        }
        faults.must_be_given(&path);
        if !paths.insert(path.text()) {
            faults.invalid(&path, "must be unique");
        }
        if path.text().split('/').any(|part| part == "..") {
            faults.invalid(&path, "can not contain backsteps ('..')");
        }
        if is_mounted("name", name.text()) {
            faults.invalid(&name, "must not already exist in volumeMounts");
        }
        if is_mounted("mountPath", path.text()) {
            faults.invalid(&path, "must not already exist as a path in volumeMounts");
        }
    }
}

/// A path inside a volume.
pub fn validate_local_path(path: &Field, faults: &mut Faults) {
    if path.text().starts_with('/') {
        faults.invalid(path, "must be a relative path");
    }
    validate_no_backsteps(path, faults);
}

/// A path that does not lead out of where it begins.
pub fn validate_no_backsteps(path: &Field, faults: &mut Faults) {
    if path.text().split('/').any(|part| part == "..") {
        faults.invalid(path, "must not contain '..'");
    }
}
