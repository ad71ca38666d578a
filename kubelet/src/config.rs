//! What the kubelet is told at its start.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::eviction::threshold::{self, Threshold};
use crate::image::garbage::Policy;

/// Everything that differs between two kubelets.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node's name.
    pub node_name: String,
    /// The node's address, as others reach it.
    pub node_ip: IpAddr,
    /// Labels to add to the Node when it registers.
    pub node_labels: Vec<(String, String)>,
    /// Where pods' volumes and files live.
    pub root: PathBuf,
    /// Where containers' logs live; upstream's `/var/log/pods`.
    pub log_dir: PathBuf,
    /// The cgroup under which `kubepods` is made.
    pub cgroup_parent: String,
    /// The cluster's DNS servers, given to pods with dnsPolicy ClusterFirst.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// The resolver configuration that pods with dnsPolicy Default inherit.
    pub resolv_conf: PathBuf,
    /// Where `/containerLogs`, `/exec` and the rest are served.
    pub listen: SocketAddr,
    /// Where `/healthz` is served without TLS.
    pub healthz: SocketAddr,
    /// Certificates for the server; without them only health is served.
    pub tls: Option<TlsFiles>,
    /// Common names of client certificates that may use the server, beside the group `system:masters`.
    pub authorized_users: Vec<String>,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// How many images are pulled at the same time.
    pub pull_limit: PullLimit,
    /// What the node may not run short of.
    pub eviction: Vec<Threshold>,
    /// When images that nobody uses are removed.
    pub image_policy: Policy,
}

/// How many images are pulled at the same time: `serializeImagePulls` and `maxParallelImagePulls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullLimit {
    /// One after the other.
    Serialized,
    /// So many.
    AtMost(NonZeroUsize),
    /// All that are asked for.
    None,
}

/// PEM files for the server.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
    /// The CA that signs client certificates.
    pub client_ca: PathBuf,
}

impl Config {
    /// The defaults for a node of this name and address.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr) -> Config {
        Config {
            node_name: node_name.into(),
            node_ip,
            node_labels: Vec::new(),
            root: PathBuf::from("/var/lib/coracle/kubelet"),
            log_dir: PathBuf::from("/var/log/pods"),
            cgroup_parent: "/coracle".into(),
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".into(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            healthz: SocketAddr::from(([127, 0, 0, 1], 10248)),
            tls: None,
            authorized_users: vec!["kube-apiserver-kubelet-client".into(), "system:apiserver".into()],
            max_pods: 110,
            // One after the other is upstream's default for the sake of storage drivers that nobody has any more.
            pull_limit: PullLimit::None,
            eviction: threshold::defaults(),
            image_policy: Policy::default(),
        }
    }
}
