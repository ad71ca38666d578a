//! Every kind that discovery offers, from its creation to its end, in the steps that upstream's conformance suite takes
//! by hand for each: create, get, list, watch, patch, apply, update, the same for the status, delete, deletecollection.
//!
//! The table is data (`lifecycle/samples.json`): one object a kind, with the status that somebody may write.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::{client::*, cluster::Cluster};

const APPLY: &str = "application/apply-patch+yaml";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const SELECTOR: &str = "labelSelector=walk%3Dyes";
const NAMES: [&str; 3] = ["walk-a", "walk-b", "walk-c"];

#[tokio::test]
async fn every_kind_that_is_served_can_be_walked_through_its_life() {
    let cluster = Cluster::start().await;
    let server = cluster.admin();
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "walk"}})).await.ok();
    cluster.service_account("walk", "default").await;
    let mut samples = Samples::read(cluster.pki.ca_certificate());
    for (group_version, resource) in stored_resources(&server).await {
        let kind = format!("{group_version}/{}", resource["kind"].as_str().unwrap());
        let sample = samples.take(&kind);
        Walk::new(&server, &group_version, &resource, sample).go().await;
    }
    assert!(samples.0.is_empty(), "samples of kinds that are not served: {:?}", samples.0.keys());
}

/// What discovery says of everything that can be created and deleted.
async fn stored_resources(server: &Server) -> Vec<(String, Value)> {
    let mut versions = vec![("v1".to_string(), "/api/v1".to_string())];
    for group in server.get("/apis").await.ok()["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let version = version["groupVersion"].as_str().unwrap();
            versions.push((version.to_string(), format!("/apis/{version}")));
        }
    }
    let mut found = Vec::new();
    for (version, path) in versions {
        let document = server.get(&path).await.ok();
        let resources = document["resources"].as_array().unwrap();
        let is_part = |one: &Value| one["name"].as_str().unwrap().contains('/');
        let is_stored = |one: &&Value| !is_part(one) && has_verb(one, "create") && has_verb(one, "delete");
        for resource in resources.iter().filter(is_stored) {
            let status = format!("{}/status", resource["name"].as_str().unwrap());
            let mut resource = resource.clone();
            resource["hasStatus"] = resources.iter().any(|part| part["name"] == *status).into();
            found.push((version.clone(), resource));
        }
    }
    found
}

fn has_verb(resource: &Value, verb: &str) -> bool {
    resource["verbs"].as_array().unwrap().iter().any(|known| known == verb)
}

/// By `apiVersion/kind`, with placeholders: `NAME` and `NUMBER` are different for each object.
struct Samples(Map<String, Value>);

impl Samples {
    fn read(certificate: &str) -> Samples {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let text = include_str!("lifecycle/samples.json")
            .replace("REQUEST", &BASE64_STANDARD.encode(request.pem().unwrap()))
            .replace("BUNDLE", &certificate.replace('\n', "\\n"));
        Samples(serde_json::from_str(&text).unwrap())
    }

    fn take(&mut self, kind: &str) -> Value {
        self.0.remove(kind).unwrap_or_else(|| panic!("{kind} is served and has no sample"))
    }
}

/// One kind.
struct Walk<'a> {
    server: &'a Server,
    group_version: &'a str,
    resource: &'a Value,
    /// The collection over all namespaces, and that in which the objects are.
    everywhere: String,
    collection: String,
    objects: Vec<Value>,
    status: Value,
}

impl<'a> Walk<'a> {
    fn new(server: &'a Server, group_version: &'a str, resource: &'a Value, mut sample: Value) -> Walk<'a> {
        let root = if group_version.contains('/') { "apis" } else { "api" };
        let plural = resource["name"].as_str().unwrap();
        let base = format!("/{root}/{group_version}");
        let collection = match resource["namespaced"].as_bool().unwrap() {
            true => format!("{base}/namespaces/walk/{plural}"),
            false => format!("{base}/{plural}"),
        };
        let status = sample.as_object_mut().unwrap().remove("status").unwrap_or_default();
        let objects = NAMES.iter().zip(70..).map(|(name, number)| {
            let text = sample.to_string().replace("NAME", &name.replace('-', ""));
            let mut object: Value =
                serde_json::from_str(&text.replace("NUMBER", &number.to_string())).unwrap();
            object["apiVersion"] = group_version.into();
            object["kind"] = resource["kind"].clone();
            if object["metadata"]["name"].is_null() {
                object["metadata"]["name"] = (*name).into();
            }
            object["metadata"]["labels"] = json!({"walk": "yes"});
            object
        });
        Walk {
            server,
            group_version,
            resource,
            everywhere: format!("{base}/{plural}"),
            objects: objects.collect(),
            collection,
            status,
        }
    }

    async fn go(&self) {
        let before = self.server.get(&self.everywhere).await.ok();
        self.create().await;
        self.read().await;
        self.change().await;
        match self.resource["hasStatus"].as_bool().unwrap() {
            true => self.change_status().await,
            false => {
                assert_eq!(self.server.get(&self.path(0, "/status")).await.code, 404, "{}", self.path(0, ""))
            }
        }
        self.delete().await;
        self.watched_since(version(&before)).await;
    }

    fn name(&self, index: usize) -> &str {
        self.objects[index]["metadata"]["name"].as_str().unwrap()
    }

    fn path(&self, index: usize, part: &str) -> String {
        format!("{}/{}{part}", self.collection, self.name(index))
    }

    async fn create(&self) {
        let dry = self.server.post(&format!("{}?dryRun=All", self.collection), &self.objects[0]).await;
        assert_eq!(dry.code, 201, "{}: {:?}", self.collection, dry.bytes);
        assert_eq!(self.server.get(&self.path(0, "")).await.code, 404, "{} after a dry run", self.collection);
        for object in &self.objects {
            let created = self.server.post(&self.collection, object).await;
            assert_eq!(created.code, 201, "{}: {:?}", self.collection, created.bytes);
            assert_eq!(created.json()["kind"], self.resource["kind"]);
        }
        let again = self.server.post(&self.collection, &self.objects[0]).await.failure();
        assert_eq!((again.0, again.1.as_str()), (409, "AlreadyExists"), "{}", self.collection);
    }

    async fn read(&self) {
        let list_kind = format!("{}List", self.resource["kind"].as_str().unwrap());
        for collection in [&self.collection, &self.everywhere] {
            let list = self.server.get(&format!("{collection}?{SELECTOR}")).await.ok();
            assert_eq!(
                (list["kind"].as_str(), list["apiVersion"].as_str()),
                (Some(list_kind.as_str()), Some(self.group_version))
            );
            let items = list["items"].as_array().unwrap();
            let names: Vec<&str> =
                items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
            assert_eq!(names, [self.name(0), self.name(1), self.name(2)], "{collection}");
        }
        let got = self.server.get(&self.path(0, "")).await.ok();
        assert_eq!(
            (&got["kind"], got["apiVersion"].as_str()),
            (&self.resource["kind"], Some(self.group_version))
        );
        let table = self.server.get_as(&format!("{}?{SELECTOR}", self.collection), TABLE).await.ok();
        assert_eq!((&table["kind"], table["rows"].as_array().unwrap().len()), (&json!("Table"), 3));
        let metadata = self.server.get_as(&self.path(0, ""), METADATA).await.ok();
        assert_eq!(
            (&metadata["kind"], &metadata["metadata"]["uid"]),
            (&json!("PartialObjectMetadata"), &got["metadata"]["uid"])
        );
    }

    async fn change(&self) {
        let path = self.path(0, "");
        let merge = json!({"metadata": {"annotations": {"merged": "yes"}}});
        let strategic = json!({"metadata": {"annotations": {"strategic": "yes"}}});
        let json_patch = json!([{"op": "add", "path": "/metadata/annotations/json", "value": "yes"}]);
        for (content_type, patch) in [(MERGE, &merge), (STRATEGIC, &strategic), (JSON_PATCH, &json_patch)] {
            self.server.patch(&path, content_type, patch).await.ok();
        }
        let applied = json!({"metadata": {"annotations": {"applied": "yes"}}});
        let applied = self.apply("", applied).await;
        let annotations = json!({"applied": "yes", "json": "yes", "merged": "yes", "strategic": "yes"});
        assert_contains(&applied["metadata"]["annotations"], &annotations, &path);
        let updated = self.update("", "updated").await;
        assert_eq!(updated["metadata"]["annotations"]["updated"], "yes", "{path}");
        let mut stale = updated.clone();
        stale["metadata"]["resourceVersion"] = "1".into();
        let stale = self.server.put(&path, &stale).await.failure();
        assert_eq!((stale.0, stale.1.as_str()), (409, "Conflict"), "{path}");
    }

    async fn change_status(&self) {
        let path = self.path(0, "/status");
        assert!(self.status.is_object(), "{path} is served and has no sample");
        let before = self.server.get(&path).await.ok();
        assert_eq!(before["kind"], self.resource["kind"]);
        // A status is all that changes, whatever else the patch has, and nothing else changes it.
        let uid = &before["metadata"]["uid"];
        let whole = json!({"metadata": {"uid": uid}, "status": self.status, "spec": null});
        let fields = self.status.as_object().unwrap().iter();
        let steps = fields
            .map(|(name, value)| json!({"op": "add", "path": format!("/status/{name}"), "value": value}));
        let json_patch = Value::Array(steps.collect());
        for (content_type, patch) in [(MERGE, &whole), (STRATEGIC, &whole), (JSON_PATCH, &json_patch)] {
            let strict = format!("{path}?fieldValidation=Strict");
            let patched = self.server.patch(&strict, content_type, patch).await.ok();
            assert_contains(&patched["status"], &self.status, &path);
            assert_eq!(patched["spec"], before["spec"], "{path} with {content_type}");
        }
        let kept = self.server.patch(&self.path(0, ""), MERGE, &json!({"status": null})).await.ok();
        assert_contains(&kept["status"], &self.status, &path);
        let applied = self.apply("/status", json!({"status": self.status})).await;
        assert_contains(&applied["status"], &self.status, &path);
        let updated = self.update("/status", "of-status").await;
        assert_contains(&updated["status"], &self.status, &path);
    }

    async fn apply(&self, part: &str, mut config: Value) -> Value {
        config["apiVersion"] = self.group_version.into();
        config["kind"] = self.resource["kind"].clone();
        config["metadata"]["name"] = self.name(0).into();
        let path = self.path(0, part) + "?fieldManager=walker&force=true";
        self.server.patch(&path, APPLY, &config).await.ok()
    }

    /// Reads, annotates and writes, again when somebody was faster: parts of the server look after some kinds.
    async fn update(&self, part: &str, annotation: &str) -> Value {
        loop {
            let mut object = self.server.get(&self.path(0, part)).await.ok();
            object["metadata"]["annotations"][annotation] = "yes".into();
            let updated = self.server.put(&self.path(0, part), &object).await;
            if updated.code != 409 {
                return updated.ok();
            }
        }
    }

    async fn delete(&self) {
        self.server.delete(&self.path(0, "")).await.ok();
        self.finalize(0).await;
        let all = format!("{}?{SELECTOR}", self.collection);
        match has_verb(self.resource, "deletecollection") {
            true => assert!(self.server.delete(&all).await.code.is_success(), "{all}"),
            false => {
                assert_eq!(self.server.delete(&all).await.code, 405, "{all}");
                self.server.delete(&self.path(1, "")).await.ok();
                self.server.delete(&self.path(2, "")).await.ok();
            }
        }
        self.finalize(1).await;
        self.finalize(2).await;
        let left = self.server.get(&all).await.ok();
        assert_eq!(left["items"], json!([]), "{all}");
    }

    /// What a controller would do for an object that is to be deleted. Without finalizers it is gone already.
    async fn finalize(&self, index: usize) {
        let path = self.path(index, "");
        loop {
            let found = self.server.get(&path).await;
            if found.code == 404 {
                return;
            }
            let mut object = found.ok();
            assert!(object["metadata"]["deletionTimestamp"].is_string(), "{path}: {object}");
            if object["spec"]["finalizers"].is_array() {
                object["spec"]["finalizers"] = json!([]);
                self.server.put(&format!("{path}/finalize"), &object).await.ok();
                continue;
            }
            assert!(object["metadata"]["finalizers"].is_array(), "{path}: {object}");
            let answer = self.server.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}})).await;
            assert!(answer.code.is_success() || answer.code == 404, "{path}: {:?}", answer.bytes);
        }
    }

    /// Every step was told, in order: each object came, the first was changed, each went.
    async fn watched_since(&self, revision: &str) {
        let query = format!("watch=true&resourceVersion={revision}&{SELECTOR}");
        let mut watch = self.server.watch(&format!("{}?{query}", self.everywhere)).await;
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut annotations = Vec::new();
        while seen.values().filter(|events| events.last().is_some_and(|last| last == "DELETED")).count() < 3 {
            let event = watch.event().await.unwrap();
            let metadata = &event["object"]["metadata"];
            assert_eq!(event["object"]["kind"], self.resource["kind"], "{event}");
            if metadata["name"] == self.name(0)
                && let Some(present) = metadata["annotations"].as_object()
            {
                annotations.extend(
                    present.keys().filter(|key| !annotations.contains(*key)).cloned().collect::<Vec<_>>(),
                );
            }
            let name = metadata["name"].as_str().unwrap().to_string();
            seen.entry(name).or_default().push(event["type"].as_str().unwrap().to_string());
        }
        for (name, events) in &seen {
            assert_eq!(events[0], "ADDED", "{name}: {events:?}");
            let inner = &events[1..events.len() - 1];
            assert!(inner.iter().all(|event| event == "MODIFIED"), "{name}: {events:?}");
        }
        let steps: Vec<&String> = annotations
            .iter()
            .filter(|key| ["merged", "strategic", "json", "applied", "updated"].contains(&key.as_str()))
            .collect();
        assert_eq!(steps, ["merged", "strategic", "json", "applied", "updated"], "{}", self.everywhere);
    }
}

/// Whether every value of `expected` is there; of lists, every item.
#[track_caller]
fn assert_contains(actual: &Value, expected: &Value, path: &str) {
    fn contains(actual: &Value, expected: &Value) -> bool {
        match expected {
            Value::Object(fields) => fields.iter().all(|(key, value)| contains(&actual[key], value)),
            Value::Array(items) => items.iter().all(|item| {
                actual.as_array().is_some_and(|actual| actual.iter().any(|actual| contains(actual, item)))
            }),
            Value::Number(number) if number.as_i64() == Some(0) => actual.is_null() || actual == expected,
            _ => actual == expected,
        }
    }
    assert!(contains(actual, expected), "{path}: {actual} lacks some of {expected}");
}
