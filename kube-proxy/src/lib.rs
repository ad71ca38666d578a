//! Makes Services reachable from this node: EndpointSlices turned into packet filter rules.
//!
//! [`services::ports`] boils the API's objects down, [`ruleset::ruleset`] renders the rules, both plain
//! functions; [`run`] watches, calls them and loads the outcome as one `iptables-restore` transaction. The
//! rules are a function of what is there now: a lost event or a restart costs one more load and no more.

pub mod flows;
pub mod ruleset;
pub mod services;

use std::{process::Stdio, sync::Arc, time::Duration};

use client::{Cache, Informers};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use net::iptables::{self, IptablesError};
use tokio_util::sync::CancellationToken;

use crate::{flows::StaleFlows, ruleset::Ruleset, services::Port};

/// What the proxy has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name; endpoints on it are local.
    pub node_name: String,
    /// The block of all pods: what comes from there keeps its source address.
    pub cluster_cidr: String,
}

/// How long to wait after a failed load before the next try; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps the node's rules true until `stop`. The rules stay when it ends: connections outlive a restart.
pub async fn run(config: Config, client: kube::Client, stop: CancellationToken) {
    let informers = Informers::new(client, stop.clone());
    let (services, slices) = (informers.cache::<Service>(), informers.cache::<EndpointSlice>());
    let mut proxy = Proxy { config, services, slices, loaded: None };
    stop.run_until_cancelled_owned(async move {
        proxy.services.wait_synced().await;
        proxy.slices.wait_synced().await;
        proxy.keep_true().await;
    })
    .await;
}

/// Removes every rule and chain of the proxy.
///
/// # Errors
/// When iptables cannot be run or refuses.
pub async fn cleanup() -> Result<(), IptablesError> {
    for table in ["nat", "filter"] {
        let saved = iptables::save(table).await?;
        if let Some(removal) = iptables::removal(table, &saved, ruleset::is_proxy_chain) {
            iptables::restore(&removal).await?;
        }
    }
    Ok(())
}

struct Proxy {
    config: Config,
    services: Arc<Cache<Service>>,
    slices: Arc<Cache<EndpointSlice>>,
    loaded: Option<Loaded>,
}

/// What stands in the kernel.
struct Loaded {
    ports: Vec<Port>,
    rules: Ruleset,
}

impl Proxy {
    async fn keep_true(&mut self) {
        let (mut services, mut slices) = (self.services.changed(), self.slices.changed());
        let mut pause = FIRST_PAUSE;
        loop {
            services.mark_unchanged();
            slices.mark_unchanged();
            let failed = match self.load().await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    false
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot load service rules, will retry"
                    );
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    true
                }
            };
            let changed = tokio::select! {
                changed = services.changed() => changed,
                changed = slices.changed() => changed,
                () = tokio::time::sleep(pause), if failed => Ok(()),
            };
            if changed.is_err() {
                return; // the caches are gone: the process is ending
            }
        }
    }

    /// Brings the kernel to what the caches say now; does nothing when it is there already.
    async fn load(&mut self) -> Result<(), IptablesError> {
        let (services, slices) = (self.services.list(), self.slices.list());
        let ports = services::ports(
            services.iter().map(Arc::as_ref),
            slices.iter().map(Arc::as_ref),
            &self.config.node_name,
        );
        if self.loaded.as_ref().is_some_and(|loaded| loaded.ports == ports) {
            return Ok(());
        }
        let rules = ruleset::ruleset(&ports, &self.config.cluster_cidr);
        match &self.loaded {
            Some(loaded) => {
                let old = loaded.rules.chains.iter().map(String::as_str);
                iptables::restore(&rules.restore_input(old)).await?;
            }
            None => load_first(&rules).await?,
        }
        let before = self.loaded.take().map(|loaded| loaded.ports).unwrap_or_default();
        for stale in flows::stale_flows(&before, &ports) {
            forget(&stale).await;
        }
        tracing::debug!(ports = ports.len(), chains = rules.chains.len(), "service rules loaded");
        self.loaded = Some(Loaded { ports, rules });
        Ok(())
    }
}

/// The first load after a start: chains that an earlier run left behind are replaced or removed, and the
/// kernel's own chains made to jump to ours.
async fn load_first(rules: &Ruleset) -> Result<(), IptablesError> {
    allow_node_ports_on_loopback();
    let saved = iptables::save("nat").await?;
    let left_behind = iptables::chains(&saved).filter(|chain| ruleset::is_service_chain(chain));
    iptables::restore(&rules.restore_input(left_behind)).await?;
    for (table, chain, rule) in ruleset::jumps() {
        iptables::ensure_first(table, chain, &rule)?;
    }
    Ok(())
}

/// The kernel drops packets from 127.0.0.1 that are rewritten to another host unless told otherwise; upstream's
/// iptables mode serves NodePorts on loopback too.
fn allow_node_ports_on_loopback() {
    let path = "/proc/sys/net/ipv4/conf/all/route_localnet";
    if let Err(error) = std::fs::write(path, "1") {
        tracing::warn!(path, %error, "node ports will not answer on 127.0.0.1");
    }
}

async fn forget(stale: &StaleFlows) {
    let status = tokio::process::Command::new("conntrack")
        .args(stale.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    // Exit code 1 says that there was no such flow, which is what we want.
    if let Err(error) = status {
        tracing::warn!(?stale, %error, "cannot run conntrack: UDP clients may keep reaching an old endpoint");
    }
}
