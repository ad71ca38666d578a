//! Keeps the Endpoints object of every Service with a selector, for clients that do not know EndpointSlices.

mod plan;

use std::sync::Arc;

use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, is_not_found, turn};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};

use crate::{Context, service_pods};

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (services, pods, endpoints) =
        (context.cache::<Service>(), context.cache::<Pod>(), context.cache::<Endpoints>());
    let controller = EndpointsController {
        services: services.clone(),
        pods: pods.clone(),
        endpoints: endpoints.clone(),
        writer: context.writer("endpoint-controller"),
    };
    let selecting = services.clone();
    let runner = Runner::new("endpoint", controller)
        .concurrency(5)
        .watch(&services)
        .watch_map(&pods, move |change| service_pods::concerned(change, &selecting))
        .watch(&endpoints);
    context.run(runner);
}

struct EndpointsController {
    services: Arc<Cache<Service>>,
    pods: Arc<Cache<Pod>>,
    endpoints: Arc<Cache<Endpoints>>,
    writer: Writer,
}

impl Reconcile for EndpointsController {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let present = self.endpoints.get_key(key);
        let Some(service) = self.services.get_key(key) else {
            // Endpoints carry no owner: they go with the Service of their name, but only where we made them.
            if let Some(orphan) = present.filter(|endpoints| plan::is_ours(endpoints)) {
                self.writer.delete(&*orphan).await?;
            }
            return Ok(Next::OnChange);
        };
        let Some(selector) = service_pods::selector(&service) else { return Ok(Next::OnChange) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let pods = service_pods::selected(&self.pods, &key.namespace, &selector);
        let backends = service_pods::backends(&service, &pods);
        let wanted = plan::render(&service, &backends, present.as_deref());
        let ready = backends.iter().filter(|backend| backend.ready).count();
        let held = present.as_deref().map_or(0, plan::count);
        turn::describe(format!("{} addresses, {ready} ready", backends.len()), format!("{held} addresses"));
        match present {
            None => match self.writer.create(&wanted).await.or_already_exists() {
                Err(ClientError::Api(status)) if status.code == 403 || status.code == 404 => {}
                created => created.map(drop)?,
            },
            Some(present) if plan::differs(&present, &wanted) => match self.writer.replace(&wanted).await {
                Err(error) if is_not_found(&error) => {}
                replaced => replaced.or_conflict().map(drop)?,
            },
            Some(_) => {}
        }
        Ok(Next::OnChange)
    }
}
