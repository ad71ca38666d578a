//! Whatever is sent: upstream's code, reason and message, no panic, nothing stored.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{client::*, permissive};

/// What is posted, as what, where; code, reason and a part of the message.
struct Case {
    path: &'static str,
    content_type: &'static str,
    body: String,
    code: u16,
    reason: &'static str,
    message: &'static str,
}

fn case(body: impl Into<String>, code: u16, reason: &'static str, message: &'static str) -> Case {
    Case { path: PODS, content_type: JSON, body: body.into(), code, reason, message }
}

fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut object = pod("a");
    change(&mut object);
    object.to_string()
}

fn cases() -> Vec<Case> {
    let strict = "/api/v1/namespaces/default/pods?fieldValidation=Strict";
    vec![
        case("{", 400, "BadRequest", ""),
        case("", 400, "BadRequest", ""),
        case("[]", 400, "BadRequest", ""),
        case("\"text\"", 400, "BadRequest", ""),
        case(
            "null",
            422,
            "Invalid",
            "Pod \"\" is invalid: [metadata.name: Required value: name or generateName is required, spec.containers: Required value]",
        ),
        Case {
            content_type: "application/yaml",
            ..case("", 422, "Invalid", "Required value: name or generateName is required")
        },
        case("{\"metadata\": \"x\"}", 400, "BadRequest", "cannot be handled as a Pod"),
        case("[".repeat(100_000), 400, "BadRequest", ""),
        Case { content_type: "application/yaml", ..case("a: [b", 400, "BadRequest", "") },
        Case { content_type: "application/yaml", ..case("a: *a", 400, "BadRequest", "") },
        Case {
            content_type: "text/plain",
            ..case(
                "{}",
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: application/json",
            )
        },
        Case {
            path: strict,
            ..case(
                changed(|pod| pod["spec"]["foo"] = 1.into()),
                400,
                "BadRequest",
                "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.foo\"",
            )
        },
        case(
            changed(|pod| pod["spec"]["containers"] = "x".into()),
            400,
            "BadRequest",
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal",
        ),
        case(changed(|pod| pod["spec"]["priority"] = "high".into()), 400, "BadRequest", "cannot unmarshal"),
        case(changed(|pod| pod["kind"] = "Node".into()), 400, "BadRequest", "cannot be handled as a Pod"),
        case(changed(|pod| pod["apiVersion"] = "apps/v1".into()), 400, "BadRequest", ""),
        case(
            changed(|pod| pod["metadata"]["namespace"] = "other".into()),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        case(
            changed(|pod| pod["metadata"]["name"] = "A_b".into()),
            422,
            "Invalid",
            "Pod \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of",
        ),
        case(
            changed(|pod| pod["metadata"]["name"] = "../../nodes/x".into()),
            422,
            "Invalid",
            "metadata.name",
        ),
        case(
            changed(|pod| pod["metadata"]["name"] = "".into()),
            422,
            "Invalid",
            "metadata.name: Required value: name or generateName is required",
        ),
        case(
            changed(|pod| pod["metadata"]["name"] = "x".repeat(254).into()),
            422,
            "Invalid",
            "metadata.name",
        ),
        case(
            changed(|pod| pod["metadata"]["labels"] = json!({"a b": "c"})),
            422,
            "Invalid",
            "metadata.labels: Invalid value: \"a b\"",
        ),
        case(
            changed(|pod| pod["metadata"]["labels"] = json!({"a": "c d"})),
            422,
            "Invalid",
            "metadata.labels: Invalid value: \"c d\"",
        ),
        case(
            changed(|pod| pod["spec"]["containers"] = json!([])),
            422,
            "Invalid",
            "spec.containers: Required value",
        ),
        case(
            changed(|pod| pod["spec"]["restartPolicy"] = "Perhaps".into()),
            422,
            "Invalid",
            "spec.restartPolicy: Unsupported value: \"Perhaps\"",
        ),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_upstreams_words_and_not_stored() {
    let server = Server::start().await;
    for case in cases() {
        let answer = server.raw(Method::POST, case.path, case.content_type, case.body.clone()).await;
        let start = &case.body[..case.body.len().min(200)];
        let (code, reason, message) = answer.failure();
        assert_eq!((code, reason.as_str()), (case.code, case.reason), "{start}: {message}");
        assert!(message.contains(case.message), "{start}: {message}");
    }
    assert_eq!(server.get("/api/v1/pods").await.ok()["items"], json!([]));
}

#[tokio::test]
async fn unknown_fields_are_dropped_and_mentioned() {
    let server = Server::start().await;
    let body = changed(|pod| pod["spec"]["foo"] = 1.into());
    let answer = server.raw(Method::POST, &format!("{PODS}?fieldValidation=Warn"), JSON, body).await;
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"spec.foo\\\"\"");
    assert!(answer.ok()["spec"].get("foo").is_none());
    let body = changed(|pod| {
        pod["metadata"]["name"] = "b".into();
        pod["spec"]["foo"] = 1.into();
    });
    let answer = server.raw(Method::POST, &format!("{PODS}?fieldValidation=Ignore"), JSON, body).await;
    assert!(!answer.headers.contains_key("warning"));
    let patch = json!({"spec": {"foo": 1}});
    let strict = server.patch(&format!("{PODS}/b?fieldValidation=Strict"), MERGE, &patch).await.failure();
    assert_eq!((strict.0, strict.1.as_str()), (422, "Invalid"));
    assert!(strict.2.contains("strict decoding error: unknown field \"spec.foo\""), "{}", strict.2);
}

#[tokio::test]
async fn warnings_of_admission_reach_the_client() {
    let server = Server::start().await;
    let answer = server.post(PODS, &pod("warned")).await;
    assert_eq!(answer.headers["warning"], "299 - \"take \\\"care\\\"\"");
}

#[tokio::test]
async fn who_uses_a_deprecated_kind_hears_of_it() {
    let server = Server::start().await;
    let answer = server.get("/api/v1/namespaces/default/endpoints").await;
    let warning = answer.headers["warning"].to_str().unwrap();
    assert!(warning.contains("v1 Endpoints is deprecated in v1.33+"), "{warning}");
    assert!(!server.get(CONFIG_MAPS).await.headers.contains_key("warning"));
}

#[tokio::test]
async fn immutable_fields_stay() {
    let server = Server::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let created = server.post(deployments, &deployment("web")).await.ok();
    let path = format!("{deployments}/web");
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "other"}}, "template": {"metadata": {"labels": {"app": "other"}}}}});
    let (code, reason, message) = server.patch(&path, MERGE, &selector).await.failure();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(
        message.contains("spec.selector: Invalid value") && message.contains("field is immutable"),
        "{message}"
    );
    server.post(PODS, &pod("a")).await.ok();
    let command = json!([{"op": "add", "path": "/spec/containers/0/command", "value": ["x"]}]);
    let (code, _, message) = server.patch(&format!("{PODS}/a"), JSON_PATCH, &command).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("spec: Forbidden: pod updates may not change fields other than"), "{message}");
    let renamed = json!({"metadata": {"name": "other"}});
    assert_eq!(server.patch(&path, MERGE, &renamed).await.failure().0, 400);
    assert_eq!(server.get(&path).await.ok(), created);
}

#[tokio::test]
async fn two_mebibytes_are_stored_and_more_than_three_refused() {
    let server = Server::start().await;
    let config = |size: usize| json!({"metadata": {"name": "big"}, "data": {"x": "y".repeat(size)}});
    let refused = server.post(CONFIG_MAPS, &config(3 << 20)).await.failure();
    let message = "Request entity too large: limit is 3145728";
    assert_eq!(refused, (413, "RequestEntityTooLarge".into(), message.into()));
    assert_eq!(server.get(CONFIG_MAPS).await.ok()["items"], json!([]));
    // Config maps are limited to 1 MiB by their own rule; events are not.
    let event = json!({"metadata": {"name": "big"}, "involvedObject": {"namespace": "default"}, "message": "y".repeat(2 << 20)});
    let events = "/api/v1/namespaces/default/events";
    server.post(events, &event).await.ok();
    assert_eq!(
        server.get(&format!("{events}/big")).await.ok()["message"].as_str().map(str::len),
        Some(2 << 20)
    );
}

#[tokio::test]
async fn wrong_paths_methods_and_parameters_are_refused() {
    let server = Server::start().await;
    for (method, path, code) in [
        (Method::GET, "/api/v1/namespaces/default/unicorns", 404),
        (Method::GET, "/apis/example.com/v1/things", 404),
        (Method::GET, "/apis/apps/v2/deployments", 404),
        (Method::GET, "/api/v1/namespaces/default/nodes", 404),
        (Method::GET, "/api/v1/namespaces/default/pods/a/unicorn", 404),
        (Method::GET, "/api/v1/namespaces/default/pods/..%2f..%2fnodes%2fx", 404),
        (Method::POST, "/api/v1/namespaces/default/pods/a", 405),
        (Method::PUT, "/api/v1/namespaces/default/pods", 405),
        (Method::POST, "/api/v1/pods", 405),
        (Method::TRACE, "/api/v1/namespaces/default/pods", 405),
        (Method::GET, "/api/v1/pods?limit=x", 400),
        (Method::GET, "/api/v1/pods?labelSelector=%3D%3D%3D", 400),
        (Method::GET, "/api/v1/pods?fieldSelector=x", 400),
        (Method::GET, "/api/v1/pods?resourceVersion=x", 400),
    ] {
        let (actual, _, message) = server.raw(method.clone(), path, "", "").await.failure();
        assert_eq!(actual, code, "{method} {path}: {message}");
    }
}

#[tokio::test]
async fn a_panic_is_one_requests_failure() {
    let server = Server::start().await;
    let (code, reason, _) = server.post(PODS, &pod(permissive::PANICS)).await.failure();
    assert_eq!((code, reason.as_str()), (500, "InternalError"));
    assert_eq!(server.post(PODS, &pod("a")).await.code, StatusCode::CREATED);
}

#[tokio::test]
async fn a_put_is_named_as_its_url_even_where_nothing_is() {
    let server = Server::start().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let refused = async |metadata: Value| {
        let (code, _, message) = server.put(path, &json!({"metadata": metadata})).await.failure();
        (code, message)
    };
    for _ in 0..2 {
        assert_eq!(
            refused(json!({"name": "b"})).await,
            (400, "the name of the object (b) does not match the name on the URL (a)".into())
        );
        assert_eq!(
            refused(json!({})).await,
            (400, "the name of the object (a based on URL) was undeterminable: name must be provided".into())
        );
        assert_eq!(
            refused(json!({"name": "a", "namespace": "x"})).await,
            (
                400,
                "the namespace of the object (x) does not match the namespace on the request (default)"
                    .into()
            )
        );
        server.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await;
    }
}

#[tokio::test]
async fn a_patch_leaves_an_object_of_its_kind_and_name() {
    let server = Server::start().await;
    let path = &format!("{CONFIG_MAPS}/a");
    server.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.ok();
    let refused = async |patch: Value| {
        let (code, _, message) = server.patch(path, MERGE, &patch).await.failure();
        (code, message)
    };
    assert_eq!(refused(json!({"metadata": null})).await.0, 400);
    let (code, message) = refused(json!({"kind": "Other"})).await;
    assert_eq!(code, 422);
    assert!(message.contains("no kind \"Other\" is registered for version \"v1\""), "{message}");
    let (code, message) = refused(json!({"metadata": {"uid": "x"}})).await;
    assert_eq!(code, 422);
    assert!(message.ends_with("metadata.uid: Invalid value: \"x\": field is immutable"), "{message}");
    let (code, message) = refused(json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}})).await;
    assert_eq!(code, 422);
    assert!(message.contains("metadata.deletionTimestamp: Invalid value"), "{message}");
    assert_eq!(server.get(path).await.ok()["data"], json!({"k": "v"}));
}

#[tokio::test]
async fn options_are_read_as_upstream_reads_them() {
    let server = Server::start().await;
    let object = json!({"metadata": {"name": "a"}});
    // An empty dryRun is not taken for none: nothing may be written that was meant to be tried.
    let (code, _, _) = server.post(&format!("{CONFIG_MAPS}?dryRun="), &object).await.failure();
    assert_eq!(code, 422);
    server.post(CONFIG_MAPS, &object).await.ok();
    server.get(&format!("{CONFIG_MAPS}?limit=-1")).await.ok();
    let (code, _, message) = server.get(&format!("{CONFIG_MAPS}?limit=x")).await.failure();
    assert_eq!((code, message.as_str()), (400, "strconv.ParseInt: parsing \"x\": invalid syntax"));
    let path = format!("{CONFIG_MAPS}/a");
    let (code, _, _) = server.delete_with(&path, &json!({"gracePeriodSeconds": "x"})).await.failure();
    assert_eq!(code, 400);
    server.get(&path).await.ok();
}

/// Content type, patch, and what a strict client is told.
const PATCHES: &[(&str, &str, &str)] = &[
    (
        JSON_PATCH,
        r#"[{"op": "add", "path": "/data/a", "path": "/data/b", "value": "1", "foo": "x"}]"#,
        "json patch duplicate field \"[0].path\", json patch unknown field \"[0].foo\"",
    ),
    (
        MERGE,
        r#"{"data": {"a": "1", "a": "2"}, "foo": 1}"#,
        "duplicate field \"data.a\", unknown field \"foo\"",
    ),
    (STRATEGIC, r#"{"data": {"a": "1", "a": "2"}}"#, "duplicate field \"data.a\""),
];

#[tokio::test]
async fn what_a_patch_says_twice_or_in_vain_is_told() {
    let server = Server::start().await;
    server.config_map("c", json!({})).await;
    for (content_type, patch, expected) in PATCHES {
        let send = async |validation: &str| {
            let path = format!("{CONFIG_MAPS}/c?fieldValidation={validation}");
            server.raw(Method::PATCH, &path, content_type, *patch).await
        };
        let (code, reason, message) = send("Strict").await.failure();
        assert_eq!((code, reason.as_str()), (422, "Invalid"), "{message}");
        assert!(message.ends_with(&format!("strict decoding error: {expected}")), "{message}");
        let warned = send("Warn").await;
        let warnings: Vec<&str> =
            warned.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
        let told: Vec<String> =
            expected.split(", ").map(|fault| format!("299 - \"{}\"", fault.replace('"', "\\\""))).collect();
        assert_eq!(warnings, told);
        assert!(warned.code.is_success() && send("Ignore").await.headers.get("warning").is_none());
    }
}

#[tokio::test]
async fn nothing_is_a_patch_that_changes_nothing() {
    let server = Server::start().await;
    let before = server.config_map("c", json!({"a": "b"})).await;
    let send = async |content_type: &str| {
        server.raw(Method::PATCH, &format!("{CONFIG_MAPS}/c"), content_type, "null").await
    };
    for content_type in [JSON_PATCH, STRATEGIC] {
        assert_eq!(send(content_type).await.ok(), before);
    }
    let (code, _, message) = send(MERGE).await.failure();
    assert_eq!((code, message.as_str()), (400, "Invalid JSON Patch"));
}

#[tokio::test]
async fn custom_resources_have_to_say_their_kind() {
    let server = Server::start().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let definition = json!({
        "metadata": {"name": "foos.x.io"},
        "spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]},
    });
    server.define(&definition).await;
    let post = async |body: &str| {
        server.raw(Method::POST, "/apis/x.io/v1/namespaces/default/foos", JSON, body.to_string()).await
    };
    let start = "Foo in version \"v1\" cannot be handled as a Foo: Object";
    for (body, missing) in [("null", "Kind"), ("{}", "Kind"), (r#"{"kind":"Foo"}"#, "apiVersion")] {
        let (code, _, message) = post(body).await.failure();
        assert_eq!((code, message), (400, format!("{start} '{missing}' is missing in '{body}'")));
    }
}

#[tokio::test]
async fn what_upstream_fills_in_is_filled_in() {
    let server = Server::start().await;
    // A limit range without any name gets one that nobody else has.
    let ranges = "/api/v1/namespaces/default/limitranges";
    let range = server.post(ranges, &json!({"spec": {"limits": []}})).await.ok();
    assert_eq!(range["metadata"]["name"].as_str().unwrap().len(), 36);
    let named =
        server.post(ranges, &json!({"metadata": {"generateName": "l-"}, "spec": {"limits": []}})).await.ok();
    assert!(named["metadata"]["name"].as_str().unwrap().starts_with("l-"));
    // Go's types do not tell 0 from nothing.
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let schema = |name: &str, precedence: u32| {
        json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
            "spec": {"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": "catch-all"}},
        })
    };
    let posted = server.post(schemas, &schema("a", 0)).await.ok();
    assert_eq!(posted["spec"]["matchingPrecedence"], 1000);
    let path = format!("{schemas}/b?fieldManager=me");
    let applied = server
        .raw(Method::PATCH, &path, "application/apply-patch+yaml", schema("b", 0).to_string())
        .await
        .ok();
    assert_eq!(applied["spec"]["matchingPrecedence"], 1000);
    let owned = &applied["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert!(owned["f:matchingPrecedence"].is_object(), "{owned}");
    // Tables of schemas say in which order they are asked.
    server.post(schemas, &schema("c", 5)).await.ok();
    let table = server.get_as(schemas, "application/json;as=Table;g=meta.k8s.io;v=v1").await.ok();
    let names: Vec<&Value> = table["rows"].as_array().unwrap().iter().map(|row| &row["cells"][0]).collect();
    assert_eq!(names, ["c", "a", "b"]);
}
