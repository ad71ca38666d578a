//! Who asks for what: [`RequestInfo`] is read off method and URL once, at the edge; everything behind
//! (authorization, routing, audit, metrics) works on it and never looks at the path again.

mod info;
mod options;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use info::RequestInfo;
pub(crate) use options::FIELD_MANAGER_LIMIT;
pub use options::{
    DeleteOptions, FieldValidation, ListOptions, Propagation, Query, VersionMatch, WriteOptions,
};

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

/// The client's TLS certificate (DER), leaf first, as an extension of the request.
#[derive(Clone, Debug)]
pub struct PeerCertificate(pub Vec<rustls_pki_types::CertificateDer<'static>>);
