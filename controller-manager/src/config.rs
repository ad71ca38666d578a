//! What the controllers can be told.

use std::time::Duration;

use crate::TokenSigner;

/// Settings of the controllers, with upstream's defaults.
#[derive(Clone)]
pub struct Config {
    /// The certificate of the cluster's CA (PEM): every namespace gets it in the ConfigMap `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// The CA's key (PEM): signs requests for certificates. Empty: somebody else signs.
    pub ca_key_pem: String,
    /// Signs the tokens of Secrets. `None`: somebody else does.
    pub token_signer: Option<TokenSigner>,
    /// The addresses that pods get (`--cluster-cidr`); each node gets a part of them.
    pub cluster_cidr: String,
    /// How great a part: the length of a node's prefix (`--node-cidr-mask-size`).
    pub node_cidr_mask_size: u8,
    /// How long a node may be silent before it counts as unknown (`--node-monitor-grace-period`).
    pub node_monitor_grace_period: Duration,
    /// How many finished pods are kept (`--terminated-pod-gc-threshold`); 0 keeps all.
    pub terminated_pod_gc_threshold: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            root_ca_pem: String::new(),
            ca_key_pem: String::new(),
            token_signer: None,
            cluster_cidr: "10.244.0.0/16".into(),
            node_cidr_mask_size: 24,
            node_monitor_grace_period: Duration::from_secs(40),
            terminated_pod_gc_threshold: 12_500,
        }
    }
}

/// Why the controllers did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not an IPv4 prefix that nodes can get parts of.
    #[error("the cluster CIDR {cidr:?} cannot be divided into /{mask} for nodes")]
    ClusterCidr {
        /// What was given.
        cidr: String,
        /// The length of a node's prefix.
        mask: u8,
    },
}
