//! CertificateSigningRequests.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::certificates;
use super::check::{Faults, Field};
use crate::{FieldError, Object, name, time};

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The conditions that only an approver sets.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// The conditions that are true, or not there.
const DECIDED: [&str; 3] = ["Approved", "Denied", "Failed"];
const SHORTEST_SECONDS: i64 = 600;

/// Rules of CertificateSigningRequests. Who asks is stamped by the API server, which knows the user.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({}));
    }

    /// What was asked for never changes.
    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        object.take_over(&["spec"], old);
    }

    /// An approval adds conditions; the certificate is the signer's to set.
    fn prepare_for_subresource(&self, _subresource: &str, object: &mut Object, old: &Object) {
        object.take_over(&["spec"], old);
        object.take_over(&["status", "certificate"], old);
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let request = spec.get("request");
        if faults.must_be_given(&request) && !is_request(request.text()) {
            faults.invalid(&request, "PEM block type must be CERTIFICATE REQUEST");
        }
        let usages = spec.get("usages");
        if usages.is_empty() {
            faults.required(&usages, "usages must contain at least one element");
        }
        usages.items().for_each(|usage| faults.one_of(&usage, USAGES));
        let mut seen = HashSet::new();
        for usage in usages.items().filter(|usage| !seen.insert(usage.text())) {
            faults.duplicate(&usage);
        }
        certificates::validate_signer(&spec.get("signerName"), &mut faults);
        let seconds = spec.get("expirationSeconds");
        if seconds.number().is_some_and(|seconds| seconds < SHORTEST_SECONDS) {
            faults.invalid(&seconds, "may not specify a duration less than 600 seconds (10 minutes)");
        }
        faults.0
    }

    /// A signer's report leaves the decision as it stands; new conditions get their times.
    fn complete_status(&self, subresource: &str, object: &mut Object, old: &Object, now: Timestamp) {
        if subresource == "status" {
            DECISIONS.iter().for_each(|kind| keep_conditions(kind, object, old));
        }
        for condition in conditions_mut(object) {
            set_times(condition, old, now);
        }
    }

    /// The signer issues the certificate, once; it does not decide.
    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_conditions(object, old, &mut faults);
        let certificate = Field::at(object, &["status", "certificate"]);
        let issued = old.text(&["status", "certificate"]);
        validate_certificate(&certificate, issued, &mut faults);
        validate_removals(object, old, &mut faults);
        let conditions = Field::at(object, &["status", "conditions"]);
        for kind in DECISIONS {
            if of_type(object, kind).count() > of_type(old, kind).count() {
                faults.forbidden(&conditions, format!("updates may not add a condition of type \"{kind}\""));
            }
        }
        if !issued.is_empty() && issued != certificate.text() {
            faults.forbidden(&certificate, "updates may not modify existing certificate content");
        }
        faults.0
    }

    fn validate_subresource(&self, _subresource: &str, object: &Object, old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_conditions(object, old, &mut faults);
        validate_removals(object, old, &mut faults);
        faults.0
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::path_segment(name)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn conditions_mut(object: &mut Object) -> impl Iterator<Item = &mut Value> {
    let conditions = object.0.get_mut("status").and_then(|status| status.get_mut("conditions"));
    conditions.and_then(Value::as_array_mut).into_iter().flatten()
}

fn of_type<'a>(object: &'a Object, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    object.list(&["status", "conditions"]).iter().filter(move |condition| condition["type"] == kind)
}

/// The conditions of a type as they were; more or fewer of them are for validation to refuse.
fn keep_conditions(kind: &str, object: &mut Object, old: &Object) {
    if of_type(object, kind).count() != of_type(old, kind).count() {
        return;
    }
    let new = conditions_mut(object).filter(|condition| condition["type"] == kind);
    for (condition, before) in new.zip(of_type(old, kind)) {
        *condition = before.clone();
    }
}

/// A condition of the same type and status that is there already has changed when it did.
fn set_times(condition: &mut Value, old: &Object, now: Timestamp) {
    let now = Value::from(time::format(now));
    let known = of_type(old, condition["type"].as_str().unwrap_or_default())
        .find(|before| before["status"] == condition["status"])
        .map(|before| before["lastTransitionTime"].clone());
    let since = known.filter(|time| !time.is_null()).unwrap_or_else(|| now.clone());
    for (field, time) in [("lastUpdateTime", now), ("lastTransitionTime", since)] {
        if condition[field].is_null() {
            condition[field] = time;
        }
    }
}

/// The types of all conditions, empty ones too.
fn types(object: &Object) -> impl Iterator<Item = &str> {
    let conditions = object.list(&["status", "conditions"]).iter();
    conditions.map(|condition| condition["type"].as_str().unwrap_or_default())
}

/// What is wrong with the types of the stored conditions may stay so, and is then not looked for at all.
fn validate_conditions(object: &Object, old: &Object, faults: &mut Faults) {
    let stored: HashSet<&str> = types(old).collect();
    let may_repeat = stored.len() < types(old).count();
    let may_be_empty = stored.contains("");
    let may_contradict = DECISIONS.iter().all(|kind| stored.contains(kind));
    let mut seen = HashSet::new();
    for condition in Field::at(object, &["status", "conditions"]).items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if kind.text().is_empty() && !may_be_empty {
            faults.required(&kind, "");
        }
        let allowed: &[&str] =
            if DECIDED.contains(&kind.text()) { &["True"] } else { &["False", "True", "Unknown"] };
        faults.must_be_one_of(&status, allowed);
        if !may_contradict
            && DECISIONS.contains(&kind.text())
            && DECISIONS.iter().any(|it| *it != kind.text() && seen.contains(it))
        {
            faults.invalid(&kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind.text()) && !may_repeat {
            faults.0.push(FieldError::duplicate(&kind.path, &kind.text().into()));
        }
    }
}

fn validate_removals(object: &Object, old: &Object, faults: &mut Faults) {
    let conditions = Field::at(object, &["status", "conditions"]);
    for kind in DECIDED {
        if of_type(object, kind).count() < of_type(old, kind).count() {
            faults.forbidden(&conditions, format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
}

/// A certificate that stays as it was is not looked at, nor one in the place of what was none.
fn validate_certificate(certificate: &Field, issued: &str, faults: &mut Faults) {
    if certificate.text() == issued || fault_of_certificate(issued).is_some() {
        return;
    }
    if let Some(fault) = fault_of_certificate(certificate.text()) {
        let value = Value::from("<certificate data>");
        faults.0.push(FieldError::invalid(&certificate.path, &value, fault));
    }
}

fn fault_of_certificate(encoded: &str) -> Option<String> {
    let pem = STANDARD.decode(encoded).unwrap_or_default();
    certificates::fault_of_chain(&String::from_utf8_lossy(&pem)).filter(|_| !encoded.is_empty())
}

fn is_request(text: &str) -> bool {
    let pem = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    pem.is_some_and(|pem| pem.contains("-----BEGIN CERTIFICATE REQUEST-----"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn request(status: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "r"}, "status": status})).unwrap()
    }

    fn told(faults: Vec<FieldError>) -> Vec<String> {
        faults.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_decision_is_one_of_two_and_stays() {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let undecided = request(json!({}));
        let both =
            request(json!({"conditions": [condition("Denied", "True"), condition("Approved", "True")]}));
        assert_eq!(
            told(Strategy.validate_subresource("approval", &both, &undecided)),
            [
                "status.conditions[1].type: Invalid value: \"Approved\": Approved and Denied conditions are mutually exclusive"
            ]
        );
        let odd = request(
            json!({"conditions": [condition("Failed", "False"), condition("", ""), condition("Failed", "True")]}),
        );
        assert_eq!(
            told(Strategy.validate_subresource("approval", &odd, &undecided)),
            [
                "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"",
                "status.conditions[1].type: Required value",
                "status.conditions[1].status: Required value",
                "status.conditions[2].type: Duplicate value: \"Failed\"",
            ]
        );
        let approved = request(json!({"conditions": [condition("Approved", "True")]}));
        assert_eq!(
            told(Strategy.validate_subresource("approval", &undecided, &approved)),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
        );
        assert_eq!(
            told(Strategy.validate_status(&approved, &undecided)),
            ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]
        );
    }

    #[test]
    fn a_certificate_is_issued_once() {
        let with = |pem: &str| request(json!({"certificate": STANDARD.encode(pem)}));
        let refused = |object: &Object, old: &Object| told(Strategy.validate_status(object, old));
        let none = request(json!({}));
        assert_eq!(
            refused(&with("nothing"), &none),
            [
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"
            ]
        );
        let block =
            |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
        for (pem, fault) in [
            (block("KEY", "AAAA"), "only CERTIFICATE PEM blocks are allowed, found \"KEY\""),
            (block("CERTIFICATE", "a: b\n\nAAAA"), "no PEM block headers are permitted"),
            (block("CERTIFICATE", "AAAA"), "x509: malformed certificate"),
        ] {
            assert!(refused(&with(&pem), &none)[0].ends_with(fault), "{fault}");
        }
        assert_eq!(
            refused(&none, &with("old")),
            ["status.certificate: Forbidden: updates may not modify existing certificate content"]
        );
    }

    #[test]
    fn what_is_stored_already_is_not_held_against_an_update() {
        let condition = |kind: &str| json!({"type": kind, "status": "True"});
        let with = |kinds: &[&str], pem: &str| {
            let conditions: Vec<Value> = kinds.iter().map(|kind| condition(kind)).collect();
            request(json!({"conditions": conditions, "certificate": STANDARD.encode(pem)}))
        };
        let undecided = request(json!({}));
        let cases: [(&[&str], usize); 4] = [
            (&["", "Ready"], 1),
            (&["Ready", "Ready"], 1),
            (&["Approved", "Denied"], 1),
            (&["Ready", "Ready", "", "Approved", "Denied"], 3),
        ];
        for (kinds, faults) in cases {
            let (bad, worse) = (with(kinds, "nothing"), with(&[kinds, &["Failed"]].concat(), "nothing"));
            assert_eq!(told(Strategy.validate_status(&worse, &bad)), [""; 0], "{kinds:?}");
            assert_eq!(told(Strategy.validate_subresource("approval", &worse, &bad)), [""; 0], "{kinds:?}");
            assert_eq!(
                told(Strategy.validate_subresource("approval", &worse, &undecided)).len(),
                faults,
                "{kinds:?}"
            );
        }
        // Each fault is tolerated for itself.
        let (empty, both) = (with(&[""], ""), with(&["", "", "Approved", "Denied"], ""));
        assert_eq!(
            told(Strategy.validate_subresource("approval", &both, &empty)),
            [
                "status.conditions[1].type: Duplicate value: \"\"",
                "status.conditions[3].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            ]
        );
        // What was no certificate is not replaced by another, whatever that is.
        assert_eq!(
            told(Strategy.validate_status(&with(&[], "other"), &with(&[], "nothing"))),
            ["status.certificate: Forbidden: updates may not modify existing certificate content"]
        );
    }

    #[test]
    fn conditions_get_their_times_and_signers_leave_decisions_alone() {
        let (before, now) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z".parse().unwrap());
        let approved = json!({"type": "Approved", "status": "True", "reason": "Ok", "lastUpdateTime": before, "lastTransitionTime": before});
        let old = request(json!({"conditions": [approved]}));
        let mut new = request(json!({"conditions": [
            {"type": "Approved", "status": "False", "reason": "No"}, {"type": "Failed", "status": "True"},
        ]}));
        let mut decided = new.clone();
        Strategy.complete_status("status", &mut new, &old, now);
        let conditions = new.list(&["status", "conditions"]);
        assert_eq!(conditions[0], approved);
        assert_eq!(conditions[1]["lastTransitionTime"], "2026-01-02T00:00:00Z");
        Strategy.complete_status("approval", &mut decided, &old, now);
        assert_eq!(decided.list(&["status", "conditions"])[0]["reason"], "No");
    }
}
