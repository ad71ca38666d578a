//! Who asks for what: [`RequestInfo`] is read off method and URL once, at the edge; everything behind
//! (authorization, routing, audit, metrics) works on it and never looks at the path again.

mod info;
mod options;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::authn::Verdict;

pub use info::RequestInfo;
pub use options::{
    DeleteOptions, FieldValidation, ListOptions, Propagation, Query, VersionMatch, WriteOptions,
};
pub(crate) use options::{FIELD_MANAGER_LIMIT, not_a_number};

/// An authenticated caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Such as `system:serviceaccount:default:builder`.
    pub name: String,
    /// What tells apart two users that had the same name at different times; often empty.
    pub uid: String,
    /// Such as `system:authenticated`.
    pub groups: Vec<String>,
    /// Further facts from the authenticator, for example the pod that a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user that is in `groups` and about whom nothing else is known.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> User {
        let groups = groups.iter().map(ToString::to_string).collect();
        User { name: name.into(), groups, ..User::default() }
    }

    /// As reviews and audit events show users (`authentication.k8s.io/v1` UserInfo).
    pub fn to_info(&self) -> Value {
        let mut info = json!({"username": self.name});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        if !self.groups.is_empty() {
            info["groups"] = json!(self.groups);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }

    /// Whether the user is in `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }
}

/// The client's TLS certificates, as an extension of the request. That the client holds the key is certain; who vouches for
/// it is the authenticator's to find out, and to remember here for the requests that follow.
#[derive(Clone, Debug)]
pub struct PeerCertificate(Arc<Peer>);

#[derive(Debug)]
struct Peer {
    chain: Vec<CertificateDer<'static>>,
    verdict: Mutex<Option<Arc<Verdict>>>,
}

impl PeerCertificate {
    /// The chain that a client has shown (DER), leaf first.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> PeerCertificate {
        PeerCertificate(Arc::new(Peer { chain, verdict: Mutex::default() }))
    }

    /// What the chain is good for: as it was found before, where that still holds.
    pub(crate) fn verdict(
        &self,
        still_holds: impl FnOnce(&Verdict) -> bool,
        find: impl FnOnce(&[CertificateDer<'static>]) -> Verdict,
    ) -> Arc<Verdict> {
        let mut known = self.0.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        match known.take().filter(|verdict| still_holds(verdict)) {
            Some(verdict) => known.insert(verdict).clone(),
            None => known.insert(Arc::new(find(&self.0.chain))).clone(),
        }
    }
}
