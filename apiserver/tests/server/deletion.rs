//! DELETE: at once, after a while, when others have done their part.

use http::StatusCode;
use serde_json::json;

use crate::client::*;

#[tokio::test]
async fn an_object_that_nothing_holds_is_gone_at_once() {
    let server = Server::start().await;
    let created = server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let answer = server.delete(&path).await.ok();
    assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Success")));
    let details = json!({"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]});
    assert_eq!(answer["details"], details);
    assert_eq!(server.get(&path).await.code, StatusCode::NOT_FOUND);
    assert_eq!(server.delete(&path).await.failure().0, 404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_removed() {
    let server = Server::start().await;
    let object = json!({"metadata": {"name": "a", "finalizers": ["example.com/x", "example.com/y"]}});
    server.post(CONFIG_MAPS, &object).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let marked = server.delete(&path).await.ok();
    assert_eq!(marked["kind"], "ConfigMap");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    // A second DELETE changes nothing.
    assert_eq!(version(&server.delete(&path).await.ok()), version(&marked));
    let one = json!({"metadata": {"finalizers": ["example.com/y"]}});
    server.patch(&path, MERGE, &one).await.ok();
    // Nobody can call the deletion off.
    let revived = json!({"metadata": {"deletionTimestamp": null, "finalizers": ["example.com/y"]}});
    let still = server.patch(&path, MERGE, &revived).await.ok();
    assert_eq!(still["metadata"]["deletionTimestamp"], marked["metadata"]["deletionTimestamp"]);
    server.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(server.get(&path).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_propagation_policy_is_left_as_a_finalizer() {
    let server = Server::start().await;
    for (name, policy, finalizer) in [("a", "Foreground", "foregroundDeletion"), ("b", "Orphan", "orphan")] {
        server.config_map(name, json!({})).await;
        let path = format!("{CONFIG_MAPS}/{name}");
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        let marked = server.delete_with(&path, &options).await.ok();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        assert!(server.get(&path).await.code.is_success());
    }
    server.config_map("c", json!({})).await;
    server.delete(&format!("{CONFIG_MAPS}/c?propagationPolicy=Background")).await.ok();
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/c")).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_running_pod_gets_time_to_end() {
    let server = Server::start().await;
    let mut bound = pod("a");
    bound["spec"]["nodeName"] = "n1".into();
    bound["spec"]["terminationGracePeriodSeconds"] = 20.into();
    server.post(PODS, &bound).await.ok();
    let path = format!("{PODS}/a");
    let marked = server.delete(&path).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 20);
    let shorter = server.delete(&format!("{path}?gracePeriodSeconds=5")).await.ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = server.delete(&format!("{path}?gracePeriodSeconds=50")).await.ok();
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    let gone = server.delete_with(&path, &json!({"gracePeriodSeconds": 0})).await.ok();
    assert_eq!((&gone["kind"], &gone["metadata"]["name"]), (&json!("Pod"), &json!("a")));
    assert_eq!(server.get(&path).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pod_on_no_node_has_nothing_to_end() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    server.delete(&format!("{PODS}/a")).await.ok();
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn preconditions_are_checked() {
    let server = Server::start().await;
    let created = server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    for (preconditions, why) in [
        (json!({"uid": "other"}), "the UID in the precondition (other) does not match the UID in record ("),
        (
            json!({"resourceVersion": "1"}),
            "the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (",
        ),
    ] {
        let (code, reason, message) =
            server.delete_with(&path, &json!({"preconditions": preconditions})).await.failure();
        assert_eq!((code, reason.as_str()), (409, "Conflict"));
        assert!(message.contains(why), "{message}");
    }
    let preconditions = json!({"uid": created["metadata"]["uid"], "resourceVersion": version(&created)});
    server.delete_with(&path, &json!({"preconditions": preconditions})).await.ok();
}

#[tokio::test]
async fn a_namespace_is_finalized_before_it_goes() {
    let server = Server::start().await;
    let namespaces = "/api/v1/namespaces";
    let created = server.post(namespaces, &json!({"metadata": {"name": "a"}})).await.ok();
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created["status"]["phase"], "Active");
    let path = format!("{namespaces}/a");
    let mut marked = server.delete(&path).await.ok();
    assert_eq!(marked["status"]["phase"], "Terminating");
    marked["spec"]["finalizers"] = json!([]);
    server.put(&format!("{path}/finalize"), &marked).await.ok();
    assert_eq!(server.get(&path).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_query_may_say_which_object_is_meant_and_the_old_way_is_answered_as_of_old() {
    let server = Server::start().await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/x"]}});
    server.post(CONFIG_MAPS, &held).await.ok();
    let path = format!("{CONFIG_MAPS}/held");
    for (query, what) in [("uid=other", "UID"), ("resourceVersion=1", "ResourceVersion")] {
        let (code, reason, message) = server.delete(&format!("{path}?{query}")).await.failure();
        assert_eq!((code, reason.as_str()), (409, "Conflict"));
        assert!(message.contains(&format!("the {what} in the precondition")), "{message}");
    }
    let begun = server.delete(&format!("{path}?orphanDependents=false")).await;
    assert_eq!(begun.code, StatusCode::ACCEPTED);
    let again = server.delete_with(&path, &json!({"orphanDependents": false})).await;
    assert_eq!(again.code, StatusCode::ACCEPTED);
    assert_eq!(server.delete(&path).await.code, StatusCode::OK);
}

#[tokio::test]
async fn a_deleted_collection_is_shown_as_it_was_found() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let orphaned = server.delete(&format!("{CONFIG_MAPS}?propagationPolicy=Orphan")).await.ok();
    let items = orphaned["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0]["metadata"]["finalizers"], json!(null));
    let held = server.get(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!(held["metadata"]["finalizers"], json!(["orphan"]));
    let mut freed = held.clone();
    freed["metadata"]["finalizers"] = json!([]);
    let freed = server.put(&format!("{CONFIG_MAPS}/a"), &freed).await.ok();
    assert_eq!(freed["metadata"]["finalizers"], json!(null), "the client sees what it has made of it");
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, StatusCode::NOT_FOUND);
}
