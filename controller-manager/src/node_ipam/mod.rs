//! Gives each node its part of the pod addresses, in `spec.podCIDR`.

mod plan;

use std::sync::Arc;

use client::{
    Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, events::Recorder, turn,
};
use k8s_openapi::api::core::v1::Node;
pub use plan::Pool;
use serde_json::json;

use crate::Context;

/// Starts the controller.
pub fn start(context: &mut Context, pool: Pool) {
    let nodes = context.cache::<Node>();
    let controller = NodeIpam {
        nodes: nodes.clone(),
        writer: context.writer("node-controller"),
        events: context.recorder("node-controller", "cidrAllocator"),
        pool,
    };
    // One node at a time: each choice depends on all others, and the runner lets the next turn of the same node
    // wait for the cache, but not that of another node; so the choice itself waits, see `reconcile`.
    context.run(Runner::new("node_ipam", controller).concurrency(1).watch(&nodes));
}

struct NodeIpam {
    nodes: Arc<Cache<Node>>,
    writer: Writer,
    events: Recorder,
    pool: Pool,
}

impl Reconcile for NodeIpam {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(node) = self.nodes.get_key(key) else { return Ok(Next::OnChange) };
        if pod_cidr(&node).is_some() || node.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let nodes = self.nodes.list();
        let Some(cidr) = self.pool.choose(nodes.iter().filter_map(|node| pod_cidr(node))) else {
            self.events.normal(
                &*node,
                "CIDRNotAvailable",
                format!("Node {} status is now: CIDRNotAvailable", key.name),
            );
            return Ok(Next::OnChange);
        };
        turn::describe("a pod CIDR", format!("none, {cidr} is free"));
        let patch =
            json!({"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        let Some(patched) = self.writer.merge::<Node>(key, patch).await.or_not_found()? else {
            return Ok(Next::OnChange);
        };
        turn::meant(format!("give {cidr} to Node {}", key.name));
        // The next node must not be given the same part: wait here until this choice is to be seen.
        self.nodes.wait_revision(client::cache::revision_of(&patched)).await;
        Ok(Next::OnChange)
    }
}

fn pod_cidr(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|cidr| !cidr.is_empty())
}
