//! The environment of a container.
//!
//! The values come from the spec, from ConfigMaps and Secrets that the caller has fetched, from the pod
//! itself and from the Services around it. Pure: [`references`] says what to fetch.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::expansion::expand;
use super::qos::resource_value;
use crate::pod::view::PodView;
use crate::source::{Data, Fetched, Reference, SourceKind};

/// Why a container cannot be configured; waiting reason `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A ConfigMap or Secret that is not optional does not exist.
    #[error("{kind} \"{name}\" not found")]
    SourceNotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    KeyNotFound {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A field that cannot be referred to.
    #[error("unsupported fieldPath: {0}")]
    FieldPath(String),
    /// A resource that cannot be referred to.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// The container named in a resourceFieldRef is not there.
    #[error("container {0} not found")]
    Container(String),
    /// The pod must not run as root and would.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    RunsAsRoot {
        /// The pod, as upstream writes it.
        pod: String,
        /// The container.
        container: String,
    },
    /// The pod must not run as root and its spec says to.
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    UserBreaksPolicy {
        /// The pod, as upstream writes it.
        pod: String,
        /// The container.
        container: String,
    },
    /// Whether it would is not known.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root \
         (pod: \"{pod}\", container: {container})"
    )]
    UserIsAName {
        /// The user that the image names.
        user: String,
        /// The pod, as upstream writes it.
        pod: String,
        /// The container.
        container: String,
    },
    /// The container whose processes an ephemeral one is to see does not run.
    #[error("unable to find target container {0}")]
    Target(String),
    /// A mount names a volume that is not there, or a path in it that must not be used.
    #[error("{0}")]
    Mount(String),
}

/// What is known about the pod's place besides its spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub host_ip: String,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// What the node can give.
    pub allocatable: BTreeMap<String, ApiQuantity>,
}

/// The ConfigMaps and Secrets that a container's environment is made from.
pub fn references(container: &Container) -> Vec<Reference> {
    let mut references = Vec::new();
    for source in container.env_from.iter().flatten() {
        references.extend(source.config_map_ref.as_ref().map(|from| Reference::config_map(&from.name)));
        references.extend(source.secret_ref.as_ref().map(|from| Reference::secret(&from.name)));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        references.extend(source.config_map_key_ref.as_ref().map(|from| Reference::config_map(&from.name)));
        references.extend(source.secret_key_ref.as_ref().map(|from| Reference::secret(&from.name)));
    }
    references
}

/// The variables of a container in the order of its spec, those of Services first.
pub fn environment(
    pod: &Pod,
    container: &Container,
    fetched: &Fetched,
    services: &[Arc<Service>],
    place: &Place,
) -> Result<Vec<(String, String)>, ConfigError> {
    let links = service_variables(pod, services);
    let mut variables = Variables::default();
    for source in container.env_from.iter().flatten() {
        let (reference, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(from), _) => (Reference::config_map(&from.name), from.optional),
            (None, Some(from)) => (Reference::secret(&from.name), from.optional),
            (None, None) => continue,
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in found(&reference, optional, fetched)?.iter().flat_map(|data| data.entries()) {
            variables.set(&format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => value_from(source, pod, container, fetched, place)?,
            None => {
                let text = variable.value.as_deref().unwrap_or_default();
                Some(expand(text, |name| variables.get(name).or_else(|| links.get(name).cloned())))
            }
        };
        if let Some(value) = value {
            variables.set(&variable.name, value);
        }
    }
    let unset: Vec<_> = links.into_iter().filter(|(name, _)| variables.get(name).is_none()).collect();
    Ok(unset.into_iter().chain(variables.in_order).collect())
}

/// Variables in the order in which they were first set.
#[derive(Default)]
struct Variables {
    in_order: Vec<(String, String)>,
}

impl Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.in_order.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.in_order.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.in_order.push((name.to_string(), value)),
        }
    }
}

/// The data of a source; `None` where it is missing and may be.
fn found<'a>(
    reference: &Reference,
    optional: Option<bool>,
    fetched: &'a Fetched,
) -> Result<Option<&'a Data>, ConfigError> {
    match fetched.get(reference) {
        Some(data) => Ok(Some(data)),
        None if optional == Some(true) => Ok(None),
        None => Err(ConfigError::SourceNotFound {
            kind: match reference.kind {
                SourceKind::ConfigMap => "configmap",
                SourceKind::Secret => "secret",
            },
            name: reference.name.clone(),
        }),
    }
}

fn value_from(
    source: &EnvVarSource,
    pod: &Pod,
    container: &Container,
    fetched: &Fetched,
    place: &Place,
) -> Result<Option<String>, ConfigError> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path, place).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        let of = match resource.container_name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => pod.container(name).ok_or_else(|| ConfigError::Container(name.to_string()))?,
            None => Cow::Borrowed(container),
        };
        let value = resource_value(&of, &resource.resource, resource.divisor.as_ref(), &place.allocatable);
        let value = value.ok_or_else(|| ConfigError::Resource(resource.resource.clone()))?;
        return Ok(Some(value.to_string()));
    }
    let (reference, key, optional) = match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(from), _) => (Reference::config_map(&from.name), &from.key, from.optional),
        (None, Some(from)) => (Reference::secret(&from.name), &from.key, from.optional),
        (None, None) => return Ok(Some(String::new())),
    };
    let Some(data) = found(&reference, optional, fetched)? else { return Ok(None) };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => Err(ConfigError::KeyNotFound {
            key: key.clone(),
            kind: match reference.kind {
                SourceKind::ConfigMap => "ConfigMap",
                SourceKind::Secret => "Secret",
            },
            namespace: pod.namespace().to_string(),
            name: reference.name,
        }),
    }
}

/// A field of the pod for the downward API.
pub fn field_value(pod: &Pod, path: &str, place: &Place) -> Result<String, ConfigError> {
    let empty = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&empty);
    let text = match path {
        "metadata.name" => pod.name().to_string(),
        "metadata.namespace" => pod.namespace().to_string(),
        "metadata.uid" => pod.uid().to_string(),
        "metadata.labels" => format_map(labels),
        "metadata.annotations" => format_map(annotations),
        "spec.nodeName" => place.node_name.clone(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => place.host_ip.clone(),
        "status.podIP" => place.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => place.pod_ips.join(","),
        _ => {
            let entry = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
            let value = match (entry("metadata.labels['"), entry("metadata.annotations['")) {
                (Some(key), _) => labels.get(key),
                (None, Some(key)) => annotations.get(key),
                (None, None) => return Err(ConfigError::FieldPath(path.to_string())),
            };
            value.cloned().unwrap_or_default()
        }
    };
    Ok(text)
}

/// One `key="value"` a line, the value quoted as Go does.
fn format_map(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// Host and port of the Services of the pod's namespace, and always those of the API server.
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let wants_links = pod.spec().enable_service_links != Some(false);
    let mut variables = BTreeMap::new();
    for service in services {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let is_api_server = namespace == "default" && name == "kubernetes";
        if is_api_server || wants_links && namespace == pod.namespace() {
            describe_service(name, service, &mut variables);
        }
    }
    variables
}

fn describe_service(name: &str, service: &Service, variables: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    if address.is_empty() || address == "None" || spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    let prefix = variable_name(name);
    let ports = spec.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        let number = port.port;
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let link = format!("{}://{address}:{number}", protocol.to_lowercase());
        if index == 0 {
            variables.insert(format!("{prefix}_SERVICE_HOST"), address.to_string());
            variables.insert(format!("{prefix}_SERVICE_PORT"), number.to_string());
            variables.insert(format!("{prefix}_PORT"), link.clone());
        }
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let variable = format!("{prefix}_SERVICE_PORT_{}", variable_name(port_name));
            variables.insert(variable, number.to_string());
        }
        let prefix = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        variables.insert(prefix.clone(), link);
        variables.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{prefix}_PORT"), number.to_string());
        variables.insert(format!("{prefix}_ADDR"), address.to_string());
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use serde_json::{Value, json};

    use super::*;

    fn pod(container: Value) -> Pod {
        let pod = json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": "u", "labels": { "app": "web", "tier": "a\"b" } },
            "spec": { "containers": [container], "serviceAccountName": "clerk" },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn fetched() -> Fetched {
        let map: ConfigMap =
            serde_json::from_value(json!({ "data": { "color": "blue", "size": "9" } })).unwrap();
        let secret: Secret = serde_json::from_value(json!({ "data": { "word": "c2VzYW1l" } })).unwrap();
        let mut fetched = Fetched::default();
        fetched.insert(Reference::config_map("settings"), Some(Arc::new(Data::from(&map))));
        fetched.insert(Reference::secret("safe"), Some(Arc::new(Data::from(&secret))));
        fetched
    }

    fn place() -> Place {
        Place {
            node_name: "node-1".into(),
            host_ip: "192.0.2.1".into(),
            pod_ips: vec!["10.244.0.5".into()],
            allocatable: BTreeMap::new(),
        }
    }

    fn variables(container: Value, services: &[Arc<Service>]) -> Result<Vec<(String, String)>, ConfigError> {
        let pod = pod(container);
        environment(&pod, &pod.spec().containers[0], &fetched(), services, &place())
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn later_variables_see_earlier_ones_and_win_over_sources() {
        let container = json!({
            "name": "c",
            "envFrom": [{ "prefix": "CFG_", "configMapRef": { "name": "settings" } }],
            "env": [
                { "name": "CFG_size", "value": "10" },
                { "name": "ALL", "value": "$(CFG_color)-$(CFG_size)-$(LATER)-$$(CFG_color)" },
                { "name": "LATER", "value": "x" },
                { "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "safe", "key": "word" } } },
            ],
        });
        let expected = [
            ("CFG_color", "blue"),
            ("CFG_size", "10"),
            ("ALL", "blue-10-$(LATER)-$(CFG_color)"),
            ("LATER", "x"),
            ("WORD", "sesame"),
        ];
        assert_eq!(variables(container, &[]).unwrap(), pairs(&expected));
    }

    #[test]
    fn the_downward_api_knows_the_pod_and_its_place() {
        let field = |path: &str| field_value(&pod(json!({ "name": "c" })), path, &place());
        assert_eq!(field("metadata.labels['app']").unwrap(), "web");
        assert_eq!(field("metadata.labels").unwrap(), "app=\"web\"\ntier=\"a\\\"b\"");
        assert_eq!(field("status.podIP").unwrap(), "10.244.0.5");
        assert_eq!(field("spec.serviceAccountName").unwrap(), "clerk");
        assert_eq!(field("spec.secret").unwrap_err().to_string(), "unsupported fieldPath: spec.secret");
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        let from = |source: Value| {
            variables(json!({ "name": "c", "env": [{ "name": "A", "valueFrom": source }] }), &[])
        };
        let missing = from(json!({ "configMapKeyRef": { "name": "none", "key": "k" } }));
        assert_eq!(missing.unwrap_err().to_string(), "configmap \"none\" not found");
        let missing = from(json!({ "secretKeyRef": { "name": "safe", "key": "k" } }));
        assert_eq!(missing.unwrap_err().to_string(), "couldn't find key k in Secret shop/safe");
        let optional = from(json!({ "secretKeyRef": { "name": "none", "key": "k", "optional": true } }));
        assert_eq!(optional.unwrap(), []);
    }

    #[test]
    fn services_of_the_namespace_and_the_api_server_are_linked() {
        let service = |namespace: &str, name: &str, ip: &str| {
            let service = json!({
                "metadata": { "name": name, "namespace": namespace },
                "spec": { "clusterIP": ip, "ports": [{ "name": "http-main", "port": 80, "protocol": "TCP" }] },
            });
            Arc::new(serde_json::from_value::<Service>(service).unwrap())
        };
        let services = [
            service("default", "kubernetes", "10.96.0.1"),
            service("shop", "my-db", "10.96.0.7"),
            service("shop", "headless", "None"),
            service("other", "far", "10.96.0.8"),
        ];
        let found: BTreeMap<_, _> =
            variables(json!({ "name": "c" }), &services).unwrap().into_iter().collect();
        assert_eq!(found["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert_eq!(found["MY_DB_SERVICE_PORT_HTTP_MAIN"], "80");
        assert_eq!(found["MY_DB_PORT"], "tcp://10.96.0.7:80");
        assert_eq!(found["MY_DB_PORT_80_TCP_ADDR"], "10.96.0.7");
        assert!(!found.keys().any(|name| name.starts_with("FAR") || name.starts_with("HEADLESS")));
        assert_eq!(found.len(), 16);
    }
}
