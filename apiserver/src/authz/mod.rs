//! Who may do what: the group `system:masters` everything, kubelets what their pods need, all others
//! what RBAC says.
//!
//! This is on the way of every request. Roles and bindings are compiled into a [`Policy`] that is rebuilt
//! only when one of them changes; the Node authorizer keeps an index over the pods.

pub mod escalation;
mod node;
mod policy;
mod question;
mod rule;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use api::kinds::built_in as kind;
use api::{Kind, Object, Status};
use async_trait::async_trait;
use http::request::Parts;

use crate::{
    authn::impersonation,
    bootstrap,
    follow::{Follow, Objects, View},
    hooks::{Authorize, Decision},
    registry::Registry,
    request::{RequestInfo, User},
};
pub use node::node_of;
pub(crate) use node::references_of;
use node::{Reference, Verdict};
pub(crate) use policy::aggregated;
pub use policy::{Policy, Sources};
pub use question::{Question, forbidden};
pub use rule::Rule;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Decides from the registry's roles, bindings and pods.
pub struct Authorizer {
    registry: Arc<Registry>,
    roles: Follow<Objects>,
    cluster_roles: Follow<Objects>,
    role_bindings: Follow<Objects>,
    cluster_role_bindings: Follow<Objects>,
    compiled: RwLock<Option<Compiled>>,
    pods: Follow<PodsByNode>,
    volumes: Follow<Objects>,
}

/// A policy and the versions of the objects that it was compiled from.
struct Compiled {
    versions: [u64; 4],
    policy: Arc<Policy>,
}

impl Authorizer {
    /// An authorizer over the objects in `registry`.
    pub fn new(registry: Arc<Registry>) -> Arc<Authorizer> {
        let follow = |plural| Follow::new(kind(RBAC, plural));
        Arc::new(Authorizer {
            registry,
            roles: follow("roles"),
            cluster_roles: follow("clusterroles"),
            role_bindings: follow("rolebindings"),
            cluster_role_bindings: follow("clusterrolebindings"),
            compiled: RwLock::new(None),
            pods: Follow::new(kind("", "pods")),
            volumes: Follow::new(kind("", "persistentvolumes")),
        })
    }

    /// The answer to a question, from a request or from a review.
    pub async fn decide(&self, user: &User, question: &Question<'_>) -> Result<Decision, Status> {
        if user.is_in("system:masters") {
            return Ok(allowed());
        }
        let mut reasons = Vec::new();
        if let Some(node) = node_of(user) {
            match self.decide_for_node(node, question).await? {
                Ok(()) => return Ok(allowed()),
                Err(reason) => reasons.push(reason),
            }
        }
        let policy = self.policy().await?;
        if let Some(origin) = policy.origin_of(user, question) {
            return Ok(Decision { allowed: true, reason: format!("RBAC: allowed by {origin}") });
        }
        let complaints = policy.complaints(user, question.namespace);
        if !complaints.is_empty() {
            reasons.push(format!("RBAC: {}", listed(&complaints)));
        }
        reasons.retain(|reason| !reason.is_empty());
        Ok(Decision { allowed: false, reason: reasons.join("\n") })
    }

    /// Every role and binding, compiled.
    pub async fn policy(&self) -> Result<Arc<Policy>, Status> {
        let registry = &self.registry;
        let version = |objects: &mut Objects| objects.version();
        let versions = [
            self.roles.ask(registry, version).await?,
            self.cluster_roles.ask(registry, version).await?,
            self.role_bindings.ask(registry, version).await?,
            self.cluster_role_bindings.ask(registry, version).await?,
        ];
        if let Some(compiled) = &*self.compiled.read().unwrap_or_else(PoisonError::into_inner)
            && compiled.versions == versions
        {
            return Ok(compiled.policy.clone());
        }
        let all = |objects: &mut Objects| objects.all();
        let sources = Sources {
            roles: self.roles.ask(registry, all).await?,
            cluster_roles: self.cluster_roles.ask(registry, all).await?,
            role_bindings: self.role_bindings.ask(registry, all).await?,
            cluster_role_bindings: self.cluster_role_bindings.ask(registry, all).await?,
        };
        let policy = Arc::new(Policy::compile(&sources));
        // Objects that changed between the two readings have newer versions than noted, so the next question compiles again.
        *self.compiled.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Compiled { versions, policy: policy.clone() });
        Ok(policy)
    }

    /// Whether a kubelet may, or why not; an empty reason leaves the matter to RBAC.
    async fn decide_for_node(
        &self,
        name: &str,
        question: &Question<'_>,
    ) -> Result<Result<(), String>, Status> {
        let unrelated = || Err(format!("no relationship found between node '{name}' and this object"));
        let is_related = match node::decide(name, question) {
            Verdict::Allowed => true,
            Verdict::Denied(reason) => return Ok(Err(reason)),
            Verdict::ByRole => {
                let is_allowed = node_rules().iter().any(|rule| rule.allows(question));
                return Ok(if is_allowed { Ok(()) } else { Err(String::new()) });
            }
            Verdict::IfReferenced(reference) => {
                self.is_referenced(name, &reference).await? || self.is_for_volume(name, &reference).await?
            }
            Verdict::IfVolumeIsClaimed(volume) => match self.claim_of(&volume).await? {
                Some(claim) => self.is_referenced(name, &claim).await?,
                None => false,
            },
            Verdict::IfAttached(attachment) => {
                self.is_of_node(kind("storage.k8s.io", "volumeattachments"), "", &attachment, name).await?
            }
            Verdict::IfOffered(slice) => {
                self.is_of_node(kind("resource.k8s.io", "resourceslices"), "", &slice, name).await?
            }
            Verdict::IfRequested { namespace, name: request } => {
                let requests = kind("certificates.k8s.io", "podcertificaterequests");
                self.is_of_node(requests, &namespace, &request, name).await?
            }
        };
        Ok(if is_related { Ok(()) } else { unrelated() })
    }

    /// Whether an object that belongs to one node belongs to this one.
    async fn is_of_node(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        node: &str,
    ) -> Result<bool, Status> {
        let found = self.registry.find(kind, namespace, name).await?;
        Ok(found.is_some_and(|found| found.text(&["spec", "nodeName"]) == node))
    }

    async fn is_referenced(&self, node: &str, reference: &Reference) -> Result<bool, Status> {
        self.pods.ask(&self.registry, |pods| pods.refer(node, reference)).await
    }

    /// Whether a Secret is needed for a volume that a pod on the node uses.
    async fn is_for_volume(&self, node: &str, reference: &Reference) -> Result<bool, Status> {
        if reference.resource != "secrets" {
            return Ok(false);
        }
        let secret = (reference.namespace.clone(), reference.name.clone());
        let volumes = self.volumes.ask(&self.registry, |volumes| volumes.all()).await?;
        for volume in volumes.iter().filter(|volume| node::secrets_of_volume(volume).contains(&secret)) {
            if self.is_referenced(node, &claim_reference(volume)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn claim_of(&self, volume: &str) -> Result<Option<Reference>, Status> {
        let volume = self.registry.find(kind("", "persistentvolumes"), "", volume).await?;
        Ok(volume.map(|volume| claim_reference(&volume)))
    }
}

fn claim_reference(volume: &Object) -> Reference {
    Reference {
        resource: "persistentvolumeclaims",
        namespace: volume.text(&["spec", "claimRef", "namespace"]).to_string(),
        name: volume.text(&["spec", "claimRef", "name"]).to_string(),
    }
}

#[async_trait]
impl Authorize for Arc<Authorizer> {
    async fn authorize(&self, user: &User, info: &RequestInfo) -> Decision {
        match self.decide(user, &Question::from(info)).await {
            Ok(decision) => decision,
            Err(error) => Decision { allowed: false, reason: error.message },
        }
    }

    async fn impersonated(&self, user: User, parts: &Parts) -> Result<User, Status> {
        let Some(wanted) = impersonation::wanted(&parts.headers)? else { return Ok(user) };
        for question in wanted.questions() {
            let question = question.as_question();
            let decision = self.decide(&user, &question).await?;
            if !decision.allowed {
                return Err(forbidden(&user, &question, &decision.reason));
            }
        }
        Ok(wanted.into_user())
    }
}

/// What pods refer to, by node, with the number of pods that do.
#[derive(Default)]
struct PodsByNode(HashMap<String, HashMap<Reference, usize>>);

impl PodsByNode {
    fn refer(&self, node: &str, reference: &Reference) -> bool {
        self.0.get(node).is_some_and(|references| references.contains_key(reference))
    }
}

impl View for PodsByNode {
    fn add(&mut self, pod: &Arc<Object>) {
        let node = pod.text(&["spec", "nodeName"]);
        if !node.is_empty() {
            let references = self.0.entry(node.to_string()).or_default();
            node::opened_by(pod).into_iter().for_each(|one| *references.entry(one).or_default() += 1);
        }
    }

    fn remove(&mut self, pod: &Object) {
        let Some(references) = self.0.get_mut(pod.text(&["spec", "nodeName"])) else { return };
        for reference in node::opened_by(pod) {
            if let Some(count) = references.get_mut(&reference) {
                *count -= 1;
                if *count == 0 {
                    references.remove(&reference);
                }
            }
        }
    }
}

fn node_rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(bootstrap::node_rules)
}

fn allowed() -> Decision {
    Decision { allowed: true, reason: String::new() }
}

fn listed(items: &[String]) -> String {
    match items {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
