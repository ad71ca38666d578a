//! The controllers: each keeps one kind of object as its specification says.
//!
//! One folder a controller: `plan.rs` decides (pure), `mod.rs` acts (thin). The shell that gives them their
//! turns is [`client::Runner`]. [`run`] starts them all.

mod bootstrap_token;
mod certificates;
mod cluster_role_aggregation;
mod config;
mod context;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoints;
mod finalizers;
mod fraction;
mod garbage_collector;
mod hash;
mod job;
mod namespace;
mod node_affinity;
mod node_ipam;
mod node_lifecycle;
mod ownership;
mod pod_gc;
mod pods;
mod replica_set;
mod resources;
mod revisions;
mod service_account;
mod service_cidr;
mod service_pods;
mod stateful_set;
mod storage_protection;
mod taint_eviction;
mod tolerations;

use client::FlightRecorder;
use tokio_util::sync::CancellationToken;

pub use config::{Config, StartError};
pub use context::Clients;
use context::Context;
pub use service_account::TokenSigner;

/// Runs all controllers until `stop`. They read through `reader`, which must be allowed to list and watch
/// everything, and write each through its own of `clients`, with upstream's name for its service account.
pub async fn run(
    config: Config,
    reader: kube::Client,
    clients: Clients,
    flight: FlightRecorder,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let Config {
        root_ca_pem,
        ca_key_pem,
        token_signer,
        cluster_cidr,
        node_cidr_mask_size,
        node_monitor_grace_period,
        terminated_pod_gc_threshold,
    } = config;
    let pool = node_ipam::Pool::parse(&cluster_cidr, node_cidr_mask_size)
        .ok_or(StartError::ClusterCidr { cidr: cluster_cidr, mask: node_cidr_mask_size })?;

    let mut context = Context::new(reader, clients, flight, stop);
    replica_set::start(&mut context);
    deployment::start(&mut context);
    daemon_set::start(&mut context);
    stateful_set::start(&mut context);
    job::start(&mut context);
    cron_job::start(&mut context);
    disruption::start(&mut context);
    storage_protection::start(&mut context);
    endpoint_slice::start(&mut context);
    endpoints::start(&mut context);
    service_cidr::start(&mut context);
    namespace::start(&mut context);
    garbage_collector::start(&mut context);
    node_ipam::start(&mut context, pool);
    pod_gc::start(&mut context, terminated_pod_gc_threshold);
    bootstrap_token::start(&mut context);
    certificates::start(&mut context, &root_ca_pem, &ca_key_pem);
    cluster_role_aggregation::start(&mut context);
    service_account::start(&mut context, root_ca_pem, token_signer);
    node_lifecycle::start(&mut context, node_monitor_grace_period);
    taint_eviction::start(&mut context);
    context.join().await;
    Ok(())
}
