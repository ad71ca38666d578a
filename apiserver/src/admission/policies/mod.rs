//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: rules in CEL that users write down instead of a webhook.
//!
//! [`definition`] keeps policies and bindings compiled, [`params`] finds what they are parametrised with, and
//! [`oracle`](super::oracle) knows what users may do. What a policy decides is in `api::policy`; here is who is asked about which request, and
//! what becomes of the answers.

mod definition;
mod params;
mod refusal;
mod type_check;

use std::sync::Arc;

use api::{Kind, Object, Status, policy::Input, schema};
use serde_json::Value;

use self::{
    definition::{Binding, Bound, Definition, Followed},
    refusal::Outcome,
};
use super::{
    kind, matching,
    oracle::Oracle,
    webhooks::{Asked, Rounds, Shape},
};
use crate::hooks::Operation;

const GROUP: &str = "admissionregistration.k8s.io";

pub(crate) use type_check::start as start_type_checks;

/// All policies.
pub(super) struct Policies {
    validating: Followed,
    mutating: Followed,
}

/// A policy that a request is to be shown to, with one binding and one set of parameters.
struct Case<'a> {
    definition: &'a Definition,
    binding: &'a Binding,
    params: Value,
    /// The kind in which the policy wants to see the object.
    seen: &'static Kind,
}

/// Why a policy that should have been asked was not.
struct Misconfigured<'a> {
    definition: &'a Definition,
    binding: Option<&'a Binding>,
    why: String,
}

impl Policies {
    pub(super) fn new() -> Policies {
        let followed = |policies, bindings| Followed::new(kind(GROUP, policies), kind(GROUP, bindings));
        Policies {
            validating: followed("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
            mutating: followed("mutatingadmissionpolicies", "mutatingadmissionpolicybindings"),
        }
    }

    /// What the validating policies say: warnings, or a refusal.
    pub(super) async fn validate(
        &self,
        asked: &Asked<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Vec<String>, Status> {
        let bound = self.bound(&self.validating, asked).await?;
        if bound.is_empty() {
            return Ok(Vec::new());
        }
        let namespace = asked.namespace().await?;
        let oracle = Arc::new(Oracle::default());
        let mut outcome = Outcome::default();
        for case in cases(asked, &bound, namespace.as_deref(), object, old).await {
            let case = match case {
                Ok(case) => case,
                Err(wrong) => {
                    outcome.misconfigured(&wrong);
                    continue;
                }
            };
            let shown = Shown::of(asked, case.seen, namespace.as_deref(), object, old).await?;
            let decide = |authority| case.definition.policy.validate(&shown.input(&case.params, authority));
            let validated = oracle.consult(asked.authorizer, asked.attributes.user, decide).await;
            outcome.add(case.definition, case.binding, validated);
        }
        outcome.publish();
        outcome.settle(asked.attributes, object.or(old))
    }

    /// The object after what the mutating policies make of it.
    pub(super) async fn mutate(
        &self,
        asked: &Asked<'_>,
        object: &mut Object,
        old: Option<&Object>,
        rounds: &mut Rounds,
    ) -> Result<(), Status> {
        if !matches!(asked.attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let bound = self.bound(&self.mutating, asked).await?;
        if bound.is_empty() {
            return Ok(());
        }
        rounds.enter(object);
        let namespace = asked.namespace().await?;
        let oracle = Arc::new(Oracle::default());
        let refuse = |definition: &Definition, binding: Option<&Binding>, why: &str| {
            refusal::of_mutation(asked.attributes, definition, binding, why)
        };
        for case in cases(asked, &bound, namespace.as_deref(), Some(object), old).await {
            let case = match case {
                Ok(case) => case,
                Err(wrong) if wrong.definition.policy.is_lenient() => continue,
                Err(wrong) => return Err(refuse(wrong.definition, wrong.binding, &wrong.told())),
            };
            let id = case.id();
            if !rounds.is_due(&id) {
                continue;
            }
            let shown = Shown::of(asked, case.seen, namespace.as_deref(), Some(object), old).await?;
            let schema = schema::of(case.seen);
            let decide =
                |authority| case.definition.policy.mutate(&shown.input(&case.params, authority), schema);
            let mutated = oracle.consult(asked.authorizer, asked.attributes.user, decide).await;
            let mutated =
                mutated.map_err(|why| refuse(case.definition, Some(case.binding), &why))?.into_value();
            let has_changed = mutated != shown.object;
            if has_changed {
                let shape = Shape::of(asked.attributes, case.seen);
                *object = shape.take(asked.registry, object, mutated).await?;
            }
            rounds.called(&id, case.definition.is_willing, has_changed);
        }
        Ok(())
    }

    /// The policies that could be meant at all.
    async fn bound(&self, followed: &Followed, asked: &Asked<'_>) -> Result<Vec<Bound>, Status> {
        match matching::is_exempt_from_policies(asked.attributes.kind) {
            true => Ok(Vec::new()),
            false => followed.bound(asked.registry).await,
        }
    }
}

impl Case<'_> {
    fn id(&self) -> String {
        let param = |field: &str| self.params["metadata"][field].as_str().unwrap_or_default();
        let (namespace, name) = (param("namespace"), param("name"));
        format!("policy/{}/{}/{namespace}/{name}", self.definition.name, self.binding.name)
    }
}

impl Misconfigured<'_> {
    fn told(&self) -> String {
        let what = if self.binding.is_some() { "binding" } else { "policy" };
        format!("failed to configure {what}: {}", self.why)
    }
}

/// Whom a request concerns, in the order of their names.
async fn cases<'a>(
    asked: &Asked<'_>,
    bound: &'a [Bound],
    namespace: Option<&Object>,
    object: Option<&Object>,
    old: Option<&Object>,
) -> Vec<Result<Case<'a>, Misconfigured<'a>>> {
    let attributes = asked.attributes;
    let others = matching::equivalents(asked.registry.kinds(), attributes);
    let matches = |criteria: &Result<matching::Criteria, String>| match criteria {
        Ok(criteria) => {
            criteria.matches(attributes, &others, namespace, object, old).map_err(|status| status.message)
        }
        Err(why) => Err(why.clone()),
    };
    let mut cases = Vec::new();
    for Bound { definition, bindings } in bound {
        let seen = match matches(&definition.criteria) {
            Ok(Some(seen)) => seen,
            Ok(None) => continue,
            Err(why) => {
                cases.push(Err(Misconfigured { definition, binding: None, why }));
                continue;
            }
        };
        for binding in bindings {
            let wrong = |why| Misconfigured { definition, binding: Some(binding), why };
            match binding.criteria.as_ref().map_or(Ok(Some(seen)), matches) {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(why) => {
                    cases.push(Err(wrong(why)));
                    continue;
                }
            }
            match params::of(asked.registry, definition, binding, attributes.namespace).await {
                Ok(found) => cases
                    .extend(found.into_iter().map(|params| Ok(Case { definition, binding, params, seen }))),
                Err(why) => cases.push(Err(wrong(why))),
            }
        }
    }
    cases
}

/// What a policy gets to see.
struct Shown {
    object: Value,
    old: Value,
    request: Value,
    namespace: Value,
}

impl Shown {
    async fn of(
        asked: &Asked<'_>,
        seen: &'static Kind,
        namespace: Option<&Object>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Shown, Status> {
        let shape = Shape::of(asked.attributes, seen);
        Ok(Shown {
            object: shape.show(asked.registry, object).await?,
            old: shape.show(asked.registry, old).await?,
            request: asked.request(seen, object),
            namespace: namespace.map_or(Value::Null, |namespace| namespace.clone().into_value()),
        })
    }

    fn input<'a>(&'a self, params: &'a Value, authority: Arc<dyn api::cel::Authority>) -> Input<'a> {
        Input {
            object: &self.object,
            old: &self.old,
            request: &self.request,
            params,
            namespace: &self.namespace,
            authority,
        }
    }
}
