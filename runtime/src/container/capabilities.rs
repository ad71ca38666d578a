//! Linux capabilities by name.

/// All capabilities, in the order of their numbers.
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless it is told otherwise; the same as Docker's and containerd's.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// CAP_SYS_ADMIN, as a mask: what a filter of system calls takes where no_new_privs is not set.
pub const TO_FILTER: u64 = 1 << 21;

/// How many capabilities we know.
pub const COUNT: u8 = NAMES.len() as u8;

/// Every capability that this process may hand on.
pub fn all() -> u64 {
    (1 << NAMES.len()) - 1
}

/// What a container has unless it is told otherwise.
pub fn default() -> u64 {
    DEFAULT.iter().filter_map(|name| mask(name).ok()).fold(0, |all, one| all | one)
}

/// The capabilities of these names; `ALL` means every one.
pub fn parse(names: &[String]) -> Result<u64, String> {
    names.iter().try_fold(0, |all, name| Ok(all | mask(name)?))
}

/// `base` with some added and then some dropped; dropping ALL happens first, so that single ones can be added to nothing.
pub fn change(base: u64, add: &[String], drop: &[String]) -> Result<u64, String> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let base = if drop.iter().any(is_all) { 0 } else { base };
    let base = if add.iter().any(is_all) { all() } else { base };
    let added = base | parse(&add.iter().filter(|name| !is_all(name)).cloned().collect::<Vec<_>>())?;
    let dropped = parse(&drop.iter().filter(|name| !is_all(name)).cloned().collect::<Vec<_>>())?;
    Ok(added & !dropped)
}

fn mask(name: &str) -> Result<u64, String> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if short == "ALL" {
        return Ok(all());
    }
    let number = NAMES.iter().position(|known| *known == short);
    number.map(|number| 1 << number).ok_or_else(|| format!("unknown capability {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn dropping_all_leaves_what_is_added() {
        let left = change(default(), &names(&["NET_BIND_SERVICE"]), &names(&["ALL"]));
        assert_eq!(left, Ok(1 << 10));
        assert_eq!(change(default(), &[], &names(&["all"])), Ok(0));
    }

    #[test]
    fn adding_all_still_drops_single_ones() {
        let left = change(default(), &names(&["ALL"]), &names(&["CAP_CHOWN"]));
        assert_eq!(left, Ok(all() & !1));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(parse(&names(&["FLY"])), Err("unknown capability \"FLY\"".to_owned()));
    }
}
