//! The options of a write as an object, as admission shows them to webhooks, and how long a write may take.

use std::time::Duration;

use api::{Status, cel::duration};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::request::Query;

/// The group and version of options.
pub(super) const API_VERSION: &str = "meta.k8s.io/v1";

/// How long a request may take that does not say, and at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options that the query of a write has; null for what is no write.
pub(super) fn of_write(verb: &str, query: &Query) -> Value {
    let (kind, texts): (_, &[&str]) = match verb {
        "create" => ("CreateOptions", &["fieldManager", "fieldValidation"]),
        "update" => ("UpdateOptions", &["fieldManager", "fieldValidation"]),
        "patch" => ("PatchOptions", &["fieldManager", "fieldValidation"]),
        "delete" | "deletecollection" => ("DeleteOptions", &["propagationPolicy"]),
        _ => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": API_VERSION});
    for field in texts {
        if let Some(text) = query.get(field) {
            options[*field] = text.into();
        }
    }
    let dry_run: Vec<&str> = query.all("dryRun").collect();
    if !dry_run.is_empty() {
        options["dryRun"] = json!(dry_run);
    }
    if verb == "patch" && query.get("force").is_some() {
        options["force"] = query.is_true("force").into();
    }
    if kind == "DeleteOptions" {
        add_deletion(&mut options, query);
    }
    options
}

/// What only a deletion is asked.
fn add_deletion(options: &mut Value, query: &Query) {
    if let Some(seconds) = query.get("gracePeriodSeconds").and_then(|text| text.parse::<i64>().ok()) {
        options["gracePeriodSeconds"] = seconds.into();
    }
    if query.get("orphanDependents").is_some() {
        options["orphanDependents"] = query.is_true("orphanDependents").into();
    }
    for field in ["uid", "resourceVersion"] {
        if let Some(text) = query.get(field) {
            options["preconditions"][field] = text.into();
        }
    }
}

/// When the client has to have an answer: `timeout`, as Go writes durations, or the usual time.
pub(super) fn deadline(query: &Query) -> Result<Instant, Status> {
    let Some(text) = query.get("timeout") else { return Ok(Instant::now() + PATIENCE) };
    let wrong = || {
        Status::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {text:?}"
        ))
    };
    let given = duration::parse(text).map_err(|_| wrong())?;
    let given = Duration::try_from(given).map_err(|_| wrong())?;
    // As upstream, zero means the usual time.
    let patience = if given.is_zero() { PATIENCE } else { given.min(PATIENCE) };
    Ok(Instant::now() + patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/api/v1/pods?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn options_are_what_the_query_says() {
        assert_eq!(
            of_write("patch", &query("fieldManager=me&force=true&dryRun=All&pretty=true")),
            json!({
                "kind": "PatchOptions", "apiVersion": "meta.k8s.io/v1",
                "fieldManager": "me", "force": true, "dryRun": ["All"],
            })
        );
        assert_eq!(of_write("delete", &query("gracePeriodSeconds=5"))["gracePeriodSeconds"], 5);
        assert_eq!(of_write("get", &query("")), Value::Null);
    }

    #[test]
    fn a_client_may_have_less_time_but_not_more() {
        let left = |text| deadline(&query(text)).unwrap().duration_since(Instant::now());
        assert!(left("timeout=5s") <= Duration::from_secs(5));
        assert!(left("timeout=1h") <= PATIENCE && left("timeout=1h") > Duration::from_secs(50));
        assert!(left("timeout=0s") > Duration::from_secs(50));
        assert_eq!(deadline(&query("timeout=soon")).unwrap_err().code, 400);
    }
}
