//! Containers: names, images, ports, environment and mounts.

use std::collections::HashSet;

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

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// All containers of a pod spec. `volumes` holds the names of its volumes.
pub fn validate_all(spec: &Field, volumes: &HashSet<&str>, faults: &mut Faults) {
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

fn validate(container: &Field, volumes: &HashSet<&str>, faults: &mut Faults) {
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
            "fieldRef" => validate_field_reference(field, faults),
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

fn validate_field_reference(reference: &Field, faults: &mut Faults) {
    let path = reference.get("fieldPath");
    if !faults.must_be_given(&reference.get("apiVersion")) || !faults.must_be_given(&path) {
        return;
    }
    let is_entry = ["metadata.annotations['", "metadata.labels['"]
        .iter()
        .any(|start| path.text().starts_with(start) && path.text().ends_with("']"));
    if !is_entry {
        faults.one_of(&path, FIELDS);
    }
}

fn validate_resource_reference(reference: &Field, faults: &mut Faults) {
    let resource = reference.get("resource");
    if faults.must_be_given(&resource)
        && !["limits.hugepages-", "requests.hugepages-"]
            .iter()
            .any(|start| resource.text().starts_with(start))
    {
        faults.one_of(&resource, RESOURCES);
    }
}

fn validate_key_reference(reference: &Field, faults: &mut Faults) {
    let name = reference.get("name");
    if name.text().is_empty() {
        faults.required(&name, "");
    }
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
        faults.must_be_given(&reference.get("name"));
    }
    match given.len() {
        0 => faults.invalid(source, "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => faults.invalid(source, "may not have more than one field specified at a time"),
    }
}

fn validate_mounts(container: &Field, volumes: &HashSet<&str>, faults: &mut Faults) {
    let mut paths = HashSet::new();
    for mount in container.get("volumeMounts").items() {
        let name = mount.get("name");
        if faults.must_be_given(&name) && !volumes.contains(name.text()) {
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
    for device in container.get("volumeDevices").items() {
        let name = device.get("name");
        if faults.must_be_given(&name) && !volumes.contains(name.text()) {
            faults.not_found(&name);
        }
        faults.must_be_given(&device.get("devicePath"));
    }
}

/// A path inside a volume.
pub fn validate_local_path(path: &Field, faults: &mut Faults) {
    if path.text().starts_with('/') {
        faults.invalid(path, "must be a relative path");
    }
    if path.text().split('/').any(|part| part == "..") {
        faults.invalid(path, "must not contain '..'");
    }
}
