//! Whether a schema is structural: every field has a type, and what merely validates adds no structure.

mod exemptions;

use std::collections::BTreeSet;

use serde_json::Value;

pub use exemptions::Exemptions;

use super::{Additional, Items, Props, prune, validate};
use crate::FieldError;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Every fault of a version's schema, rules in CEL not included. `path` is that of `openAPIV3Schema`.
pub fn validate_definition_schema(props: &Props, path: &str, exempt: Exemptions) -> Vec<FieldError> {
    let mut check = Check { exempt, ..Check::default() };
    if props.nullable {
        check.forbidden(path, "nullable", "nullable cannot be true at the root");
    }
    check.node(props, path, Place::Root, Meta::default());
    for branch in branches(props, path) {
        check.counterpart(branch.props, Some(props), path, &branch.path);
    }
    check.faults
}

/// One of the schemas under a junctor of a node.
struct Branch<'a> {
    junctor: &'static str,
    index: usize,
    props: &'a Props,
    path: String,
}

/// The branches under the junctors of a node.
fn branches<'a>(props: &'a Props, path: &str) -> Vec<Branch<'a>> {
    let lists = [("allOf", &props.all_of), ("anyOf", &props.any_of), ("oneOf", &props.one_of)];
    let listed = lists.into_iter().flat_map(|(junctor, branches)| {
        branches.iter().enumerate().map(move |(index, props)| {
            let path = format!("{path}.{junctor}[{index}]");
            Branch { junctor, index, props, path }
        })
    });
    let not = props.not.as_deref();
    let not = not.map(|props| Branch { junctor: "not", index: 0, props, path: below(path, "not") });
    listed.chain(not).collect()
}

/// Whether a regular expression can be compiled; the error is the detail of the fault.
pub fn validate_pattern(props: &Props) -> Result<(), String> {
    match props.pattern.as_ref().map(|pattern| &pattern.regex) {
        Some(Err(why)) => Err(format!("must be a valid regular expression, but isn't: {why}")),
        _ => Ok(()),
    }
}

/// Where a node stands, as far as the rules differ.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Field,
    Item,
}

/// What a node inherits from being part of what all objects have.
#[derive(Clone, Copy, Default)]
struct Meta {
    /// Whether it is within apiVersion, kind or metadata, be it of an embedded object.
    is_inside: bool,
    /// Why it may have no default.
    no_default: Option<&'static str>,
}

#[derive(Default)]
struct Check {
    exempt: Exemptions,
    faults: Vec<FieldError>,
}

fn below(path: &str, field: &str) -> String {
    format!("{path}.{field}")
}

impl Check {
    fn required(&mut self, path: &str, field: &str, detail: &str) {
        self.faults.push(FieldError::required(below(path, field), detail));
    }

    fn forbidden(&mut self, path: &str, field: &str, detail: &str) {
        self.faults.push(FieldError::forbidden(below(path, field), detail));
    }

    fn invalid(&mut self, path: &str, field: &str, value: &Value, detail: &str) {
        self.faults.push(FieldError::invalid(below(path, field), value, detail));
    }

    fn node(&mut self, props: &Props, path: &str, place: Place, meta: Meta) {
        self.check_type(props, path, place);
        self.check_extensions(props, path, place);
        self.check_default(props, path, place, meta);
        self.check_common(props, path, meta);
        let is_choice = is_int_or_string(&props.any_of);
        for branch in branches(props, path) {
            let is_first = branch.junctor == "allOf" && branch.index == 0;
            // Two ways to say that a value is a number or a text.
            if !(is_choice && branch.junctor == "anyOf") {
                let holds_choice = is_first && is_int_or_string(&branch.props.any_of);
                self.branch(branch.props, &branch.path, holds_choice, meta);
            }
        }
        let is_resource = place == Place::Root || props.is_embedded;
        for (name, field) in &props.properties {
            let below = format!("{path}.properties[{name}]");
            let top = TOP.iter().find(|(own, _)| is_resource && own == name).map(|(_, reason)| *reason);
            let inherited = Meta {
                is_inside: meta.is_inside || top.is_some(),
                no_default: meta.no_default.or(top.filter(|_| place == Place::Root)),
            };
            self.node(field, &below, Place::Field, inherited);
            if top.is_some() {
                self.object_field(name, field, &below, place);
            }
        }
        if let Some(item) = props.item() {
            self.node(item, &below(path, "items"), Place::Item, meta);
        }
        if let Some(values) = props.values() {
            let no_default = meta.is_inside.then_some(IN_META);
            let inherited = Meta { no_default: no_default.or(meta.no_default), ..meta };
            self.node(values, &below(path, "additionalProperties"), Place::Field, inherited);
        }
    }

    fn check_type(&mut self, props: &Props, path: &str, place: Place) {
        let kind = props.kind.as_str();
        if props.is_embedded && kind != "object" {
            self.wrong_type(kind, path, "must be object if x-kubernetes-embedded-resource is true");
        } else if kind.is_empty() && !props.is_int_or_string && !props.keeps_unknown() {
            self.required(
                path,
                "type",
                match place {
                    Place::Root => "must not be empty at the root",
                    Place::Field => "must not be empty for specified object fields",
                    Place::Item => "must not be empty for specified array items",
                },
            );
        }
        if place == Place::Root && !kind.is_empty() && kind != "object" {
            self.invalid(path, "type", &kind.into(), "must be object at the root");
        }
        if kind == "array" && props.items.is_none() {
            self.required(path, "items", "must be specified");
        }
    }

    /// A type that has to be there, and to be another.
    fn wrong_type(&mut self, kind: &str, path: &str, detail: &str) {
        match kind {
            "" => self.required(path, "type", detail),
            kind => self.invalid(path, "type", &kind.into(), detail),
        }
    }

    fn check_extensions(&mut self, props: &Props, path: &str, place: Place) {
        if props.is_int_or_string {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            if props.keeps_unknown() {
                self.invalid(path, "x-kubernetes-preserve-unknown-fields", &true.into(), detail);
            }
            if props.is_embedded {
                self.invalid(path, "x-kubernetes-embedded-resource", &true.into(), detail);
            }
        }
        if props.is_embedded && props.properties.is_empty() && !props.keeps_unknown() {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            self.required(path, "properties", detail);
        }
        if props.additional_properties.is_some() {
            let field = "additionalProperties";
            if place == Place::Root {
                self.forbidden(path, field, "must not be used at the root");
            }
            if props.is_embedded {
                self.forbidden(path, field, "must not be used if x-kubernetes-embedded-resource is set");
            }
        }
    }

    fn check_list(&mut self, props: &Props, path: &str) {
        let Some(kind) = props.list_type.as_deref() else {
            if !props.list_keys.is_empty() {
                self.required(path, "x-kubernetes-list-type", NEEDS_MAP);
            }
            return;
        };
        if props.kind != "array" {
            self.wrong_type(&props.kind, path, "must be array if x-kubernetes-list-type is specified");
        } else if !self.exempt.sets
            && let Some(field) = exemptions::loose_item(props)
        {
            // Upstream tells the list type of the item either way.
            let found = props.item().and_then(|item| item.list_type.as_deref());
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            self.invalid(path, field, &found.map_or(Value::Null, Value::from), detail);
        }
        let lists = ["atomic", "set", "map"];
        if !lists.contains(&kind) {
            let path = below(path, "x-kubernetes-list-type");
            self.faults.push(FieldError::not_supported(path, &kind.into(), &lists));
        }
        if kind != "map" && !props.list_keys.is_empty() {
            self.invalid(path, "x-kubernetes-list-type", &kind.into(), NEEDS_MAP);
        }
        if kind == "map" {
            self.check_map(props, path);
        }
        if !self.exempt.keys {
            self.check_keys(props, path);
        }
    }

    /// The items of a map are objects with keys of their own.
    fn check_map(&mut self, props: &Props, path: &str) {
        let keys = "x-kubernetes-list-map-keys";
        if props.list_keys.is_empty() {
            self.required(path, keys, "must not be empty if x-kubernetes-list-type is map");
        }
        if props.items.is_none() {
            self.required(path, "items", "must have a schema if x-kubernetes-list-type is map");
        }
        let Some(item) = props.item() else { return };
        if item.kind != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            return self.invalid(path, "items.type", &item.kind.as_str().into(), detail);
        }
        let all = Value::from(props.list_keys.clone());
        let mut seen = BTreeSet::new();
        for key in &props.list_keys {
            match item.properties.get(key).map(|field| field.kind.as_str()) {
                None => self.invalid(path, keys, &all, "entries must all be names of item properties"),
                Some("array" | "object") => {
                    let field = format!("items.properties[{key}].type");
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.invalid(path, &field, &item.kind.as_str().into(), detail);
                }
                Some(_) => {}
            }
            if !seen.insert(key) {
                self.invalid(path, keys, &all, "must not contain duplicate entries");
            }
        }
    }

    /// No item of a set or map is null, and every item of a map has its keys.
    fn check_keys(&mut self, props: &Props, path: &str) {
        let Some(item) = props.item() else { return };
        let Some(kind @ ("map" | "set")) = props.list_type.as_deref() else { return };
        if item.nullable {
            let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
            self.forbidden(path, "items.nullable", &detail);
        }
        for key in props.list_keys.iter().filter(|_| kind == "map") {
            let Some(field) = item.properties.get(key) else { continue };
            let place = format!("items.properties[{key}]");
            if field.default.is_none() && !item.required.contains(key) {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.required(path, &format!("{place}.default"), detail);
            }
            if field.nullable {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbidden(path, &format!("{place}.nullable"), detail);
            }
        }
    }

    /// What no schema may say, be it a branch.
    fn check_common(&mut self, props: &Props, path: &str, meta: Meta) {
        let kind = props.kind.as_str();
        if !kind.is_empty() && !TYPES.contains(&kind) {
            self.faults.push(FieldError::not_supported(below(path, "type"), &kind.into(), &TYPES));
        }
        if kind == "null" {
            self.forbidden(path, "type", "type cannot be set to null, use nullable as an alternative");
        }
        if props.unique_items {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(path, "uniqueItems", detail);
        }
        match &props.additional_properties {
            Some(Additional::Allowed(true)) => {}
            Some(_) if !props.properties.is_empty() => {
                let detail = "additionalProperties and properties are mutual exclusive";
                self.forbidden(path, "additionalProperties", detail);
            }
            _ => {}
        }
        if matches!(props.items, Some(Items::Tuple(_))) {
            self.forbidden(path, "items", "items must be a schema object and not an array");
        }
        for (name, is_set) in [
            ("$ref", props.reference.is_some()),
            ("definitions", props.definitions.is_some()),
            ("dependencies", props.dependencies.is_some()),
            ("patternProperties", props.pattern_properties.is_some()),
            ("additionalItems", props.additional_items.is_some()),
            ("id", !props.id.is_empty()),
        ] {
            if is_set {
                self.forbidden(path, name, &format!("{name} is not supported"));
            }
        }
        if meta.is_inside && props.is_embedded {
            self.forbidden(
                path,
                "x-kubernetes-embedded-resource",
                "must not be used inside of resource meta",
            );
        }
        if props.preserves_unknown == Some(false) {
            let detail = "must be true or undefined";
            self.invalid(path, "x-kubernetes-preserve-unknown-fields", &false.into(), detail);
        }
        if let Some(kind) = &props.map_type {
            if props.kind != "object" {
                self.wrong_type(&props.kind, path, "must be object if x-kubernetes-map-type is specified");
            }
            let maps = ["atomic", "granular"];
            if !maps.contains(&kind.as_str()) {
                let path = below(path, "x-kubernetes-map-type");
                self.faults.push(FieldError::not_supported(path, &kind.as_str().into(), &maps));
            }
        }
        self.check_list(props, path);
        if let Err(why) = validate_pattern(props) {
            let text = props.pattern.as_ref().map(|pattern| pattern.text.clone()).unwrap_or_default();
            self.invalid(path, "pattern", &text.into(), &why);
        }
    }

    /// A default must be valid itself, and hold nothing that pruning would take away.
    fn check_default(&mut self, props: &Props, path: &str, place: Place, meta: Meta) {
        let Some(default) = &props.default else { return };
        if let Some(reason) = meta.no_default {
            return self.forbidden(path, "default", &format!("must not be set {reason}"));
        }
        let path = below(path, "default");
        if !self.exempt.defaults && exemptions::has_unknown_fields(props) {
            let detail = "must not have unknown fields";
            self.faults.push(FieldError::invalid(&path, default, detail));
        }
        let mut filled = default.clone();
        prune::set_defaults(&mut filled, props);
        for fault in validate::validate_default(&filled, props, place == Place::Root) {
            let field = match fault.field.as_str() {
                "" => path.clone(),
                inner if inner.starts_with('[') => format!("{path}{inner}"),
                inner => format!("{path}.{inner}"),
            };
            self.faults.push(FieldError { field, ..fault });
        }
    }

    /// What stands under `apiVersion`, `kind` or `metadata` of an object: names may be restricted, nothing else.
    fn object_field(&mut self, name: &str, field: &Props, path: &str, place: Place) {
        let wanted = if name == "metadata" { "object" } else { "string" };
        if field.kind != wanted {
            self.invalid(path, "type", &field.kind.as_str().into(), &format!("must be {wanted}"));
        }
        if name == "metadata" && place == Place::Root && says_more_than_names(field) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.faults.push(FieldError::forbidden(path, detail));
        }
    }

    /// A branch of a junctor validates; it may not say what there is.
    fn branch(&mut self, branch: &Props, path: &str, is_choice: bool, meta: Meta) {
        let (empty, undefined, not_true) = (
            "must be empty to be structural",
            "must be undefined to be structural",
            "must be false to be structural",
        );
        for (name, is_set, detail) in [
            ("type", !branch.kind.is_empty(), empty),
            ("additionalProperties", branch.additional_properties.is_some(), undefined),
            ("default", branch.default.is_some(), undefined),
            ("title", !branch.title.is_empty(), empty),
            ("description", !branch.description.is_empty(), empty),
            ("nullable", branch.nullable, not_true),
            ("x-kubernetes-preserve-unknown-fields", branch.keeps_unknown(), not_true),
            ("x-kubernetes-embedded-resource", branch.is_embedded, not_true),
            ("x-kubernetes-int-or-string", branch.is_int_or_string, not_true),
            ("x-kubernetes-list-map-keys", !branch.list_keys.is_empty(), empty),
            ("x-kubernetes-list-type", branch.list_type.is_some(), undefined),
            ("x-kubernetes-map-type", branch.map_type.is_some(), undefined),
            ("x-kubernetes-validations", !branch.rules.is_empty(), empty),
        ] {
            if is_set {
                self.forbidden(path, name, detail);
            }
        }
        self.check_common(branch, path, meta);
        for (name, field) in &branch.properties {
            let path = format!("{path}.properties[{name}]");
            if name == "metadata" {
                self.faults.push(FieldError::forbidden(&path, "must not be specified in a nested context"));
            }
            self.branch(field, &path, false, meta);
        }
        if let Some(item) = branch.item() {
            self.branch(item, &below(path, "items"), false, meta);
        }
        for inner in branches(branch, path) {
            if !(is_choice && inner.junctor == "anyOf") {
                self.branch(inner.props, &inner.path, false, meta);
            }
        }
    }

    /// What a branch at the root speaks of has to be there. Upstream does not ask this of branches further below.
    fn counterpart(&mut self, branch: &Props, core: Option<&Props>, core_path: &str, path: &str) {
        let Some(core) = core else {
            let detail = format!("because it is defined in {path}");
            return self.faults.push(FieldError::required(core_path, detail));
        };
        for inner in branches(branch, path) {
            self.counterpart(inner.props, Some(core), core_path, &inner.path);
        }
        if let Some(item) = branch.item() {
            self.counterpart(item, core.item(), &below(core_path, "items"), &below(path, "items"));
        }
        for (name, field) in &branch.properties {
            let [core_path, path] = [core_path, path].map(|path| format!("{path}.properties[{name}]"));
            self.counterpart(field, core.properties.get(name), &core_path, &path);
        }
    }
}

const NEEDS_MAP: &str = "must be map if x-kubernetes-list-map-keys is non-empty";
const IN_META: &str = "inside additionalProperties applying to object metadata";
/// What every object has, and why it has no default.
const TOP: [(&str, &str); 3] = [
    ("apiVersion", "in top-level apiVersion"),
    ("kind", "in top-level kind"),
    ("metadata", "in top-level metadata"),
];

/// Whether these are the two branches with which a value is said to be a number or a text.
fn is_int_or_string(branches: &[Props]) -> bool {
    let is_just = |props: &Props, kind: &str| *props == Props { kind: kind.into(), ..Props::default() };
    matches!(branches, [first, second] if is_just(first, "integer") && is_just(second, "string"))
}

/// Whether a schema of an object's metadata says anything beside its type, a default, and schemas of the names.
fn says_more_than_names(props: &Props) -> bool {
    let mut rest = Props { kind: String::new(), default: None, ..props.clone() };
    rest.properties.retain(|name, _| !matches!(name.as_str(), "name" | "generateName"));
    rest.preserves_unknown = rest.preserves_unknown.filter(|keeps| *keeps);
    rest != Props::default()
}

#[cfg(test)]
mod tests;
