//! Objects from one version to another by the webhook of their definition: `ConversionReview`.

use std::{sync::Arc, time::Duration};

use api::{Kind, Object, Status, crd::Conversion, items, meta};
use serde_json::{Value, json};

use crate::registry::{Registry, encode, entry::Entry};

/// How long a webhook may take; upstream's limit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Objects as `kind` has them. Those that are so already stay as they are.
pub(crate) async fn shown(
    registry: &Registry,
    kind: &'static Kind,
    entries: Vec<Arc<Entry>>,
) -> Result<Vec<Arc<Entry>>, Status> {
    let Some(version) = kind.custom.filter(|version| version.needs_webhook()) else { return Ok(entries) };
    let api_version = kind.api_version();
    let mut objects = Vec::new();
    let mut places = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let object = entry.decode_as(kind)?;
        if object.api_version() != api_version {
            objects.push(object);
            places.push(place);
        }
    }
    let mut entries = entries;
    let converted = convert(registry, kind, objects, &api_version).await?;
    for (place, mut object) in places.into_iter().zip(converted) {
        version.normalize(&mut object);
        let value = encode::value(kind, &object)?;
        entries[place] = Arc::new(entries[place].converted(&value)?);
    }
    Ok(entries)
}

/// The object as it is stored, where only the webhook knows how; else nothing.
pub(crate) async fn to_stored(
    registry: &Registry,
    kind: &'static Kind,
    object: &Object,
) -> Result<Option<Object>, Status> {
    let webhook = kind.custom.filter(|version| version.needs_webhook());
    let (Some(_), Some(stored)) = (webhook, kind.stored()) else { return Ok(None) };
    let converted = convert(registry, kind, vec![object.clone()], &stored.api_version()).await?;
    let Some(mut object) = converted.into_iter().next() else { return Ok(None) };
    if let Some(version) = stored.custom {
        version.normalize(&mut object);
    }
    Ok(Some(object))
}

/// The object as `kind` has it, where only the webhook knows how; else nothing.
pub(crate) async fn converted(
    registry: &Registry,
    kind: &'static Kind,
    object: &Object,
) -> Result<Option<Object>, Status> {
    let Some(version) = kind.custom.filter(|version| version.needs_webhook()) else { return Ok(None) };
    let converted = convert(registry, kind, vec![object.clone()], &kind.api_version()).await?;
    let Some(mut object) = converted.into_iter().next() else { return Ok(None) };
    version.normalize(&mut object);
    Ok(Some(object))
}

async fn convert(
    registry: &Registry,
    kind: &'static Kind,
    objects: Vec<Object>,
    desired: &str,
) -> Result<Vec<Object>, Status> {
    let Some(Conversion::Webhook(webhook)) = kind.custom.map(|version| &version.definition.conversion) else {
        return Ok(objects);
    };
    if objects.is_empty() {
        return Ok(objects);
    }
    let fail = |why: String| {
        Status::internal(format!(
            "conversion webhook for {}/{}, Kind={} failed: {why}",
            kind.group, kind.version, kind.kind
        ))
    };
    let known = |version: &&str| {
        webhook["conversionReviewVersions"].as_array().is_some_and(|all| all.iter().any(|one| one == version))
    };
    let review = ["v1", "v1beta1"].into_iter().find(|version| known(version)).unwrap_or("v1");
    let uid = uuid::Uuid::new_v4().to_string();
    let originals: Vec<Value> = objects.iter().cloned().map(Object::into_value).collect();
    let request = json!({
        "kind": "ConversionReview",
        "apiVersion": format!("apiextensions.k8s.io/{review}"),
        "request": {"uid": uid, "desiredAPIVersion": desired, "objects": originals},
    });
    let remotes = registry.remotes();
    let answer = remotes.call(registry, &webhook["clientConfig"], &request, PATIENCE).await;
    let answer = answer.map_err(|error| fail(error.plain()))?;
    let response = &answer["response"];
    if response["uid"] != uid.as_str() {
        return Err(fail(format!("expected response.uid={uid:?}, got {}", response["uid"])));
    }
    if response["result"]["status"] != "Success" {
        return Err(fail(response["result"]["message"].as_str().unwrap_or("no reason given").to_string()));
    }
    let converted = items(&response["convertedObjects"]);
    if converted.len() != objects.len() {
        return Err(fail(format!(
            "webhook returned {} objects, expected {}",
            converted.len(),
            objects.len()
        )));
    }
    let pairs = objects.into_iter().zip(converted.iter().cloned());
    pairs.map(|(original, converted)| checked(original, converted, desired).map_err(&fail)).collect()
}

/// A webhook converts; it may not make another object of it. Labels and annotations are its own business.
fn checked(original: Object, converted: Value, desired: &str) -> Result<Object, String> {
    let Some(mut object) = Object::from_value(converted) else { return Err("returned no object".into()) };
    if object.api_version() != desired {
        return Err(format!(
            "returned object has the wrong version: expected {desired}, got {}",
            object.api_version()
        ));
    }
    if object.kind() != original.kind() {
        return Err(format!("returned object has the wrong kind: {}", object.kind()));
    }
    for field in ["uid", "name", "namespace"] {
        if object.text(&["metadata", field]) != original.text(&["metadata", field]) {
            return Err(format!("metadata.{field} must not be changed"));
        }
    }
    let given = |field: &str| object.at(&["metadata", field]).cloned();
    let (labels, annotations) = (given("labels"), given("annotations"));
    object.set(&["metadata"], original.0.get("metadata").cloned().unwrap_or_default());
    for (field, value) in [("labels", labels), ("annotations", annotations)] {
        match value.filter(|value| value.as_object().is_some_and(|map| !map.is_empty())) {
            Some(Value::Object(map)) => {
                let faults = match field {
                    "labels" => meta::validate_labels(&map, "metadata.labels"),
                    _ => meta::validate_annotations(&map, "metadata.annotations"),
                };
                if let Some(fault) = faults.first() {
                    return Err(fault.to_string());
                }
                object.set(&["metadata", field], map);
            }
            _ => drop(object.remove(&["metadata", field])),
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn a_webhook_may_not_make_another_object_of_it() {
        let original = || {
            object(
                json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "uid": "1", "labels": {"x": "y"}}}),
            )
        };
        let good = json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a", "uid": "1", "labels": {"z": "1"}}, "spec": 1});
        let converted = checked(original(), good, "g/v2").unwrap();
        assert_eq!(converted.at(&["metadata", "labels"]), Some(&json!({"z": "1"})));
        for bad in [
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "uid": "1"}}),
            json!({"apiVersion": "g/v2", "kind": "L", "metadata": {"name": "a", "uid": "1"}}),
            json!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "b", "uid": "1"}}),
            json!([]),
        ] {
            assert!(checked(original(), bad, "g/v2").is_err());
        }
    }
}
