//! What flow schemas and priority levels print.

use serde_json::Value;

use super::cells::{condition, number, text_or};
use super::{AGE, Column};
use crate::Object;

/// Columns of FlowSchemas.
pub const FLOW_SCHEMA: &[Column] = &[
    Column::text("PriorityLevel", "The level that requests of this schema are served by.", |object, _| {
        text_or(object, &["spec", "priorityLevelConfiguration", "name"], "")
    }),
    Column::text("MatchingPrecedence", "Which schema is asked first; less goes first.", |object, _| {
        number(object, &["spec", "matchingPrecedence"])
    }),
    Column::text("DistinguisherMethod", "What tells one flow from another.", |object, _| {
        text_or(object, &["spec", "distinguisherMethod", "type"], "<none>")
    }),
    AGE,
    Column::text("MissingPL", "Whether the level is missing.", |object, _| {
        let dangling = condition(object, "Dangling").and_then(|condition| condition["status"].as_str());
        dangling.unwrap_or("?").into()
    }),
];

/// Columns of PriorityLevelConfigurations.
pub const PRIORITY_LEVEL: &[Column] = &[
    Column::text("Type", "Whether the level has a limit.", |object, _| {
        text_or(object, &["spec", "type"], "")
    }),
    Column::text("NominalConcurrencyShares", "Its share of all seats.", |object, _| {
        shown(object, &["spec", "limited", "nominalConcurrencyShares"])
    }),
    Column::text("Queues", "How many queues it has.", |object, _| queuing(object, "queues")),
    Column::text("HandSize", "How many of them a flow may use.", |object, _| queuing(object, "handSize")),
    Column::text("QueueLengthLimit", "How many may wait in one queue.", |object, _| {
        queuing(object, "queueLengthLimit")
    }),
    AGE,
];

fn queuing(object: &Object, field: &str) -> Value {
    shown(object, &["spec", "limited", "limitResponse", "queuing", field])
}

fn shown(object: &Object, path: &[&str]) -> Value {
    object.number(path).map_or_else(|| "<none>".into(), Value::from)
}
