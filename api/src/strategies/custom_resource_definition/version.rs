//! The versions of a definition: their schemas, subresources, columns and selectable fields.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    Object,
    crd::{self, Exemptions, Path, Props},
    name,
    strategies::check::{Faults, Field},
};

/// The versions as a list: names, one that is stored, schemas where they are needed.
pub(super) fn validate_versions(spec: &Field, old: Option<&Object>, faults: &mut Faults) {
    let versions = spec.get("versions");
    // A definition that has been without a schema may stay so, as long as nothing is served without one.
    let old_versions = old.map(|old| old.list(&["spec", "versions"]).to_vec()).unwrap_or_default();
    let had_none = old_versions.iter().any(|version| version.pointer("/schema/openAPIV3Schema").is_none());
    for version in versions.items() {
        let schema = version.get("schema").get("openAPIV3Schema");
        if !schema.is_set() && !had_none {
            faults.required(&schema, "");
        } else if !schema.is_set() && version.get("served").is_true() {
            faults.required(&schema, "because otherwise all fields are pruned");
        }
    }
    for version in versions.items() {
        faults.fits(&version.get("name"), name::dns_1035_label);
        validate_deprecation(&version, faults);
    }
    let mut names = BTreeSet::new();
    if !versions.items().all(|version| names.insert(version.get("name").text())) {
        faults.invalid(&versions, "must contain unique version names");
    }
    if versions.items().filter(|version| version.get("storage").is_true()).count() != 1 {
        faults.invalid(&versions, "must have exactly one version marked as storage version");
    }
}

fn validate_deprecation(version: &Field, faults: &mut Faults) {
    const LONGEST: usize = 256;
    let warning = version.get("deprecationWarning");
    if !warning.is_set() {
        return;
    }
    if !version.get("deprecated").is_true() {
        return faults.invalid(&warning, "can only be set for deprecated versions");
    }
    if warning.text().len() > LONGEST {
        faults.invalid(&warning, format!("must be <= {LONGEST} characters long"));
    }
    if warning.text().is_empty() {
        faults.invalid(&warning, "must not be an empty string");
    }
    // Go prints no white space but the plain one.
    let is_printed = |letter: char| !letter.is_control() && (letter == ' ' || !letter.is_whitespace());
    if let Some((index, _)) = warning.text().char_indices().find(|(_, letter)| !is_printed(*letter)) {
        let text = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        );
        faults.invalid(&warning, text);
    }
}

/// What each version has of its own: schema, subresources, columns, selectable fields. What all versions have alike stands
/// above them to upstream, which tells faults of it there and once.
pub(super) fn validate_parts(spec: &Field, old: Option<&Object>, faults: &mut Faults) {
    let versions: Vec<Field> = spec.get("versions").items().collect();
    let parts: [(&str, &str, fn(&Part, &mut Faults)); 4] = [
        ("schema", "validation", validate_version_schema),
        ("subresources", "subresources", |part, faults| validate_subresources(&part.field, faults)),
        ("additionalPrinterColumns", "additionalPrinterColumns", |part, faults| {
            validate_columns(&part.field, faults);
        }),
        ("selectableFields", "selectableFields", |part, faults| {
            validate_selectable(&part.field, &part.version.get("schema").get("openAPIV3Schema"), faults);
        }),
    ];
    let old_versions = old.map_or(&[][..], |old| old.list(&["spec", "versions"]));
    for (own, common, validate) in parts {
        let is_given = |version: &Field| version.get(own).is_set() && !is_empty_list(version.get(own).value);
        let is_common =
            versions.iter().all(|it| is_given(it) && it.get(own).value == versions[0].get(own).value);
        for version in versions.iter().take(if is_common { 1 } else { usize::MAX }) {
            let field = version.get(own);
            let path = if is_common { format!("spec.{common}") } else { field.path.clone() };
            let has_status = |version: &Field| version.get("subresources").get("status").is_set();
            let has_status = if is_common { versions.iter().any(has_status) } else { has_status(version) };
            validate(&Part { field: Field { path, ..field }, version, old_versions, has_status }, faults);
        }
    }
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// A part of a version.
struct Part<'a> {
    field: Field<'a>,
    version: &'a Field<'a>,
    /// All versions as they were.
    old_versions: &'a [Value],
    /// Whether the status of objects is written apart.
    has_status: bool,
}

fn validate_version_schema(part: &Part, faults: &mut Faults) {
    let schema = part.field.get("openAPIV3Schema");
    // A schema that is stored already is not held to what was not asked of it then.
    let name = part.version.get("name");
    let before = part.old_versions.iter().find(|old| old["name"] == *name.value).and_then(schema_of);
    if !schema.is_set() || before == Some(schema.value) {
        return;
    }
    if part.has_status {
        validate_root(&schema, faults);
    }
    let old: Vec<Props> =
        part.old_versions.iter().filter_map(|version| Props::read(schema_of(version)?).ok()).collect();
    validate_schema(&schema, Exemptions::of(&old), faults);
}

fn schema_of(version: &Value) -> Option<&Value> {
    version.pointer("/schema/openAPIV3Schema")
}

/// Of a schema whose part for the status is used alone, the root may not say what would be lost then.
fn validate_root(schema: &Field, faults: &mut Faults) {
    const ALLOWED: [(&str, &str); 22] = [
        ("description", "Description"),
        ("type", "Type"),
        ("format", "Format"),
        ("title", "Title"),
        ("maximum", "Maximum"),
        ("exclusiveMaximum", "ExclusiveMaximum"),
        ("minimum", "Minimum"),
        ("exclusiveMinimum", "ExclusiveMinimum"),
        ("maxLength", "MaxLength"),
        ("minLength", "MinLength"),
        ("pattern", "Pattern"),
        ("maxItems", "MaxItems"),
        ("minItems", "MinItems"),
        ("uniqueItems", "UniqueItems"),
        ("multipleOf", "MultipleOf"),
        ("required", "Required"),
        ("items", "Items"),
        ("properties", "Properties"),
        ("externalDocs", "ExternalDocs"),
        ("example", "Example"),
        ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
        ("x-kubernetes-validations", "XValidations"),
    ];
    let kind = schema.get("type");
    if !matches!(kind.text(), "" | "object") {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return faults.invalid(&kind, detail);
    }
    let is_allowed = |key: &str| ALLOWED.iter().any(|(allowed, _)| *allowed == key);
    if schema.entries().any(|(key, _)| !is_allowed(key)) {
        let names = ALLOWED.map(|(_, name)| name).join(" ");
        let detail = format!(
            "only [{names}] fields are allowed at the root of the schema if the status subresource is enabled"
        );
        faults.invalid(schema, detail);
    }
}

fn validate_schema(schema: &Field, exempt: Exemptions, faults: &mut Faults) {
    match Props::read(schema.value) {
        Ok(props) => {
            let found = crd::validate_definition_schema(&props, &schema.path, exempt);
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
    for (name, roots, detail) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ] {
        let path = scale.get(name);
        match path.text() {
            "" if name == "labelSelectorPath" => {}
            "" => faults.required(&path, ""),
            text if !text.starts_with('.') => faults.invalid(&path, NO_SIMPLE_PATH),
            text if !roots.iter().any(|root| text.starts_with(root)) => faults.invalid(&path, detail),
            _ => {}
        }
    }
}

const NO_SIMPLE_PATH: &str = "must be a simple json path starting with .";

fn validate_columns(columns: &Field, faults: &mut Faults) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    for column in columns.items() {
        faults.must_be_given(&column.get("name"));
        let (kind, format) = (column.get("type"), column.get("format"));
        let kinds = format!("must be one of {}", TYPES.join(","));
        match kind.text() {
            "" => faults.required(&kind, &kinds),
            text if !TYPES.contains(&text) => faults.invalid(&kind, kinds),
            _ => {}
        }
        if !format.text().is_empty() && !FORMATS.contains(&format.text()) {
            faults.invalid(&format, format!("must be one of {}", FORMATS.join(",")));
        }
        let path = Field { path: column.get("JSONPath").path, ..column.get("jsonPath") };
        if faults.must_be_given(&path) && !path.text().starts_with('.') {
            faults.invalid(&path, NO_SIMPLE_PATH);
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
