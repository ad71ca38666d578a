//! Where a user's server is: a URL, or a Service of the cluster.

use std::{net::SocketAddr, time::Duration};

use api::{Object, kinds};
use http::Uri;
use serde_json::Value;

use super::Failure;
use crate::{proxy, registry::Registry};

const HTTPS: u16 = 443;

/// A server and a path on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Host and port as the `Host` header has them.
    pub(crate) authority: String,
    /// As the certificate has it: without port, without brackets.
    pub(crate) name: String,
    pub(crate) path: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Host { port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

impl Target {
    /// What a `clientConfig` says.
    pub(crate) fn of_client(client: &Value) -> Result<Target, String> {
        match client["url"].as_str() {
            Some(url) => Target::of_url(url),
            None => Ok(Target::of_service(&client["service"])),
        }
    }

    /// What a reference to a Service says.
    pub(crate) fn of_service(service: &Value) -> Target {
        let text = |field: &str| service[field].as_str().unwrap_or_default();
        let (namespace, service_name) = (text("namespace").to_string(), text("name").to_string());
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(HTTPS);
        let name = format!("{service_name}.{namespace}.svc");
        Target {
            authority: format!("{name}:{port}"),
            name,
            path: format!("/{}", text("path").trim_start_matches('/')),
            place: Place::Service { namespace, name: service_name, port },
        }
    }

    fn of_url(url: &str) -> Result<Target, String> {
        let uri: Uri = url.parse().map_err(|error| format!("parse {url:?}: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("{url:?} has no host"))?;
        let host = authority.host();
        let port = authority.port_u16().unwrap_or(HTTPS);
        Ok(Target {
            authority: authority.to_string(),
            name: host.trim_start_matches('[').trim_end_matches(']').to_string(),
            path: uri.path().to_string(),
            place: Place::Host { port },
        })
    }

    /// Namespace, name and port of the Service, when it is one.
    pub(crate) fn service(&self) -> Option<(&str, &str, u16)> {
        match &self.place {
            Place::Host { .. } => None,
            Place::Service { namespace, name, port } => Some((namespace, name, *port)),
        }
    }

    /// Path and query of a call that may take so long.
    pub(crate) fn path_within(&self, patience: Duration) -> String {
        // Upstream tells whole seconds, rounded up.
        let seconds = patience.as_secs() + u64::from(patience.subsec_nanos() > 0);
        format!("{}?timeout={seconds}s", self.path)
    }

    /// Where it listens now.
    pub(crate) async fn addresses(&self, registry: &Registry) -> Result<Vec<SocketAddr>, Failure> {
        match &self.place {
            Place::Host { port } => look_up(&self.name, *port).await,
            Place::Service { namespace, name, port } => of_service(registry, namespace, name, *port).await,
        }
    }
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let found = daemon::resolve::addresses(host).await;
    let found = found.map_err(|source| Failure::Lookup { host: host.to_string(), source })?;
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// The ready endpoints of a Service, or what an ExternalName leads to.
async fn of_service(
    registry: &Registry,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, Failure> {
    let failed = |reason: String| Failure::Service { reason };
    let service = registry.find(kinds::built_in("", "services"), namespace, name).await;
    let service = service.map_err(|status| failed(status.message))?;
    let service = service.ok_or_else(|| failed(format!("service {name:?} not found")))?;
    if service.text(&["spec", "type"]) == "ExternalName" {
        return look_up(service.text(&["spec", "externalName"]), port).await;
    }
    if !has_port(&service, port) {
        return Err(failed(format!("no service port {port} found for service {name:?}")));
    }
    let kind = kinds::built_in("discovery.k8s.io", "endpointslices");
    let slices = registry.list(kind, Some(namespace)).await;
    let slices = slices.map_err(|status| failed(status.message))?;
    let found = proxy::addresses_of_service(&service, &slices, &port.to_string());
    let mut addresses = found.map_err(|status| failed(status.message))?;
    fastrand::shuffle(&mut addresses);
    Ok(addresses)
}

/// Whether a Service listens at a port.
pub(crate) fn has_port(service: &Object, port: u16) -> bool {
    service.list(&["spec", "ports"]).iter().any(|one| one["port"] == port)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_called_by_its_name_in_the_cluster() {
        let client = json!({"service": {"name": "hook", "namespace": "prod", "path": "admit"}});
        let target = Target::of_client(&client).unwrap();
        assert_eq!((target.authority.as_str(), target.name.as_str()), ("hook.prod.svc:443", "hook.prod.svc"));
        assert_eq!(target.path_within(Duration::from_secs(10)), "/admit?timeout=10s");
        assert_eq!(target.path_within(Duration::from_millis(2500)), "/admit?timeout=3s");
    }

    #[test]
    fn a_url_says_host_port_and_path() {
        let target = Target::of_client(&json!({"url": "https://[::1]:8443/admit"})).unwrap();
        assert_eq!((target.authority.as_str(), target.name.as_str()), ("[::1]:8443", "::1"));
        assert_eq!((target.path.as_str(), &target.place), ("/admit", &Place::Host { port: 8443 }));
        assert_eq!(Target::of_client(&json!({"url": "https://a.b"})).unwrap().path, "/");
        assert!(Target::of_client(&json!({"url": "/nowhere"})).is_err());
    }
}
