//! The Node object: registered at the start, kept alive by a Lease, its status told when it changes.

mod machine;
mod status;

use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use client::{Cache, Selection, informer};
use cri::v1::{NetworkConfig, RuntimeConfig, StatusRequest, UpdateRuntimeConfigRequest};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::events::node_reference;
pub use machine::Machine;
pub(crate) use machine::meminfo_bytes;
pub use status::{Health, condition_events, must_report, new_node, node_status, status_patch};

/// How often the Lease is renewed, and how long others wait before they think the node dead.
const LEASE_RENEWAL: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Between attempts while the API or the runtime is not ready yet.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Keeps this node's objects.
pub struct NodeKeeper {
    context: Arc<Context>,
    machine: Machine,
    network: Option<String>,
    lease: Option<Lease>,
}

impl NodeKeeper {
    /// A keeper that has not done anything yet.
    pub fn new(context: Arc<Context>, machine: Machine) -> NodeKeeper {
        NodeKeeper { context, machine, network: None, lease: None }
    }

    /// Registers the Node and keeps it until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let token = stop.clone();
        token.run_until_cancelled(self.keep(stop)).await;
    }

    async fn keep(&mut self, stop: CancellationToken) {
        self.tell("Starting", "Starting kubelet.".to_string());
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.register().await {
            tracing::warn!(%error, "cannot register the node yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let name = &self.context.config.node_name;
        let selection = Selection { fields: Some(format!("metadata.name={name}")), ..Selection::default() };
        let nodes = informer::start::<Node>(self.context.client.clone(), selection, stop);
        nodes.wait_synced().await;
        let mut changed = nodes.changed();
        let mut pressure = self.context.pressure.clone();
        let mut images = self.context.image_keeper.changed();
        let mut renewal = tokio::time::interval(LEASE_RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = FIRST_PAUSE;
        loop {
            changed.mark_unchanged();
            let is_settled = self.report(&nodes).await;
            pause = if is_settled { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::select! {
                _ = renewal.tick() => self.renew_lease(&nodes).await,
                Ok(()) = changed.changed() => {}
                Ok(()) = pressure.changed() => {}
                Ok(()) = images.changed() => {}
                () = tokio::time::sleep(pause), if !is_settled => {}
            }
        }
    }

    /// Makes the Node, or takes over the one that is there.
    async fn register(&mut self) -> Result<(), kube::Error> {
        let api: Api<Node> = Api::all(self.context.client.clone());
        let health = self.health(None).await;
        let config = &self.context.config;
        let node = new_node(config, &self.machine, &health, Timestamp::now());
        match api.create(&PostParams::default(), &node).await {
            Ok(_) => Ok(()),
            Err(error) if client::is_already_exists(&error) => {
                let labels = json!({ "metadata": { "labels": node.metadata.labels } });
                api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(labels)).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the status when there is something to tell. Answers whether all is well; if not, it is worth to
    /// look again soon.
    async fn report(&mut self, nodes: &Cache<Node>) -> bool {
        let name = self.context.config.node_name.clone();
        let Some(node) = nodes.get("", &name) else {
            // Somebody has deleted it: a kubelet that lives comes back.
            if let Err(error) = self.register().await {
                tracing::warn!(%error, "cannot register the node again");
            }
            return false;
        };
        let pod_cidr = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
        let health = self.health(pod_cidr).await;
        let now = Timestamp::now();
        let mut status = node_status(&self.context.config, &self.machine, &health, node.status.as_ref(), now);
        status.images = Some(self.context.image_keeper.list()).filter(|images| !images.is_empty());
        if must_report(node.status.as_ref(), &status, now) {
            let api: Api<Node> = Api::all(self.context.client.clone());
            let patch = status_patch(node.status.as_ref(), &status);
            if let Err(error) =
                api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await
            {
                tracing::warn!(%error, "cannot report the status of the node");
                return false;
            }
            for reason in condition_events(node.status.as_ref(), &status) {
                self.tell(reason, format!("Node {name} status is now: {reason}"));
            }
        }
        health.fault.is_none()
    }

    /// Gives the runtime its addresses and asks how it is.
    async fn health(&mut self, pod_cidr: Option<String>) -> Health {
        let fault = match self.runtime_fault(pod_cidr).await {
            Ok(fault) => fault,
            Err(error) => Some(format!("container runtime is down: {error}")),
        };
        Health { pressure: *self.context.pressure.borrow(), fault }
    }

    async fn runtime_fault(&mut self, pod_cidr: Option<String>) -> Result<Option<String>, cri::Error> {
        let runtime = &self.context.runtime;
        if let Some(pod_cidr) = pod_cidr.filter(|cidr| self.network.as_ref() != Some(cidr)) {
            let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.clone() });
            let runtime_config = Some(RuntimeConfig { network_config });
            runtime.update_runtime_config(UpdateRuntimeConfigRequest { runtime_config }).await?;
            self.network = Some(pod_cidr);
        }
        let status = runtime.status(StatusRequest { verbose: false }).await?.status.unwrap_or_default();
        let failing = status.conditions.into_iter().find(|condition| !condition.status);
        Ok(failing.map(|condition| {
            let what = match condition.r#type.as_str() {
                "NetworkReady" => "container runtime network not ready",
                _ => "container runtime not ready",
            };
            let (kind, reason, message) = (condition.r#type, condition.reason, condition.message);
            format!("{what}: {kind}=false reason:{reason} message:{message}")
        }))
    }

    /// Renews the Lease; where it is gone it is made anew.
    async fn renew_lease(&mut self, nodes: &Cache<Node>) {
        let api: Api<Lease> = Api::namespaced(self.context.client.clone(), LEASE_NAMESPACE);
        let now = MicroTime(Timestamp::now());
        let name = &self.context.config.node_name;
        let renewed = match self.lease.take() {
            Some(mut lease) => {
                lease.spec.get_or_insert_default().renew_time = Some(now);
                api.replace(name, &PostParams::default(), &lease).await
            }
            None => match api.get_opt(name).await {
                Ok(Some(mut lease)) => {
                    lease.spec = Some(lease_spec(name, now));
                    api.replace(name, &PostParams::default(), &lease).await
                }
                Ok(None) => {
                    let owner = nodes.get("", name).and_then(|node| node.metadata.uid.clone());
                    api.create(&PostParams::default(), &new_lease(name, owner, now)).await
                }
                Err(error) => Err(error),
            },
        };
        match renewed {
            Ok(lease) => self.lease = Some(lease),
            Err(error) => tracing::warn!(%error, "cannot renew the node's lease"),
        }
    }

    fn tell(&self, reason: &str, message: String) {
        let regarding = node_reference(&self.context.config.node_name);
        self.context.events.event(regarding, EventType::Normal, reason, message);
    }
}

fn lease_spec(name: &str, now: MicroTime) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(name.to_string()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(now),
        ..LeaseSpec::default()
    }
}

fn new_lease(name: &str, node_uid: Option<String>, now: MicroTime) -> Lease {
    let owner = node_uid.map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.to_string(),
        uid,
        ..OwnerReference::default()
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_string()),
            namespace: Some(LEASE_NAMESPACE.to_string()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(lease_spec(name, now)),
    }
}
