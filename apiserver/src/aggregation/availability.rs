//! Whether the servers behind APIServices answer: the condition `Available`.
//!
//! A server is asked when its APIService, its Service or its endpoints change, and now and then. Where all groups are
//! local there is nothing to ask, and nothing is done.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use api::{Kind, Object, Status, crd, kinds, time};
use futures::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Aggregation, Service, api_services,
    offer::{self, Offer},
};
use crate::registry::{Registry, now};

/// A server is asked again after so long, as upstream.
const PERIOD: Duration = Duration::from_secs(30);
/// The same while it does not answer.
const RETRY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least time between two passes, in which changes gather.
const PAUSE: Duration = Duration::from_millis(100);

/// The task that keeps the conditions.
pub(super) struct Keeper {
    aggregation: Arc<Aggregation>,
    registry: Arc<Registry>,
    checked: HashMap<String, Checked>,
}

/// What the last check of a server went by, and what it said.
struct Checked {
    service: Service,
    addresses: Vec<SocketAddr>,
    verdict: Verdict,
    at: Instant,
}

/// What is to be said of a server.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn new(status: &'static str, reason: &'static str, message: String) -> Verdict {
        Verdict { status, reason, message }
    }

    fn passed() -> Verdict {
        Verdict::new("True", "Passed", "all checks passed".into())
    }
}

impl Keeper {
    pub(super) fn new(aggregation: Arc<Aggregation>, registry: Arc<Registry>) -> Keeper {
        Keeper { aggregation, registry, checked: HashMap::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let Err(error) = self.follow().await;
            tracing::warn!(%error, "cannot check APIServices, will retry");
            sleep(RETRY).await;
        }
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, Status> {
        let mut rows = self.registry.changes(api_services()).await?;
        loop {
            rows.mark_unchanged();
            let remotes = self.aggregation.remotes(&self.registry).await?;
            if remotes.is_empty() {
                self.checked.clear();
                rows.changed().await.map_err(|_| Status::internal("the cache of APIServices has ended"))?;
                continue;
            }
            let mut services = self.registry.changes(services()).await?;
            let mut slices = self.registry.changes(slices()).await?;
            services.mark_unchanged();
            slices.mark_unchanged();
            let again = self.pass(remotes.into_iter().map(|remote| remote.service).collect()).await?;
            sleep(PAUSE).await;
            tokio::select! {
                changed = rows.changed() => changed.map_err(|_| Status::internal("the cache of APIServices has ended"))?,
                changed = services.changed() => changed.map_err(|_| Status::internal("the cache of Services has ended"))?,
                changed = slices.changed() => changed.map_err(|_| Status::internal("the cache of EndpointSlices has ended"))?,
                () = sleep_until(again) => {}
            }
        }
    }

    /// Checks what has to be checked; tells when to look again.
    async fn pass(&mut self, services: Vec<Arc<Service>>) -> Result<Instant, Status> {
        self.checked.retain(|name, _| services.iter().any(|service| service.name == *name));
        let checks = join_all(services.iter().map(|service| self.check(service))).await;
        let mut again = Instant::now() + PERIOD;
        for (service, checked) in services.iter().zip(checks) {
            if let Some((checked, offer)) = checked {
                // Who hears that a server is there finds what it offers.
                self.aggregation.learned(&service.name, offer);
                self.write(&service.name, &checked.verdict).await?;
                self.checked.insert(service.name.clone(), checked);
            }
            if let Some(checked) = self.checked.get(&service.name) {
                again = again.min(checked.next());
            }
        }
        Ok(again)
    }

    /// Nothing, when what was said last still holds.
    async fn check(&self, service: &Arc<Service>) -> Option<(Checked, Option<Offer>)> {
        let found = self.look(service).await;
        let addresses = found.as_ref().cloned().unwrap_or_default();
        let last = self.checked.get(&service.name);
        let compared = Service { is_available: false, ..(**service).clone() };
        let is_same = |last: &Checked| {
            last.service == compared && last.addresses == addresses && Instant::now() < last.next()
        };
        // What is known from the objects alone is said at once.
        if found.is_ok() && last.is_some_and(is_same) {
            return None;
        }
        let (verdict, offer) = match found {
            Err(verdict) => (verdict, None),
            Ok(_) => self.ask(service).await,
        };
        Some((Checked { service: compared, addresses, verdict, at: Instant::now() }, offer))
    }

    async fn ask(&self, service: &Service) -> (Verdict, Option<Offer>) {
        let asked = timeout(PATIENCE, offer::ask(&self.aggregation, &self.registry, service)).await;
        let asked = asked.unwrap_or_else(|_| {
            let url = format!("https://{}{}", service.target.authority, service.root());
            Err(format!("failing or missing response from {url}: Get {url:?}: context deadline exceeded"))
        });
        match asked {
            Ok(offer) => (Verdict::passed(), Some(offer)),
            Err(why) => (Verdict::new("False", "FailedDiscoveryCheck", why), None),
        }
    }

    /// Where a server is, as the objects have it.
    async fn look(&self, service: &Service) -> Result<Vec<SocketAddr>, Verdict> {
        let Some((namespace, name, port)) = service.target.service() else { return Ok(Vec::new()) };
        let unknown = |status: Status| {
            let message =
                format!("service/{name} in {namespace:?} cannot be checked due to: {}", status.message);
            Verdict::new("Unknown", "ServiceAccessError", message)
        };
        let found = self.registry.find(services(), namespace, name).await.map_err(unknown)?;
        let slices = self.registry.list(slices(), Some(namespace)).await.map_err(unknown)?;
        judge(namespace, name, port, found.as_ref(), &slices)?;
        let mut addresses = service.target.addresses(&self.registry).await.unwrap_or_default();
        addresses.sort_unstable();
        Ok(addresses)
    }

    async fn write(&self, name: &str, verdict: &Verdict) -> Result<(), Status> {
        let change = |mut object: Object| {
            let mut conditions = object.list(&["status", "conditions"]).to_vec();
            let said = ["Available", verdict.status, verdict.reason, verdict.message.as_str()];
            crd::set_condition(&mut conditions, said, &time::format(now()));
            object.set(&["status", "conditions"], conditions);
            Ok(object)
        };
        match self.registry.update_subresource(api_services(), "status", "", name, change).await {
            Err(status) if status.code != 404 => Err(status),
            _ => Ok(()),
        }
    }
}

impl Checked {
    fn next(&self) -> Instant {
        self.at + if self.verdict.status == "True" { PERIOD } else { RETRY }
    }
}

/// What the Service and its endpoints say, before anybody is asked.
fn judge(
    namespace: &str,
    name: &str,
    port: u16,
    service: Option<&Object>,
    slices: &[Object],
) -> Result<(), Verdict> {
    let no = |reason, message: String| Err(Verdict::new("False", reason, message));
    let Some(service) = service else {
        return no("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
    };
    // Others lead out of the cluster.
    if service.text(&["spec", "type"]) == "ExternalName" {
        return Ok(());
    }
    let ports = service.list(&["spec", "ports"]);
    let Some(found) = ports.iter().find(|one| one["port"] == port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return no("ServicePortError", message);
    };
    let port_name = found["name"].as_str().unwrap_or_default();
    let label = Value::from(name);
    let own = slices
        .iter()
        .filter(|slice| slice.at(&["metadata", "labels", "kubernetes.io/service-name"]) == Some(&label));
    let own: Vec<&Object> = own.collect();
    if own.is_empty() {
        return no(
            "EndpointsNotFound",
            format!("cannot find endpointslices for service/{name} in {namespace:?}"),
        );
    }
    let is_active = |slice: &&Object| {
        let has_port =
            slice.list(&["ports"]).iter().any(|port| port["name"].as_str().unwrap_or_default() == port_name);
        has_port && slice.list(&["endpoints"]).iter().any(|endpoint| endpoint["conditions"]["ready"] != false)
    };
    match own.iter().any(is_active) {
        true => Ok(()),
        false => no(
            "MissingEndpoints",
            format!(
                "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
            ),
        ),
    }
}

fn services() -> &'static Kind {
    kinds::built_in("", "services")
}

fn slices() -> &'static Kind {
    kinds::built_in("discovery.k8s.io", "endpointslices")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn said(service: Option<Value>, slices: &[Value]) -> (&'static str, String) {
        let slices: Vec<Object> = slices.iter().cloned().map(object).collect();
        match judge("n", "s", 443, service.map(object).as_ref(), &slices) {
            Ok(()) => ("", String::new()),
            Err(verdict) => (verdict.reason, verdict.message),
        }
    }

    #[test]
    fn objects_alone_say_much() {
        let service = json!({"spec": {"ports": [{"name": "https", "port": 443}]}});
        let slice = |ready: bool| {
            json!({
                "metadata": {"labels": {"kubernetes.io/service-name": "s"}},
                "ports": [{"name": "https", "port": 8443}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
            })
        };
        assert_eq!(said(None, &[]), ("ServiceNotFound", r#"service/s in "n" is not present"#.into()));
        let other = json!({"spec": {"ports": [{"port": 80}]}});
        assert_eq!(
            said(Some(other), &[]),
            ("ServicePortError", r#"service/s in "n" is not listening on port 443"#.into())
        );
        assert_eq!(
            said(Some(service.clone()), &[]),
            ("EndpointsNotFound", r#"cannot find endpointslices for service/s in "n""#.into())
        );
        assert_eq!(
            said(Some(service.clone()), &[slice(false)]),
            (
                "MissingEndpoints",
                r#"endpointslices for service/s in "n" have no addresses with port name "https""#.into()
            )
        );
        assert_eq!(said(Some(service), &[slice(false), slice(true)]).0, "");
        assert_eq!(said(Some(json!({"spec": {"type": "ExternalName"}})), &[]).0, "");
    }
}
