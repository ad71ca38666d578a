//! Kernel parameters that belong to a pod's own namespaces.

/// Which namespaces of a pod are the node's.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfTheNode {
    /// Its network.
    pub network: bool,
    /// Its IPC namespace.
    pub ipc: bool,
}

/// Parameters of an IPC namespace beside those below `fs.mqueue`.
const OF_IPC: &[&str] = &[
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// The file below `/proc/sys` for a parameter; or why a pod cannot have it for itself alone.
pub fn file(name: &str, of_the_node: OfTheNode) -> Result<String, String> {
    let file = path(name);
    let is_clean = file.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let is_of_ipc = OF_IPC.contains(&file.as_str()) || file.starts_with("fs/mqueue/");
    match (file.starts_with("net/"), is_of_ipc) {
        _ if !is_clean => Err(format!("sysctl {name:?} is no kernel parameter")),
        (true, _) if of_the_node.network => {
            Err(format!("sysctl {name:?} not allowed in host network namespace"))
        }
        (_, true) if of_the_node.ipc => {
            Err(format!("sysctl {name:?} is not allowed in the host ipc namespace"))
        }
        (true, _) | (_, true) => Ok(file),
        _ if matches!(file.as_str(), "kernel/hostname" | "kernel/domainname") => {
            Err(format!("sysctl {name:?} is not allowed as it conflicts with the hostname of the pod"))
        }
        _ => Err(format!("sysctl {name:?} is not in a separate kernel namespace")),
    }
}

/// `net.ipv4.conf.eth0/100.forwarding` and `net/ipv4/conf/eth0.100/forwarding` are the same: the first separator
/// says which one is meant, the other one stands for itself.
fn path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('.') => {
            let swap = |letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_file() {
        let of = |name| file(name, OfTheNode::default());
        assert_eq!(of("net.ipv4.ip_forward").unwrap(), "net/ipv4/ip_forward");
        assert_eq!(of("net.ipv4.conf.eth0/100.forwarding").unwrap(), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(of("net/ipv4/conf/eth0.100/forwarding").unwrap(), "net/ipv4/conf/eth0.100/forwarding");
    }

    #[test]
    fn only_the_pods_own_parameters_can_be_set() {
        let refused = |name, of_the_node| file(name, of_the_node).unwrap_err();
        let own = OfTheNode::default();
        for name in ["kernel.core_pattern", "vm.overcommit_memory", "kernel.hostname", "fs.file-max"] {
            refused(name, own);
        }
        // CVE-2025-52881 and its like: a write that goes elsewhere.
        for name in
            ["net/../kernel/core_pattern", "net//x", "net/./x", "net", "", "kernel/shm/../core_pattern"]
        {
            refused(name, own);
        }
        let network = OfTheNode { network: true, ipc: false };
        assert_eq!(
            refused("net.ipv4.ip_forward", network),
            "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace"
        );
        refused("kernel.shmmax", OfTheNode { network: false, ipc: true });
        assert_eq!(file("kernel.shm_rmid_forced", network).unwrap(), "kernel/shm_rmid_forced");
    }
}
