//! A definition, understood: rows of the table of kinds, and what stands behind them.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, OnceLock, PoisonError},
};

use serde_json::Value;

use super::{CustomColumn, Props, rules::Rules, strategy::CustomResource, tree};
use crate::{Kind, Object, Scale, Scope, Verbs, fields::Versions, schema::Schema, table::Column};

/// How objects get from one version to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// All versions are the same but for `apiVersion`.
    None,
    /// By a webhook: `spec.conversion.webhook`.
    Webhook(Value),
}

/// A CustomResourceDefinition.
pub struct Definition {
    /// `<plural>.<group>`.
    pub name: &'static str,
    /// The kind of lists of its objects.
    pub list_kind: &'static str,
    /// How objects get from one version to another.
    pub conversion: Conversion,
    versions: OnceLock<Vec<Version>>,
    kinds: OnceLock<Vec<Kind>>,
    storage: usize,
}

/// One version of a definition.
pub struct Version {
    /// Whose version it is.
    pub definition: &'static Definition,
    /// Whether clients may use it.
    pub is_served: bool,
    /// What objects look like.
    pub props: Props,
    /// The schema as the definition has it, for publishing.
    pub source: &'static Value,
    /// The same for everything generic.
    pub tree: &'static Schema,
    /// Rules in CEL; `None` when there are none.
    pub(super) rules: Option<Rules>,
    /// Where `scale` finds its numbers.
    pub(super) scale: Option<&'static Scale>,
    /// Whether there is a status apart from the rest.
    pub(super) has_status: bool,
    /// Changes with everything that clients can see of it.
    pub fingerprint: u64,
}

/// Definitions that have been understood, by what they say. What the tables of kinds refer to lives as long as the
/// process; a definition that comes back, or is written again unchanged, is not made twice.
static KNOWN: LazyLock<Mutex<HashMap<String, &'static Definition>>> = LazyLock::new(Mutex::default);

impl Definition {
    /// Understands a CustomResourceDefinition with the names that it was granted.
    pub fn of(crd: &Object) -> Result<&'static Definition, String> {
        let part = |path: &[&str]| crd.at(path).map(Value::to_string).unwrap_or_default();
        let text = format!("{}\n{}", part(&["spec"]), part(&["status", "acceptedNames"]));
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(definition) = known().get(&text) {
            return Ok(definition);
        }
        let definition = Definition::read(crd, fingerprint(&text))?;
        known().insert(text, definition);
        Ok(definition)
    }

    fn read(crd: &Object, fingerprint: u64) -> Result<&'static Definition, String> {
        let versions = crd.list(&["spec", "versions"]);
        let storage = versions.iter().position(|version| version["storage"] == true);
        let conversion = match crd.text(&["spec", "conversion", "strategy"]) {
            "Webhook" => {
                Conversion::Webhook(crd.at(&["spec", "conversion", "webhook"]).cloned().unwrap_or_default())
            }
            _ => Conversion::None,
        };
        let definition: &'static Definition = &*Box::leak(Box::new(Definition {
            name: leak(&format!(
                "{}.{}",
                crd.text(&["spec", "names", "plural"]),
                crd.text(&["spec", "group"])
            )),
            list_kind: leak(crd.text(&["spec", "names", "listKind"])),
            conversion,
            versions: OnceLock::new(),
            kinds: OnceLock::new(),
            storage: storage.ok_or("no version is stored")?,
        }));
        let versions: Result<Vec<Version>, String> =
            versions.iter().map(|version| read_version(definition, crd, version, fingerprint)).collect();
        let versions = versions?;
        let versions: &'static [Version] = definition.versions.get_or_init(|| versions);
        definition.kinds.get_or_init(|| {
            let rows = crd.list(&["spec", "versions"]).iter().zip(versions);
            rows.map(|(source, version)| row(crd, source, version)).collect()
        });
        Ok(definition)
    }

    /// The rows of all versions, in the definition's order, those that are not served included.
    pub fn kinds(&self) -> &[Kind] {
        self.kinds.get().map_or(&[], Vec::as_slice)
    }

    /// The row of the version that objects are stored in.
    pub fn stored(&'static self) -> Option<&'static Kind> {
        self.kinds().get(self.storage)
    }
}

impl Version {
    /// Whether objects have to go through a webhook to get from the stored version to this one.
    pub fn needs_webhook(&self) -> bool {
        matches!(self.definition.conversion, Conversion::Webhook(_))
    }

    /// Brings an object into the form in which this version is kept and served.
    pub fn normalize(&self, object: &mut Object) {
        let mut value = Value::Object(std::mem::take(&mut object.0));
        super::prune::prune(&mut value, &self.props);
        super::prune::drop_nulls(&mut value, &self.props);
        super::prune::set_defaults(&mut value, &self.props);
        if let Value::Object(map) = value {
            object.0 = map;
        }
    }
}

impl Versions for Version {
    fn converted(&self, object: &Object, api_version: &str) -> Option<(Object, Option<&'static Schema>)> {
        let kind = self.definition.kinds().iter().find(|kind| kind.api_version() == api_version)?;
        let version = kind.custom?;
        let mut object = object.clone();
        if object.api_version() != api_version {
            // Only the webhook knows, and whoever writes has to ask it before.
            if self.needs_webhook() {
                return None;
            }
            object.set(&["apiVersion"], api_version);
            version.normalize(&mut object);
        }
        Some((object, Some(version.tree)))
    }

    fn is_known(&self, api_version: &str) -> bool {
        self.definition.kinds().iter().any(|kind| kind.api_version() == api_version)
    }
}

fn read_version(
    definition: &'static Definition,
    crd: &Object,
    version: &Value,
    fingerprint: u64,
) -> Result<Version, String> {
    let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
    let mut props = match &schema {
        Value::Null => Props { kind: "object".into(), ..Props::default() },
        schema => Props::read(schema).map_err(|error| error.to_string())?,
    };
    // Definitions of the beta API could ask for this as a whole.
    if crd.at(&["spec", "preserveUnknownFields"]) == Some(&Value::Bool(true)) {
        props.preserves_unknown = Some(true);
    }
    let rules = Rules::of(&props);
    Ok(Version {
        definition,
        is_served: version["served"] == true,
        tree: tree::of(leak(&schema_name(crd, version)), &props),
        rules,
        props,
        source: Box::leak(Box::new(schema)),
        scale: version.pointer("/subresources/scale").and_then(scale),
        has_status: version.pointer("/subresources/status").is_some(),
        fingerprint,
    })
}

/// `com.example.stable.v1.CronTab`.
fn schema_name(crd: &Object, version: &Value) -> String {
    let reversed: Vec<&str> = crd.text(&["spec", "group"]).rsplit('.').collect();
    let kind = crd.text(&["spec", "names", "kind"]);
    format!("{}.{}.{kind}", reversed.join("."), version["name"].as_str().unwrap_or_default())
}

fn row(crd: &Object, source: &Value, version: &'static Version) -> Kind {
    let accepted = |name: &str| {
        let granted = crd.text(&["status", "acceptedNames", name]);
        leak(if granted.is_empty() { crd.text(&["spec", "names", name]) } else { granted })
    };
    let list = |name: &str| -> &'static [&'static str] {
        let names = crd.list(&["status", "acceptedNames", name]).iter().filter_map(Value::as_str).map(leak);
        Box::leak(names.collect::<Vec<_>>().into_boxed_slice())
    };
    let group = leak(crd.text(&["spec", "group"]));
    let plural = accepted("plural");
    Kind {
        group,
        version: leak(source["name"].as_str().unwrap_or_default()),
        kind: accepted("kind"),
        plural,
        singular: accepted("singular"),
        short: list("shortNames"),
        categories: list("categories"),
        scope: if crd.text(&["spec", "scope"]) == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: Verbs::All,
        status: version.has_status,
        scale: version.scale,
        subresources: &[],
        storage: leak(&format!("{group}/{plural}")),
        stored_as: None,
        strategy: Box::leak(Box::new(CustomResource(version))),
        columns: columns(source),
        selectable: selectable(source),
        deprecation: deprecation(crd, source),
        created_by_put: false,
        needs_version: true,
        returned_when_deleted: false,
        schema: version.tree.name,
        custom: Some(version),
    }
}

fn columns(source: &Value) -> &'static [Column] {
    let given = source["additionalPrinterColumns"].as_array().map_or(&[][..], Vec::as_slice);
    if given.is_empty() {
        return crate::table::AGE_ONLY;
    }
    let columns = given.iter().map(|column| {
        let text = |name: &str| column[name].as_str().unwrap_or_default();
        let path = CustomColumn::new(text("jsonPath"), text("type"))?;
        Some(Column {
            name: leak(text("name")),
            kind: leak(text("type")),
            format: leak(text("format")),
            description: leak(match text("description") {
                "" => DESCRIBED_BY_ITS_PATH,
                description => description,
            }),
            priority: column["priority"].as_i64().unwrap_or_default() as i32,
            cell: |_, _| Value::Null,
            path: Some(Box::leak(Box::new(path))),
        })
    });
    // A path that cannot be read is no reason not to serve; then nothing special is printed.
    columns
        .collect::<Option<Vec<_>>>()
        .map_or(crate::table::AGE_ONLY, |columns| Box::leak(columns.into_boxed_slice()))
}

/// Upstream's words for a column without any.
const DESCRIBED_BY_ITS_PATH: &str = "Custom resource definition column (in JSONPath format)";

fn selectable(source: &Value) -> &'static [&'static str] {
    let fields = source["selectableFields"].as_array().into_iter().flatten();
    let paths = fields.filter_map(|field| field["jsonPath"].as_str());
    Box::leak(paths.map(|path| leak(path.trim_start_matches('.'))).collect::<Vec<_>>().into_boxed_slice())
}

fn deprecation(crd: &Object, source: &Value) -> &'static str {
    if source["deprecated"] != true {
        return "";
    }
    let version = source["name"].as_str().unwrap_or_default();
    match source["deprecationWarning"].as_str() {
        Some(warning) => leak(warning),
        None => {
            let (group, kind) = (crd.text(&["spec", "group"]), crd.text(&["spec", "names", "kind"]));
            leak(&format!("{group}/{version} {kind} is deprecated"))
        }
    }
}

/// Where a scale finds its numbers. Upstream takes the paths apart at their dots, whatever stands between them.
fn scale(source: &Value) -> Option<&'static Scale> {
    let path = |name: &str| -> Option<&'static [&'static str]> {
        let text = source[name].as_str().filter(|text| !text.is_empty())?;
        let names = text.strip_prefix('.').unwrap_or(text).split('.');
        Some(Box::leak(names.map(leak).collect::<Vec<_>>().into_boxed_slice()))
    };
    Some(Box::leak(Box::new(Scale {
        spec_replicas: path("specReplicasPath")?,
        status_replicas: path("statusReplicasPath")?,
        selector: path("labelSelectorPath").unwrap_or(&[]),
    })))
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.into())
}

/// FNV-1a.
fn fingerprint(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scale_is_found_at_whatever_stands_between_dots() {
        let scale = |selector: &str| {
            scale(&json!({
                "specReplicasPath": ".spec.list[0].n", "statusReplicasPath": ".status.replicas", "labelSelectorPath": selector,
            }))
        };
        let odd = scale(".status['selector']").unwrap();
        assert_eq!(odd.spec_replicas, ["spec", "list[0]", "n"]);
        assert_eq!(odd.status_replicas, ["status", "replicas"]);
        assert_eq!(odd.selector, ["status['selector']"]);
        assert!(scale("").unwrap().selector.is_empty());
    }
}
