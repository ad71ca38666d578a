//! The cluster's DNS server, one on each node, without a pod of its own.
//!
//! Pods ask the address of the Service `kube-system/kube-dns`. Behind it stands, on every node, this server at
//! the node's own bridge address: an EndpointSlice a node, and `internalTrafficPolicy: Local` keeps each
//! question on its node. [`name`] takes names apart, [`zone`] finds records, [`message`] words the reply, all
//! plain functions; [`server`] owns the sockets, [`forward`] asks outside.

pub mod forward;
pub mod message;
pub mod name;
mod publish;
pub mod server;
mod socket;
pub mod zone;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
};

use client::{Cache, Informers};
use hickory_proto::rr::Name;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Service},
    discovery::v1::EndpointSlice,
};
use tokio_util::sync::CancellationToken;

use crate::{
    name::ServiceName,
    zone::{Records, slice_service},
};

/// What the DNS server has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node_name: String,
    /// The cluster's domain, usually `cluster.local`.
    pub domain: String,
    /// The virtual address that pods ask, usually 10.96.0.10.
    pub service_ip: Ipv4Addr,
    /// Whose name servers to ask about other names, usually /etc/resolv.conf.
    pub resolv_conf: PathBuf,
}

/// Why the DNS server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is not a domain name.
    #[error("{domain:?} is not a domain name")]
    Domain {
        /// What was given.
        domain: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for DNS: is another name server running there?")]
    Listen {
        /// The bridge's address, port 53.
        address: SocketAddrV4,
        /// The system's reason.
        source: io::Error,
    },
}

/// Serves the cluster's names until `stop`, as soon as the node has its block of pod addresses.
///
/// # Errors
/// When the domain is not one, or the node's bridge address cannot be listened on.
pub async fn run(config: Config, client: kube::Client, stop: CancellationToken) -> Result<(), DnsError> {
    let domain = Name::from_ascii(format!("{}.", config.domain.trim_end_matches('.')))
        .map_err(|_| DnsError::Domain { domain: config.domain.clone() })?;
    let informers = Informers::new(client.clone(), stop.clone());
    let records =
        Caches { services: informers.cache(), slices: informers.cache(), namespaces: informers.cache() };
    let nodes = informers.cache::<Node>();
    let serve = async {
        let address = SocketAddrV4::new(bridge_address(&nodes, &config.node_name).await, 53);
        records.services.wait_synced().await;
        records.slices.wait_synced().await;
        records.namespaces.wait_synced().await;
        let listen = |source| DnsError::Listen { address, source };
        let udp = socket::bind_udp(address).map_err(listen)?;
        let tcp = socket::bind_tcp(address).map_err(listen)?;
        publish::publish(&client, &config, IpAddr::V4(*address.ip()), &records.services, &records.slices)
            .await;
        let resolv_conf = tokio::fs::read_to_string(&config.resolv_conf).await.unwrap_or_default();
        let own = [IpAddr::V4(*address.ip()), IpAddr::V4(config.service_ip)];
        let name_servers = forward::name_servers(&resolv_conf, &own);
        tracing::info!(%address, ?name_servers, "cluster DNS ready");
        Arc::new(server::Server::new(records, domain, name_servers)).serve(udp, tcp).await;
        Ok(())
    };
    stop.run_until_cancelled(serve).await.unwrap_or(Ok(()))
}

/// The node's bridge address, the first of its block, once the block is known.
async fn bridge_address(nodes: &Cache<Node>, node_name: &str) -> Ipv4Addr {
    let mut changed = nodes.changed();
    loop {
        let node = nodes.get("", node_name);
        let block = node.as_ref().and_then(|node| node.spec.as_ref()?.pod_cidr.as_deref());
        let network = block.and_then(|block| block.split('/').next()?.parse::<Ipv4Addr>().ok());
        if let Some(network) = network {
            return Ipv4Addr::from(u32::from(network) + 1);
        }
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await; // the process is ending
        }
    }
}

/// The process's caches as the source of records.
struct Caches {
    services: Arc<Cache<Service>>,
    slices: Arc<Cache<EndpointSlice>>,
    namespaces: Arc<Cache<Namespace>>,
}

impl Records for Caches {
    fn service(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.services.get(&name.namespace, &name.name)
    }

    fn slices(&self, name: &ServiceName) -> Vec<Arc<EndpointSlice>> {
        let key = format!("{}/{}", name.namespace, name.name);
        self.slices.by_index("service", slice_service_key, &key)
    }

    fn service_at(&self, ip: Ipv4Addr) -> Option<Arc<Service>> {
        self.services.by_index("cluster-ip", cluster_ips, &ip.to_string()).into_iter().next()
    }

    fn slices_with(&self, ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index("endpoint-ip", endpoint_ips, &ip.to_string())
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get("", name).is_some()
    }
}

fn slice_service_key(slice: &EndpointSlice) -> Vec<String> {
    slice_service(slice)
        .map(|service| format!("{}/{}", service.namespace, service.name))
        .into_iter()
        .collect()
}

fn cluster_ips(service: &Service) -> Vec<String> {
    service.spec.iter().filter_map(|spec| spec.cluster_ip.clone()).collect()
}

fn endpoint_ips(slice: &EndpointSlice) -> Vec<String> {
    slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect()
}
