//! What `kubectl get` prints: columns and cells, with upstream's titles and words.

use jiff::Timestamp;
use serde_json::Value;

use crate::Object;

/// One printed column of a kind, beside Name.
#[derive(Clone, Copy)]
pub struct Column {
    /// Title as in the Table's columnDefinitions, for example `Up-to-date`.
    pub name: &'static str,
    /// OpenAPI type of the cells: `string`, `integer`, `date`, ...
    pub kind: &'static str,
    /// One sentence; shown by nothing but served as upstream does.
    pub description: &'static str,
    /// 0: always printed; 1: only with `-o wide`.
    pub priority: i32,
    /// The cell for an object, as of `now`.
    pub cell: fn(&Object, now: Timestamp) -> Value,
}

/// What kinds print that have no columns of their own.
pub const AGE_ONLY: &[Column] = &[];
