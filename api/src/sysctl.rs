//! Kernel parameters that pods may set.

/// What a pod may set without being asked whether the node's administrator allows it, and since which minor version of
/// Kubernetes: each belongs to its network or IPC namespace and does no harm to others. The kubelet takes these, and
/// so does Pod Security's baseline level.
pub const SAFE: &[(&str, u16)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// Whether a pod may set a parameter today.
pub fn is_safe(name: &str) -> bool {
    SAFE.iter().any(|(known, _)| *known == name)
}
