//! The forms in which objects travel: protobuf, YAML, Tables, metadata alone; packed or not.

use api::protobuf;
use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{client::*, cluster::Cluster};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CLIENT_GO: &str = "application/vnd.kubernetes.protobuf,application/json";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// The object of an answer in protobuf.
#[track_caller]
fn decoded(answer: &Answer) -> Value {
    assert_eq!(answer.headers[header::CONTENT_TYPE], PROTOBUF);
    protobuf::decode(&answer.bytes).unwrap().into_value()
}

/// A watch in protobuf.
struct Frames {
    body: axum::body::BodyDataStream,
    rest: Vec<u8>,
}

impl Frames {
    async fn of(server: &Server, path: &str, accept: &str) -> Frames {
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let response = server.service.clone().oneshot(request).await.unwrap();
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/vnd.kubernetes.protobuf;stream=watch"
        );
        Frames { body: response.into_body().into_data_stream(), rest: Vec::new() }
    }

    /// Type and object of the next event.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(length) = self.rest.first_chunk().map(|length| u32::from_be_bytes(*length) as usize)
                && self.rest.len() >= 4 + length
            {
                let frame: Vec<u8> = self.rest.drain(..4 + length).skip(4).collect();
                // A WatchEvent: the type as field 1, then a RawExtension with the document.
                assert_eq!(frame[0], 0x0a);
                let word = String::from_utf8(frame[2..2 + usize::from(frame[1])].to_vec()).unwrap();
                let document = frame.windows(4).position(|bytes| bytes == b"k8s\0").unwrap();
                return (word, protobuf::decode(&frame[document..]).unwrap().into_value());
            }
            self.rest.extend_from_slice(&self.body.next().await.expect("the watch goes on").unwrap());
        }
    }
}

#[tokio::test]
async fn objects_and_lists_travel_in_protobuf() {
    let server = Server::start().await;
    let body = protobuf::document(deployment("web").to_string().as_bytes()).unwrap().unwrap();
    let created = server.raw(Method::POST, DEPLOYMENTS, PROTOBUF, body).await.ok();
    assert_eq!(created["spec"]["template"]["spec"]["containers"][0]["image"], "busybox:1");
    assert_eq!(created["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");

    let path = format!("{DEPLOYMENTS}/web");
    assert_eq!(decoded(&server.get_as(&path, CLIENT_GO).await), created);
    let list = server.get(DEPLOYMENTS).await.ok();
    let listed = decoded(&server.get_as(DEPLOYMENTS, PROTOBUF).await);
    assert_eq!((&listed["kind"], &listed["apiVersion"]), (&json!("DeploymentList"), &json!("apps/v1")));
    assert_eq!(listed["metadata"], list["metadata"]);
    // Items of a list do not say what they are.
    let mut item = created.clone();
    item.as_object_mut().unwrap().retain(|key, _| !["apiVersion", "kind"].contains(&key.as_str()));
    assert_eq!(listed["items"], json!([item]));

    let scale = decoded(&server.get_as(&format!("{path}/scale"), PROTOBUF).await);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    let empty = decoded(&server.get_as(PODS, PROTOBUF).await);
    assert_eq!((&empty["kind"], empty.get("items")), (&json!("PodList"), None));
    let events = decoded(&server.get_as("/apis/events.k8s.io/v1/events", PROTOBUF).await);
    assert_eq!(events["kind"], "EventList");
}

#[tokio::test]
async fn a_kind_that_is_stored_as_another_travels_as_itself() {
    let server = Server::start().await;
    let autoscaler = json!({
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    let path =
        |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let created = server.post(&path("v1"), &autoscaler).await.ok();
    assert_eq!(decoded(&server.get_as(&format!("{}/h", path("v1")), PROTOBUF).await), created);
    for (version, field) in [("v1", "targetCPUUtilizationPercentage"), ("v2", "metrics")] {
        let list = decoded(&server.get_as(&path(version), PROTOBUF).await);
        assert!(list["items"][0]["spec"].get(field).is_some(), "{list}");
    }
}

#[tokio::test]
async fn failures_travel_in_protobuf() {
    let server = Server::start().await;
    let missing = server.get_as(&format!("{PODS}/nobody"), CLIENT_GO).await;
    let status = decoded(&missing);
    assert_eq!((missing.code, &status["reason"]), (StatusCode::NOT_FOUND, &json!("NotFound")));
    assert_eq!(status["details"], json!({"name": "nobody", "kind": "pods"}));
    let refused = server.get_as(PODS, "application/cbor").await.failure();
    assert_eq!(refused.0, 406);
    let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(server.get_as(PODS, table).await.failure().0, 406);
    let stream = server.get_as(&format!("{PODS}?watch=1"), "application/yaml").await;
    let status: Value = serde_yaml::from_slice(&stream.bytes).unwrap();
    assert_eq!((stream.code.as_u16(), &status["reason"]), (406, &json!("NotAcceptable")));
    let body = server.raw(Method::POST, PODS, PROTOBUF, "{}").await.failure();
    assert_eq!(
        body.2,
        "the object provided is unrecognized (must be of type Pod): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] ({})"
    );
    let cut = protobuf::document(pod("a").to_string().as_bytes()).unwrap().unwrap();
    // A length that leads beyond the end.
    let mut wrong = cut.clone();
    let spec = cut.windows(4).position(|bytes| bytes == b"main").unwrap();
    wrong[spec - 1] = 100;
    let failure = server.raw(Method::POST, PODS, PROTOBUF, wrong).await.failure();
    assert_eq!(failure.2, "Pod in version \"v1\" cannot be handled as a Pod: unexpected EOF");
}

#[tokio::test]
async fn a_watch_in_protobuf_tells_what_a_watch_in_json_tells() {
    let server = Server::start().await;
    server.config_map("a", json!({"x": "1"})).await;
    let selected = format!("{CONFIG_MAPS}?watch=true&labelSelector=x%3D1");
    let mut frames = Frames::of(&server, &selected, CLIENT_GO).await;
    let mut lines = server.watch(&selected).await;
    let relabel = |value: &str| json!({"metadata": {"labels": {"x": value}}, "data": {"b": value}});
    server.patch(&format!("{CONFIG_MAPS}/a"), MERGE, &json!({"data": {"b": "0"}})).await.ok();
    // It leaves the selection and comes back.
    server.patch(&format!("{CONFIG_MAPS}/a"), MERGE, &relabel("2")).await.ok();
    server.patch(&format!("{CONFIG_MAPS}/a"), MERGE, &relabel("1")).await.ok();
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    for word in ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"] {
        let line = lines.event().await.unwrap();
        assert_eq!(line["type"], word);
        assert_eq!(frames.next().await, (word.to_string(), line["object"].clone()));
    }
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark_in_protobuf() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let options =
        "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut frames = Frames::of(&server, &format!("{CONFIG_MAPS}?{options}"), PROTOBUF).await;
    assert_eq!(frames.next().await.0, "ADDED");
    let (word, bookmark) = frames.next().await;
    assert_eq!((word.as_str(), &bookmark["kind"]), ("BOOKMARK", &json!("ConfigMap")));
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let mut frames =
        Frames::of(&server, &format!("{CONFIG_MAPS}?watch=true&resourceVersion=1"), PROTOBUF).await;
    let (word, object) = frames.next().await;
    // Either it is remembered, or the watch says that it is not.
    let expected = if word == "ERROR" { "Status" } else { "ConfigMap" };
    assert_eq!(object["kind"], expected);
}

#[tokio::test]
async fn metadata_of_every_kind_travels_in_protobuf() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let list = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let listed = decoded(&server.get_as(PODS, list).await);
    assert_eq!(
        (&listed["kind"], &listed["apiVersion"]),
        (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(
        (&listed["items"][0]["metadata"]["labels"], listed["items"][0].get("spec")),
        (&json!({"app": "a"}), None)
    );
    let one = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut frames = Frames::of(&server, &format!("{PODS}?watch=true"), one).await;
    let (word, object) = frames.next().await;
    assert_eq!((word.as_str(), &object["kind"]), ("ADDED", &json!("PartialObjectMetadata")));
    let got = decoded(&server.get_as(&format!("{PODS}/a"), one).await);
    assert_eq!(got, object);
    let json =
        server.get_as(&format!("{PODS}/a"), &one.replace("vnd.kubernetes.protobuf", "json")).await.ok();
    assert_eq!(json, object);
}

#[tokio::test]
async fn the_older_version_of_tables_and_metadata_is_served_as_well() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let one = format!("{PODS}/a");
    for path in [PODS, &one] {
        let table = server.get_as(path, "application/json;as=Table;v=v1beta1;g=meta.k8s.io").await.ok();
        let mut newer = server.get_as(path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
        assert_eq!(newer["rows"][0]["object"]["apiVersion"], "meta.k8s.io/v1");
        newer["apiVersion"] = "meta.k8s.io/v1beta1".into();
        newer["rows"][0]["object"]["apiVersion"] = "meta.k8s.io/v1beta1".into();
        assert_eq!(table, newer);
    }
    let mut watch = server
        .watch_as(&format!("{PODS}?watch=true"), "application/json;as=Table;v=v1beta1;g=meta.k8s.io")
        .await;
    assert_eq!(watch.event().await.unwrap()["object"]["apiVersion"], "meta.k8s.io/v1beta1");
    for encoding in ["json", "vnd.kubernetes.protobuf"] {
        let accept =
            |form: &str, version: &str| format!("application/{encoding};as={form};v={version};g=meta.k8s.io");
        let read = async |path: &str, form: &str, version: &str| {
            let answer = server.get_as(path, &accept(form, version)).await;
            if encoding == "json" { answer.ok() } else { decoded(&answer) }
        };
        let (form, version) = ("PartialObjectMetadata", "meta.k8s.io/v1beta1");
        let mut newer = read(&one, form, "v1").await;
        newer["apiVersion"] = version.into();
        assert_eq!(read(&one, form, "v1beta1").await, newer);
        let list = read(PODS, "PartialObjectMetadataList", "v1beta1").await;
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!("PartialObjectMetadataList"), &json!(version))
        );
        assert_eq!(list["items"][0]["metadata"], newer["metadata"]);
        assert!(!list["metadata"]["resourceVersion"].as_str().unwrap_or_default().is_empty());
    }
}

#[tokio::test]
async fn lists_look_the_same_in_every_text_form() {
    let server = Server::start().await;
    for path in [format!("{CONFIG_MAPS}?pretty=true"), format!("{CONFIG_MAPS}?pretty=false")] {
        assert_eq!(server.get(&path).await.ok()["items"], json!([]));
    }
    let text = json!({"metadata": {"name": "a"}, "data": {"lines": "one\n\n  two\n", "flow": "x: [\n"}});
    server.post(CONFIG_MAPS, &text).await.ok();
    server.config_map("b", json!({})).await;
    let plain = server.get(CONFIG_MAPS).await.ok();
    let pretty = server.get(&format!("{CONFIG_MAPS}?pretty=true")).await;
    assert!(pretty.bytes.starts_with(b"{\n  \"kind\": \"ConfigMapList\""), "{:?}", pretty.bytes);
    assert!(pretty.bytes.windows(8).any(|bytes| bytes == b"\n    },\n"), "{:?}", pretty.bytes);
    assert_eq!(pretty.ok(), plain);
    let yaml = server.get_as(CONFIG_MAPS, "application/yaml").await;
    assert_eq!(serde_yaml::from_slice::<Value>(&yaml.bytes).unwrap(), plain);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let plain = server.get_as(CONFIG_MAPS, table).await.ok();
    assert_eq!(plain["rows"].as_array().unwrap().len(), 2);
    let yaml = server.get_as(CONFIG_MAPS, &table.replace("json", "yaml")).await;
    assert_eq!(serde_yaml::from_slice::<Value>(&yaml.bytes).unwrap(), plain);
}

#[tokio::test]
async fn what_is_long_is_packed_in_every_form() {
    let server = Server::start().await;
    for index in 0..20 {
        let object = json!({"metadata": {"name": format!("c{index}")}, "data": {"x": "y".repeat(20_000)}});
        server.post(CONFIG_MAPS, &object).await.ok();
    }
    let get = async |path: &str, accept: &str, encoding: &str| {
        let request =
            Request::get(path).header(header::ACCEPT, accept).header(header::ACCEPT_ENCODING, encoding);
        server.send(request.body(Body::empty()).unwrap()).await
    };
    for accept in [PROTOBUF, "application/yaml", JSON] {
        let plain = get(CONFIG_MAPS, accept, "identity").await;
        let packed = get(CONFIG_MAPS, accept, "gzip").await;
        assert_eq!(packed.headers[header::CONTENT_ENCODING], "gzip", "{accept}");
        assert_eq!(packed.headers[header::VARY], "Accept-Encoding", "{accept}");
        assert!(packed.bytes.len() * 10 < plain.bytes.len());
        let mut unpacked = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(&packed.bytes[..]), &mut unpacked).unwrap();
        assert_eq!(unpacked, plain.bytes);
    }
    let one = get(&format!("{CONFIG_MAPS}/c1"), PROTOBUF, "gzip").await;
    assert!(!one.headers.contains_key(header::CONTENT_ENCODING));
}

#[tokio::test]
async fn discovery_travels_in_protobuf() {
    let server = Server::start().await;
    let groups = decoded(&server.get_as("/apis", PROTOBUF).await);
    assert_eq!(groups["kind"], "APIGroupList");
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "apps"));
    let resources = decoded(&server.get_as("/apis/apps/v1", CLIENT_GO).await);
    let deployments =
        resources["resources"].as_array().unwrap().iter().find(|one| one["name"] == "deployments").unwrap();
    assert!(deployments["verbs"].as_array().unwrap().contains(&json!("watch")));
    // A document that is no object stays JSON.
    assert_eq!(server.get_as("/version", CLIENT_GO).await.ok()["minor"], "37");
}

#[tokio::test]
async fn there_is_no_table_of_a_review() {
    let cluster = Cluster::start().await;
    let ask = async |form: &str| {
        let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}).to_string();
        let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header(header::ACCEPT, format!("application/json;as={form};v=v1;g=meta.k8s.io"))
            .header(header::CONTENT_TYPE, JSON);
        cluster.admin().send(request.body(review.into()).unwrap()).await
    };
    assert_eq!(ask("Table").await.failure().0, 406);
    assert_eq!(ask("PartialObjectMetadata").await.ok()["kind"], "PartialObjectMetadata");
}

/// Path, what is accepted, and the message of the refusal; none where there is an answer.
const NEGOTIATIONS: &[(&str, &str, Option<&str>)] = &[
    ("/api", "text/html", Some(ALL)),
    ("/apis", "application/xml", Some(ALL)),
    ("/apis/apps", "text/html", Some(ALL)),
    ("/apis/apps/v1", "application/json;as=Table;g=meta.k8s.io;v=v1", Some(ALL)),
    ("/api/v1", "application/json;sv=1", Some(ALL)),
    ("/apis/apps/v1", "application/json;as=Table;g=meta.k8s.io;v=v1, application/json", None),
    ("/apis", "text/html, */*;q=0.1", None),
    ("/version", "application/yaml", Some("only the following media types are accepted: application/json")),
    ("/version", "application/json;as=Table;g=meta.k8s.io;v=v1", None),
    ("/", "text/html", None),
    ("/openapi/v3", "text/html", None),
    (CONFIG_MAPS, "text/html", Some(ALL)),
    (CONFIG_MAPS, LISTED, None),
    (
        CONFIG_MAPS,
        ONE,
        Some("you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"),
    ),
    ("/api/v1/namespaces/default/configmaps/c0", ONE, None),
    (
        "/api/v1/namespaces/default/configmaps/c0",
        LISTED,
        Some(
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
        ),
    ),
    (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        ONE,
        Some(
            "you requested PartialObjectMetadata, but the requested object is a list (*rbac.ClusterRoleList)",
        ),
    ),
];
const ALL: &str = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
const ONE: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const LISTED: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

#[tokio::test]
async fn what_nobody_can_have_is_not_acceptable() {
    let server = Server::start().await;
    server.config_map("c0", json!({})).await;
    for (path, accept, refusal) in NEGOTIATIONS {
        let answer = server.get_as(path, accept).await;
        let Some(message) = refusal else {
            assert!(answer.code.is_success(), "{path} {accept}: {answer:?}");
            continue;
        };
        // A failure comes in the form that was asked for, also where nothing else does.
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(answer.code, 406, "{path} {accept}: {text}");
        assert!(text.contains("NotAcceptable") && text.contains(message), "{path} {accept}: {text}");
    }
    // The schemas' own server says no word.
    let answer = server.get_as("/openapi/v2", "application/yaml").await;
    assert_eq!((answer.code.as_u16(), answer.bytes.len()), (406, 0));
    let answer = server.get_as("/openapi/v3/apis/apps/v1", "text/html").await;
    assert_eq!((answer.code.as_u16(), answer.bytes.len()), (406, 0));
}
