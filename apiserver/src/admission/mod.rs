//! What stands between a valid request and the store: plug-ins that fill in and that refuse, in upstream's order.
//!
//! [`Admission::mutate`] and [`Admission::validate`] are the lists; each plug-in is a module with
//! plain functions over the object and what it must know about others. The plug-ins run on what users and components
//! send, not on what the server writes for itself.

mod certificates;
mod classes;
mod extended;
mod limits;
pub(crate) mod matching;
mod namespace;
mod node_certificates;
mod node_restriction;
mod oracle;
mod param_rights;
mod pod_security;
mod policies;
mod priority;
mod protection;
pub mod quota;
mod resize;
mod service_account;
mod tolerations;
mod topology;
mod webhooks;

use std::sync::Arc;

use api::kinds::built_in as kind;
use api::{Object, Status};
use async_trait::async_trait;

use crate::{
    authz::{Authorizer, escalation, node_of},
    follow::{Follow, Objects},
    hooks::{Admit, Attributes, Operation},
    registry::Registry,
};
use policies::Policies;
pub(crate) use policies::start_type_checks;
use webhooks::{Asked, Rounds, Webhooks};

/// The built-in plug-ins.
pub struct Admission {
    authorizer: Arc<Authorizer>,
    namespaces: Follow<Objects>,
    accounts: Follow<Objects>,
    priority_classes: Follow<Objects>,
    limit_ranges: Follow<Objects>,
    quotas: Follow<Objects>,
    usage: quota::Usage,
    policies: Policies,
    webhooks: Webhooks,
}

impl Admission {
    /// The plug-ins; `authorizer` knows what the writers of roles hold themselves.
    pub fn new(authorizer: Arc<Authorizer>) -> Admission {
        Admission {
            policies: Policies::new(),
            authorizer,
            namespaces: Follow::new(kind("", "namespaces")),
            accounts: Follow::new(kind("", "serviceaccounts")),
            priority_classes: Follow::new(kind("scheduling.k8s.io", "priorityclasses")),
            limit_ranges: Follow::new(kind("", "limitranges")),
            quotas: Follow::new(kind("", "resourcequotas")),
            usage: quota::Usage::new(),
            webhooks: Webhooks::new(),
        }
    }
}

#[async_trait]
impl Admit for Admission {
    async fn mutate(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        let asked = self.asked(registry, attributes);
        let mut warnings = Vec::new();
        let mut rounds = Rounds::default();
        loop {
            self.complete(registry, attributes, object).await?;
            self.policies.mutate(&asked, object, old, &mut rounds).await?;
            warnings.extend(self.webhooks.mutate(&asked, Some(object), old, &mut rounds).await?);
            if !rounds.begin_second(object) {
                return Ok(warnings);
            }
        }
    }

    async fn validate(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        let asked = self.asked(registry, attributes);
        let mut warnings = Vec::new();
        if matches!(attributes.operation, Operation::Delete | Operation::Connect) {
            // Nothing can be changed any more, but who changes may still refuse.
            let mut shown = object.cloned();
            let mut rounds = Rounds::default();
            warnings.extend(self.webhooks.mutate(&asked, shown.as_mut(), old, &mut rounds).await?);
        }
        warnings.extend(self.check(registry, attributes, object, old).await?);
        warnings.extend(self.policies.validate(&asked, object, old).await?);
        warnings.extend(self.webhooks.validate(&asked, object, old).await?);
        self.charge(registry, attributes, object, old).await?;
        Ok(warnings)
    }
}

impl Admission {
    fn asked<'a>(&'a self, registry: &'a Registry, attributes: &'a Attributes<'a>) -> Asked<'a> {
        Asked { registry, attributes, namespaces: &self.namespaces, authorizer: &self.authorizer }
    }

    /// The built-in plug-ins that fill in what users leave to the cluster. Twice does the same as once.
    async fn complete(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: &mut Object,
    ) -> Result<(), Status> {
        let is_create = attributes.operation == Operation::Create;
        // Nobody is asked about what cannot be there.
        let namespace = self.namespace(registry, attributes.namespace).await?;
        namespace::validate(attributes, namespace.as_deref(), Some(object))?;
        match what(attributes) {
            ("", "pods", "") if !is_create => tolerations::for_unready_nodes(object),
            ("", "pods", "") => {
                let limits = self.of_namespace(&self.limit_ranges, registry, attributes.namespace).await?;
                limits::set_defaults(object, &limits);
                service_account::admit(registry, &self.accounts, attributes, object).await?;
                priority::admit(attributes, &self.priority_classes(registry).await?, object)?;
                tolerations::for_unready_nodes(object);
                extended::tolerate(object);
                classes::runtime_class(registry, attributes, object).await?;
                topology::label_pod(registry, object).await?;
            }
            ("", "pods", "binding") if is_create => topology::label_binding(registry, object).await?,
            ("certificates.k8s.io", "certificatesigningrequests", "") if is_create => {
                certificates::stamp(attributes.user, object);
            }
            ("", "nodes", "") if is_create => tolerations::taint_new_node(object),
            ("", "persistentvolumeclaims", "") if is_create => {
                classes::default_storage_class(registry, object).await?;
                protection::add(object, protection::CLAIM);
            }
            ("", "persistentvolumes", "") if is_create => protection::add(object, protection::VOLUME),
            ("networking.k8s.io", "ingresses", "") if is_create => {
                classes::default_ingress_class(registry, object).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The built-in plug-ins that refuse.
    async fn check(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        let mut warnings = Vec::new();
        if let Some(node) = node_of(attributes.user) {
            let subject = match (what(attributes), attributes.operation) {
                (("", "pods", "eviction"), _) => {
                    Some(registry.get(attributes.kind, attributes.namespace, attributes.name).await?)
                }
                (("", "pods", ""), Operation::Create) => registry.find(kind("", "nodes"), "", node).await?,
                _ => None,
            };
            node_restriction::validate(node, attributes, object, old, subject.as_ref())?;
            if let Some(request) = object.filter(|_| node_certificates::are_meant(attributes)) {
                node_certificates::validate(registry, node, attributes, request).await?;
            }
        }
        let namespace = self.namespace(registry, attributes.namespace).await?;
        namespace::validate(attributes, namespace.as_deref(), object)?;
        let Some(object) = object else { return Ok(warnings) };
        match what(attributes) {
            ("", "pods", "") if attributes.operation == Operation::Create => {
                let limits = self.of_namespace(&self.limit_ranges, registry, attributes.namespace).await?;
                limits::validate(attributes, object, &limits)?;
                service_account::check(registry, &self.accounts, attributes, object).await?;
                warnings.extend(pod_security::admit(attributes, namespace.as_deref(), object)?);
            }
            ("", "pods", "resize") => {
                let limits = self.of_namespace(&self.limit_ranges, registry, attributes.namespace).await?;
                limits::validate(attributes, object, &limits)?;
            }
            ("", "pods", "ephemeralcontainers") => {
                service_account::check_ephemeral(registry, &self.accounts, attributes, object).await?;
                warnings.extend(pod_security::admit(attributes, namespace.as_deref(), object)?);
            }
            ("certificates.k8s.io", _, _) => {
                certificates::check(&self.authorizer, attributes, object, old).await?;
            }
            ("", "persistentvolumeclaims", "") => {
                if let Some(old) = old {
                    resize::check(registry, attributes, object, old).await?;
                }
                let limits = self.of_namespace(&self.limit_ranges, registry, attributes.namespace).await?;
                limits::validate(attributes, object, &limits)?;
            }
            ("scheduling.k8s.io", "priorityclasses", "") => {
                priority::validate_class(attributes, &self.priority_classes(registry).await?, object)?;
            }
            ("", "namespaces", "") => {
                pod_security::validate_labels(attributes, object, old)?;
                if pod_security::is_tightened(object, old) {
                    let pods = registry.list(kind("", "pods"), Some(object.name())).await?;
                    warnings.extend(pod_security::warn_about_present(object, &pods));
                }
            }
            ("admissionregistration.k8s.io", _, "") => {
                param_rights::check(registry, &self.authorizer, attributes, object, old).await?;
            }
            ("rbac.authorization.k8s.io", resource, "") => {
                let policy = self.authorizer.policy().await?;
                let write = escalation::Write {
                    user: attributes.user,
                    resource,
                    namespace: attributes.namespace,
                    addressed: attributes.addressed,
                };
                escalation::check(&policy, &write, object, old)?;
            }
            (_, _, "") => {
                warnings.extend(pod_security::warn_about_template(attributes, namespace.as_deref(), object))
            }
            _ => {}
        }
        Ok(warnings)
    }

    /// Quotas come last: what others refuse costs nothing.
    async fn charge(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        if attributes.namespace.is_empty() || !matches!(attributes.subresource, "" | "resize") {
            return Ok(());
        }
        let quotas = self.of_namespace(&self.quotas, registry, attributes.namespace).await?;
        self.usage.charge(registry, attributes, object, old, &quotas).await
    }

    async fn namespace(&self, registry: &Registry, name: &str) -> Result<Option<Arc<Object>>, Status> {
        match name {
            "" => Ok(None),
            name => self.namespaces.ask(registry, |namespaces| namespaces.get("", name)).await,
        }
    }

    async fn priority_classes(&self, registry: &Registry) -> Result<Vec<Arc<Object>>, Status> {
        self.priority_classes.ask(registry, |classes| classes.all()).await
    }

    async fn of_namespace(
        &self,
        objects: &Follow<Objects>,
        registry: &Registry,
        namespace: &str,
    ) -> Result<Vec<Arc<Object>>, Status> {
        objects.ask(registry, |objects| objects.of_namespace(namespace)).await
    }
}

/// Group, resource and subresource.
fn what<'a>(attributes: &Attributes<'a>) -> (&'static str, &'static str, &'a str) {
    (attributes.kind.group, attributes.kind.plural, attributes.subresource)
}

/// 403 in the words of upstream's plug-ins: `pods "web" is forbidden: ...`.
fn forbidden(attributes: &Attributes<'_>, object: Option<&Object>, why: &str) -> Status {
    let generated = object.map_or("", |object| object.text(&["metadata", "generateName"]));
    let name = [object.map_or("", Object::name), attributes.name, generated, "Unknown"];
    let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    Status::forbidden(attributes.kind.group, attributes.kind.plural, name, why)
}
