//! The types of `metrics.k8s.io/v1beta1`, which k8s-openapi does not have. Nothing is ever read or written as one of
//! them: they are there to be described.

use std::borrow::Cow;

use k8s_openapi::{
    apimachinery::pkg::api::resource::Quantity,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// What a node uses.
pub(super) struct NodeMetrics;

impl JsonSchema for NodeMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = usage(generator);
        measured("NodeMetrics sets resource usage metrics of a node.", ("usage", usage), generator)
    }
}

/// What a pod uses.
pub(super) struct PodMetrics;

impl JsonSchema for PodMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let containers = json!({
            "description": "Metrics for all containers are collected within the same time window.",
            "type": "array",
            "items": generator.subschema_for::<ContainerMetrics>(),
        });
        measured("PodMetrics sets resource usage metrics of a pod.", ("containers", containers), generator)
    }
}

/// What a container uses.
struct ContainerMetrics;

impl JsonSchema for ContainerMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "ContainerMetrics sets resource usage metrics of a container.",
            "type": "object",
            "required": ["name", "usage"],
            "properties": {
                "name": {"description": "Container name corresponding to the one from pod.spec.containers.", "type": "string"},
                "usage": usage(generator),
            },
        })
    }
}

fn usage(generator: &mut SchemaGenerator) -> Value {
    json!({
        "description": "The memory usage is the memory working set.",
        "type": "object",
        "additionalProperties": generator.subschema_for::<Quantity>(),
    })
}

/// An object that says what was used in a time that ended at a moment.
fn measured(description: &str, (field, shape): (&str, Value), generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": description,
        "type": "object",
        "required": ["timestamp", "window", field],
        "properties": {
            "apiVersion": {"description": "The versioned schema of this representation of an object.", "type": "string"},
            "kind": {"description": "The REST resource that this object represents, in CamelCase.", "type": "string"},
            "metadata": generator.subschema_for::<ObjectMeta>(),
            "timestamp": generator.subschema_for::<Time>(),
            "window": {
                "description": "The timestamp and this window define the time interval [timestamp-window, timestamp] from which metrics were collected.",
                "type": "string",
            },
            field: shape,
        },
    })
}
