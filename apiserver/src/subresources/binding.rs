//! `pods/binding`: the scheduler's word to which node a pod belongs.

use api::{FieldError, Object, Status, kinds, time};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    answer,
    hooks::Operation,
    registry::now,
    request::WriteOptions,
    verbs::Call,
    write::{self, Manager, Write},
};

/// POST to a pod's `binding`.
pub(crate) async fn create(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(call.query, call.info.verb)?;
    let (binding, _) = call.object_of(kinds::built_in("", "bindings"), body, options.validation).await?;
    bind(call, &binding, options.dry_run).await
}

/// Binds the pod that `binding` names, or the URL.
pub(crate) async fn bind(call: &Call<'_>, binding: &Object, dry_run: bool) -> Result<Response<Body>, Status> {
    let name = if call.info.name.is_empty() { binding.name() } else { &call.info.name };
    let write =
        Write { kind: kinds::built_in("", "pods"), name, subresource: "binding", ..call.write(dry_run) };
    let mut binding = binding.clone();
    let mut warnings = write.mutate_admission(Operation::Create, &mut binding).await?;
    check(&binding, name)?;
    warnings.extend(write.validate_admission(Operation::Create, Some(&binding), None).await?);
    // The pod itself changes by the server's own hand: who may bind may do this.
    let write = Write { hooks: None, manager: Manager::Nobody, ..write };
    write::update(&write, |pod| bound(pod, &binding)).await?;
    let answer =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    let mut response = answer::value(StatusCode::CREATED, &answer, &call.view()?.wanted)?;
    answer::warn(response.headers_mut(), &warnings);
    Ok(response)
}

fn check(binding: &Object, name: &str) -> Result<(), Status> {
    if binding.name() != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let mut errors = Vec::new();
    let kind = binding.at(&["target", "kind"]).cloned().unwrap_or_default();
    if !matches!(kind.as_str(), None | Some("" | "Node")) {
        errors.push(FieldError::not_supported("target.kind", &kind, &["Node", "<empty>"]).to_string());
    }
    if binding.text(&["target", "name"]).is_empty() {
        errors.push(FieldError::required("target.name", "").to_string());
    }
    // Upstream tells these faults as its own failure.
    match errors.as_slice() {
        [] if name.is_empty() => Err(Status::bad_request("Name parameter required.")),
        [] => Ok(()),
        [one] => Err(Status::new(500, "", one)),
        several => Err(Status::new(500, "", format!("[{}]", several.join(", ")))),
    }
}

/// The pod, bound. A pod is bound once.
fn bound(mut pod: Object, binding: &Object) -> Result<Object, Status> {
    let conflict = |why: String| Err(Status::conflict("", "pods/binding", pod.name(), &why));
    let node = binding.text(&["target", "name"]);
    let name = pod.name();
    if pod.deletion_timestamp().is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let assigned = pod.text(&["spec", "nodeName"]);
    if !assigned.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {assigned:?}"));
    }
    if !pod.list(&["spec", "schedulingGates"]).is_empty() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (wanted, actual) = (binding.text(&["metadata", field]), pod.text(&["metadata", field]));
        if !wanted.is_empty() && wanted != actual {
            return conflict(format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}"
            ));
        }
    }
    pod.set(&["spec", "nodeName"], node);
    for field in ["annotations", "labels"] {
        let added = binding.at(&["metadata", field]).and_then(Value::as_object);
        for (key, value) in added.into_iter().flatten() {
            pod.map_mut(&["metadata", field]).insert(key.clone(), value.clone());
        }
    }
    set_scheduled(&mut pod);
    Ok(pod)
}

fn set_scheduled(pod: &mut Object) {
    let generation = pod.generation();
    let mut condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": time::format(now()),
    });
    if generation > 0 {
        condition["observedGeneration"] = generation.into();
    }
    let conditions = pod.map_mut(&["status"]).entry("conditions").or_insert_with(|| Value::Array(Vec::new()));
    let Some(conditions) = conditions.as_array_mut() else { return };
    match conditions.iter_mut().find(|known| known["type"] == "PodScheduled") {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_is_bound_once() {
        let binding = object(
            json!({"metadata": {"name": "a", "annotations": {"x": "1"}}, "target": {"kind": "Node", "name": "n1"}}),
        );
        let pod = object(
            json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}}),
        );
        let pod = bound(pod, &binding).unwrap();
        assert_eq!(pod.text(&["spec", "nodeName"]), "n1");
        assert_eq!(pod.annotation("x"), Some("1"));
        assert_eq!(pod.list(&["status", "conditions"]).len(), 1);
        assert_eq!(pod.list(&["status", "conditions"])[0]["status"], "True");
        let again = bound(pod, &binding).unwrap_err();
        assert_eq!((again.code, again.reason), (409, "Conflict"));
        assert!(again.message.contains("pod a is already assigned to node \"n1\""), "{}", again.message);
    }
}
