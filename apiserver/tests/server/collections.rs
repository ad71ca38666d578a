//! Lists: selectors, pages, revisions, forms; and their deletion.

use http::{Request, StatusCode, header};
use serde_json::{Value, json};

use crate::{client::*, cluster::Cluster};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_list_is_what_was_written() {
    let server = Server::start().await;
    let empty = server.get(CONFIG_MAPS).await.ok();
    assert_eq!((&empty["kind"], &empty["items"]), (&json!("ConfigMapList"), &json!([])));
    for (name, color) in [("b", "red"), ("a", "blue"), ("c", "red")] {
        server.config_map(name, json!({"color": color})).await;
    }
    let other = json!({"metadata": {"name": "z"}});
    server.post("/api/v1/namespaces/other/configmaps", &other).await.ok();
    assert_eq!(names(&server.get(CONFIG_MAPS).await.ok()), ["a", "b", "c"]);
    assert_eq!(names(&server.get("/api/v1/configmaps").await.ok()), ["a", "b", "c", "z"]);
    for (selector, expected) in [
        ("labelSelector=color%3Dred", vec!["b", "c"]),
        ("labelSelector=color%21%3Dred", vec!["a"]),
        ("labelSelector=color%20in%20(red,blue)", vec!["a", "b", "c"]),
        ("labelSelector=%21color", vec![]),
        ("fieldSelector=metadata.name%3Da", vec!["a"]),
        ("fieldSelector=metadata.name%21%3Da", vec!["b", "c"]),
        ("labelSelector=color%3Dred&fieldSelector=metadata.name%3Da", vec![]),
    ] {
        assert_eq!(
            names(&server.get(&format!("{CONFIG_MAPS}?{selector}")).await.ok()),
            expected,
            "{selector}"
        );
    }
}

#[tokio::test]
async fn pods_are_selected_by_their_fields() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let mut bound = pod("b");
    bound["spec"]["nodeName"] = "n1".into();
    server.post(PODS, &bound).await.ok();
    let list = |selector: &'static str| {
        let server = &server;
        async move { server.get(&format!("{PODS}?fieldSelector={selector}")).await }
    };
    assert_eq!(names(&list("spec.nodeName%3Dn1").await.ok()), ["b"]);
    assert_eq!(names(&list("spec.nodeName%3D").await.ok()), ["a"]);
    assert_eq!(names(&list("status.phase%3DPending").await.ok()), ["a", "b"]);
    let unknown = list("spec.color%3Dred").await.failure();
    assert_eq!(unknown, (400, "BadRequest".into(), "field label not supported: spec.color".into()));
}

#[tokio::test]
async fn pages_are_of_one_moment() {
    let server = Server::start().await;
    for index in 0..10 {
        server.config_map(&format!("c{index}"), json!({})).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=4")).await.ok();
    assert_eq!(names(&first), ["c0", "c1", "c2", "c3"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    // What happens between two pages is not seen.
    server.delete(&format!("{CONFIG_MAPS}/c5")).await.ok();
    server.config_map("c9a", json!({})).await;
    let mut seen: Vec<String> = Vec::new();
    let mut token = first["metadata"]["continue"].as_str().unwrap().to_string();
    while !token.is_empty() {
        let page = server.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.ok();
        assert_eq!(version(&page), version(&first));
        seen.extend(names(&page).into_iter().map(str::to_string));
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_string();
    }
    assert_eq!(seen, ["c4", "c5", "c6", "c7", "c8", "c9"]);
    let wrong = server.get(&format!("{CONFIG_MAPS}?limit=4&continue=abc")).await.failure();
    assert_eq!((wrong.0, wrong.1.as_str()), (400, "BadRequest"));
}

#[tokio::test]
async fn a_list_can_be_asked_for_at_a_revision() {
    let server = Server::start().await;
    let first = server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    let exact = format!("{CONFIG_MAPS}?resourceVersion={}&resourceVersionMatch=Exact", version(&first));
    let list = server.get(&exact).await.ok();
    assert_eq!((names(&list), version(&list)), (vec!["a"], version(&first)));
    let at_least =
        format!("{CONFIG_MAPS}?resourceVersion={}&resourceVersionMatch=NotOlderThan", version(&first));
    assert_eq!(names(&server.get(&at_least).await.ok()), ["a", "b"]);
    assert_eq!(names(&server.get(&format!("{CONFIG_MAPS}?resourceVersion=0")).await.ok()), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_never_comes_is_refused() {
    let server = Server::start().await;
    let (code, reason, message) =
        server.get(&format!("{CONFIG_MAPS}?resourceVersion=1000000")).await.failure();
    assert_eq!((code, reason.as_str()), (504, "Timeout"));
    assert!(message.starts_with("Timeout: Too large resource version: 1000000, current: "), "{message}");
    let answer = server.get(&format!("{CONFIG_MAPS}?resourceVersion=1000000")).await;
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    assert_eq!(answer.json()["details"], json!({"causes": [cause], "retryAfterSeconds": 1}));
}

#[tokio::test]
async fn how_many_are_left_is_told_unless_they_are_selected() {
    let server = Server::start().await;
    for index in 0..7 {
        server.config_map(&format!("c{index}"), json!({"color": "red"})).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(first["metadata"]["remainingItemCount"], 5);
    // From the store: the cache has moved on.
    server.config_map("d", json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!((names(&second), &second["metadata"]["remainingItemCount"]), (vec!["c2", "c3"], &json!(3)));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = server.get(&format!("{CONFIG_MAPS}?limit=5&continue={token}")).await.ok();
    assert_eq!(names(&last), ["c4", "c5", "c6"]);
    assert_eq!(last["metadata"], json!({"resourceVersion": version(&first)}));
    let selected = server.get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=color%3Dred")).await.ok();
    assert!(selected["metadata"]["continue"].is_string());
    assert!(selected["metadata"].get("remainingItemCount").is_none());
}

#[tokio::test]
async fn a_list_whose_moment_is_forgotten_can_go_on_inconsistently() {
    let cluster = Cluster::start().await;
    let server = cluster.admin();
    for index in 0..6 {
        server.config_map(&format!("c{index}"), json!({})).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    let token = first["metadata"]["continue"].as_str().unwrap();
    server.delete(&format!("{CONFIG_MAPS}/c3")).await.ok();
    cluster.store.compact(cluster.store.revision().await.unwrap()).await.unwrap();
    let gone = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    let next = gone.json()["metadata"]["continue"].as_str().unwrap().to_string();
    let (code, reason, message) = gone.failure();
    assert_eq!((code, reason.as_str()), (410, "Expired"));
    assert!(message.starts_with("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response"), "{message}");
    let second = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={next}")).await.ok();
    assert_eq!(names(&second), ["c2", "c4"]);
    assert_ne!(version(&second), version(&first));
    let exact = format!("{CONFIG_MAPS}?resourceVersionMatch=Exact&resourceVersion={}", version(&first));
    let (code, _, message) = server.get(&exact).await.failure();
    assert_eq!((code, message.as_str()), (410, "The resourceVersion for the provided list is too old."));
}

#[tokio::test]
async fn a_list_comes_in_the_form_that_is_accepted() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let table =
        server.get_as(PODS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.ok();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let metadata = server.get_as(PODS, accept).await.ok();
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    assert_eq!(metadata["items"][0]["metadata"]["name"], "a");
    assert!(metadata["items"][0].get("spec").is_none());
    let yaml = server.get_as(&format!("{PODS}/a"), "application/yaml").await;
    assert_eq!(yaml.headers[header::CONTENT_TYPE], "application/yaml");
    let yaml: Value = serde_yaml::from_slice(&yaml.bytes).unwrap();
    assert_eq!(yaml["metadata"]["name"], "a");
    let pretty = server.get(&format!("{PODS}/a?pretty=true")).await;
    assert!(pretty.bytes.starts_with(b"{\n  \""), "{:?}", pretty.bytes);
    let refused = server.get_as(PODS, "text/html").await.failure();
    assert_eq!((refused.0, refused.1.as_str()), (406, "NotAcceptable"));
}

#[tokio::test]
async fn a_long_list_is_packed_for_those_who_can_unpack() {
    let server = Server::start().await;
    for index in 0..20 {
        let object = json!({"metadata": {"name": format!("c{index}")}, "data": {"x": "y".repeat(20_000)}});
        server.post(CONFIG_MAPS, &object).await.ok();
    }
    let plain = server.get(CONFIG_MAPS).await;
    let request =
        Request::get(CONFIG_MAPS).header(header::ACCEPT_ENCODING, "gzip").body(axum::body::Body::empty());
    let packed = server.send(request.unwrap()).await;
    assert_eq!(packed.headers[header::CONTENT_ENCODING], "gzip");
    assert!(packed.bytes.len() * 10 < plain.bytes.len());
    let mut unpacked = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(&packed.bytes[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain.bytes);
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_it_is_meant() {
    let server = Server::start().await;
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        server.config_map(name, json!({"color": color})).await;
    }
    let deleted = server.delete(&format!("{CONFIG_MAPS}?labelSelector=color%3Dred")).await;
    assert_eq!(deleted.code, StatusCode::OK);
    assert_eq!(names(&deleted.ok()), ["a", "c"]);
    assert_eq!(names(&server.get(CONFIG_MAPS).await.ok()), ["b"]);
}
