//! What all parts of one kubelet share.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Cache;
use client::events::Recorder;
use cri::v1::DnsConfig;
use cri::{ImageService, RuntimeService};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use tokio::sync::watch;

use crate::config::Config;
use crate::eviction::plan::Pressure;
use crate::image::Pulls;
use crate::image::keeper::Images;
use crate::pod::admission::Taken;
use crate::source::Sources;
use crate::userns::UserNamespaces;
use crate::volume::VolumeManager;

/// The kubelet's hands: set up once, used by every pod's worker.
pub struct Context {
    /// What the kubelet was told at its start.
    pub config: Config,
    /// The API server.
    pub client: Client,
    /// Sandboxes and containers.
    pub runtime: Arc<dyn RuntimeService>,
    /// Images.
    pub images: Arc<dyn ImageService>,
    /// Whose turn it is to pull an image.
    pub pulls: Pulls,
    /// The pods of this node, as the API has them.
    pub pods: Arc<Cache<Pod>>,
    /// What the node is short of.
    pub pressure: watch::Receiver<Pressure>,
    /// The pods that the node has taken.
    pub taken: Taken,
    /// The user ids of pods that have their own.
    pub user_namespaces: UserNamespaces,
    /// The keeper of the node's images.
    pub image_keeper: Images,
    /// Volumes.
    pub volumes: VolumeManager,
    /// ConfigMaps and Secrets.
    pub sources: Arc<Sources>,
    /// The Services that containers find in their environment.
    pub services: Arc<Cache<Service>>,
    /// What users are told.
    pub events: Recorder,
    /// What the node has.
    pub node: NodeFacts,
}

/// What does not change while the node is up.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// `status.allocatable` of the Node.
    pub allocatable: BTreeMap<String, Quantity>,
    /// Bytes of memory.
    pub memory: i64,
    /// The node's own resolver configuration.
    pub dns: DnsConfig,
    /// Who runs the containers.
    pub runtime: RuntimeName,
}

/// What the runtime calls itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeName {
    /// `coracle`, `containerd`, `cri-o`: the scheme of container ids.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it can do.
    pub features: RuntimeFeatures,
}

/// What not every runtime can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeFeatures {
    /// Mounts that are read-only to the last leaf.
    pub recursive_read_only: bool,
    /// Pods with users of their own.
    pub user_namespaces: bool,
    /// `supplementalGroupsPolicy`.
    pub supplemental_groups_policy: bool,
}

impl RuntimeName {
    /// Whether it limits and removes the control groups of pods; others leave them to the kubelet.
    pub fn keeps_pod_groups(&self) -> bool {
        self.name == "coracle"
    }
}
