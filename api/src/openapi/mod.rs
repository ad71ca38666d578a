//! The OpenAPI documents: v2 as JSON and as protobuf, v3 for each group-version, and the index of those.
//!
//! `kubectl apply` takes merge keys from them, `kubectl explain` the descriptions, client-side validation
//! the types. They are made on demand out of the table of kinds and k8s-openapi's JSON schemas, one
//! definition after the other straight into bytes, so that no document is ever held as a tree: keep the bytes,
//! compressed, rather than the result of parsing them.

mod definitions;
mod operations;
mod paths;
mod protobuf;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::Kind;
use definitions::Definitions;
use paths::paths;

/// What clients ask for, and what is answered, when v2 is wanted as protobuf.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The older name of the same, which clients still send.
pub const V2_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The two editions of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edition {
    V2,
    V3,
}

/// What others add to the document of version 2.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Items by path.
    pub paths: BTreeMap<String, Value>,
    /// Definitions by name; those that we have ourselves are ours.
    pub definitions: BTreeMap<String, Value>,
}

impl Part {
    /// Our paths and these.
    fn paths(&self, kinds: &[Kind]) -> BTreeMap<String, Value> {
        let mut all = self.paths.clone();
        all.extend(paths(kinds, Edition::V2));
        all
    }

    /// Our definitions, and then those of these that we lack.
    fn definitions(&self, kinds: &[Kind]) -> impl Iterator<Item = (String, Value)> {
        let known: BTreeSet<String> = match self.definitions.is_empty() {
            true => BTreeSet::new(),
            false => Definitions::of(kinds, Edition::V2).map(|(name, _)| name).collect(),
        };
        let others = self.definitions.iter().filter(move |(name, _)| !known.contains(*name));
        let others = others.map(|(name, definition)| (name.clone(), definition.clone()));
        Definitions::of(kinds, Edition::V2).chain(others)
    }
}

/// `/openapi/v2` as JSON.
pub fn v2_json(kinds: &[Kind], others: &Part) -> Vec<u8> {
    let mut document = Vec::with_capacity(4 << 20);
    document.extend(format!(r#"{{"swagger":"2.0","info":{},"paths":"#, info()).as_bytes());
    write_map(&mut document, others.paths(kinds).into_iter());
    document.extend(b",\"definitions\":");
    write_map(&mut document, others.definitions(kinds));
    document.extend(b",\"securityDefinitions\":");
    document.extend(security().to_string().as_bytes());
    document.extend(b",\"security\":[{\"BearerToken\":[]}]}");
    document
}

/// `/openapi/v2` as [`V2_PROTOBUF`], the only form in which kubectl reads v2.
pub fn v2_protobuf(kinds: &[Kind], others: &Part) -> Vec<u8> {
    protobuf::document(&info(), others.paths(kinds), others.definitions(kinds))
}

/// `/openapi/v2` as a tree, for tests and tools; a server keeps bytes.
pub fn v2(kinds: &[Kind]) -> Value {
    serde_json::from_slice(&v2_json(kinds, &Part::default())).expect("we write JSON")
}

/// `/openapi/v3/apis/GROUP/VERSION`, or `/openapi/v3/api/v1`, as JSON; `None` when no kind is there.
pub fn v3_json(kinds: &[Kind], group: &str, version: &str) -> Option<Vec<u8>> {
    let is_served = |kind: &&Kind| kind.group == group && kind.version == version;
    let kinds: Vec<Kind> = kinds.iter().filter(is_served).copied().collect();
    (!kinds.is_empty()).then(|| v3_of(&kinds))
}

/// The same as a tree, for tests and tools.
pub fn v3(kinds: &[Kind], group: &str, version: &str) -> Option<Value> {
    let document = v3_json(kinds, group, version)?;
    Some(serde_json::from_slice(&document).expect("we write JSON"))
}

/// The v3 document of some kinds, all of one group-version.
pub fn v3_of(kinds: &[Kind]) -> Vec<u8> {
    let mut document = Vec::with_capacity(1 << 20);
    document.extend(format!(r#"{{"openapi":"3.0.0","info":{},"paths":"#, info()).as_bytes());
    write_map(&mut document, paths(kinds, Edition::V3).into_iter());
    document.extend(b",\"components\":{\"schemas\":");
    write_map(&mut document, Definitions::of(kinds, Edition::V3));
    document.extend(b",\"securitySchemes\":");
    document.extend(security().to_string().as_bytes());
    document.extend(b"}}");
    document
}

/// `/openapi/v3`: where the document of each group-version is. The hash in the address changes with it.
pub fn v3_index(kinds: &[Kind]) -> Value {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for kind in kinds {
        let print = kind.custom.map_or(String::new(), |version| version.fingerprint.to_string());
        versions.entry(kind.base_path()).or_default().insert(kind.kind.to_string() + &print);
    }
    let entry = |(path, kinds): (String, BTreeSet<String>)| {
        let kinds = kinds.iter().map(String::as_str);
        let hash = fingerprint(kinds.chain([env!("CARGO_PKG_VERSION"), path.as_str()]));
        let address = format!("/openapi/v3{path}?hash={hash:016X}");
        (path.trim_start_matches('/').to_string(), json!({"serverRelativeURL": address}))
    };
    json!({"paths": versions.into_iter().map(entry).collect::<serde_json::Map<_, _>>()})
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.37.0+coracle"})
}

fn security() -> Value {
    json!({"BearerToken": {
        "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header",
    }})
}

fn write_map(out: &mut Vec<u8>, entries: impl Iterator<Item = (String, Value)>) {
    out.push(b'{');
    for (index, (name, value)) in entries.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend(Value::from(name).to_string().as_bytes());
        out.push(b':');
        out.extend(value.to_string().as_bytes());
    }
    out.push(b'}');
}

/// FNV-1a over texts.
fn fingerprint<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let bytes = texts.flat_map(|text| text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests;
