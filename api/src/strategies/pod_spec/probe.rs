//! Probes and lifecycle hooks.

use crate::name;
use crate::strategies::check::{Faults, Field};
use crate::strategies::ports;

/// The probes and hooks of a container that runs beside others.
pub fn validate_container(container: &Field, faults: &mut Faults) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.get(name);
        if !probe.is_set() {
            continue;
        }
        validate_probe(&probe, faults);
        let successes = probe.get("successThreshold");
        if name != "readinessProbe" && successes.number().is_some_and(|number| number != 1) {
            faults.invalid(&successes, "must be 1");
        }
        let grace = probe.get("terminationGracePeriodSeconds");
        if name == "readinessProbe" && grace.is_set() {
            faults.invalid(&grace, "must not be set for readinessProbes");
        } else if grace.number().is_some_and(|seconds| seconds <= 0) {
            faults.invalid(&grace, "must be greater than 0");
        }
    }
    let lifecycle = container.get("lifecycle");
    for hook in ["postStart", "preStop"] {
        let handler = lifecycle.get(hook);
        if handler.is_set() {
            validate_handler(&handler, faults);
        }
    }
}

fn validate_probe(probe: &Field, faults: &mut Faults) {
    validate_handler(probe, faults);
    let numbers =
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    for name in numbers {
        faults.not_negative(&probe.get(name));
    }
}

fn validate_handler(handler: &Field, faults: &mut Faults) {
    let mut given = 0;
    for name in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = handler.get(name);
        if !action.is_set() {
            continue;
        }
        given += 1;
        if given > 1 {
            faults.forbidden(&action, "may not specify more than 1 handler type");
            continue;
        }
        match name {
            "exec" => {
                faults.must_be_given(&action.get("command"));
            }
            "httpGet" => validate_http(&action, faults),
            "tcpSocket" => ports::validate_number_or_name(&action.get("port"), faults),
            "grpc" => ports::validate_number(&action.get("port"), faults),
            _ => faults.not_negative(&action.get("seconds")),
        }
    }
    if given == 0 {
        faults.required(handler, "must specify a handler type");
    }
}

fn validate_http(get: &Field, faults: &mut Faults) {
    faults.must_be_given(&get.get("path"));
    ports::validate_number_or_name(&get.get("port"), faults);
    faults.one_of(&get.get("scheme"), &["HTTP", "HTTPS"]);
    for header in get.get("httpHeaders").items() {
        faults.must_keep(&header.get("name"), name::http_header_name);
    }
}
