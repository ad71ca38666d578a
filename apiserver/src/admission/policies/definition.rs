//! Policies and bindings as they are kept at hand: compiled once, when they change.

use std::{collections::BTreeMap, sync::Arc};

use api::{Kind, Object, policy::Policy};
use serde_json::Value;

use crate::{
    admission::matching::Criteria,
    follow::{Follow, View},
    registry::Registry,
};
use api::Status;

/// A policy of either sort.
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) policy: Policy,
    pub(super) criteria: Result<Criteria, String>,
    /// Null where the policy has no parameters.
    pub(super) param_kind: Value,
    /// Whether it wants to see an object again that somebody changes later.
    pub(super) is_willing: bool,
}

/// Where a policy is in force.
pub(super) struct Binding {
    pub(super) name: String,
    policy: String,
    /// None where everything is meant that the policy means.
    pub(super) criteria: Option<Result<Criteria, String>>,
    /// Null where there is none.
    pub(super) param_ref: Value,
    pub(super) actions: Vec<String>,
}

/// A policy with its bindings.
pub(super) struct Bound {
    pub(super) definition: Arc<Definition>,
    pub(super) bindings: Vec<Arc<Binding>>,
}

/// The policies of one sort.
pub(super) struct Followed {
    definitions: Follow<Definitions>,
    bindings: Follow<Bindings>,
}

#[derive(Default)]
struct Definitions(BTreeMap<String, Arc<Definition>>);

/// By policy and name.
#[derive(Default)]
struct Bindings(BTreeMap<String, BTreeMap<String, Arc<Binding>>>);

impl Followed {
    pub(super) fn new(definitions: &'static Kind, bindings: &'static Kind) -> Followed {
        Followed { definitions: Follow::new(definitions), bindings: Follow::new(bindings) }
    }

    /// The policies that are in force anywhere, by name.
    pub(super) async fn bound(&self, registry: &Registry) -> Result<Vec<Bound>, Status> {
        let definitions: Vec<Arc<Definition>> =
            self.definitions.ask(registry, |known| known.0.values().cloned().collect()).await?;
        if definitions.is_empty() {
            return Ok(Vec::new());
        }
        let bind = |known: &mut Bindings| {
            let bound = definitions.into_iter().filter_map(|definition| {
                let bindings = known.0.get(&definition.name)?.values().cloned().collect();
                Some(Bound { definition, bindings })
            });
            bound.collect()
        };
        self.bindings.ask(registry, bind).await
    }
}

impl View for Definitions {
    fn add(&mut self, object: &Arc<Object>) {
        let spec = object.at(&["spec"]).cloned().unwrap_or_default();
        let definition = Definition {
            name: object.name().to_string(),
            policy: Policy::compile(&spec),
            criteria: Criteria::of_policy(&spec["matchConstraints"]),
            param_kind: spec["paramKind"].clone(),
            is_willing: spec["reinvocationPolicy"] == "IfNeeded",
        };
        self.0.insert(definition.name.clone(), definition.into());
    }

    fn remove(&mut self, object: &Object) {
        self.0.remove(object.name());
    }
}

impl View for Bindings {
    fn add(&mut self, object: &Arc<Object>) {
        let resources = object.at(&["spec", "matchResources"]).filter(|resources| resources.is_object());
        let actions = object.list(&["spec", "validationActions"]).iter();
        let binding = Binding {
            name: object.name().to_string(),
            policy: object.text(&["spec", "policyName"]).to_string(),
            criteria: resources.map(Criteria::of_policy),
            param_ref: object.at(&["spec", "paramRef"]).cloned().unwrap_or_default(),
            actions: actions.filter_map(|action| action.as_str().map(str::to_string)).collect(),
        };
        let of_policy = self.0.entry(binding.policy.clone()).or_default();
        of_policy.insert(binding.name.clone(), binding.into());
    }

    fn remove(&mut self, object: &Object) {
        let policy = object.text(&["spec", "policyName"]);
        if let Some(bindings) = self.0.get_mut(policy) {
            bindings.remove(object.name());
            if bindings.is_empty() {
                self.0.remove(policy);
            }
        }
    }
}
