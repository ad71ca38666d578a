//! Filters from names: our default, and profile files in the format of Docker and runc.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::numbers::{COMMON, NUMBERS, PRIVILEGED};
use super::{Action, Comparison, Condition, Filter, Rule};
use crate::container::capabilities;

/// `CLONE_NEW*` of all namespaces: making one needs CAP_SYS_ADMIN.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

const AF_VSOCK: u64 = 40;

/// What `RuntimeDefault` means, for a container with these capabilities.
pub fn default_profile(held: u64) -> Filter {
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    let mut add = |name: &str, action, conditions: &[Condition]| {
        if let Some(number) = number_of(name) {
            rules.entry(number).or_default().push(Rule { action, conditions: conditions.to_vec() });
        }
    };
    for name in COMMON {
        add(name, Action::Allow, &[]);
    }
    for (capability, names) in PRIVILEGED {
        if held & capabilities::parse(&[(*capability).to_owned()]).unwrap_or(0) != 0 {
            names.iter().for_each(|name| add(name, Action::Allow, &[]));
        }
    }
    let when = |argument, comparison, value| [Condition { argument, comparison, value }];
    for persona in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        add("personality", Action::Allow, &when(0, Comparison::Equal, persona));
    }
    add("socket", Action::Allow, &when(0, Comparison::NotEqual, AF_VSOCK));
    add("clone", Action::Allow, &when(0, Comparison::MaskedEqual(NEW_NAMESPACES), 0));
    // Its arguments are in memory, where a filter cannot look: libc falls back to clone.
    add("clone3", Action::Fail(libc::ENOSYS as u16), &[]);
    Filter { default: Action::Fail(libc::EPERM as u16), rules }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<ProfileRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileRule {
    #[serde(default)]
    names: Vec<String>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<ProfileCondition>>,
    #[serde(default)]
    includes: ProfileScope,
    #[serde(default)]
    excludes: ProfileScope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileCondition {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ProfileScope {
    caps: Vec<String>,
    arches: Vec<String>,
}

/// Reads a profile of the node, for a container with these capabilities.
pub fn parse_profile(json: &[u8], held: u64) -> Result<Filter, String> {
    let profile: Profile = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for rule in profile.syscalls {
        if !applies(&rule, held)? {
            continue;
        }
        let action = action(&rule.action, rule.errno_ret)?;
        let conditions =
            rule.args.unwrap_or_default().iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        for name in rule.names.iter().chain(&rule.name) {
            // Profiles name calls of all architectures and kernels; those that are not ours do not matter.
            if let Some(number) = number_of(name) {
                rules.entry(number).or_default().push(Rule { action, conditions: conditions.clone() });
            }
        }
    }
    Ok(Filter { default, rules })
}

fn applies(rule: &ProfileRule, held: u64) -> Result<bool, String> {
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let on = |scope: &ProfileScope| scope.arches.iter().any(|arch| arch == here);
    let (include, exclude) =
        (capabilities::parse(&rule.includes.caps)?, capabilities::parse(&rule.excludes.caps)?);
    Ok((rule.includes.arches.is_empty() || on(&rule.includes))
        && !on(&rule.excludes)
        && held & include == include
        && held & exclude == 0)
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, String> {
    match name {
        "SCMP_ACT_ALLOW" => Ok(Action::Allow),
        "SCMP_ACT_ERRNO" => Ok(Action::Fail(errno.unwrap_or(libc::EPERM as u16))),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Action::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(Action::KillProcess),
        "SCMP_ACT_TRAP" => Ok(Action::Trap),
        "SCMP_ACT_LOG" => Ok(Action::Log),
        other => Err(format!("seccomp action {other:?} is not supported")),
    }
}

fn condition(given: &ProfileCondition) -> Result<Condition, String> {
    if given.index > 5 {
        return Err(format!("system calls have no argument {}", given.index));
    }
    let (comparison, value) = match given.op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::Equal, given.value),
        "SCMP_CMP_NE" => (Comparison::NotEqual, given.value),
        "SCMP_CMP_LT" => (Comparison::Less, given.value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, given.value),
        "SCMP_CMP_GT" => (Comparison::Greater, given.value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, given.value),
        "SCMP_CMP_MASKED_EQ" => (Comparison::MaskedEqual(given.value), given.value_two & given.value),
        other => return Err(format!("seccomp comparison {other:?} is not supported")),
    };
    Ok(Condition { argument: given.index, comparison, value })
}

fn number_of(name: &str) -> Option<u32> {
    NUMBERS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_keeps_namespaces_and_modules_for_those_who_may() {
        let number = |name| number_of(name).unwrap();
        let ordinary = default_profile(capabilities::default());
        assert_eq!(ordinary.default, Action::Fail(1));
        assert!(ordinary.rules.contains_key(&number("read")));
        assert!(!ordinary.rules.contains_key(&number("mount")));
        assert!(ordinary.rules[&number("clone")].iter().all(|rule| !rule.conditions.is_empty()));
        assert!(default_profile(capabilities::all()).rules.contains_key(&number("mount")));
    }

    #[test]
    fn profile_files_are_understood() {
        let json = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"},
                        {"names":["mkdir"],"action":"SCMP_ACT_LOG","includes":{"caps":["CAP_SYS_ADMIN"]}},
                        {"names":["kill"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":9,"op":"SCMP_CMP_NE"}]}]}"#;
        let filter = parse_profile(json, 0).unwrap();
        assert_eq!(filter.default, Action::Fail(38));
        assert_eq!(filter.rules.len(), 2);
        let wrong = br#"{"defaultAction":"SCMP_ACT_DANCE"}"#;
        assert_eq!(
            parse_profile(wrong, 0),
            Err("seccomp action \"SCMP_ACT_DANCE\" is not supported".to_owned())
        );
    }
}
