//! What a webhook gets to see of a request's object, and what a change to it means for the object.

use api::{Kind, Object, Scale, Status, decode, schema};
use serde_json::Value;

use crate::{hooks::Attributes, registry::Registry, subresources::scale};

/// What travels through a resource or subresource.
#[derive(Clone, Copy)]
pub(in crate::admission) enum Shape {
    /// The object itself, in the version that the webhook asks for.
    Object { own: &'static Kind, seen: &'static Kind },
    /// Its size.
    Scale(&'static Scale),
    /// Something else: a Binding, an Eviction, the options of a connection.
    Other,
}

impl Shape {
    pub(in crate::admission) fn of(attributes: &Attributes<'_>, seen: &'static Kind) -> Shape {
        match (attributes.subresource, attributes.kind.scale) {
            ("scale", Some(paths)) => Shape::Scale(paths),
            ("" | "status" | "approval" | "ephemeralcontainers" | "resize" | "finalize", _) => {
                Shape::Object { own: attributes.kind, seen }
            }
            _ => Shape::Other,
        }
    }

    /// The object as the webhook sees it; null when there is none.
    pub(in crate::admission) async fn show(
        self,
        registry: &Registry,
        object: Option<&Object>,
    ) -> Result<Value, Status> {
        let Some(object) = object else { return Ok(Value::Null) };
        match self {
            Shape::Object { own, seen } => Ok(registry.in_version(own, object, seen).await?.into_value()),
            Shape::Scale(paths) => Ok(scale::scale_of(object, paths).into_value()),
            Shape::Other => Ok(object.clone().into_value()),
        }
    }

    /// The object after the webhook has made `shown` of what it saw.
    pub(in crate::admission) async fn take(
        self,
        registry: &Registry,
        object: &Object,
        shown: Value,
    ) -> Result<Object, Status> {
        match self {
            Shape::Object { own, seen } => {
                let decoded = decode::check(shown, schema::of(seen)).map_err(Status::internal)?;
                let mut object = registry.in_version(seen, &decoded.object, own).await?;
                own.strategy.set_defaults(&mut object);
                Ok(object)
            }
            Shape::Scale(paths) => {
                let mut object = object.clone();
                object.set(paths.spec_replicas, shown["spec"]["replicas"].as_i64().unwrap_or_default());
                Ok(object)
            }
            Shape::Other => Object::from_value(shown)
                .ok_or_else(|| Status::internal("the patched object is not a JSON object")),
        }
    }
}
