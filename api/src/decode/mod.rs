//! Turns request bodies into objects, and says in upstream's words what is wrong with them.
//!
//! One pass over the body reads, checks against the schema and brings values into the form that is stored:
//! unknown fields are dropped and reported, nulls vanish, quantities and times become canonical. Whatever
//! a client sends, the answer is an object or a 400: nesting, aliases and sizes have limits.

mod faults;
mod reader;
mod repeated;
mod syntax;

use serde::de::DeserializeSeed;
use serde_json::Value;

pub use self::faults::Faults;
use self::reader::{Reader, Report};
use crate::{Kind, Object, Status, kinds, protobuf, schema::Schema};

/// An object read from a body.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    /// What was sent, without unknown fields.
    pub object: Object,
    /// What a strict client wants to hear. To be ignored, sent as warnings or answered with a
    /// `strict decoding error`, as `fieldValidation` says.
    pub faults: Faults,
}

/// The formats that a body may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

/// How deep values may nest. Real objects, schemas in CustomResourceDefinitions included, stay far below.
pub const DEPTH_LIMIT: usize = 120;

/// How much an object may grow by YAML aliases, in bytes.
const YAML_LIMIT: usize = 16 << 20;

/// What each scalar takes of [`YAML_LIMIT`] besides its text: without it, lists of small numbers would be free.
/// So little that no body of an allowed size gets at the limit with scalars alone.
const SCALAR_COST: usize = 8;

/// How many brackets may be open at once in YAML: its scanner takes time in proportion to them for every
/// token. Larger than the depth limit, as brackets inside text are counted as well.
const YAML_BRACKETS: usize = 256;

/// Reads a body. Without a schema everything is accepted as it is.
pub fn decode(body: &[u8], content_type: &str, schema: Option<&Schema>) -> Result<Decoded, Status> {
    let format = media_type(content_type)?;
    read(body, format, schema).map_err(|refusal| refusal.into_status(body, schema))
}

/// Reads a body in protobuf, to the same effect as [`decode`].
pub fn protobuf(body: &[u8], schema: Option<&Schema>) -> Result<Decoded, Status> {
    let unfit = |kind, api_version, why| Refusal::Unfit { kind, api_version, why };
    let object = protobuf::decode(body).map_err(|error| match error.type_meta {
        Some((api_version, kind)) => unfit(kind, api_version, error.why),
        None => Refusal::Unreadable(error.why),
    });
    let checked = object.and_then(|object| {
        let (kind, api_version) = (object.kind().to_string(), object.api_version().to_string());
        check(object.into_value(), schema).map_err(|why| unfit(kind, api_version, why))
    });
    checked.map_err(|refusal| refusal.into_status(body, schema))
}

/// The format that a `Content-Type` header names; 415 when it is none of ours. No header means JSON.
pub fn media_type(content_type: &str) -> Result<Format, Status> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" | "application/x-yaml" => Ok(Format::Yaml),
        _ => Err(unsupported_media_type(&["application/json", "application/yaml", protobuf::CONTENT_TYPE])),
    }
}

/// 415, naming what is accepted.
pub fn unsupported_media_type(accepted: &[&str]) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    );
    Status::new(415, "UnsupportedMediaType", message)
}

/// Checks a value that did not come from a body, such as the result of a patch. The error is the sentence
/// with which upstream's decoder refuses it.
pub fn check(value: Value, schema: Option<&Schema>) -> Result<Decoded, String> {
    let report = Report::of_json();
    let value = Reader::root(schema, &report).deserialize(value).map_err(|error| error.to_string())?;
    report.finish(value)
}

/// Brings a configuration to apply into the form of stored values. Whoever applies owns what he says, also where
/// it says nothing: such fields stay.
pub fn configuration(value: Value, schema: Option<&Schema>) -> Result<Decoded, String> {
    let report = Report::of_json();
    let reader = Reader::root(schema, &report).keeping_zero();
    let value = reader.deserialize(value).map_err(|error| error.to_string())?;
    report.finish(value)
}

/// Reads JSON that is no object of a kind, such as a patch; the error is Go's message.
pub fn json(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body)
        .map_err(|error| syntax::error(body).unwrap_or_else(|| plain(&error.to_string())))
}

/// Reads a patch in JSON, and says which keys come twice, as a strict client is told; the error is Go's message.
pub fn patch(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    let (value, report) = read_json(body, None).map_err(|_| match json(body) {
        Err(why) => why,
        Ok(_) => "exceeded max depth".to_string(),
    })?;
    Ok((value, report.into_faults().warnings()))
}

/// Reads YAML, or JSON, that is a map but no object of a kind: a configuration to apply. The error is Go's
/// message.
pub fn yaml(body: &[u8]) -> Result<Decoded, String> {
    let (value, report) = read_yaml(body, None)?;
    if !value.is_object() {
        let found = reader::go_kind(&value);
        return Err(format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        ));
    }
    report.finish(value)
}

/// Whether Go leaves a value out that is marked to be left out when empty.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_set) => !is_set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Fills in `apiVersion` and `kind` where the client left them out; 400 when they name another kind than
/// the one that the URL does.
pub fn expect_kind(object: &mut Object, kind: &Kind) -> Result<(), Status> {
    let api_version = kind.api_version();
    if object.api_version().is_empty() {
        object.set(&["apiVersion"], api_version.as_str());
    }
    if object.kind().is_empty() {
        object.set(&["kind"], kind.kind);
    }
    if object.api_version() == api_version && object.kind() == kind.kind {
        return Ok(());
    }
    let (group, version) = object.api_version().rsplit_once('/').unwrap_or(("", object.api_version()));
    let is_sibling = group == kind.group && object.kind() == kind.kind && kind.custom.is_some();
    let is_known = is_sibling || kinds::find_kind(group, version, object.kind()).is_some();
    if is_known && object.kind() == kind.kind {
        return Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({api_version})",
            object.api_version()
        )));
    }
    let why = match is_known {
        true => format!(
            "converting ({version}.{}) to ({}.{}): unknown conversion",
            object.kind(),
            kind.version,
            kind.kind
        ),
        false => {
            format!("no kind {:?} is registered for version {:?}", object.kind(), object.api_version())
        }
    };
    let what = format!("{} in version {version:?} cannot be handled as a {}", object.kind(), kind.kind);
    Err(Status::bad_request(format!("{what}: {why}")))
}

/// Why a body is no object.
enum Refusal {
    /// It cannot be read at all.
    Unreadable(String),
    /// It can be read, but does not fit the type. `kind` and `api_version` as the body has them.
    Unfit { kind: String, api_version: String, why: String },
}

impl Refusal {
    fn into_status(self, body: &[u8], schema: Option<&Schema>) -> Status {
        let expected = schema.map_or("Unstructured", |schema| schema.type_name());
        Status::bad_request(match self {
            Refusal::Unreadable(why) => format!(
                "the object provided is unrecognized (must be of type {expected}): {why} ({})",
                summary(body)
            ),
            Refusal::Unfit { kind, api_version, why } => {
                let kind = if kind.is_empty() { expected } else { &kind };
                let version = match api_version.rsplit('/').next() {
                    Some("") | None => schema.map_or("", |schema| schema.version()),
                    Some(version) => version,
                };
                format!("{kind} in version {version:?} cannot be handled as a {expected}: {why}")
            }
        })
    }
}

fn read(body: &[u8], format: Format, schema: Option<&Schema>) -> Result<Decoded, Refusal> {
    let (value, report) = match format {
        Format::Json => read_json(body, schema),
        Format::Yaml => read_yaml(body, schema),
    }
    .map_err(Refusal::Unreadable)?;
    // To Go, nothing is an object without fields.
    let value = if value.is_null() { Value::Object(serde_json::Map::new()) } else { value };
    if !value.is_object() {
        let found = reader::go_kind(&value);
        return Err(Refusal::Unreadable(version_and_kind(&format!(
            "json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        ))));
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    let (kind, api_version) = (text("kind"), text("apiVersion"));
    report.finish(value).map_err(|why| Refusal::Unfit { kind, api_version, why })
}

fn read_json(body: &[u8], schema: Option<&Schema>) -> Result<(Value, Report), String> {
    let report = Report::of_json();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Reader::root(schema, &report)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(value) => Ok((value, report)),
        Err(error) => {
            let why = syntax::error(body).unwrap_or_else(|| plain(&error.to_string()));
            Err(version_and_kind(&why))
        }
    }
}

fn read_yaml(body: &[u8], schema: Option<&Schema>) -> Result<(Value, Report), String> {
    let report = Report::of_yaml(YAML_LIMIT);
    if open_brackets(body) > YAML_BRACKETS {
        return Err("error converting YAML to JSON: yaml: exceeded max depth".into());
    }
    // Like upstream, only the first document counts.
    let Some(document) = serde_yaml::Deserializer::from_slice(body).next() else {
        return Ok((Value::Null, report));
    };
    match Reader::root(schema, &report).deserialize(document) {
        Ok(value) => {
            report.look_for_repeated_keys(body);
            Ok((value, report))
        }
        Err(error) => Err(format!("error converting YAML to JSON: {}", yaml_error(&error))),
    }
}

/// The most brackets that are open at once.
fn open_brackets(body: &[u8]) -> usize {
    let depths = body.iter().scan(0usize, |depth, byte| {
        match byte {
            b'[' | b'{' => *depth += 1,
            b']' | b'}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    depths.max().unwrap_or_default()
}

fn yaml_error(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let why = text.split(" at line ").next().unwrap_or_default();
    match error.location() {
        Some(location) => format!("yaml: line {}: {why}", location.line()),
        None => format!("yaml: {why}"),
    }
}

fn version_and_kind(why: &str) -> String {
    format!("couldn't get version/kind; json parse error: {why}")
}

/// An error of serde_json without its ` at line 1 column 2`.
fn plain(message: &str) -> String {
    message.split(" at line ").next().unwrap_or_default().to_string()
}

/// The beginning of a body: text when it looks like JSON, else hexadecimal.
fn summary(body: &[u8]) -> String {
    const LENGTH: usize = 30;
    let (start, more) = match body.get(..LENGTH) {
        Some(start) if body.len() > LENGTH => (start, " ..."),
        _ => (body, ""),
    };
    match start.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
        Some(_) => start.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

#[cfg(test)]
mod tests;
