//! Watches: ordered, without gaps, without repetition, resumable.

use serde_json::json;

use crate::client::*;

fn pair(happened: &str, name: &str) -> (String, String) {
    (happened.to_string(), name.to_string())
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(watch.next().await, pair("ADDED", "a"));
    server.config_map("b", json!({})).await;
    assert_eq!(watch.next().await, pair("ADDED", "b"));
    server.patch(&format!("{CONFIG_MAPS}/a"), MERGE, &json!({"data": {"a": "2"}})).await.ok();
    assert_eq!(watch.next().await, pair("MODIFIED", "a"));
    server.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    assert_eq!(watch.next().await, pair("DELETED", "b"));
}

#[tokio::test]
async fn what_changes_while_the_beginning_is_told_is_told_as_well() {
    let server = Server::start().await;
    let name = |number: usize| format!("c{number:04}");
    // More than the server takes at once, and more than it takes twice.
    for number in 0..600 {
        server.config_map(&name(number), json!({})).await;
    }
    let options = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&{options}")).await;
    let mut known = std::collections::BTreeMap::new();
    for turn in 0.. {
        // Known ones and those to come, the same ones again and again among them.
        if turn % 50 == 20 && turn < 400 {
            let change = json!({"data": {"a": turn.to_string()}});
            for number in [3, turn / 2, 300, 599] {
                server.patch(&format!("{CONFIG_MAPS}/{}", name(number)), MERGE, &change).await;
            }
            server.delete(&format!("{CONFIG_MAPS}/{}", name(turn / 3))).await;
            server.delete(&format!("{CONFIG_MAPS}/{}", name(590 - turn / 3))).await;
            server.config_map(&format!("{}-new", name(turn / 4)), json!({})).await;
            server.config_map(&format!("{}-new", name(580 - turn / 4)), json!({})).await;
            // What is listed has been seen by the cache, which the watch reads.
            server.get(CONFIG_MAPS).await.ok();
        }
        let event = watch.event().await.unwrap();
        let (word, object) = (event["type"].as_str().unwrap(), event["object"].clone());
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_string();
        match word {
            "ADDED" => assert_eq!(known.insert(name, object), None, "watch_never_repeats"),
            "MODIFIED" => assert!(known.insert(name, object).is_some(), "watch_never_skips"),
            "DELETED" => assert!(known.remove(&name).is_some(), "nobody has heard of {name}"),
            _ => {
                let annotations = &event["object"]["metadata"]["annotations"];
                assert_eq!(annotations["k8s.io/initial-events-end"], "true");
                break;
            }
        }
    }
    let list = server.get(CONFIG_MAPS).await.ok();
    let listed: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|item| (&item["metadata"], &item["data"])).collect();
    let told: Vec<_> = known.values().map(|object| (&object["metadata"], &object["data"])).collect();
    assert_eq!(told, listed);
}

#[tokio::test]
async fn watch_resumes_and_never_skips_nor_repeats() {
    let server = Server::start().await;
    let first = server.config_map("c0", json!({})).await;
    for index in 1..100 {
        server.config_map(&format!("c{index}"), json!({})).await;
    }
    let mut position = version(&first).to_string();
    let mut seen = Vec::new();
    // Ten events a watch, then on from there.
    while seen.len() < 99 {
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={position}")).await;
        for _ in 0..10.min(99 - seen.len()) {
            let event = watch.event().await.unwrap();
            assert_eq!(event["type"], "ADDED");
            position = version(&event["object"]).to_string();
            seen.push(position.parse::<u64>().unwrap());
        }
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "watch_is_ordered: {seen:?}");
}

#[tokio::test]
async fn a_deleted_object_carries_the_revision_of_its_deletion() {
    let server = Server::start().await;
    let created = server.config_map("a", json!({})).await;
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", version(&created));
    let mut watch = server.watch(&path).await;
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["data"], created["data"]);
    let revision = |object| version(object).parse::<u64>().unwrap();
    assert!(revision(&event["object"]) > revision(&created));
}

#[tokio::test]
async fn selectors_turn_changes_into_additions_and_deletions() {
    let server = Server::start().await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&labelSelector=color%3Dred")).await;
    let path = format!("{CONFIG_MAPS}/a");
    let paint = |color: &str| json!({"metadata": {"labels": {"color": color}}});
    server.config_map("a", json!({"color": "blue"})).await;
    server.patch(&path, MERGE, &paint("red")).await.ok();
    assert_eq!(watch.next().await, pair("ADDED", "a"));
    server.patch(&path, MERGE, &json!({"data": {"a": "2"}})).await.ok();
    assert_eq!(watch.next().await, pair("MODIFIED", "a"));
    let blue = server.patch(&path, MERGE, &paint("blue")).await.ok();
    let event = watch.event().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["color"], "red");
    assert_eq!(version(&event["object"]), version(&blue));
    server.delete(&path).await.ok();
    server.config_map("b", json!({"color": "red"})).await;
    assert_eq!(watch.next().await, pair("ADDED", "b"));
}

#[tokio::test]
async fn one_object_can_be_watched() {
    let server = Server::start().await;
    let mut by_field = server.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    let mut by_path = server.watch(&format!("{CONFIG_MAPS}/b?watch=1")).await;
    let mut by_old_path = server.watch("/api/v1/watch/namespaces/default/configmaps/b").await;
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    for watch in [&mut by_field, &mut by_path, &mut by_old_path] {
        assert_eq!(watch.next().await, pair("ADDED", "b"));
    }
}

#[tokio::test]
async fn namespaces_do_not_mix() {
    let server = Server::start().await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    let mut all = server.watch("/api/v1/configmaps?watch=1").await;
    server.post("/api/v1/namespaces/default-2/configmaps", &json!({"metadata": {"name": "x"}})).await.ok();
    server.config_map("a", json!({})).await;
    assert_eq!(watch.next().await, pair("ADDED", "a"));
    assert_eq!(all.next().await, pair("ADDED", "x"));
}

#[tokio::test]
async fn bookmarks_tell_how_far_an_idle_watch_is() {
    let server = Server::start().await;
    let created = server.config_map("a", json!({})).await;
    server.get(CONFIG_MAPS).await.ok();
    // The store writes in a thread of its own, for which a paused clock would not wait.
    tokio::time::pause();
    let path =
        format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={}", version(&created));
    let mut watch = server.watch(&path).await;
    let event = watch.event().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(version(&event["object"]), version(&created));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_when_its_time_is_up() {
    let server = Server::start().await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=5")).await;
    assert_eq!(watch.event().await, None);
}

#[tokio::test]
async fn a_watch_ends_with_the_server() {
    let server = Server::start().await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds={}", i64::MAX)).await;
    server.stop.cancel();
    assert_eq!(watch.event().await, None);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.next().await, pair("ADDED", "a"));
    let end = watch.event().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.config_map("b", json!({})).await;
    assert_eq!(watch.next().await, pair("ADDED", "b"));
}

#[tokio::test]
async fn what_is_too_long_ago_is_gone() {
    let server = Server::start().await;
    // The cache is filled at the first look; what was before is not remembered.
    server.config_map("a", json!({})).await;
    server.post(PODS, &pod("a")).await.ok();
    let mut watch = server.watch(&format!("{PODS}?watch=1&resourceVersion=1")).await;
    let event = watch.event().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    assert_eq!(watch.event().await, None);
}

#[tokio::test]
async fn a_table_can_be_watched() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut watch = server.watch_as(&format!("{PODS}?watch=1"), accept).await;
    let event = watch.event().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn a_watch_may_begin_with_what_comes() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let query = "watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    server.config_map("b", json!({})).await;
    assert_eq!(watch.next().await, pair("ADDED", "b"));
}

#[tokio::test]
async fn a_watcher_that_does_not_read_costs_nothing_and_is_ended() {
    let server = Server::start().await;
    let created = server.config_map("a", json!({})).await;
    let mut slow =
        server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&created))).await;
    let mut quick =
        server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&created))).await;
    // More than is remembered of a kind; nobody waits for the one that does not read.
    for number in 0..40 {
        let patch = json!({"data": {"number": number.to_string(), "x": "y".repeat(900_000)}});
        server.patch(&format!("{CONFIG_MAPS}/a"), MERGE, &patch).await.ok();
        assert_eq!(quick.next().await, pair("MODIFIED", "a"));
    }
    let event = slow.event().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(slow.event().await, None);
}

#[tokio::test]
async fn a_thousand_watchers_see_one_change() {
    let server = Server::start().await;
    let mut watches = Vec::new();
    for _ in 0..1000 {
        watches.push(server.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Da")).await);
    }
    server.config_map("b", json!({})).await;
    server.config_map("a", json!({})).await;
    for watch in &mut watches {
        assert_eq!(watch.next().await, pair("ADDED", "a"));
    }
}
