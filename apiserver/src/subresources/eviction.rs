//! `pods/eviction`: a deletion that asks the pod's disruption budgets first.

use api::{Kind, Object, Status, kinds, selector::LabelSelector, time};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::{
    answer,
    hooks::Operation,
    registry::now,
    request::{DeleteOptions, WriteOptions},
    verbs::Call,
    write::{self, Write},
};

const VIOLATED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// A budget with more evictions than these that its controller has not seen yet allows no further ones.
const MOST_DISRUPTED: usize = 2000;
/// How often an eviction begins again because the pod changed meanwhile.
const ATTEMPTS: usize = 20;

/// POST to a pod's `eviction`.
pub(crate) async fn create(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let query = WriteOptions::read(call.query, call.info.verb)?;
    let (mut eviction, mut warnings) = call.eviction(body, query.validation).await?;
    // Whatever it says, nothing happens when one of the two places asks for a dry run.
    let is_dry = query.dry_run || !eviction.list(&["deleteOptions", "dryRun"]).is_empty();
    let write = call.write(is_dry);
    warnings.extend(write.mutate_admission(Operation::Create, &mut eviction).await?);
    if eviction.name() != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    check_dry_run(&eviction, query.dry_run)?;
    let options = match eviction.at(&["deleteOptions"]).and_then(Value::as_object) {
        Some(options) => DeleteOptions::from_object(&Object(options.clone()))?,
        None => DeleteOptions::default(),
    };
    warnings.extend(write.validate_admission(Operation::Create, Some(&eviction), None).await?);
    let evicted = evict(call, write, options).await?;
    warnings.extend(evicted);
    let answer =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    let mut response = answer::value(StatusCode::CREATED, &answer, &call.view()?.wanted)?;
    answer::warn(response.headers_mut(), &warnings);
    Ok(response)
}

/// The query and the eviction may both ask for a dry run, but not for different ones.
fn check_dry_run(eviction: &Object, is_dry: bool) -> Result<(), Status> {
    let wanted = eviction.list(&["deleteOptions", "dryRun"]);
    if !is_dry || wanted.is_empty() || wanted == [json!("All")] {
        return Ok(());
    }
    let words: Vec<&str> = wanted.iter().filter_map(Value::as_str).collect();
    let words = words.join(" ");
    let why = format!("Non-matching dry-run options in request and content: [All] and [{words}]");
    Err(Status::new(500, "", why))
}

/// Deletes the pod as soon as its budget allows it. A pod that its budget does not count yet is deleted as it was
/// seen: should it become ready meanwhile, the budget has to be asked after all.
async fn evict(call: &Call<'_>, write: Write<'_>, options: DeleteOptions) -> Result<Vec<String>, Status> {
    // Admission has seen the eviction; as upstream, the deletion that follows is the server's own.
    let write = Write { subresource: "", hooks: None, ..write };
    for _ in 0..ATTEMPTS {
        let pod = call.registry().get(call.kind, call.namespace(), &call.info.name).await?;
        let is_settled = match needs_no_budget(&pod) {
            true => is_over(&pod),
            false => take_from_budget(call, &pod, write.dry_run).await?,
        };
        let mut options = options.clone();
        let is_pinned = !is_settled && options.resource_version.is_none();
        if is_pinned {
            options.resource_version = Some(pod.resource_version().to_string());
        }
        match write::delete(&write, &options).await {
            Err(status) if is_pinned && status.code == 409 && is_meant(&options, &pod) => {}
            deleted => return Ok(deleted?.warnings),
        }
    }
    Err(too_many(VIOLATED, "The pod keeps changing.", Some(10)))
}

/// Whether the deletion failed for the version alone.
fn is_meant(options: &DeleteOptions, pod: &Object) -> bool {
    options.uid.as_deref().is_none_or(|uid| uid == pod.uid())
}

/// Pods that no application depends on: not running yet, finished, or going already.
fn needs_no_budget(pod: &Object) -> bool {
    pod.text(&["status", "phase"]) == "Pending" || is_over(pod)
}

/// Pods that never become ready again.
fn is_over(pod: &Object) -> bool {
    matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed") || pod.deletion_timestamp().is_some()
}

/// Lowers the allowance of the pod's budget; 429 when there is none left. `false`: the pod is not ready, and its budget
/// does not mind for as long as it is not.
async fn take_from_budget(call: &Call<'_>, pod: &Object, dry_run: bool) -> Result<bool, Status> {
    let kind = kinds::built_in("policy", "poddisruptionbudgets");
    let budgets = call.registry().list(kind, Some(call.namespace())).await?;
    let mut budgets = budgets.into_iter().filter(|budget| is_for(budget, pod));
    let Some(budget) = budgets.next() else { return Ok(true) };
    if budgets.next().is_some() {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::new(500, "", why));
    }
    if skips_unready(&budget) && !is_ready(pod) && !is_short(&budget) {
        return Ok(false);
    }
    lower(call, kind, &budget, pod, dry_run).await?;
    Ok(true)
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
        let why = format!("The disruption budget {} is still being processed by the server.", budget.name());
        return Err(too_many(VIOLATED, &why, Some(10)));
    }
    let allowed = budget.number(&["status", "disruptionsAllowed"]).unwrap_or_default();
    let disrupted = budget.at(&["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, Map::len);
    let refused = match disrupted {
        _ if allowed < 0 => Some("pdb disruptions allowed is negative"),
        ..=MOST_DISRUPTED => None,
        _ => Some("DisruptedPods map too big - too many evictions not confirmed by PDB controller"),
    };
    if let Some(why) = refused {
        return Err(Status::forbidden("policy", "poddisruptionbudget", budget.name(), why));
    }
    if allowed == 0 {
        let number = |field| budget.number(&["status", field]).unwrap_or_default();
        let why = format!(
            "The disruption budget {} needs {} healthy pods and has {} currently",
            budget.name(),
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return Err(too_many(VIOLATED, &why, None));
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
        let wrong = lowered(budget(-1), "a").unwrap_err();
        assert_eq!((wrong.code, wrong.reason), (403, "Forbidden"));
        let message = "poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative";
        assert_eq!(wrong.message, message);
    }
}
