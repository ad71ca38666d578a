//! Events, in both their forms.

use super::check::{Faults, Field};
use crate::{FieldError, Object, name};

/// How long it may take to say who did what and why, in bytes.
const LONGEST_WORD: usize = 128;

/// Rules of core Events.
pub struct Core;

impl crate::Strategy for Core {
    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_namespace(object, "involvedObject", &mut faults);
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::path_segment(name)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// What stays of an event, with the names that faults have: those of the server's own type.
const FIXED: [(&str, &str); 13] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// Rules of `events.k8s.io` Events, which must say more.
pub struct Events;

impl crate::Strategy for Events {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_namespace(object, "regarding", &mut faults);
        let at = |name| Field::at(object, &[name]);
        if !at("eventTime").is_set() {
            faults.required(&at("eventTime"), "");
        }
        if let Some(old) = old {
            for (name, told) in FIXED {
                let field = Field { path: told.to_string(), value: at(name).value };
                faults.immutable(&field, &Field::at(old, &[name]));
            }
        } else {
            faults.must_keep(&at("reportingController"), name::qualified_name);
            for name in ["reportingInstance", "action", "reason"] {
                if faults.must_be_given(&at(name)) && at(name).text().len() > LONGEST_WORD {
                    faults.invalid(&at(name), format!("can have at most {LONGEST_WORD} characters"));
                }
            }
            faults.must_be_one_of(&at("type"), &["Normal", "Warning"]);
        }
        if at("note").text().len() > 1024 {
            faults.invalid(&Field::at(object, &["note"]), "can have at most 1024 characters");
        }
        if at("series").is_set() && at("series").get("count").number().is_none_or(|count| count < 2) {
            faults.invalid(&at("series").get("count"), "should be at least 2");
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// An event lives where its object lives; for objects without a namespace, in `default`.
fn validate_namespace(object: &Object, about: &str, faults: &mut Faults) {
    let namespace = Field::at(object, &[about]).get("namespace");
    let fits = match namespace.text() {
        "" => matches!(object.namespace(), "default" | "" | "kube-system"),
        text => text == object.namespace(),
    };
    if !fits {
        let path = format!("{about}.namespace");
        faults.invalid(&Field { path, value: namespace.value }, "does not match event.namespace");
    }
}
