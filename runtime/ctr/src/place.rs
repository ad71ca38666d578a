//! Where ctr keeps what it has, and the runtime's library opened there.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use net::{Chains, Cidr, PodNetwork};
use runtime::{Config, Daemonless, Engine, ShimCommand};

/// Packet filter chains beside the cluster's.
const CHAINS: Chains =
    Chains { masquerade: "CORACLE-CTR-MASQ", host_ports: "CORACLE-CTR-PORTS", forward: "CORACLE-CTR-FWD" };

/// The bridge of containers.
const BRIDGE: &str = "coracle-ctr0";

/// The addresses of containers unless told otherwise: a block that neither docker, podman nor our pods use.
pub const DEFAULT_CIDR: &str = "10.89.128.0/20";

/// Where ctr keeps what it has.
#[derive(Clone, Debug)]
pub struct Place {
    /// What survives a reboot: containers, logs, volumes.
    pub data: PathBuf,
    /// What does not: sockets, addresses, pods that run.
    pub run: PathBuf,
    /// The images, which a server of the same place uses too.
    pub images: PathBuf,
    /// The control group of all containers.
    pub cgroup_parent: String,
    /// The addresses of containers.
    pub cidr: Cidr,
    /// This program and its arguments up to `ctr`, with the flags that name this place.
    pub program: Vec<String>,
}

/// Whether a container has a network of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugged {
    /// It is, or may be, plugged into the bridge.
    Bridge,
    /// It is not.
    No,
}

impl Place {
    /// The folders of all containers.
    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// A file for each name.
    pub fn names(&self) -> PathBuf {
        self.data.join("names")
    }

    /// Named and anonymous volumes.
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// The runtime's state: a folder for each container that runs.
    pub fn state(&self) -> PathBuf {
        self.run.join("state")
    }

    /// A container's folder in the runtime's state.
    pub fn pod(&self, id: &str) -> runtime::shim::protocol::PodDirectory {
        runtime::shim::protocol::PodDirectory(self.state().join("pods").join(id))
    }

    /// The control group of a container's processes.
    pub fn cgroup(&self, id: &str) -> Result<runtime::cgroup::Cgroup> {
        Ok(self.pod_cgroup(id)?.child(id))
    }

    /// The control group of all that a container is.
    pub fn pod_cgroup(&self, id: &str) -> Result<runtime::cgroup::Cgroup> {
        let layout = runtime::cgroup::Layout::detect().context("cannot find the control groups")?;
        Ok(runtime::cgroup::Cgroup::new(&layout, &format!("{}/{id}", self.cgroup_parent)))
    }

    /// The images, with the writable layers of our containers.
    pub fn images(&self) -> Result<runtime::image::Store> {
        Ok(runtime::image::Store::open(&self.images)?.with_snapshots_of(OWNER)?)
    }

    /// The network of all containers, as it was set up; it may not be.
    pub fn network(&self) -> Result<PodNetwork> {
        let config = net::Config {
            bridge: BRIDGE.to_owned(),
            cluster_cidr: self.cidr,
            state_dir: self.run.join("addresses"),
        };
        Ok(PodNetwork::shared(config, CHAINS)?)
    }

    /// The runtime's library, opened here.
    pub async fn engine(&self, plugged: Plugged) -> Result<Engine> {
        let network = match plugged {
            Plugged::No => None,
            Plugged::Bridge => {
                let network = self.network()?;
                network.set_pod_cidr(self.cidr).await.context("cannot set up the network")?;
                Some(Arc::new(network))
            }
        };
        let engine = Engine::open(self.config(network), self.daemonless());
        engine.context("cannot open the container runtime")
    }

    /// The runtime's settings here.
    pub fn config(&self, network: Option<Arc<PodNetwork>>) -> Config {
        Config {
            root: self.images.clone(),
            state: self.state(),
            cgroup_parent: self.cgroup_parent.clone(),
            shim: ShimCommand::default(),
            network,
            streaming_address: Config::LOOPBACK,
            log_limit: None,
            registries: self.registries(),
            archives: None,
        }
    }

    /// How registries are met: with the credentials of whoever asks.
    pub fn registries(&self) -> runtime::image::registry::Settings {
        runtime::image::registry::Settings::of(&|name| std::env::var_os(name))
    }

    fn daemonless(&self) -> Daemonless {
        let exit_command = self.program.iter().cloned().chain(["cleanup".to_owned()]).collect();
        Daemonless { owner: OWNER.to_owned(), exit_command }
    }
}

/// Whose writable layers ours are, beside the server's.
const OWNER: &str = "ctr";
