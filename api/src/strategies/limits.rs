//! LimitRanges and ResourceQuotas.

use serde_json::{Map, Value, json};

use super::check::{Faults, Field, same};
use super::fill::Fill;
use super::resources;
use crate::{FieldError, Object};

/// Rules of LimitRanges.
pub struct LimitRange;

impl crate::Strategy for LimitRange {
    fn set_defaults(&self, object: &mut Object) {
        let limits = object.map_mut(&["spec"]).maps_at("limits");
        for limit in limits.filter(|limit| limit.text_at("type") == "Container") {
            // The default is the most, and a request is the default or else the least.
            fill_from(limit, "default", "max");
            fill_from(limit, "defaultRequest", "default");
            fill_from(limit, "defaultRequest", "min");
        }
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        for limit in Field::at(object, &["spec", "limits"]).items() {
            faults.must_be_given(&limit.get("type"));
            for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                for (_, amount) in limit.get(list).entries() {
                    resources::validate_quantity(&amount, &mut faults);
                }
            }
            for (low, high) in [
                ("min", "max"),
                ("min", "default"),
                ("defaultRequest", "default"),
                ("default", "max"),
                ("min", "defaultRequest"),
            ] {
                validate_order(&limit, low, high, &mut faults);
            }
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn fill_from(limit: &mut Map<String, Value>, to: &str, from: &str) {
    let Some(amounts) = limit.map_at(from).cloned() else { return };
    let target = limit.map_made(to);
    for (resource, amount) in amounts {
        target.fill(&resource, amount);
    }
}

fn validate_order(limit: &Field, low: &str, high: &str, faults: &mut Faults) {
    for (resource, amount) in limit.get(low).entries() {
        let most = limit.get(high).entry(resource);
        let (Some(lower), Some(upper)) = (resources::quantity(amount.value), resources::quantity(most.value))
        else {
            continue;
        };
        if lower > upper {
            let words = |name: &str| {
                if name == "defaultRequest" { "default request".to_string() } else { name.to_string() }
            };
            let text = format!("{} value {lower} is greater than {} value {upper}", words(low), words(high));
            faults.invalid(&amount, text);
        }
    }
}

/// Rules of ResourceQuotas.
pub struct ResourceQuota;

impl crate::Strategy for ResourceQuota {
    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({}));
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        for (_, amount) in spec.get("hard").entries() {
            resources::validate_quantity(&amount, &mut faults);
        }
        if let Some(old) = old {
            let (new, before) = (spec.get("scopes"), Field::at(old, &["spec"]).get("scopes"));
            if !same(new.value, before.value) {
                faults.invalid(&new, "field is immutable");
            }
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}
