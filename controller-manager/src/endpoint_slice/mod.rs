//! Keeps the EndpointSlices of every Service with a selector: which pods are behind it, and in what state.

mod plan;

use std::{collections::HashMap, sync::Arc};

use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, turn};
use futures::future::try_join_all;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;
use plan::{Action, MANAGED_BY_LABEL, MANAGER, SERVICE_LABEL};

use crate::{Context, service_pods};

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (services, pods) = (context.cache::<Service>(), context.cache::<Pod>());
    let (slices, nodes) = (context.cache::<EndpointSlice>(), context.cache::<Node>());
    let controller = EndpointSlices {
        services: services.clone(),
        pods: pods.clone(),
        slices: slices.clone(),
        nodes: nodes.clone(),
        writer: context.writer("endpointslice-controller"),
    };
    let selecting = services.clone();
    let runner = Runner::new("endpoint_slice", controller)
        .concurrency(5)
        .watch(&services)
        .watch_map(&pods, move |change| service_pods::concerned(change, &selecting))
        .watch_map(&slices, |change| {
            match is_ours(change.object()) {
                true => change
                    .object()
                    .labels()
                    .get(SERVICE_LABEL)
                    .map(|name| ObjectKey::new(change.key().namespace, name)),
                false => None,
            }
            .into_iter()
            .collect()
        })
        .wait_for(&nodes);
    context.run(runner);
}

struct EndpointSlices {
    services: Arc<Cache<Service>>,
    pods: Arc<Cache<Pod>>,
    slices: Arc<Cache<EndpointSlice>>,
    nodes: Arc<Cache<Node>>,
    writer: Writer,
}

impl Reconcile for EndpointSlices {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        // The slices of a Service that is gone are collected with it.
        let Some(service) = self.services.get_key(key) else { return Ok(Next::OnChange) };
        let Some(selector) = service_pods::selector(&service) else { return Ok(Next::OnChange) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let pods = service_pods::selected(&self.pods, &key.namespace, &selector);
        let backends = service_pods::backends(&service, &pods);
        let slices = self.slices_of(key);
        let ready = backends.iter().filter(|backend| backend.ready).count();
        turn::describe(
            format!("{} endpoints, {ready} ready", backends.len()),
            format!("{} slices", slices.len()),
        );

        let actions = plan::plan(&service, &backends, &slices, &self.zones());
        try_join_all(actions.into_iter().map(|action| self.carry_out(action))).await?;
        Ok(Next::OnChange)
    }
}

impl EndpointSlices {
    fn slices_of(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        let service = |slice: &EndpointSlice| {
            let name = slice.labels().get(SERVICE_LABEL).filter(|_| is_ours(slice));
            name.map(|name| format!("{}/{name}", slice.namespace().unwrap_or_default())).into_iter().collect()
        };
        let mut slices = self.slices.by_index("service", service, &key.to_string());
        slices.retain(|slice| slice.metadata.deletion_timestamp.is_none());
        slices
    }

    fn zones(&self) -> HashMap<String, String> {
        let nodes = self.nodes.list();
        nodes
            .iter()
            .filter_map(|node| Some((node.name_any(), node.labels().get(ZONE_LABEL)?.clone())))
            .collect()
    }

    async fn carry_out(&self, action: Action) -> Result<(), ClientError> {
        match action {
            Action::Create(slice) => match self.writer.create(&*slice).await {
                // The namespace is going, and the Service with it.
                Err(ClientError::Api(status)) if status.code == 403 || status.code == 404 => Ok(()),
                created => created.map(drop),
            },
            Action::Update(slice) => self.writer.replace(&*slice).await.or_not_found().map(drop),
            Action::Delete(slice) => self.writer.delete(&*slice).await,
        }
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY_LABEL).is_some_and(|manager| manager == MANAGER)
}
