//! Rules of CustomResourceDefinitions.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use super::check::{Faults, Field};
use crate::{
    FieldError, Object,
    crd::{self, Path, Props},
    name, time,
};

/// The strategy of CustomResourceDefinitions.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let known = old.map(schema_warnings).unwrap_or_default();
        schema_warnings(object).into_iter().filter(|warning| !known.contains(warning)).collect()
    }

    fn set_defaults(&self, object: &mut Object) {
        let kind = object.text(&["spec", "names", "kind"]).to_string();
        if !kind.is_empty() {
            object.set_if_absent(&["spec", "names", "singular"], kind.to_lowercase());
            object.set_if_absent(&["spec", "names", "listKind"], format!("{kind}List"));
        }
        object.set_if_absent(&["spec", "conversion", "strategy"], "None");
        let client = ["spec", "conversion", "webhook", "clientConfig", "service"];
        if object.at(&client).is_some() {
            object.set_if_absent(&["spec", "conversion", "webhook", "clientConfig", "service", "port"], 443);
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(
            &["status"],
            json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": []}),
        );
        remember_stored_version(object);
    }

    fn prepare_for_update(&self, object: &mut Object, _old: &Object) {
        remember_stored_version(object);
    }

    fn prepare_for_delete(&self, object: &mut Object, now: Timestamp) {
        // The objects go first: a finalizer of our own holds the definition until then.
        let mut finalizers = object.list(&["metadata", "finalizers"]).to_vec();
        if !finalizers.iter().any(|name| name == crd::CLEANUP) {
            finalizers.push(crd::CLEANUP.into());
        }
        object.set(&["metadata", "finalizers"], finalizers);
        let mut conditions = object.list(&["status", "conditions"]).to_vec();
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        crd::set_condition(
            &mut conditions,
            ["Terminating", "True", "InstanceDeletionPending", message],
            &time::format(now),
        );
        object.set(&["status", "conditions"], conditions);
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_name(object, &mut faults);
        validate_approval(object, old, &mut faults);
        let spec = Field::at(object, &["spec"]);
        validate_group(&spec.get("group"), &mut faults);
        faults.must_be_one_of(&spec.get("scope"), &["Cluster", "Namespaced"]);
        validate_versions(&spec, old, &mut faults);
        validate_names(&spec.get("names"), &mut faults);
        validate_conversion(&spec.get("conversion"), &mut faults);
        if spec.get("preserveUnknownFields").is_true() {
            let detail = "must be false in order to use apiextensions.k8s.io/v1: set x-preserve-unknown-fields to true in spec.versions[*].schema instead";
            faults.invalid(&spec.get("preserveUnknownFields"), detail);
        }
        validate_stored_versions(object, &mut faults);
        if let Some(old) = old {
            validate_update(object, old, &mut faults);
        }
        faults.0
    }

    fn validate_status(&self, object: &Object, _old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        validate_stored_versions(object, &mut faults);
        faults.0
    }
}

/// What in the schemas of all versions is understood by nobody: formats first, then sets.
fn schema_warnings(object: &Object) -> Vec<String> {
    let (mut formats, mut sets) = (Vec::new(), BTreeSet::new());
    for version in object.list(&["spec", "versions"]) {
        if let Some(Ok(props)) = version.pointer("/schema/openAPIV3Schema").map(Props::read) {
            props.visit(&mut |props| {
                if !crd::knows_format(&props.kind, &props.format) {
                    formats.push(format!("unrecognized format {:?}", props.format));
                }
                let items = props.item().map_or("", |item| item.kind.as_str());
                if props.list_type.as_deref() == Some("set") && matches!(items, "object" | "array") {
                    sets.insert(format!("x-kubernetes-list-type: set for items of type {items:?} is not supported by server-side apply or CEL validation rules"));
                }
            });
        }
    }
    formats.extend(sets);
    formats
}

/// Versions that objects may be stored in, since the definition was made.
fn remember_stored_version(object: &mut Object) {
    let stored = object.list(&["spec", "versions"]).iter().find(|version| version["storage"] == true);
    let Some(stored) = stored.and_then(|version| version["name"].as_str()).map(str::to_string) else {
        return;
    };
    let mut versions = object.list(&["status", "storedVersions"]).to_vec();
    if !versions.iter().any(|version| *version == stored) {
        versions.push(stored.into());
        object.set(&["status", "storedVersions"], versions);
    }
}

fn validate_name(object: &Object, faults: &mut Faults) {
    let wanted = format!("{}.{}", object.text(&["spec", "names", "plural"]), object.text(&["spec", "group"]));
    if object.name() != wanted {
        faults
            .invalid(&Field::at(object, &["metadata", "name"]), "must be spec.names.plural+\".\"+spec.group");
    }
}

fn validate_approval(object: &Object, old: Option<&Object>, faults: &mut Faults) {
    let is_new = old.is_none_or(|old| old.annotation(crd::APPROVAL).is_some());
    if !crd::is_protected(object.text(&["spec", "group"])) || !is_new {
        return;
    }
    let path = format!("metadata.annotations[{}]", crd::APPROVAL);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match object.annotation(crd::APPROVAL) {
        None | Some("") => {
            let detail = format!("protected groups must have approval annotation {:?}, {see}", crd::APPROVAL);
            faults.0.push(FieldError::required(path, detail));
        }
        Some(value) if value.starts_with("unapproved") || value.contains("://") => {}
        Some(value) => {
            let detail = format!(
                "protected groups must have approval annotation {:?} with either a URL or a reason starting with \"unapproved\", {see}",
                crd::APPROVAL
            );
            faults.0.push(FieldError::invalid(path, &value.into(), detail));
        }
    }
}

fn validate_group(group: &Field, faults: &mut Faults) {
    if !faults.must_be_given(group) {
        return;
    }
    faults.keeps(group, name::dns_subdomain);
    if !group.text().contains('.') {
        faults.invalid(group, "should be a domain with at least one dot");
    }
}

fn validate_versions(spec: &Field, old: Option<&Object>, faults: &mut Faults) {
    let versions = spec.get("versions");
    let stored = versions.items().filter(|version| version.get("storage").is_true()).count();
    if stored != 1 {
        faults.invalid(&versions, "must have exactly one version marked as storage version");
    }
    let mut names = BTreeSet::new();
    if !versions.items().all(|version| names.insert(version.get("name").text())) {
        faults.invalid(&versions, "must contain unique version names");
    }
    let old_versions = old.map(|old| old.list(&["spec", "versions"]).to_vec()).unwrap_or_default();
    for version in versions.items() {
        faults.must_keep(&version.get("name"), name::dns_1035_label);
        let schema = version.get("schema").get("openAPIV3Schema");
        if !schema.is_set() {
            faults.required(&schema, "schemas are required");
        }
        let name = version.get("name");
        // A schema that is stored already is not held to what was not asked of it then.
        let before = old_versions.iter().find(|old| old["name"] == *name.value);
        let is_same = before.is_some_and(|old| old.pointer("/schema/openAPIV3Schema") == Some(schema.value));
        if schema.is_set() && !is_same {
            validate_schema(&schema, faults);
        }
        validate_subresources(&version.get("subresources"), faults);
        validate_columns(&version.get("additionalPrinterColumns"), faults);
        validate_selectable(&version.get("selectableFields"), &schema, faults);
        if version.get("deprecationWarning").is_set() && !version.get("deprecated").is_true() {
            faults.invalid(&version.get("deprecationWarning"), "can only be set for deprecated versions");
        }
    }
}

fn validate_schema(schema: &Field, faults: &mut Faults) {
    match Props::read(schema.value) {
        Ok(props) => {
            let found = crd::validate_definition_schema(&props, &schema.path);
            let is_structural = found.is_empty();
            faults.0.extend(found);
            if is_structural {
                faults.0.extend(crd::validate_schema_rules(&props, schema.value, &schema.path));
            }
        }
        Err(error) => faults.invalid(schema, error.to_string()),
    }
}

fn validate_subresources(subresources: &Field, faults: &mut Faults) {
    let scale = subresources.get("scale");
    if !scale.is_set() {
        return;
    }
    let mut path = |name: &str, roots: &[&str], is_required: bool| {
        let field = scale.get(name);
        if field.text().is_empty() {
            if is_required {
                faults.required(&field, "");
            }
            return;
        }
        let names = Path::parse(field.text()).ok().and_then(|path| path.fields());
        match names {
            None => faults.invalid(&field, "should be a json path without array notation"),
            Some(names)
                if !names.first().is_some_and(|first| roots.contains(&first.as_str())) || names.len() < 2 =>
            {
                let roots: Vec<String> = roots.iter().map(|root| format!(".{root}")).collect();
                faults.invalid(&field, format!("should be a json path under {}", roots.join(" or ")));
            }
            Some(_) => {}
        }
    };
    path("specReplicasPath", &["spec"], true);
    path("statusReplicasPath", &["status"], true);
    path("labelSelectorPath", &["spec", "status"], false);
}

fn validate_columns(columns: &Field, faults: &mut Faults) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    for column in columns.items() {
        faults.must_be_given(&column.get("name"));
        faults.must_be_one_of(&column.get("type"), &TYPES);
        let path = column.get("jsonPath");
        if faults.must_be_given(&path)
            && let Err(why) = Path::parse(path.text())
        {
            faults.invalid(&path, format!("is an invalid JSON path: {why}"));
        }
    }
}

fn validate_selectable(fields: &Field, schema: &Field, faults: &mut Faults) {
    const MOST: usize = 8;
    faults.at_most(fields, MOST);
    let mut seen = BTreeSet::new();
    let props = Props::read(schema.value).ok();
    for field in fields.items() {
        let path = field.get("jsonPath");
        if !faults.must_be_given(&path) {
            continue;
        }
        let names = Path::parse(path.text()).ok().and_then(|path| path.fields());
        let Some(names) = names else {
            faults.invalid(&path, "is an invalid path: must be a simple path of field names");
            continue;
        };
        if names.first().is_some_and(|first| first == "metadata") {
            faults.invalid(&path, "must not point to fields in metadata");
        } else {
            let found = props
                .as_ref()
                .and_then(|props| names.iter().try_fold(props, |props, name| props.properties.get(name)));
            match found.map(|found| found.kind.as_str()) {
                Some("string" | "integer" | "boolean") => {}
                Some(_) => faults.invalid(&path, "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."),
                None => faults.invalid(&path, "is an invalid path: does not refer to a valid field"),
            }
        }
        if !seen.insert(path.text()) {
            faults.duplicate(&path);
        }
    }
}

fn validate_names(names: &Field, faults: &mut Faults) {
    faults.must_keep(&names.get("plural"), name::dns_1035_label);
    faults.must_keep(&names.get("singular"), name::dns_1035_label);
    for name in names.get("shortNames").items().chain(names.get("categories").items()) {
        faults.must_keep(&name, name::dns_1035_label);
    }
    for name in ["kind", "listKind"] {
        let field = names.get(name);
        if faults.must_be_given(&field)
            && let Err(message) = name::dns_1035_label(&field.text().to_lowercase())
        {
            faults.invalid(&field, format!("may have mixed case, but should otherwise match: {message}"));
        }
    }
    if names.get("kind").is_set() && names.get("kind").value == names.get("listKind").value {
        faults.invalid(&names.get("listKind"), "kind and listKind may not be the same");
    }
}

fn validate_conversion(conversion: &Field, faults: &mut Faults) {
    let webhook = conversion.get("webhook");
    match conversion.get("strategy").text() {
        "None" => {
            if webhook.is_set() {
                faults.forbidden(&webhook, "should not be set when strategy is not set to Webhook");
            }
        }
        "Webhook" => {
            let client = webhook.get("clientConfig");
            if !client.is_set() {
                return faults.required(&client, "required when strategy is set to Webhook");
            }
            super::webhook::validate_client(&client, faults);
            let versions = webhook.get("conversionReviewVersions");
            if faults.must_be_given(&versions)
                && !versions.items().any(|version| matches!(version.text(), "v1" | "v1beta1"))
            {
                faults.invalid(&versions, "must include at least one of v1, v1beta1");
            }
        }
        _ => faults.must_be_one_of(&conversion.get("strategy"), &["None", "Webhook"]),
    }
}

fn validate_stored_versions(object: &Object, faults: &mut Faults) {
    let versions = Field::at(object, &["spec", "versions"]);
    let stored = Field::at(object, &["status", "storedVersions"]);
    let is_known = |name: &str| versions.items().any(|version| version.get("name").text() == name);
    for name in stored.items().filter(|name| !is_known(name.text())) {
        faults.invalid(&name, "must appear in spec.versions");
    }
    let written = versions.items().find(|version| version.get("storage").is_true());
    if let Some(written) = written
        && stored.is_set()
        && !stored.items().any(|name| name.value == written.get("name").value)
    {
        let detail = format!("must have the storage version {}", written.get("name").text());
        faults.invalid(&stored, detail);
    }
}

/// What other objects rely on does not change once the definition is established.
fn validate_update(object: &Object, old: &Object, faults: &mut Faults) {
    let is_established = old
        .list(&["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let immutable: &[&[&str]] = match is_established {
        true => &[
            &["spec", "group"],
            &["spec", "scope"],
            &["spec", "names", "kind"],
            &["spec", "names", "plural"],
        ],
        false => &[&["spec", "group"]],
    };
    for path in immutable {
        faults.immutable(&Field::at(object, path), &Field::at(old, path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;
    use serde_json::Value;

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
        Strategy
            .validate(&Object::from_value(value).unwrap(), None)
            .iter()
            .map(FieldError::to_string)
            .collect()
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
            ["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"]
        );
        assert_eq!(
            faults(|v| v["spec"]["conversion"] = json!({"strategy": "Webhook"})),
            [
                "spec.conversion.webhook.clientConfig: Required value: required when strategy is set to Webhook"
            ]
        );
        assert_eq!(
            faults(
                |v| v["spec"]["versions"][0]["subresources"] = json!({"scale": {"specReplicasPath": ".status.replicas", "statusReplicasPath": ".status.replicas"}})
            ),
            [
                "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.replicas\": should be a json path under .spec"
            ]
        );
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
        let faults: Vec<String> =
            Strategy.validate(&new, Some(&old)).iter().map(FieldError::to_string).collect();
        assert_eq!(faults, ["spec.scope: Invalid value: \"Cluster\": field is immutable"]);
    }

    #[test]
    fn a_deletion_waits_for_the_objects() {
        let mut definition = definition();
        Strategy.prepare_for_delete(&mut definition, Timestamp::UNIX_EPOCH);
        assert_eq!(definition.finalizers().collect::<Vec<_>>(), [crd::CLEANUP]);
        assert_eq!(definition.list(&["status", "conditions"])[0]["reason"], "InstanceDeletionPending");
    }
}
