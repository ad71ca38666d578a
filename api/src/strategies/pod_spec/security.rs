//! Security contexts of pods and containers.

use crate::strategies::check::{Faults, Field};

const LARGEST_ID: i64 = i32::MAX as i64;

/// What a pod's own security context and its host switches may say.
pub fn validate_pod(spec: &Field, faults: &mut Faults) {
    let context = spec.get("securityContext");
    validate_ids(&context, faults);
    validate_id(&context.get("fsGroup"), faults);
    context.get("supplementalGroups").items().for_each(|group| validate_id(&group, faults));
    faults.one_of(&context.get("fsGroupChangePolicy"), &["Always", "OnRootMismatch"]);
    faults.one_of(&context.get("supplementalGroupsPolicy"), &["Merge", "Strict"]);
    validate_profile(&context.get("seccompProfile"), faults);
    validate_profile(&context.get("appArmorProfile"), faults);
    for setting in context.get("sysctls").items() {
        faults.must_be_given(&setting.get("name"));
    }
    let shared = spec.get("shareProcessNamespace");
    if shared.is_true() && spec.get("hostPID").is_true() {
        faults.invalid(&shared, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
}

/// What a container's security context may say.
pub fn validate_container(context: &Field, faults: &mut Faults) {
    validate_ids(context, faults);
    validate_profile(&context.get("seccompProfile"), faults);
    validate_profile(&context.get("appArmorProfile"), faults);
    faults.one_of(&context.get("procMount"), &["Default", "Unmasked"]);
    let escalation = context.get("allowPrivilegeEscalation");
    if escalation.value.as_bool() != Some(false) {
        return;
    }
    if context.get("privileged").is_true() {
        faults.invalid(context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    let mut added = context.get("capabilities").get("add").items();
    if added.any(|capability| matches!(capability.text(), "SYS_ADMIN" | "CAP_SYS_ADMIN")) {
        let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        faults.invalid(context, text);
    }
}

fn validate_ids(context: &Field, faults: &mut Faults) {
    validate_id(&context.get("runAsUser"), faults);
    validate_id(&context.get("runAsGroup"), faults);
}

fn validate_id(id: &Field, faults: &mut Faults) {
    faults.between(id, 0, LARGEST_ID);
}

fn validate_profile(profile: &Field, faults: &mut Faults) {
    if !profile.is_set() {
        return;
    }
    let kind = profile.get("type");
    faults.must_be_one_of(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    let file = profile.get("localhostProfile");
    if kind.text() == "Localhost" {
        if file.text().is_empty() {
            faults.required(&file, "must be set when seccomp type is Localhost");
        } else {
            super::container::validate_local_path(&file, faults);
        }
    } else if file.is_set() {
        faults.invalid(&file, "can only be set when seccomp type is Localhost");
    }
}
