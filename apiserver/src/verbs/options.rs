//! The options of a write as an object, as admission shows them to webhooks, and how long a write may take.

use std::time::Duration;

use api::{Object, Status, cel::duration};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::request::Query;

/// The group and version of options.
pub(super) const API_VERSION: &str = "meta.k8s.io/v1";

/// How long a request may take that does not say, and at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options that the query of a write has; null for what is no write, and for deletions, whose options may come in
/// their body.
pub(super) fn of_write(verb: &str, query: &Query) -> Value {
    let kind = match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        _ => return Value::Null,
    };
    let mut options = begun(kind, &["fieldManager", "fieldValidation"], query);
    if verb == "patch" && query.get("force").is_some() {
        options.set(&["force"], query.is_true("force"));
    }
    options.into_value()
}

/// The options that the query of a deletion has.
pub(super) fn of_deletion(query: &Query) -> Result<Object, Status> {
    let mut options = begun("DeleteOptions", &["propagationPolicy"], query);
    if let Some(seconds) = query.number("gracePeriodSeconds")? {
        options.set(&["gracePeriodSeconds"], seconds);
    }
    if query.get("orphanDependents").is_some() {
        options.set(&["orphanDependents"], query.is_true("orphanDependents"));
    }
    for field in ["uid", "resourceVersion"] {
        if let Some(text) = query.get(field) {
            options.set(&["preconditions", field], text);
        }
    }
    Ok(options)
}

/// What all options have, and such texts as are given.
fn begun(kind: &str, texts: &[&str], query: &Query) -> Object {
    let mut options = Object::default();
    options.set(&["kind"], kind);
    options.set(&["apiVersion"], API_VERSION);
    for field in texts {
        if let Some(text) = query.get(field) {
            options.set(&[*field], text);
        }
    }
    let dry_run: Vec<&str> = query.all("dryRun").collect();
    if !dry_run.is_empty() {
        options.set(&["dryRun"], json!(dry_run));
    }
    options
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
    use crate::request::{DeleteOptions, Propagation};

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
        assert_eq!(of_write("get", &query("")), Value::Null);
        assert_eq!(
            of_deletion(&query("gracePeriodSeconds=5&uid=u&orphanDependents=false")).unwrap().into_value(),
            json!({
                "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1",
                "gracePeriodSeconds": 5, "orphanDependents": false, "preconditions": {"uid": "u"},
            })
        );
        assert_eq!(of_deletion(&query("gracePeriodSeconds=soon")).unwrap_err().code, 400);
    }

    #[test]
    fn orphan_dependents_is_the_old_name_of_a_policy() {
        let read = |text: &str| DeleteOptions::from_object(&of_deletion(&query(text)).unwrap());
        assert_eq!(read("orphanDependents=true").unwrap().propagation, Some(Propagation::Orphan));
        assert!(read("orphanDependents=true&propagationPolicy=Orphan").is_err());
        assert!(read("propagationPolicy=Later").is_err());
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
