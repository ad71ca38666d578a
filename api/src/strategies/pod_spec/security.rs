//! Security contexts of pods and containers.

use std::collections::HashSet;

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
    validate_kernel_settings(spec, &context.get("sysctls"), faults);
    validate_own_users(spec, faults);
    let shared = spec.get("shareProcessNamespace");
    if shared.is_true() && spec.get("hostPID").is_true() {
        faults.invalid(&shared, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
}

/// Settings of the kernel: only of the namespaces that are the pod's own.
fn validate_kernel_settings(spec: &Field, settings: &Field, faults: &mut Faults) {
    const FORM: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    const OF_IPC: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    let mut names = HashSet::new();
    for setting in settings.items() {
        let name = setting.get("name");
        if !faults.must_be_given(&name) {
            continue;
        }
        let dotted = name.text().replace('/', ".");
        if !is_setting(&dotted) {
            faults.invalid(&name, FORM);
        }
        if spec.get("hostNetwork").is_true() && dotted.starts_with("net.") {
            faults.invalid(&name, "may not be specified when 'hostNetwork' is true");
        }
        if spec.get("hostIPC").is_true() && OF_IPC.iter().any(|start| dotted.starts_with(start)) {
            faults.invalid(&name, "may not be specified when 'hostIPC' is true");
        }
        if !names.insert(dotted) {
            faults.duplicate(&name);
        }
    }
}

fn is_setting(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.iter().all(|byte| is_plain(*byte) || matches!(byte, b'-' | b'_'))
            && [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(|byte| is_plain(*byte)))
    };
    name.len() <= 253 && name.split('.').all(is_part)
}

/// Users of its own go with no namespace of the host.
fn validate_own_users(spec: &Field, faults: &mut Faults) {
    if spec.get("hostUsers").value.as_bool() != Some(false) {
        return;
    }
    for name in ["hostPID", "hostIPC", "hostNetwork"] {
        if spec.get(name).is_true() {
            faults.forbidden(&spec.get(name), "when `hostUsers` is false");
        }
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
