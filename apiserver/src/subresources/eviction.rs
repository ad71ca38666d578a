//! `pods/eviction`: a deletion that asks the pod's disruption budgets first.

use api::{Kind, Object, Status, kinds, selector::LabelSelector, time};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    answer,
    hooks::Operation,
    registry::now,
    request::{DeleteOptions, WriteOptions},
    verbs::Call,
    write::{self, Write},
};

/// POST to a pod's `eviction`.
pub(crate) async fn create(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let query = WriteOptions::read(call.query, call.info.verb)?;
    let mut eviction = crate::verbs::object_without_kind(call, body).await?;
    if !eviction.name().is_empty() && eviction.name() != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = match eviction.at(&["deleteOptions"]).and_then(Value::as_object) {
        Some(options) => DeleteOptions::from_object(&Object(options.clone()))?,
        None => DeleteOptions::default(),
    };
    let write = call.write(query.dry_run || options.dry_run);
    let pod = call.registry().get(call.kind, call.namespace(), &call.info.name).await?;
    let mut warnings = write.mutate_admission(Operation::Create, &mut eviction).await?;
    warnings.extend(write.validate_admission(Operation::Create, Some(&eviction), None).await?);
    if !needs_no_budget(&pod) {
        take_from_budget(call, &pod, write.dry_run).await?;
    }
    // Admission has seen the eviction; as upstream, the deletion that follows is the server's own.
    let write = Write { subresource: "", hooks: None, ..write };
    warnings.extend(write::delete(&write, &options).await?.warnings);
    let answer =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    let mut response = answer::value(StatusCode::CREATED, &answer, &call.view()?.wanted)?;
    answer::warn(response.headers_mut(), &warnings);
    Ok(response)
}

/// Pods that no application depends on: not running yet, finished, or going already.
fn needs_no_budget(pod: &Object) -> bool {
    matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed" | "Pending")
        || pod.deletion_timestamp().is_some()
}

/// Lowers the allowance of the pod's budget; 429 when there is none left.
async fn take_from_budget(call: &Call<'_>, pod: &Object, dry_run: bool) -> Result<(), Status> {
    let kind = kinds::find("policy", "v1", "poddisruptionbudgets").ok_or_else(Status::no_such_resource)?;
    let budgets = call.registry().list(kind, Some(call.namespace())).await?;
    let mut budgets = budgets.into_iter().filter(|budget| is_for(budget, pod));
    let Some(budget) = budgets.next() else { return Ok(()) };
    if budgets.next().is_some() {
        return Err(Status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    if skips_unready(&budget) && !is_ready(pod) && !is_short(&budget) {
        return Ok(());
    }
    lower(call, kind, &budget, pod, dry_run).await
}

async fn lower(
    call: &Call<'_>,
    kind: &'static Kind,
    budget: &Object,
    pod: &Object,
    dry_run: bool,
) -> Result<(), Status> {
    let write = Write {
        subresource: "status",
        dry_run,
        ..Write::internal(call.registry(), call.user, kind, call.namespace(), budget.name())
    };
    write::update(&write, |budget| lowered(budget, pod.name())).await.map(drop)
}

/// The budget after one more disruption.
fn lowered(mut budget: Object, pod: &str) -> Result<Object, Status> {
    if budget.number(&["status", "observedGeneration"]).unwrap_or_default() < budget.generation() {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        let why = format!("The disruption budget {} is still being processed by the server.", budget.name());
        return Err(too_many(message, &why, Some(10)));
    }
    let allowed = budget.number(&["status", "disruptionsAllowed"]).unwrap_or_default();
    if allowed <= 0 {
        let number = |field| budget.number(&["status", field]).unwrap_or_default();
        let why = format!(
            "The disruption budget {} needs {} healthy pods and has {} currently",
            budget.name(),
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return Err(too_many(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            &why,
            None,
        ));
    }
    budget.set(&["status", "disruptionsAllowed"], allowed - 1);
    budget.map_mut(&["status", "disruptedPods"]).insert(pod.to_string(), time::format(now()).into());
    Ok(budget)
}

fn too_many(message: &str, why: &str, retry_after: Option<u64>) -> Status {
    let mut status = Status::new(429, "TooManyRequests", message);
    let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
    if let Some(seconds) = retry_after {
        details["retryAfterSeconds"] = seconds.into();
    }
    status.details = Some(details);
    status
}

fn is_for(budget: &Object, pod: &Object) -> bool {
    let selector = budget.at(&["spec", "selector"]).filter(|selector| !selector.is_null());
    let selector = selector.and_then(|selector| LabelSelector::from_json(selector).ok());
    selector.is_some_and(|selector| selector.matches_object(pod))
}

fn is_ready(pod: &Object) -> bool {
    pod.list(&["status", "conditions"])
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn skips_unready(budget: &Object) -> bool {
    matches!(budget.text(&["spec", "unhealthyPodEvictionPolicy"]), "" | "IfHealthyBudget" | "AlwaysAllow")
}

/// Whether fewer pods are healthy than must be; unready ones then count, unless always allowed.
fn is_short(budget: &Object) -> bool {
    let number = |field| budget.number(&["status", field]).unwrap_or_default();
    budget.text(&["spec", "unhealthyPodEvictionPolicy"]) != "AlwaysAllow"
        && (number("currentHealthy") < number("desiredHealthy") || number("desiredHealthy") == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64) -> Object {
        let status =
            json!({"disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2 + allowed});
        Object::from_value(json!({"metadata": {"name": "b"}, "status": status})).unwrap()
    }

    #[test]
    fn each_eviction_takes_one_disruption() {
        let after = lowered(budget(1), "a").unwrap();
        assert_eq!(after.number(&["status", "disruptionsAllowed"]), Some(0));
        assert!(after.at(&["status", "disruptedPods", "a"]).is_some());
        let refused = lowered(after, "b").unwrap_err();
        assert_eq!((refused.code, refused.reason), (429, "TooManyRequests"));
        let why = "The disruption budget b needs 2 healthy pods and has 3 currently";
        assert_eq!(refused.details.unwrap()["causes"][0]["message"], why);
    }
}
