//! Makes the server findable: the Service `kube-system/kube-dns` and this node's EndpointSlice behind it.

use std::{net::IpAddr, time::Duration};

use client::Cache;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::Config;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Publishes until it is done: the API server may still be starting.
pub(crate) async fn publish(
    client: &Client,
    config: &Config,
    address: IpAddr,
    services: &Cache<Service>,
    slices: &Cache<EndpointSlice>,
) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = try_publish(client, config, address, services, slices).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot publish the cluster DNS, will retry"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn try_publish(
    client: &Client,
    config: &Config,
    address: IpAddr,
    services: &Cache<Service>,
    slices: &Cache<EndpointSlice>,
) -> Result<(), kube::Error> {
    if services.get(NAMESPACE, SERVICE).is_none() {
        let api: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
        tolerate_present(api.create(&PostParams::default(), &service(config)).await)?;
    }
    let wanted = slice(config, address);
    let name = wanted.metadata.name.clone().unwrap_or_default();
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    if let Some(present) = slices.get(NAMESPACE, &name) {
        if present.endpoints == wanted.endpoints && present.ports == wanted.ports {
            return Ok(());
        }
        // An endpoint slice is cheap to make again, and nobody else writes this one.
        match api.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted?),
        }
    }
    tolerate_present(api.create(&PostParams::default(), &wanted).await)
}

fn tolerate_present<T>(created: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match created {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        created => created.map(drop),
    }
}

fn service(config: &Config) -> Service {
    let service = json!({
        "metadata": {
            "name": SERVICE,
            "namespace": NAMESPACE,
            "labels": {"k8s-app": SERVICE, "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"},
        },
        "spec": {
            "clusterIP": config.service_ip.to_string(),
            "internalTrafficPolicy": "Local",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    });
    serde_json::from_value(service).expect("a Service as written above")
}

fn slice(config: &Config, address: IpAddr) -> EndpointSlice {
    let slice = json!({
        "metadata": {
            "name": format!("{SERVICE}-{}", config.node_name),
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": SERVICE,
                "endpointslice.kubernetes.io/managed-by": "dns.coracle",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [address.to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": config.node_name,
        }],
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    });
    serde_json::from_value(slice).expect("an EndpointSlice as written above")
}
