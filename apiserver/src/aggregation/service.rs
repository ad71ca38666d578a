//! What an APIService says: which group and version, how important, and who answers.

use std::{collections::BTreeMap, sync::Arc};

use api::Object;
use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    follow::View,
    remote::{Target, Trust},
};

/// An APIService whose group is served by another server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Service {
    /// `v1beta1.metrics.k8s.io`.
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(super) group_priority: i64,
    pub(super) version_priority: i64,
    pub(super) target: Target,
    pub(super) trust: Trust,
    /// Whether the last check went well.
    pub(super) is_available: bool,
}

impl Service {
    /// None for groups that this server serves itself.
    pub(super) fn read(object: &Object) -> Option<Service> {
        let reference = object.at(&["spec", "service"]).filter(|reference| reference.is_object())?;
        let is_unchecked = object.at(&["spec", "insecureSkipTLSVerify"]).is_some_and(|skip| skip == true);
        let bundle = BASE64_STANDARD.decode(object.text(&["spec", "caBundle"])).unwrap_or_default();
        let trust = match (is_unchecked, bundle.is_empty()) {
            (true, _) => Trust::Anybody,
            (false, true) => Trust::Machine,
            (false, false) => Trust::Authorities(bundle),
        };
        let number = |field| object.number(&["spec", field]).unwrap_or_default();
        let mut conditions = object.list(&["status", "conditions"]).iter();
        Some(Service {
            name: object.name().to_string(),
            group: object.text(&["spec", "group"]).to_string(),
            version: object.text(&["spec", "version"]).to_string(),
            group_priority: number("groupPriorityMinimum"),
            version_priority: number("versionPriority"),
            target: Target::of_service(reference),
            trust,
            is_available: conditions.any(|one| one["type"] == "Available" && one["status"] == "True"),
        })
    }

    /// `/apis/GROUP/VERSION`.
    pub(super) fn root(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

/// Group and version that a path is about.
pub(crate) fn addressed(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/apis/")?;
    let mut parts = rest.split('/');
    let (group, version) = (parts.next()?, parts.next()?);
    (!group.is_empty() && !version.is_empty()).then_some((group, version))
}

/// The other servers, by group and version.
#[derive(Default)]
pub(super) struct Services(BTreeMap<(String, String), Arc<Service>>);

impl Services {
    pub(super) fn remote(&self, group: &str, version: &str) -> Option<Arc<Service>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(group.to_string(), version.to_string())).cloned()
    }

    pub(super) fn remotes(&self) -> Vec<Arc<Service>> {
        self.0.values().cloned().collect()
    }
}

impl View for Services {
    fn add(&mut self, object: &Arc<Object>) {
        if let Some(service) = Service::read(object) {
            self.0.insert((service.group.clone(), service.version.clone()), Arc::new(service));
        }
    }

    fn remove(&mut self, object: &Object) {
        self.0.retain(|_, service| service.name != object.name());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_about_a_group_and_version() {
        assert_eq!(addressed("/apis/metrics.k8s.io/v1beta1"), Some(("metrics.k8s.io", "v1beta1")));
        assert_eq!(addressed("/apis/metrics.k8s.io/v1beta1/nodes/a"), Some(("metrics.k8s.io", "v1beta1")));
        for path in ["/apis/metrics.k8s.io", "/apis/metrics.k8s.io/", "/apis", "/api/v1/pods", "/apis//v1"] {
            assert_eq!(addressed(path), None, "{path}");
        }
    }

    #[test]
    fn only_groups_of_other_servers_are_kept() {
        let object = |spec| {
            Arc::new(Object::from_value(json!({"metadata": {"name": "v1.a.b"}, "spec": spec})).unwrap())
        };
        let mut services = Services::default();
        services.add(&object(json!({"group": "a.b", "version": "v1"})));
        assert!(services.remote("a.b", "v1").is_none());
        let remote = object(json!({
            "group": "a.b", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "service": {"name": "s", "namespace": "n", "port": 443}, "insecureSkipTLSVerify": true,
        }));
        services.add(&remote);
        let found = services.remote("a.b", "v1").unwrap();
        assert_eq!(
            (found.target.name.as_str(), &found.trust, found.is_available),
            ("s.n.svc", &Trust::Anybody, false)
        );
        services.remove(&remote);
        assert!(services.remotes().is_empty());
    }
}
