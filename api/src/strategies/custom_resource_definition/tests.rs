//! Definitions and what upstream says of them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Strategy;
use crate::{FieldError, Object, Strategy as _, crd};

fn definition() -> Object {
    let mut object = Object::from_value(json!({
        "metadata": {"name": "crontabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}}},
            }}}],
        },
    }))
    .unwrap();
    Strategy.set_defaults(&mut object);
    Strategy.prepare_for_create(&mut object);
    object
}

fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut value = definition().into_value();
    change(&mut value);
    Strategy.validate(&Object::from_value(value).unwrap(), None).iter().map(FieldError::to_string).collect()
}

#[test]
fn a_plain_definition_is_good_and_complete() {
    assert_eq!(faults(|_| {}), Vec::<String>::new());
    let definition = definition();
    assert_eq!(definition.text(&["spec", "names", "singular"]), "crontab");
    assert_eq!(definition.text(&["spec", "names", "listKind"]), "CronTabList");
    assert_eq!(definition.at(&["status", "storedVersions"]), Some(&json!(["v1"])));
}

#[test]
fn definitions_are_held_to_upstreams_rules() {
    assert_eq!(
        faults(|v| v["metadata"]["name"] = json!("x")),
        ["metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group"]
    );
    assert_eq!(
        faults(|v| v["spec"]["scope"] = json!("World")),
        ["spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\""]
    );
    let fault = faults(|v| v["spec"]["versions"][0]["storage"] = json!(false));
    assert!(fault[0].ends_with("must have exactly one version marked as storage version"), "{fault:?}");
    assert_eq!(
        faults(|v| v["spec"]["versions"][0]["schema"] = json!({})),
        ["spec.versions[0].schema.openAPIV3Schema: Required value",]
    );
    assert_eq!(
        faults(|v| v["spec"]["conversion"] = json!({"strategy": "Webhook"})),
        [
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ]
    );
    assert_eq!(
        faults(
            |v| v["spec"]["versions"][0]["subresources"] = json!({"scale": {"specReplicasPath": ".status.replicas", "statusReplicasPath": ".status.replicas"}})
        ),
        [
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.replicas\": should be a json path under .spec"
        ]
    );
}

/// A change of the definition, and what a real API server says of it.
#[test]
fn upstreams_verdicts() {
    let label = "a DNS-1035 label must consist of";
    let simple = "must be a simple json path starting with .";
    let cases: Vec<(&str, Value, Vec<String>)> = vec![
        ("/spec/versions/0/name", json!("V1"), vec![format!("spec.versions[0].name: Invalid value: \"V1\": {label}"), "status.storedVersions: ".into(), "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was".into()]),
        ("/spec/group", json!(""), vec!["metadata.name: ".into(), "spec.group: Required value".into()]),
        ("/spec/names", json!({"plural": "crontabs", "kind": "c_c", "listKind": "c_c", "singular": "A", "shortNames": ["B_"], "categories": ["C"]}), vec![
            format!("spec.names.singular: Invalid value: \"A\": {label}"),
            format!("spec.names.kind: Invalid value: \"c_c\": may have mixed case, but should otherwise match: {label}"),
            format!("spec.names.listKind: Invalid value: \"c_c\": may have mixed case, but should otherwise match: {label}"),
            format!("spec.names.shortNames[0]: Invalid value: \"B_\": {label}"),
            "spec.names.listKind: Invalid value: \"c_c\": kind and listKind may not be the same".into(),
            format!("spec.names.categories[0]: Invalid value: \"C\": {label}"),
        ]),
        ("/spec/preserveUnknownFields", json!(true), vec!["spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true".into()]),
        ("/spec/versions/0/deprecationWarning", json!("x"), vec!["spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions".into()]),
        ("/spec/versions/0/additionalPrinterColumns", json!([{"name": "", "type": "", "jsonPath": ""}]), vec![
            "spec.additionalPrinterColumns[0].name: Required value".into(),
            "spec.additionalPrinterColumns[0].type: Required value: must be one of boolean,date,integer,number,string".into(),
            "spec.additionalPrinterColumns[0].JSONPath: Required value".into(),
        ]),
        ("/spec/versions/0/additionalPrinterColumns", json!([{"name": "a", "type": "x", "jsonPath": "a", "format": "y"}]), vec![
            "spec.additionalPrinterColumns[0].type: Invalid value: \"x\": must be one of boolean,date,integer,number,string".into(),
            "spec.additionalPrinterColumns[0].format: Invalid value: \"y\": must be one of byte,date,date-time,double,float,int32,int64,password".into(),
            format!("spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"a\": {simple}"),
        ]),
        ("/spec/versions/0/additionalPrinterColumns", json!([{"name": "a", "type": "string", "jsonPath": ".a[?(", "priority": -1}]), vec![]),
        ("/spec/versions/0/subresources", json!({"scale": {"specReplicasPath": ".spec.a[0]", "statusReplicasPath": "status.a", "labelSelectorPath": ".x.y"}}), vec![
            format!("spec.subresources.scale.statusReplicasPath: Invalid value: \"status.a\": {simple}"),
            "spec.subresources.scale.labelSelectorPath: Invalid value: \".x.y\": should be a json path under either .spec or .status".into(),
        ]),
        ("/spec/conversion", json!({"strategy": "x"}), vec!["spec.conversion.strategy: Unsupported value: \"x\": supported values: \"None\", \"Webhook\"".into()]),
        ("/spec/conversion", json!({"strategy": "None", "webhook": {"clientConfig": {"url": "https://a"}, "conversionReviewVersions": ["v1"]}}), vec![
            "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook".into(),
            "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook".into(),
        ]),
        ("/spec/conversion", json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "http://a"}, "conversionReviewVersions": ["v2", "v2", "A_"]}}), vec![
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme".into(),
            "spec.conversion.conversionReviewVersions[1]: Invalid value: \"v2\": duplicate version".into(),
            format!("spec.conversion.conversionReviewVersions[2]: Invalid value: \"A_\": {label}"),
            "spec.conversion.conversionReviewVersions: Invalid value: [\"v2\",\"v2\",\"A_\"]: must include at least one of v1, v1beta1".into(),
        ]),
    ];
    for (place, value, expected) in cases {
        let found = faults(|definition| {
            let (parent, key) = place.rsplit_once('/').unwrap();
            definition.pointer_mut(parent).unwrap()[key] = value.clone();
        });
        assert_eq!(found.len(), expected.len(), "{place} {value}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(&expected), "{place} {value}: {found} is not {expected}");
        }
    }
}

#[test]
fn the_root_says_nothing_that_a_status_would_lose() {
    let with_status = |schema: Value| {
        faults(|definition| {
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
            definition["spec"]["versions"][0]["subresources"] = json!({"status": {}});
        })
    };
    assert_eq!(with_status(json!({"type": "object", "required": ["spec"], "description": "x"})), [""; 0]);
    let faults = with_status(json!({"type": "object", "maxProperties": 3}));
    assert!(faults[0].starts_with("spec.validation.openAPIV3Schema: Invalid value: "), "{faults:?}");
    assert!(faults[0].ends_with("XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled"), "{faults:?}");
}

#[test]
fn what_versions_have_alike_is_told_once() {
    let version = |name: &str, kind: &str| {
        json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": kind}}}}})
    };
    let told = |versions: Value| faults(|definition| definition["spec"]["versions"] = versions);
    let alike = told(json!([version("v1", "any"), version("v2", "any")]));
    assert_eq!(alike.len(), 1, "{alike:?}");
    assert!(alike[0].starts_with("spec.validation.openAPIV3Schema.properties[spec].type: Unsupported value"));
    let unlike = told(json!([version("v1", "string"), version("v2", "any")]));
    assert_eq!(unlike.len(), 1, "{unlike:?}");
    assert!(unlike[0].starts_with("spec.versions[1].schema.openAPIV3Schema.properties[spec].type: "));
}

#[test]
fn what_an_old_version_broke_is_asked_of_no_version() {
    let version = |name: &str, description: &str| {
        let flaw = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}});
        json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema": {
            "type": "object", "description": description, "properties": {"spec": flaw}}}})
    };
    let with = |versions: Value| {
        let mut object = definition();
        object.set(&["spec", "versions"], versions);
        object
    };
    let old = with(json!([version("v1", "old")]));
    let new = with(json!([version("v1", "new"), version("v2", "other")]));
    assert_eq!(Strategy.validate(&new, Some(&old)), []);
    assert_eq!(Strategy.validate(&new, Some(&definition())).len(), 2);
    assert_eq!(Strategy.validate(&new, None).len(), 2);
}

#[test]
fn a_status_may_forget_versions() {
    let old = definition();
    let mut new = old.clone();
    new.set(&["status", "storedVersions"], json!([]));
    assert_eq!(Strategy.validate_status(&new, &old), []);
    new.set(&["status", "acceptedNames", "plural"], "A");
    assert_eq!(Strategy.validate_status(&new, &old).len(), 1);
}

#[test]
fn rules_are_compiled_and_weighed() {
    let with_rule = |rule: &str| {
        faults(|v| {
            v["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
                json!([{"rule": rule}]);
            v["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["list"] =
                json!({"type": "array", "items": {"type": "string"}});
        })
    };
    assert_eq!(with_rule("self.replicas > 0"), Vec::<String>::new());
    assert!(with_rule("self.nope > 0")[0].contains("undefined field 'nope'"));
    assert!(with_rule("self.replicas >")[0].contains("Syntax error"));
    assert!(with_rule("self.replicas + 1")[0].contains("cel expression must evaluate to a bool"));
    let costly = with_rule("self.list.all(a, self.list.all(b, a == b))");
    assert!(
        costly[0].contains("Forbidden: estimated rule cost exceeds budget by factor of more than 100x"),
        "{costly:?}"
    );
}

#[test]
fn what_others_rely_on_does_not_change() {
    let mut old = definition();
    old.set(&["status", "conditions"], json!([{"type": "Established", "status": "True"}]));
    let mut new = old.clone();
    new.set(&["spec", "scope"], "Cluster");
    let faults: Vec<String> = Strategy.validate(&new, Some(&old)).iter().map(FieldError::to_string).collect();
    assert_eq!(faults, ["spec.scope: Invalid value: \"Cluster\": field is immutable"]);
}

#[test]
fn a_deletion_waits_for_the_objects() {
    let mut definition = definition();
    Strategy.prepare_for_delete(&mut definition, Timestamp::UNIX_EPOCH);
    assert_eq!(definition.finalizers().collect::<Vec<_>>(), [crd::CLEANUP]);
    assert_eq!(definition.list(&["status", "conditions"])[0]["reason"], "InstanceDeletionPending");
}
