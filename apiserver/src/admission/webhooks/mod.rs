//! MutatingWebhookConfigurations and ValidatingWebhookConfigurations: the users' own servers change and refuse.
//!
//! A [`hook::Hook`] is one entry of a configuration. Who wants to see a request is called, those that change objects one
//! after the other, those that only refuse all at once; [`review`] is what they are asked. A webhook that cannot be
//! asked refuses, unless its `failurePolicy` says otherwise.

mod condition;
mod hook;
mod metrics;
mod review;
mod rounds;
mod shape;

use std::{sync::Arc, time::Duration};

use api::{Kind, Object, Status, patch};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{forbidden, kind, matching, oracle::Oracle};
use crate::{
    audit::annotate,
    authz::Authorizer,
    follow::{Follow, Objects},
    hooks::Attributes,
    registry::Registry,
};
use condition::{Subject, Verdict};
use hook::{Hook, Hooks};
use metrics::Outcome;
use review::{Response, Shown};
pub(crate) use rounds::Rounds;
pub(super) use shape::Shape;

/// The webhooks of a cluster.
pub(super) struct Webhooks {
    mutating: Follow<Hooks>,
    validating: Follow<Hooks>,
}

/// A request that webhooks are asked about.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) registry: &'a Registry,
    pub(super) attributes: &'a Attributes<'a>,
    pub(super) namespaces: &'a Follow<Objects>,
    pub(super) authorizer: &'a Authorizer,
}

/// A webhook that wants to see a request, and what it gets to see.
struct Invocation {
    hook: Arc<Hook>,
    /// Its place among all webhooks, for annotations.
    index: usize,
    shape: Shape,
    request: Value,
    shown: Shown,
}

/// What a webhook may go by beside the object itself.
struct Surroundings {
    /// The namespace of the object.
    namespace: Option<Arc<Object>>,
    /// The other names of its resource.
    others: Vec<&'static Kind>,
}

/// Why a webhook stands in the way.
enum Refusal {
    /// It could not be asked, or its answer is none.
    Failed(String),
    /// It has said no, or the server itself.
    Denied(Status),
}

impl Webhooks {
    pub(super) fn new() -> Webhooks {
        let follow = |plural| Follow::new(kind("admissionregistration.k8s.io", plural));
        Webhooks {
            mutating: follow("mutatingwebhookconfigurations"),
            validating: follow("validatingwebhookconfigurations"),
        }
    }

    /// Lets webhooks change `object`, each what the one before it has left. What is being deleted can only be refused.
    pub(super) async fn mutate(
        &self,
        asked: &Asked<'_>,
        mut object: Option<&mut Object>,
        old: Option<&Object>,
        rounds: &mut Rounds,
    ) -> Result<Vec<String>, Status> {
        let hooks = asked.hooks(&self.mutating).await?;
        if hooks.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(object) = object.as_deref() {
            rounds.enter(object);
        }
        let around = asked.surroundings().await?;
        let mut warnings = Vec::new();
        for (index, hook) in hooks.into_iter().enumerate() {
            let id = format!("{}/{}", hook.configuration, hook.name);
            if !rounds.is_due(&id) {
                continue;
            }
            let wanted = asked.invocation(&hook, index, &around, object.as_deref(), old).await?;
            let Some(invocation) = wanted else { continue };
            let changed = match asked.ask(&invocation, true).await {
                Ok(response) => {
                    invocation.note(&response);
                    warnings.extend(response.warnings.iter().cloned());
                    asked.changed(&invocation, response, object.as_deref()).await
                }
                Err(refusal) => Err(refusal),
            };
            let changed = match changed {
                Ok(changed) => changed,
                Err(refusal) => {
                    invocation.forgive(refusal, "mutation", rounds.number())?;
                    asked.check_deadline()?;
                    None
                }
            };
            let has_changed = match (changed, object.as_deref_mut()) {
                (Some(changed), Some(object)) if changed != *object => {
                    *object = changed;
                    true
                }
                _ => false,
            };
            invocation.note_mutation(has_changed, rounds.number());
            rounds.called(&id, invocation.hook.is_reinvocable, has_changed);
        }
        Ok(warnings)
    }

    /// Asks all webhooks that only refuse, at once; the first refusal counts.
    pub(super) async fn validate(
        &self,
        asked: &Asked<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        let hooks = asked.hooks(&self.validating).await?;
        if hooks.is_empty() {
            return Ok(Vec::new());
        }
        let around = asked.surroundings().await?;
        let mut invocations = Vec::new();
        for (index, hook) in hooks.into_iter().enumerate() {
            let wanted = asked.invocation(&hook, index, &around, object, old).await?;
            invocations.extend(wanted);
        }
        if invocations.is_empty() {
            return Ok(Vec::new());
        }
        asked.check_deadline()?;
        let answers = join_all(invocations.iter().map(|invocation| asked.ask(invocation, false))).await;
        let mut warnings = Vec::new();
        let mut refused = None;
        for (invocation, answer) in invocations.iter().zip(answers) {
            match answer {
                Ok(response) => {
                    invocation.note(&response);
                    warnings.extend(response.warnings.iter().cloned());
                    if !response.is_allowed {
                        let denied = review::denial(&invocation.hook.name, &response.result);
                        refused = refused.or(Some(denied));
                    }
                }
                Err(refusal) => refused = refused.or(invocation.forgive(refusal, "validating", 0).err()),
            }
        }
        match refused {
            Some(status) => Err(status),
            None => Ok(warnings),
        }
    }
}

impl<'a> Asked<'a> {
    async fn hooks(&self, hooks: &Follow<Hooks>) -> Result<Vec<Arc<Hook>>, Status> {
        if matching::is_exempt(self.attributes.kind) {
            return Ok(Vec::new());
        }
        hooks.ask(self.registry, |hooks| hooks.all()).await
    }

    /// The namespace that the object is in, if it is in one that is there.
    pub(super) async fn namespace(&self) -> Result<Option<Arc<Object>>, Status> {
        match self.attributes.namespace {
            "" => Ok(None),
            name => self.namespaces.ask(self.registry, |namespaces| namespaces.get("", name)).await,
        }
    }

    async fn surroundings(&self) -> Result<Surroundings, Status> {
        let others = matching::equivalents(self.registry.kinds(), self.attributes);
        Ok(Surroundings { namespace: self.namespace().await?, others })
    }

    /// The call that `hook` wants for this request, if it wants any.
    async fn invocation(
        &self,
        hook: &Arc<Hook>,
        index: usize,
        around: &Surroundings,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Option<Invocation>, Status> {
        let (registry, attributes) = (self.registry, self.attributes);
        let criteria = hook.criteria.as_ref().map_err(Status::internal)?;
        let namespace = around.namespace.as_deref();
        let Some(seen) = criteria.matches(attributes, &around.others, namespace, object, old)? else {
            return Ok(None);
        };
        let shape = Shape::of(attributes, seen);
        let shown =
            Shown { object: shape.show(registry, object).await?, old: shape.show(registry, old).await? };
        let request = self.request(seen, object);
        if !hook.conditions.is_empty() {
            let judge = |authority| {
                let Shown { object, old } = &shown;
                hook.conditions.judge(&Subject { object, old, request: &request, authority })
            };
            match Arc::new(Oracle::default()).consult(self.authorizer, attributes.user, judge).await {
                Verdict::Met => {}
                Verdict::NotMet => return Ok(None),
                Verdict::Unclear(why) if hook.is_optional => {
                    tracing::warn!(webhook = hook.name, why, "cannot tell whether a webhook wants a request");
                    return Ok(None);
                }
                Verdict::Unclear(why) => return Err(forbidden(attributes, object.or(old), &why)),
            }
        }
        Ok(Some(Invocation { hook: hook.clone(), index, shape, request, shown }))
    }

    /// The `AdmissionRequest`, without the objects.
    pub(super) fn request(&self, seen: &'static Kind, object: Option<&Object>) -> Value {
        let own_name = object.filter(|_| self.attributes.subresource.is_empty()).map_or("", Object::name);
        let name = if self.attributes.name.is_empty() { own_name } else { self.attributes.name };
        review::request(self.attributes, seen, name, &uuid::Uuid::new_v4().to_string())
    }

    /// Calls the webhook, and counts it.
    async fn ask(&self, invocation: &Invocation, is_mutating: bool) -> Result<Response, Refusal> {
        let began = Instant::now();
        let answer = self.converse(invocation, is_mutating).await;
        let hook = &invocation.hook;
        let outcome = match &answer {
            Ok(response) if response.is_allowed => Outcome::Allowed,
            Ok(response) => Outcome::Denied(review::denial(&hook.name, &response.result).code),
            Err(Refusal::Failed(_)) => Outcome::Failed { is_optional: hook.is_optional },
            Err(Refusal::Denied(_)) => Outcome::NotAsked,
        };
        let call = metrics::Call {
            webhook: &hook.name,
            sort: if is_mutating { "admit" } else { "validating" },
            operation: matching::word(self.attributes.operation),
        };
        metrics::called(&call, &outcome, began.elapsed());
        answer
    }

    async fn converse(&self, invocation: &Invocation, is_mutating: bool) -> Result<Response, Refusal> {
        let hook = &invocation.hook;
        if self.attributes.dry_run {
            hook.check_dry_run().map_err(Refusal::Denied)?;
        }
        let version = hook.version.ok_or_else(|| {
            let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            Refusal::Failed(format!("could not create admission objects: {why}"))
        })?;
        let question = review::review(version, invocation.request.clone(), &invocation.shown);
        let remotes = self.registry.remotes();
        let answer = remotes.call(self.registry, &hook.client, &question, self.patience(hook)).await;
        let answer = answer.map_err(|error| Refusal::Failed(error.to_string()))?;
        let uid = invocation.request["uid"].as_str().unwrap_or_default();
        review::read(version, uid, is_mutating, &answer)
            .map_err(|why| Refusal::Failed(format!("received invalid webhook response: {why}")))
    }

    /// The object after what a webhook has decided about it.
    async fn changed(
        &self,
        invocation: &Invocation,
        response: Response,
        object: Option<&Object>,
    ) -> Result<Option<Object>, Refusal> {
        let name = &invocation.hook.name;
        if !response.is_allowed {
            return Err(Refusal::Denied(review::denial(name, &response.result)));
        }
        if response.patch.as_array().is_none_or(Vec::is_empty)
            && (response.patch.is_null() || response.patch.is_array())
        {
            return Ok(None);
        }
        let Some(object) = object else {
            return Err(Refusal::Denied(Status::internal(format!(
                "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
            ))));
        };
        let internal = |status: Status| Refusal::Denied(Status::internal(status.message));
        let patched = patch::json_patch(&invocation.shown.object, &response.patch).map_err(internal)?;
        let changed = invocation.shape.take(self.registry, object, patched).await;
        changed.map(Some).map_err(Refusal::Denied)
    }

    /// How long a webhook may take: what it is given, and not beyond the request's own end.
    fn patience(&self, hook: &Hook) -> Duration {
        let left = self.attributes.deadline.map(|end| end.saturating_duration_since(Instant::now()));
        left.map_or(hook.patience, |left| left.min(hook.patience))
    }

    fn check_deadline(&self) -> Result<(), Status> {
        match self.attributes.deadline.is_some_and(|end| end <= Instant::now()) {
            true => {
                let message = "Timeout: request did not complete within requested timeout";
                Err(Status::new(504, "Timeout", message))
            }
            false => Ok(()),
        }
    }
}

impl Invocation {
    /// What the audit log should say of an answer.
    fn note(&self, response: &Response) {
        for (key, value) in &response.annotations {
            annotate(format!("{}/{key}", self.hook.name), value.as_str().unwrap_or_default().to_string());
        }
    }

    fn note_mutation(&self, has_changed: bool, round: u8) {
        let what = json!({
            "configuration": self.hook.configuration, "webhook": self.hook.name, "mutated": has_changed,
        });
        annotate(format!("mutation.webhook.admission.k8s.io/{}", self.place(round)), what.to_string());
    }

    /// Lets a webhook that could not be asked be, where it is optional.
    fn forgive(&self, refusal: Refusal, sort: &str, round: u8) -> Result<(), Status> {
        let name = &self.hook.name;
        match refusal {
            Refusal::Denied(status) => Err(status),
            Refusal::Failed(why) if self.hook.is_optional => {
                tracing::warn!(webhook = name, why, "failed calling a webhook, going on without it");
                let key = format!("failed-open.{sort}.webhook.admission.k8s.io/{}", self.place(round));
                annotate(key, name.clone());
                Ok(())
            }
            Refusal::Failed(why) => {
                tracing::warn!(webhook = name, why, "failed calling a webhook");
                Err(Status::internal(format!("failed calling webhook {name:?}: {why}")))
            }
        }
    }

    fn place(&self, round: u8) -> String {
        format!("round_{round}_index_{}", self.index)
    }
}
