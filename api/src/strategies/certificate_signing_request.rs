//! CertificateSigningRequests.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::check::{Faults, Field};
use crate::{FieldError, Object, name};

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const SHORTEST_SECONDS: i64 = 600;

/// Rules of CertificateSigningRequests. Who asks is stamped by the API server, which knows the user.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({}));
    }

    /// What was asked for never changes.
    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        carry_over(object, old, "spec");
    }

    /// An approval adds conditions; the certificate is the signer's to set.
    fn prepare_for_subresource(&self, _subresource: &str, object: &mut Object, old: &Object) {
        carry_over(object, old, "spec");
        match old.at(&["status", "certificate"]) {
            Some(certificate) => object.set(&["status", "certificate"], certificate.clone()),
            None => drop(object.remove(&["status", "certificate"])),
        }
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let request = spec.get("request");
        if faults.must_be_given(&request) && !is_request(request.text()) {
            faults.invalid(&request, "PEM block type must be CERTIFICATE REQUEST");
        }
        let usages = spec.get("usages");
        if usages.is_empty() {
            faults.required(&usages, "usages must contain at least one element");
        }
        usages.items().for_each(|usage| faults.one_of(&usage, USAGES));
        let mut seen = HashSet::new();
        for usage in usages.items().filter(|usage| !seen.insert(usage.text())) {
            faults.duplicate(&usage);
        }
        let signer = spec.get("signerName");
        if faults.must_be_given(&signer) {
            validate_signer(&signer, &mut faults);
        }
        let seconds = spec.get("expirationSeconds");
        if seconds.number().is_some_and(|seconds| seconds < SHORTEST_SECONDS) {
            faults.invalid(&seconds, "may not specify a duration less than 600 seconds (10 minutes)");
        }
        faults.0
    }

    fn validate_subresource(&self, _subresource: &str, object: &Object, old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let conditions = Field::at(object, &["status", "conditions"]);
        let has = |object: &Object, kind: &str| {
            object.list(&["status", "conditions"]).iter().any(|condition| condition["type"] == kind)
        };
        if has(object, "Approved") && has(object, "Denied") {
            faults.invalid(&conditions, "Approved and Denied conditions are mutually exclusive");
        }
        for kind in ["Approved", "Denied", "Failed"] {
            if has(old, kind) && !has(object, kind) {
                faults
                    .forbidden(&conditions, format!("updates may not remove a condition of type \"{kind}\""));
            }
        }
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::path_segment(name)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// `example.com/signer-name`: a domain of several parts, and a name in it.
fn validate_signer(signer: &Field, faults: &mut Faults) {
    let parts: Vec<&str> = signer.text().split('/').collect();
    let [domain, path] = parts.as_slice() else {
        let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return faults.invalid(signer, form);
    };
    let mut refuse = |part: &str, message: String| {
        faults.invalid(&Field { path: signer.path.clone(), value: &part.into() }, message);
    };
    for label in domain.split('.') {
        if let Err(message) = name::dns_label(label) {
            refuse(domain, format!("validating label {label:?}: {message}"));
        }
    }
    if !domain.contains('.') {
        refuse(domain, "should be a domain with at least two segments separated by dots".to_string());
    }
    for label in path.split('.') {
        if let Err(message) = name::dns_subdomain(label) {
            refuse(path, format!("validating label {label:?}: {message}"));
        }
    }
}

fn carry_over(object: &mut Object, old: &Object, key: &str) {
    if let Some(value) = old.at(&[key]) {
        object.set(&[key], value.clone());
    }
}

fn is_request(text: &str) -> bool {
    let pem = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    pem.is_some_and(|pem| pem.contains("-----BEGIN CERTIFICATE REQUEST-----"))
}
