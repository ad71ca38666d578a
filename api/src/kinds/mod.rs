//! Every built-in kind, one row each (`rows.rs`).
//!
//! Routes, discovery, OpenAPI and printed columns all come from here; a CustomResourceDefinition adds
//! rows of the same type at run time. A row says only what cannot be derived: the singular, the schema's
//! name and (with upstream's exceptions) the place in the store follow from group, version and kind.

mod rows;

use self::rows::ROWS;
pub use self::rows::{EVICTION, SCALE, TOKEN_REQUEST};
use crate::Kind;

/// Every built-in kind, in the order of discovery.
pub static KINDS: &[Kind] = &complete();

/// The kind behind a URL.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|row| row.plural == plural && row.group == group && row.version == version)
}

/// A kind that every server has, in version `v1`.
///
/// # Panics
/// When the table has no such row: for names that stand in the code, never for what somebody sends.
pub fn built_in(group: &str, plural: &str) -> &'static Kind {
    find(group, "v1", plural).expect("the table of kinds has every built-in kind")
}

/// The kind that an object names in `apiVersion` and `kind`.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|row| row.kind == kind && row.group == group && row.version == version)
}

/// The rows with everything that follows from their names, worked out by the compiler.
const fn complete() -> [Kind; ROWS.len()] {
    let mut rows = [ROWS[0]; ROWS.len()];
    let mut index = 0;
    while index < ROWS.len() {
        let row = ROWS[index];
        rows[index] = Kind {
            singular: SINGULARS[index].text(),
            storage: if row.storage.is_empty() { row.plural } else { row.storage },
            schema: if row.schema.is_empty() { SCHEMAS[index].text() } else { row.schema },
            ..row
        };
        index += 1;
    }
    rows
}

static SINGULARS: [ConstText; ROWS.len()] = {
    let mut texts = [ConstText::EMPTY; ROWS.len()];
    let mut index = 0;
    while index < ROWS.len() {
        texts[index] = ConstText::EMPTY.with_lowercase(ROWS[index].kind);
        index += 1;
    }
    texts
};

/// The names of the kinds in k8s-openapi: `io.k8s.api.<first part of the group>.<version>.<kind>`.
static SCHEMAS: [ConstText; ROWS.len()] = {
    let mut texts = [ConstText::EMPTY; ROWS.len()];
    let mut index = 0;
    while index < ROWS.len() {
        let row = ROWS[index];
        let group = if row.group.is_empty() { "core" } else { before_dot(row.group) };
        let text = ConstText::EMPTY.with("io.k8s.api.").with(group).with(".").with(row.version);
        texts[index] = text.with(".").with(row.kind);
        index += 1;
    }
    texts
};

const fn before_dot(text: &str) -> &str {
    let mut length = 0;
    while length < text.len() && text.as_bytes()[length] != b'.' {
        length += 1;
    }
    text.split_at(length).0
}

/// A short text put together at compile time.
#[derive(Clone, Copy)]
struct ConstText {
    bytes: [u8; 80],
    length: usize,
}

impl ConstText {
    const EMPTY: ConstText = ConstText { bytes: [0; 80], length: 0 };

    const fn with(mut self, text: &str) -> ConstText {
        let mut index = 0;
        while index < text.len() {
            self.bytes[self.length] = text.as_bytes()[index];
            self.length += 1;
            index += 1;
        }
        self
    }

    const fn with_lowercase(self, text: &str) -> ConstText {
        let mut lower = self.with(text);
        lower.bytes.make_ascii_lowercase();
        lower
    }

    const fn text(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            Err(_) => panic!("names of kinds are ASCII"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_url_and_by_kind() {
        let row = find("apps", "v1", "deployments").unwrap();
        assert_eq!((row.kind, row.singular, row.storage), ("Deployment", "deployment", "deployments"));
        assert_eq!(row.schema, "io.k8s.api.apps.v1.Deployment");
        let row = find_kind("rbac.authorization.k8s.io", "v1", "ClusterRole").unwrap();
        assert_eq!((row.plural, row.schema), ("clusterroles", "io.k8s.api.rbac.v1.ClusterRole"));
        assert_eq!(find("", "v1", "pods").unwrap().schema, "io.k8s.api.core.v1.Pod");
    }

    #[test]
    fn what_upstream_stores_elsewhere_is_stored_elsewhere() {
        let storage = |group, version, plural| find(group, version, plural).unwrap().storage;
        assert_eq!(storage("", "v1", "services"), "services/specs");
        assert_eq!(storage("", "v1", "endpoints"), "services/endpoints");
        assert_eq!(storage("", "v1", "nodes"), "minions");
        assert_eq!(storage("", "v1", "replicationcontrollers"), "controllers");
        assert_eq!(storage("networking.k8s.io", "v1", "ingresses"), "ingress");
        assert_eq!(storage("events.k8s.io", "v1", "events"), "events");
    }

    #[test]
    fn no_two_rows_share_a_url() {
        for (index, row) in KINDS.iter().enumerate() {
            let first = KINDS.iter().position(|other| {
                (other.group, other.version, other.plural) == (row.group, row.version, row.plural)
            });
            assert_eq!(first, Some(index), "{}", row.plural);
        }
    }
}
