//! What a cluster has from its first second on: namespaces, roles, priority classes, the `kubernetes` Service.
//!
//! [`objects`] says what there should be, [`plan`] compares one of them with what is there, [`run`] does what
//! is left to do, all at once. Users' additions stay: rules and subjects that are missing come back, none is taken away,
//! and an object with `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

mod controllers;
mod objects;
mod plan;
mod range;
mod roles;

use std::{collections::HashMap, net::IpAddr};

use api::{Object, Status, kinds};
use futures::{StreamExt, stream};

use crate::{alloc, authz::Rule, fairness, registry::Registry, request::DeleteOptions};
use objects::Desired;
use plan::{Action, plan};
pub use range::keep as keep_range;

/// What depends on the machine and its configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `kubernetes` Service's address, the first of the Service range.
    pub service_address: IpAddr,
    /// The Service range, such as `10.96.0.0/12`.
    pub service_range: String,
    /// Where this server is reached from pods and other nodes.
    pub advertise: IpAddr,
    /// The port that it listens on.
    pub port: u16,
    /// The CA of client certificates, PEM.
    pub client_ca: String,
    /// The CA of this server's own certificate, PEM.
    pub server_ca: String,
    /// The CA of front proxies, PEM.
    pub front_proxy_ca: String,
}

/// Brings about what a cluster needs; does nothing where it is there already.
pub async fn run(registry: &Registry, config: &Config) -> Result<(), Status> {
    let desired = objects::all(config);
    let present = present(registry, &desired).await?;
    let works = desired.into_iter().filter_map(|desired| {
        let key = (desired.kind.storage, desired.object.namespace(), desired.object.name());
        let key = (key.0, key.1.to_string(), key.2.to_string());
        let action = plan(&desired, present.get(&key));
        (action != Action::Nothing).then_some((desired, action))
    });
    // All at once: the store makes one group commit of many writes.
    let mut results = stream::iter(works)
        .map(|(desired, action)| carry_out(registry, desired, action))
        .buffer_unordered(256);
    while let Some(result) = results.next().await {
        result?;
    }
    fairness::set_conditions(registry).await?;
    range::serve(registry, &config.service_range).await?;
    // The one Service that is made without asking the allocator.
    let service = registry.get(kinds::built_in("", "services"), "default", "kubernetes").await?;
    alloc::claim_of(registry, &service).await
}

/// What the Node authorizer allows beyond its own decisions: the rules of `system:node`.
pub(crate) fn node_rules() -> Vec<Rule> {
    roles::NODE_RULES.iter().map(objects::rule).collect()
}

type Key = (&'static str, String, String);

async fn present(registry: &Registry, desired: &[Desired]) -> Result<HashMap<Key, Object>, Status> {
    let mut present = HashMap::new();
    let mut listed = Vec::new();
    for Desired { kind, .. } in desired {
        if listed.contains(&kind.storage) {
            continue;
        }
        listed.push(kind.storage);
        for object in registry.list(kind, None).await? {
            let key = (kind.storage, object.namespace().to_string(), object.name().to_string());
            present.insert(key, object);
        }
    }
    Ok(present)
}

async fn carry_out(registry: &Registry, desired: Desired, action: Action) -> Result<(), Status> {
    let Desired { kind, object, .. } = &desired;
    let (namespace, name) = (object.namespace(), object.name());
    let done = match action {
        Action::Nothing => return Ok(()),
        Action::Create => registry.create(kind, object.clone()).await,
        Action::Replace => {
            registry.delete(kind, namespace, name, &DeleteOptions::default()).await?;
            registry.create(kind, object.clone()).await
        }
        Action::Update(_) => {
            let again = |present: Object| match plan(&desired, Some(&present)) {
                Action::Update(wanted) => Ok(wanted),
                _ => Ok(present),
            };
            registry.update(kind, namespace, name, again).await
        }
    };
    match done {
        // Another server was faster with the same thing.
        Err(status) if status.reason == "AlreadyExists" => Ok(()),
        other => other.map(drop),
    }
}
