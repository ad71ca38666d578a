//! Groups of the API that other servers answer for: APIServices.
//!
//! [`service`] is what an APIService says; [`availability`] keeps its condition and learns what its server offers;
//! [`proxy`] carries requests on; [`discovery`] puts what all servers offer into one answer. [`local`] makes the rows
//! for the groups that this server serves itself, as upstream, so that `kubectl get apiservices` shows everything.

mod availability;
mod discovery;
mod local;
mod offer;
mod proxy;
mod schemas;
mod service;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use api::{Kind, Status, kinds};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsConnector;

use crate::{
    follow::Follow,
    pki::CertifiedPair,
    registry::Registry,
    remote::{Trust, client_config},
};
pub(crate) use discovery::{merge_aggregated, merge_groups, merge_openapi, named_group, schemas_of_others};
pub(crate) use local::rows as local_rows;
use offer::Offer;
use service::Services;
pub(crate) use service::{Service, addressed};

/// The other servers of the API.
pub(crate) struct Aggregation {
    services: Follow<Services>,
    /// What they offer, as far as it is known.
    offers: RwLock<BTreeMap<String, Arc<Offer>>>,
    /// What is shown to them, so that they believe who the user is.
    identity: Option<CertifiedPair>,
    connectors: Mutex<HashMap<Trust, TlsConnector>>,
}

/// A server that stands behind a group and version, and what it offers.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) service: Arc<Service>,
    offer: Option<Arc<Offer>>,
}

impl Aggregation {
    /// Nobody yet; `identity` is the front-proxy client certificate.
    pub(crate) fn new(identity: Option<CertifiedPair>) -> Aggregation {
        Aggregation {
            services: Follow::new(api_services()),
            offers: RwLock::default(),
            identity,
            connectors: Mutex::default(),
        }
    }

    /// Keeps conditions and local APIServices for as long as the registry lives.
    pub(crate) fn start(self: &Arc<Self>, registry: &Arc<Registry>) {
        let stop = registry.stop().clone();
        let keeper = availability::Keeper::new(self.clone(), registry.clone());
        registry.tasks().spawn(async move { stop.run_until_cancelled(keeper.run()).await });
        let stop = registry.stop().clone();
        let rows = local::Rows::new(registry.clone());
        registry.tasks().spawn(async move { stop.run_until_cancelled(rows.run()).await });
    }

    /// Who answers for a group and version, when it is not this server.
    pub(crate) async fn find(
        &self,
        registry: &Registry,
        group: &str,
        version: &str,
    ) -> Result<Option<Arc<Service>>, Status> {
        self.services.ask(registry, |services| services.remote(group, version)).await
    }

    /// All other servers.
    pub(crate) async fn remotes(&self, registry: &Registry) -> Result<Vec<Remote>, Status> {
        let services = self.services.ask(registry, |services| services.remotes()).await?;
        let offers = self.offers.read().unwrap_or_else(PoisonError::into_inner);
        let remote = |service: Arc<Service>| Remote { offer: offers.get(&service.name).cloned(), service };
        Ok(services.into_iter().map(remote).collect())
    }

    fn learned(&self, name: &str, offer: Option<Offer>) {
        let mut offers = self.offers.write().unwrap_or_else(PoisonError::into_inner);
        match offer {
            Some(offer) => drop(offers.insert(name.to_string(), Arc::new(offer))),
            None => drop(offers.remove(name)),
        }
    }

    /// What was learned of a server last.
    fn offer(&self, name: &str) -> Option<Arc<Offer>> {
        self.offers.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// TLS towards a server that is trusted so, with the proxy's own certificate.
    fn tls(&self, trust: &Trust) -> Result<TlsConnector, String> {
        let mut known = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = known.get(trust) {
            return Ok(tls.clone());
        }
        let identity = self.identity.as_ref().map(parsed).transpose()?;
        let tls = TlsConnector::from(Arc::new(client_config(trust, identity)?));
        known.insert(trust.clone(), tls.clone());
        Ok(tls)
    }
}

fn parsed(pair: &CertifiedPair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|error| error.to_string())?;
    Ok((chain, key))
}

fn api_services() -> &'static Kind {
    kinds::built_in("apiregistration.k8s.io", "apiservices")
}
