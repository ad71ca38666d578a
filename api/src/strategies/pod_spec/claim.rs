//! Devices that a pod claims and hands on to its containers.

use std::collections::HashSet;

use crate::name;
use crate::strategies::check::{Faults, Field};

/// The claims of a pod, and what containers say of them.
pub fn validate(spec: &Field, faults: &mut Faults) {
    let mut names = HashSet::new();
    for claim in spec.get("resourceClaims").items() {
        let name = claim.get("name");
        faults.must_keep(&name, name::dns_label);
        if !name.text().is_empty() && !names.insert(name.text()) {
            faults.duplicate(&name);
        }
        let (claimed, template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        match (claimed.is_set(), template.is_set()) {
            (true, true) => {
                let text =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                faults.invalid(&claim, text);
            }
            (false, false) => {
                let text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                faults.invalid(&claim, text);
            }
            _ => {}
        }
        faults.keeps(&claimed, name::dns_subdomain);
        faults.keeps(&template, name::dns_subdomain);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            validate_uses(&container.get("resources").get("claims"), &names, faults);
        }
    }
}

fn validate_uses(uses: &Field, claims: &HashSet<&str>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for used in uses.items() {
        let (name, request) = (used.get("name"), used.get("request"));
        faults.keeps(&request, name::dns_label);
        if !faults.must_be_given(&name) {
            continue;
        }
        if !seen.insert((name.text(), request.text())) {
            faults.duplicate(&used);
        }
        if !claims.contains(name.text()) {
            faults.not_found(&name);
        }
    }
}
