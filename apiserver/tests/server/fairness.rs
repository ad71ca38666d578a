//! API Priority and Fairness, as clients see it.

use std::time::Duration;

use apiserver::{Limits, request::User};
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{client::*, cluster::Cluster};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

fn alice() -> User {
    User::new("alice", &["system:authenticated"])
}

/// A body that never comes.
fn never() -> Body {
    Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>())
}

#[tokio::test]
async fn who_finds_no_seat_is_told_to_come_back_and_who_is_exempt_needs_none() {
    let server = Server::start_with(Limits { requests: 1 }).await;
    let alice = server.as_user(alice());
    let mut slow = Box::pin(alice.raw(Method::POST, CONFIG_MAPS, JSON, never()));
    // It is under way as soon as it has been looked at once: nothing before its body takes time.
    assert!(futures::poll!(&mut slow).is_pending());
    let refused = alice.get(CONFIG_MAPS).await;
    assert_eq!(refused.code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers[header::RETRY_AFTER], "1");
    assert_eq!(refused.bytes, "Too many requests, please try again later.\n");
    assert_eq!(server.get(CONFIG_MAPS).await.code, StatusCode::OK, "an administrator is exempt");
    drop(slow);
    assert_eq!(alice.get(CONFIG_MAPS).await.code, StatusCode::OK, "the seat is free again");
}

#[tokio::test]
async fn a_watch_takes_its_seat_only_until_it_has_begun() {
    let server = Server::start_with(Limits { requests: 1 }).await;
    let alice = server.as_user(alice());
    let _first = alice.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    let _second = alice.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(alice.get(CONFIG_MAPS).await.code, StatusCode::OK);
}

#[tokio::test]
async fn an_answer_says_by_whom_the_request_was_classified() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_string();
    let schema = uid(&admin.get(&format!("{SCHEMAS}/global-default")).await.ok());
    let level = uid(&admin.get(&format!("{LEVELS}/global-default")).await.ok());
    let told = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            // Until the server has read its configuration.
            let answer = cluster.user("alice").get("/api/v1/nodes").await;
            if answer.headers.contains_key("x-kubernetes-pf-flowschema-uid") {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    });
    let told = told.await.unwrap();
    assert_eq!(told.headers["x-kubernetes-pf-flowschema-uid"], schema);
    assert_eq!(told.headers["x-kubernetes-pf-prioritylevel-uid"], level);
    assert_eq!(told.code, StatusCode::FORBIDDEN, "also where the answer is a refusal");
}

#[tokio::test]
async fn a_schema_says_whether_it_leads_anywhere() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let all = admin.get(SCHEMAS).await.ok();
    let items = all["items"].as_array().unwrap();
    assert_eq!(items.len(), 13);
    for schema in items {
        assert_eq!(schema["status"]["conditions"][0]["status"], "False", "{schema}");
    }
    let mut watch = admin.watch(&format!("{SCHEMAS}?watch=1&fieldSelector=metadata.name%3Dlost")).await;
    let schema = json!({
        "metadata": {"name": "lost"},
        "spec": {"priorityLevelConfiguration": {"name": "nowhere"}, "matchingPrecedence": 50},
    });
    admin.post(SCHEMAS, &schema).await.ok();
    let dangling = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let event = watch.event().await.unwrap();
            if let Some(condition) = event["object"]["status"]["conditions"].get(0) {
                return condition.clone();
            }
        }
    });
    let dangling = dangling.await.unwrap();
    assert_eq!((&dangling["type"], &dangling["status"]), (&json!("Dangling"), &json!("True")));
    assert_eq!(dangling["reason"], "NotFound");
    let table =
        admin.get_as(&format!("{SCHEMAS}/lost"), "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!((&cells[1], &cells[2], &cells[3]), (&json!("nowhere"), &json!(50), &json!("<none>")));
    assert_eq!(cells[5], "True");
}

#[tokio::test]
async fn what_happens_inside_can_be_looked_at() {
    let server = Server::start().await;
    for (page, header) in [
        ("dump_priority_levels", "PriorityLevelName, ActiveQueues, "),
        ("dump_queues", "PriorityLevelName, Index, "),
        ("dump_requests", "PriorityLevelName, FlowSchemaName, "),
    ] {
        let answer = server.get(&format!("/debug/api_priority_and_fairness/{page}")).await;
        assert_eq!(answer.code, StatusCode::OK);
        assert!(answer.bytes.starts_with(header.as_bytes()), "{answer:?}");
    }
    let metrics = server.get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.bytes).into_owned();
    assert!(text.contains("apiserver_flowcontrol_dispatched_requests_total{"), "{text}");
}
