//! Versions of a custom resource that only a webhook can turn into one another.

use serde_json::{Value, json};

use crate::{client::*, remote::Remote};

const V1: &str = "/apis/example.com/v1/namespaces/default/gates";
const V2: &str = "/apis/example.com/v2/namespaces/default/gates";

/// For this webhook version 1 has `spec.hostPort`, version 2 `spec.host` and `spec.port`.
fn review(review: &Value) -> Value {
    let desired = review["request"]["desiredAPIVersion"].as_str().unwrap();
    let objects = review["request"]["objects"].as_array().unwrap().clone();
    let refuses = objects.iter().any(|object| object["metadata"]["name"] == "refused");
    let convert = |mut object: Value| {
        object["apiVersion"] = desired.into();
        let spec = &object["spec"];
        object["spec"] = if desired.ends_with("v2") {
            let text = spec["hostPort"].as_str().unwrap_or(":");
            let (host, port) = text.split_once(':').unwrap();
            json!({"host": host, "port": port})
        } else {
            json!({"hostPort": format!("{}:{}", spec["host"].as_str().unwrap(), spec["port"].as_str().unwrap())})
        };
        object
    };
    let result = match refuses {
        true => json!({"status": "Failure", "message": "not this one"}),
        false => json!({"status": "Success"}),
    };
    let converted: Vec<Value> = if refuses { Vec::new() } else { objects.into_iter().map(convert).collect() };
    json!({
        "kind": "ConversionReview", "apiVersion": review["apiVersion"],
        "response": {"uid": review["request"]["uid"], "result": result, "convertedObjects": converted},
    })
}

fn definition(client: &Value) -> Value {
    let text = json!({"type": "string"});
    let version = |name: &str, is_stored: bool, properties: Value| {
        let paths =
            properties.as_object().unwrap().keys().map(|name| json!({"jsonPath": format!(".spec.{name}")}));
        json!({
            "name": name, "served": true, "storage": is_stored, "selectableFields": paths.collect::<Vec<_>>(),
            "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": properties}},
            }},
        })
    };
    json!({
        "metadata": {"name": "gates.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gates", "kind": "Gate"},
            "versions": [
                version("v1", true, json!({"hostPort": text})),
                version("v2", false, json!({"host": text, "port": text})),
            ],
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": client, "conversionReviewVersions": ["v1"],
            }},
        },
    })
}

#[tokio::test]
async fn a_webhook_converts_what_is_read_written_listed_and_watched() {
    let webhook = Remote::start(review).await;
    let server = Server::start().await;
    server.define(&definition(&webhook.client("/convert"))).await;
    let gate = |name: &str| json!({"apiVersion": "example.com/v2", "kind": "Gate", "metadata": {"name": name}, "spec": {"host": "h", "port": "80"}});
    let created = server.post(V2, &gate("a")).await.ok();
    assert_eq!(
        (&created["apiVersion"], &created["spec"]),
        (&json!("example.com/v2"), &json!({"host": "h", "port": "80"}))
    );
    assert_eq!(server.get(&format!("{V1}/a")).await.ok()["spec"], json!({"hostPort": "h:80"}));
    let patched = server.patch(&format!("{V2}/a"), MERGE, &json!({"spec": {"port": "81"}})).await.ok();
    assert_eq!(patched["spec"], json!({"host": "h", "port": "81"}));
    for index in 0..20 {
        let old = json!({"apiVersion": "example.com/v1", "kind": "Gate", "metadata": {"name": format!("b{index}")}, "spec": {"hostPort": "x:1"}});
        server.post(V1, &old).await.ok();
    }
    let before = webhook.asked().len();
    let list = server.get(V2).await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 21);
    assert_eq!(list["items"][1]["spec"], json!({"host": "x", "port": "1"}));
    assert_eq!(webhook.asked().len(), before + 1, "a list is converted in one call");
    server.get(V1).await.ok();
    assert_eq!(webhook.asked().len(), before + 1, "what is stored so needs no call");

    let mut watch = server
        .watch(&format!(
            "{V2}?watch=true&resourceVersion={}",
            list["metadata"]["resourceVersion"].as_str().unwrap()
        ))
        .await;
    server.delete(&format!("{V1}/a")).await.ok();
    let event = watch.event().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["spec"]["port"]), (&json!("DELETED"), &json!("81")));

    let dry = server.post(&format!("{V2}?dryRun=All"), &gate("dry")).await.ok();
    assert_eq!(dry["spec"], json!({"host": "h", "port": "80"}));

    let (code, _, message) = server.post(V2, &gate("refused")).await.failure();
    assert_eq!(code, 500);
    assert!(message.ends_with("failed: not this one"), "{message}");
    assert_eq!(server.get(&format!("{V1}/refused")).await.code, 404);
}

/// Upstream's conformance test of selectable fields: each version is selected by its own.
#[tokio::test]
async fn objects_are_selected_by_the_fields_of_the_version_that_is_asked_for() {
    let webhook = Remote::start(review).await;
    let server = Server::start().await;
    server.define(&definition(&webhook.client("/convert"))).await;
    let path = |collection: &str, selector: &str| format!("{collection}?fieldSelector={selector}");
    let (host, both, stored) = (
        path(V2, "spec.host%3Dh1"),
        path(V2, "spec.host%3Dh1,spec.port%3D80"),
        path(V1, "spec.hostPort%3Dh1:80"),
    );
    let mut watches = Vec::new();
    for path in [&host, &both, &stored] {
        watches.push(server.watch(&format!("{path}&watch=true")).await);
    }
    for (name, host, port) in [("a", "h1", "80"), ("b", "h1", "8080"), ("c", "h2", "80")] {
        let gate = json!({"apiVersion": "example.com/v2", "kind": "Gate", "metadata": {"name": name}, "spec": {"host": host, "port": port}});
        server.post(V2, &gate).await.ok();
    }
    let names = async |path: &str| -> Vec<String> {
        let list = server.get(path).await.ok();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(names(&host).await, ["a", "b"]);
    assert_eq!(names(&both).await, ["a"]);
    assert_eq!(names(&stored).await, ["a"]);
    // What only one page holds of two goes on where it ended.
    let page = server.get(&format!("{host}&limit=1")).await.ok();
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&format!("{host}&limit=1&continue={token}")).await, ["b"]);
    let (code, _, message) = server.get(&path(V1, "spec.host%3Dh1")).await.failure();
    assert_eq!((code, message.as_str()), (400, "field label not supported: spec.host"));

    assert!(server.delete(&both).await.code.is_success());
    assert_eq!(server.get(&format!("{V2}/a")).await.code, 404);
    server.patch(&format!("{V2}/b"), MERGE, &json!({"spec": {"host": "h2"}})).await.ok();
    assert_eq!(names(&host).await, Vec::<String>::new());
    let told =
        |name: &str| [("ADDED".to_string(), name.to_string()), ("DELETED".to_string(), name.to_string())];
    for (watch, expected) in watches.iter_mut().zip([vec!["a", "b"], vec!["a"], vec!["a"]]) {
        let mut events = Vec::new();
        while events.len() < 2 * expected.len() {
            events.push(watch.next().await);
        }
        events.sort_by(|one, other| one.1.cmp(&other.1));
        assert_eq!(events, expected.into_iter().flat_map(told).collect::<Vec<_>>());
    }
    // A watch that begins with what is there selects it in the same way.
    let initial = format!("{}&watch=true&timeoutSeconds=1", path(V2, "spec.host%3Dh2"));
    let mut watch = server.watch(&initial).await;
    assert_eq!((watch.next().await.1, watch.next().await.1), ("b".to_string(), "c".to_string()));
}

#[tokio::test]
async fn what_the_labels_rule_out_is_not_converted_for_a_watch() {
    let webhook = Remote::start(review).await;
    let server = Server::start().await;
    server.define(&definition(&webhook.client("/convert"))).await;
    let gate = |name: &str, label: &str| {
        json!({"apiVersion": "example.com/v1", "kind": "Gate",
        "metadata": {"name": name, "labels": {"app": label}}, "spec": {"hostPort": "h1:80"}})
    };
    let selector = "labelSelector=app%3Dmine&fieldSelector=spec.host%3Dh1";
    let mut watch = server.watch(&format!("{V2}?{selector}&watch=true")).await;
    server.post(V1, &gate("refused", "other")).await.ok();
    server.post(V1, &gate("a", "mine")).await.ok();
    assert_eq!(watch.next().await, ("ADDED".into(), "a".into()));
    // What loses its label is converted as it was.
    let label = |value: &str| json!({"metadata": {"labels": {"app": value}}});
    server.patch(&format!("{V1}/a"), MERGE, &label("other")).await.ok();
    assert_eq!(watch.next().await, ("DELETED".into(), "a".into()));
    server.patch(&format!("{V1}/a"), MERGE, &label("mine")).await.ok();
    assert_eq!(watch.next().await, ("ADDED".into(), "a".into()));
    server.delete(&format!("{V1}/refused")).await.ok();
    server.delete(&format!("{V1}/a")).await.ok();
    assert_eq!(watch.next().await, ("DELETED".into(), "a".into()));
}

#[tokio::test]
async fn a_page_converts_no_more_than_it_takes_to_fill_it() {
    let webhook = Remote::start(review).await;
    let server = Server::start().await;
    server.define(&definition(&webhook.client("/convert"))).await;
    let host = |index: usize| if index < 10 { "h1" } else { "h2" };
    for index in 0..30 {
        let gate = json!({"apiVersion": "example.com/v1", "kind": "Gate",
            "metadata": {"name": format!("g{index:02}")}, "spec": {"hostPort": format!("{}:80", host(index))}});
        server.post(V1, &gate).await.ok();
    }
    let converted = || -> usize {
        let asked = webhook.asked();
        asked.iter().map(|review| review["request"]["objects"].as_array().unwrap().len()).sum()
    };
    let before = converted();
    let first = server.get(&format!("{V2}?fieldSelector=spec.host%3Dh1&limit=2")).await.ok();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], json!(null));
    assert_eq!(converted() - before, 3, "the two and the one that tells of a next page");

    // Those that come late are found all the same, and the last page says that it is the last.
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("{V2}?fieldSelector=spec.host%3Dh2&limit=7&continue={token}");
        let page = server.get(&path).await.ok();
        let items = page["items"].as_array().unwrap().iter();
        names.extend(items.map(|item| item["metadata"]["name"].as_str().unwrap().to_string()));
        match page["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => token = next.into(),
            _ => break,
        }
    }
    assert_eq!(names, (10..30).map(|index| format!("g{index}")).collect::<Vec<_>>());
}

/// The managers of an object and what each owns of its spec.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let mut owners: Vec<(String, Value)> = entries
        .iter()
        .map(|entry| (entry["manager"].as_str().unwrap().into(), entry["fieldsV1"]["f:spec"].clone()))
        .collect();
    owners.sort_by(|one, other| one.0.cmp(&other.0));
    owners
}

#[tokio::test]
async fn owners_in_another_version_lose_what_changes_there() {
    let webhook = Remote::start(review).await;
    let server = Server::start().await;
    server.define(&definition(&webhook.client("/convert"))).await;
    let apply = |path: &str, manager: &str, version: &str, name: &str, spec: Value| {
        let config = json!({"apiVersion": format!("example.com/{version}"), "kind": "Gate", "metadata": {"name": name}, "spec": spec});
        (format!("{path}/{name}?fieldManager={manager}"), config)
    };
    const APPLY: &str = "application/apply-patch+yaml";
    let (path, config) = apply(V2, "two", "v2", "a", json!({"host": "h", "port": "80"}));
    server.patch(&path, APPLY, &config).await.ok();

    // The other version's field is one; what changes in it is told in the words of the owner's.
    let (path, config) = apply(V1, "one", "v1", "a", json!({"hostPort": "h:81"}));
    let (code, reason, message) = server.patch(&path, APPLY, &config).await.failure();
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert_eq!(message, r#"Apply failed with 1 conflict: conflict with "two": .spec.port"#);
    let forced = server.patch(&format!("{path}&force=true"), APPLY, &config).await.ok();
    assert_eq!(
        owners(&forced),
        [("one".to_string(), json!({"f:hostPort": {}})), ("two".to_string(), json!({"f:host": {}}))]
    );
    // Any other write takes the rest.
    let path = format!("{V1}/a?fieldManager=editor");
    let patched = server.patch(&path, MERGE, &json!({"spec": {"hostPort": "x:81"}})).await.ok();
    assert_eq!(owners(&patched), [("editor".to_string(), json!({"f:hostPort": {}}))]);

    // A webhook that fails refuses who applies, and holds up nobody else.
    let (path, config) = apply(V2, "two", "v2", "refused", json!({"host": "h", "port": "80"}));
    assert_eq!(server.patch(&path, APPLY, &config).await.code, 500, "it cannot be stored");
    let (path, config) = apply(V1, "one", "v1", "refused", json!({"hostPort": "h:80"}));
    let mut stored = server.patch(&path, APPLY, &config).await.ok();
    stored["metadata"]["managedFields"][0]["apiVersion"] = "example.com/v2".into();
    stored["metadata"]["managedFields"][0]["fieldsV1"] = json!({"f:spec": {"f:host": {}}});
    let put = server.put(&format!("{V1}/refused?fieldManager=put"), &stored).await.ok();
    assert_eq!(owners(&put), [("one".to_string(), json!({"f:host": {}}))]);
    let (path, config) = apply(V1, "three", "v1", "refused", json!({"hostPort": "h:81"}));
    let (code, _, message) = server.patch(&path, APPLY, &config).await.failure();
    assert_eq!(code, 500);
    assert!(message.ends_with("failed: not this one"), "{message}");
}
