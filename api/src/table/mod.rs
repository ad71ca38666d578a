//! What `kubectl get` prints: columns and cells, with upstream's titles and words.
//!
//! A cell is a pure function of an object and the time. Every kind has a Name column; it comes first
//! unless the kind's own columns say where it stands or what it shows.

mod cells;
pub mod cluster;
pub mod device;
mod duration;
pub mod flow_control;
pub mod network;
pub mod pod;
pub mod storage;
pub mod workload;

pub use duration::{human_duration, since};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Kind, Object, crd::CustomColumn};

/// One printed column of a kind, beside Name.
#[derive(Clone, Copy)]
pub struct Column {
    /// Title as in the Table's columnDefinitions, for example `Up-to-date`.
    pub name: &'static str,
    /// OpenAPI type of the cells: `string`, `integer`, `date`, ...
    pub kind: &'static str,
    /// OpenAPI format, such as `name`.
    pub format: &'static str,
    /// One sentence; shown by nothing but served as upstream does.
    pub description: &'static str,
    /// 0: always printed; 1: only with `-o wide`.
    pub priority: i32,
    /// The cell for an object, as of `now`.
    pub cell: fn(&Object, now: Timestamp) -> Value,
    /// Where a custom resource has the cell instead.
    pub path: Option<&'static CustomColumn>,
}

impl Column {
    /// A column of text. Upstream says so of some whose cells are numbers.
    pub const fn text(
        name: &'static str,
        description: &'static str,
        cell: fn(&Object, Timestamp) -> Value,
    ) -> Column {
        Column { name, kind: "string", format: "", description, priority: 0, cell, path: None }
    }

    /// A column that is told to be of whole numbers.
    pub const fn number(
        name: &'static str,
        description: &'static str,
        cell: fn(&Object, Timestamp) -> Value,
    ) -> Column {
        Column { kind: "integer", ..Column::text(name, description, cell) }
    }

    /// The column, printed with `-o wide` only.
    pub const fn wide(self) -> Column {
        Column { priority: 1, ..self }
    }

    fn cell_of(&self, object: &Object, now: Timestamp) -> Value {
        match self.path {
            Some(path) => path.cell(object, now),
            None => (self.cell)(object, now),
        }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

/// The name of the object.
pub const NAME: Column = Column {
    format: "name",
    ..Column::text("Name", "Name of the object, unique among its kind in its namespace.", |object, _| {
        object.name().into()
    })
};

/// The time since the object was made.
pub const AGE: Column = Column::text("Age", "Time since the object was created.", |object, now| {
    since(object.text(&["metadata", "creationTimestamp"]), now).into()
});

/// What custom resources print that have no columns of their own.
pub const AGE_ONLY: &[Column] = &[Column { kind: "date", ..AGE }];

/// What built-in kinds print for which upstream has no columns.
pub const CREATED_AT: &[Column] = &[Column {
    kind: "date",
    ..Column::text("Created At", "When the object was created.", |object, _| {
        object.text(&["metadata", "creationTimestamp"]).into()
    })
}];

/// The `columnDefinitions` of a `meta.k8s.io/v1` Table.
pub fn definitions(kind: &Kind) -> Value {
    columns(kind).map(Column::definition).collect()
}

/// One of its rows. It carries the object, whole with `include_object`, else its metadata alone.
pub fn row(kind: &Kind, whole: &Object, now: Timestamp, include_object: bool) -> Value {
    let cells: Vec<Value> = columns(kind).map(|column| column.cell_of(whole, now)).collect();
    let object = if include_object { Value::Object(whole.0.clone()) } else { metadata_of(whole) };
    let mut row = json!({"cells": cells, "object": object});
    if let Some(condition) = pod::completion(kind, whole) {
        row["conditions"] = json!([condition]);
    }
    row
}

fn columns(kind: &Kind) -> impl Iterator<Item = &Column> {
    let has_name = kind.custom.is_none() && kind.columns.iter().any(|column| column.name == NAME.name);
    let name = (!has_name).then_some(&NAME);
    name.into_iter().chain(kind.columns)
}

fn metadata_of(object: &Object) -> Value {
    let metadata = object.at(&["metadata"]).cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

#[cfg(test)]
mod tests;
