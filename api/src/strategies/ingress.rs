//! Ingresses and IngressClasses.

use super::check::{Faults, Field};
use super::{load_balancer, ports};
use crate::{FieldError, Object, name};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Rules of Ingresses.
pub struct Ingress;

impl crate::Strategy for Ingress {
    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], serde_json::json!({"loadBalancer": {}}));
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        load_balancer::validate(&Field::at(object, &["status", "loadBalancer", "ingress"]), &mut faults);
        faults.0
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let annotation = Field::at(object, &["metadata", "annotations"]).get(CLASS_ANNOTATION);
        let class = spec.get("ingressClassName");
        if old.is_none() && annotation.is_set() && class.is_set() {
            // Upstream's path has no brackets here.
            let path = format!("annotations.{CLASS_ANNOTATION}");
            let text = "can not be set when the class field is also set";
            faults.invalid(&Field { path, value: annotation.value }, text);
        }
        let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
        if rules.is_empty() && !backend.is_set() {
            faults.invalid(&spec, "either `defaultBackend` or `rules` must be specified");
        }
        if backend.is_set() {
            validate_backend(&backend, &mut faults);
        }
        rules.items().for_each(|rule| validate_rule(&rule, &mut faults));
        for host in spec.get("tls").items().flat_map(|tls| tls.get("hosts").items()) {
            faults.fits(&host, host_rule(host.text()));
        }
        for tls in spec.get("tls").items() {
            faults.keeps(&tls.get("secretName"), name::dns_subdomain);
        }
        faults.keeps(&class, name::dns_subdomain);
        faults.0
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let annotation = CLASS_ANNOTATION;
        object
            .annotation(annotation)
            .filter(|_| old.is_none())
            .map(|_| {
                format!("annotation {annotation:?} is deprecated, please use 'spec.ingressClassName' instead")
            })
            .into_iter()
            .collect()
    }
}

fn validate_rule(rule: &Field, faults: &mut Faults) {
    let host = rule.get("host");
    if name::ip_address(host.text()).is_ok() {
        faults.invalid(&host, "must be a DNS name, not an IP address");
    } else {
        faults.keeps(&host, host_rule(host.text()));
    }
    let http = rule.get("http");
    if !http.is_set() {
        return;
    }
    let paths = http.get("paths");
    if paths.is_empty() {
        faults.required(&paths, "");
    }
    for path in paths.items() {
        validate_path(&path, faults);
        validate_backend(&path.get("backend"), faults);
    }
}

fn host_rule(host: &str) -> fn(&str) -> Result<(), String> {
    if host.contains('*') { name::wildcard_dns_subdomain } else { name::dns_subdomain }
}

fn validate_path(path: &Field, faults: &mut Faults) {
    let (kind, text) = (path.get("pathType"), path.get("path"));
    match kind.text() {
        "" => faults.required(&kind, "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !text.text().starts_with('/') {
                faults.invalid(&text, "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.text().contains(sequence) {
                    faults.invalid(&text, format!("must not contain '{sequence}'"));
                }
            }
            for suffix in ["/..", "/."] {
                if text.text().ends_with(suffix) {
                    faults.invalid(&text, format!("cannot end with '{suffix}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.text().is_empty() && !text.text().starts_with('/') {
                faults.invalid(&text, "must be an absolute path");
            }
        }
        _ => faults.not_supported(&kind, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
}

fn validate_backend(backend: &Field, faults: &mut Faults) {
    let (service, resource) = (backend.get("service"), backend.get("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => faults.invalid(backend, "cannot set both resource and service backends"),
        (false, false) => faults.required(backend, "resource or service backend is required"),
        (false, true) => {
            validate_reference(&resource, faults);
        }
        (true, false) => {
            faults.must_keep(&service.get("name"), name::dns_1035_label);
            let (name, number) = (service.get("port").get("name"), service.get("port").get("number"));
            let has_number = number.number().is_some_and(|number| number != 0);
            match (!name.text().is_empty(), has_number) {
                (true, true) => faults.invalid(&service, "cannot set both port name & port number"),
                (false, false) => faults.required(&service, "port name or number is required"),
                (true, false) => faults.keeps(&name, name::port_name),
                (false, true) => ports::validate_number(&number, faults),
            }
        }
    }
}

/// Another object, of a kind that nobody here need know.
fn validate_reference(reference: &Field, faults: &mut Faults) {
    faults.keeps(&reference.get("apiGroup"), name::dns_subdomain);
    faults.must_keep(&reference.get("kind"), name::path_segment);
    faults.must_keep(&reference.get("name"), name::path_segment);
}

/// `acme.io/foo`: a domain and a path below it.
fn validate_controller(controller: &Field, faults: &mut Faults) {
    const IN_PATHS: &str = "/-._~%!$&'()*+,;=:";
    let parts =
        controller.text().split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty());
    let Some((domain, path)) = parts else {
        return match controller.text() {
            "" => faults.required(controller, ""),
            _ => faults.invalid(controller, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        };
    };
    let mut refuse = |part: &str, message: String| {
        faults.invalid(&Field { path: controller.path.clone(), value: &part.into() }, message);
    };
    if let Err(message) = name::dns_subdomain(domain) {
        refuse(domain, message);
    }
    if !path.chars().all(|letter| letter.is_ascii_alphanumeric() || IN_PATHS.contains(letter)) {
        let form = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        refuse(path, form.to_string());
    }
}

/// Rules of IngressClasses.
pub struct IngressClass;

impl crate::Strategy for IngressClass {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let controller = spec.get("controller");
        if controller.text().len() > 250 {
            faults.0.push(FieldError::too_long(&controller.path, 250));
        } else {
            validate_controller(&controller, &mut faults);
        }
        let parameters = spec.get("parameters");
        if parameters.is_set() {
            validate_reference(&parameters, &mut faults);
            faults.must_be_one_of(&parameters.get("scope"), &["Cluster", "Namespace"]);
            let namespace = parameters.get("namespace");
            match parameters.get("scope").text() {
                "Namespace" if namespace.text().is_empty() => {
                    faults.required(&namespace, "`parameters.scope` is set to 'Namespace'");
                }
                "Namespace" => faults.keeps(&namespace, name::dns_label),
                "Cluster" if namespace.is_set() => {
                    faults.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'");
                }
                _ => {}
            }
        }
        if let Some(old) = old {
            faults.immutable(&controller, &Field::at(old, &["spec"]).get("controller"));
        }
        faults.0
    }

    fn set_defaults(&self, object: &mut Object) {
        if object.at(&["spec", "parameters"]).is_some_and(serde_json::Value::is_object) {
            object.set_if_absent(&["spec", "parameters", "scope"], "Cluster");
        }
    }
}
