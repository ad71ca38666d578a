//! CustomResourceDefinitions and their objects, as upstream's conformance cases have them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRON_TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
const APPLY: &str = "application/apply-patch+yaml";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn definition(schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.labelSelector",
                }},
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec", "description": "The schedule"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                ],
            }],
        },
    })
}

fn plain_schema() -> Value {
    json!({"type": "object", "description": "A job at a time.", "properties": {
        "spec": {"type": "object", "description": "What is wanted.", "properties": {
            "cronSpec": {"type": "string", "pattern": r"^[\d*/ ]+$"},
            "image": {"type": "string"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "required": ["port"], "properties": {
                    "port": {"x-kubernetes-int-or-string": true}, "name": {"type": "string"}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "labelSelector": {"type": "string"}}},
    }})
}

fn cron_tab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

impl Server {
    /// Waits until a definition is, or is not, as wanted.
    async fn definition_is(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut watch = self.watch(&format!("{DEFINITIONS}?watch=true&resourceVersion=0")).await;
        loop {
            let event = watch.event().await.unwrap_or_else(|| panic!("the watch ended before {what}"));
            if is_so(&event) {
                return event["object"].clone();
            }
        }
    }

    pub async fn define(&self, definition: &Value) -> Value {
        self.post(DEFINITIONS, definition).await.ok();
        let name = definition["metadata"]["name"].clone();
        self.definition_is("it is established", |event| {
            event["object"]["metadata"]["name"] == name
                && condition(&event["object"], "Established") == "True"
        })
        .await
    }

    /// Changes a definition and waits until it is served so.
    async fn redefine(&self, patch: &Value, seen: impl AsyncFn() -> bool) {
        self.patch(&format!("{DEFINITIONS}/crontabs.stable.example.com"), MERGE, patch).await.ok();
        let until_seen = async {
            while !seen().await {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), until_seen).await;
        waited.expect("the definition has not come into force");
    }
}

fn condition(definition: &Value, kind: &str) -> String {
    let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
    found["status"].as_str().unwrap_or_default().to_string()
}

#[tokio::test]
async fn a_definition_adds_a_kind() {
    let server = Server::start().await;
    assert_eq!(server.get(CRON_TABS).await.code, 404);
    let established = server.define(&definition(plain_schema())).await;
    assert_eq!(established["status"]["acceptedNames"]["listKind"], "CronTabList");
    assert_eq!(established["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(condition(&established, "NamesAccepted"), "True");

    let created =
        server.post(CRON_TABS, &cron_tab("a", json!({"cronSpec": "* *", "free": {"x": [1]}}))).await.ok();
    assert_eq!(created["spec"], json!({"cronSpec": "* *", "replicas": 1, "free": {"x": [1]}}));
    assert_eq!(created["metadata"]["generation"], 1);
    let list = server.get(CRON_TABS).await.ok();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("CronTabList"), 1));
    let mut watch = server.watch(&format!("{CRON_TABS}?watch=true")).await;
    assert_eq!(watch.next().await, ("ADDED".into(), "a".into()));

    let path = format!("{CRON_TABS}/a");
    let patched = server.patch(&path, MERGE, &json!({"spec": {"replicas": 3}})).await.ok();
    assert_eq!((&patched["spec"]["replicas"], &patched["metadata"]["generation"]), (&json!(3), &json!(2)));
    let refused = server.patch(&path, STRATEGIC, &json!({"spec": {"replicas": 4}})).await;
    assert_eq!(refused.code, 415);
    let wanted = json!({"metadata": {"finalizers": ["example.com/mine"]}, "spec": {"replicas": 9},
        "status": {"replicas": 2, "labelSelector": "a=b"}});
    let status = server.patch(&format!("{path}/status"), MERGE, &wanted).await.ok();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(3), &json!(2)));
    assert_eq!(status["metadata"]["generation"], 2);
    assert_eq!(status["metadata"]["finalizers"], Value::Null);
    // A report about an object that is gone does not reach a later one of its name.
    let stale = json!({"metadata": {"uid": "gone"}, "status": {"replicas": 7}});
    let (code, _, message) = server.patch(&format!("{path}/status"), MERGE, &stale).await.failure();
    assert_eq!(code, 422);
    assert!(message.ends_with("metadata.uid: Invalid value: \"gone\": field is immutable"), "{message}");
    let applied = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a", "uid": "gone"}, "status": {"replicas": 7}});
    let path_of_status = format!("{path}/status?fieldManager=late&force=true");
    assert_eq!(server.patch(&path_of_status, "application/apply-patch+yaml", &applied).await.code, 422);
    let scale = server.get(&format!("{path}/scale")).await.ok();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(3), &json!({"replicas": 2, "selector": "a=b"}))
    );
    server.patch(&format!("{path}/scale"), MERGE, &json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(server.get(&path).await.ok()["spec"]["replicas"], 5);

    server.delete(&path).await.ok();
    assert_eq!(server.get(&path).await.failure().2, "crontabs.stable.example.com \"a\" not found");
}

#[tokio::test]
async fn objects_are_validated_in_upstreams_words() {
    let server = Server::start().await;
    server.define(&definition(plain_schema())).await;
    let wrong = cron_tab(
        "a",
        json!({"cronSpec": "never", "replicas": "x", "ports": [{"port": true}, {"name": "n"}]}),
    );
    let (code, reason, message) = server.post(CRON_TABS, &wrong).await.failure();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    for part in [
        "CronTab.stable.example.com \"a\" is invalid: ",
        "spec.cronSpec: Invalid value: \"never\": spec.cronSpec in body should match '^[\\d*/ ]+$'",
        "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        "spec.ports[0].port: Invalid value: \"boolean\": spec.ports[0].port in body must be of type integer,string: \"boolean\"",
        "spec.ports[1].port: Required value",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let unknown = cron_tab("a", json!({"image": "i", "unknown": 1, "free": {"any": 1}}));
    let warned = server.post(CRON_TABS, &unknown).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.unknown\\\"\"");
    let created = warned.ok();
    assert_eq!(created["spec"], json!({"image": "i", "replicas": 1, "free": {"any": 1}}));
    let (code, _, message) =
        server.post(&format!("{CRON_TABS}?fieldValidation=Strict"), &unknown).await.failure();
    assert_eq!(code, 400);
    assert!(message.ends_with("strict decoding error: unknown field \"spec.unknown\""), "{message}");
}

#[tokio::test]
async fn a_kind_is_discovered_and_published() {
    let server = Server::start().await;
    server.define(&definition(plain_schema())).await;
    let group = server.get("/apis/stable.example.com").await.ok();
    assert_eq!(group["preferredVersion"]["groupVersion"], "stable.example.com/v1");
    let resources = server.get("/apis/stable.example.com/v1").await.ok();
    let names: Vec<&str> =
        resources["resources"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["crontabs", "crontabs/scale", "crontabs/status"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["ct"]));
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = server.get_as("/apis", aggregated).await.ok();
    assert!(
        all["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|group| group["metadata"]["name"] == "stable.example.com")
    );

    let name = "com.example.stable.v1.CronTab";
    let v3 = server.get("/openapi/v3/apis/stable.example.com/v1").await.ok();
    let schema = &v3["components"]["schemas"][name];
    assert_eq!(schema["properties"]["spec"]["description"], "What is wanted.");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    assert!(v3["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
    let index =
        || async { server.get("/openapi/v3").await.ok()["paths"]["apis/stable.example.com/v1"].clone() };
    let before = index().await;
    assert!(before["serverRelativeURL"].is_string());
    let v2 = server.get("/openapi/v2").await.ok();
    assert_eq!(v2["definitions"][name]["properties"]["spec"]["properties"]["image"]["type"], "string");

    // A change is published without a restart, under another address.
    let mut schema = plain_schema();
    schema["properties"]["spec"]["properties"]["added"] = json!({"type": "string", "description": "New."});
    let change = json!({"spec": definition(schema)["spec"]});
    server.redefine(&change, async || index().await != before).await;
    let v3 = server.get("/openapi/v3/apis/stable.example.com/v1").await.ok();
    let spec = &v3["components"]["schemas"][name]["properties"]["spec"];
    assert_eq!(spec["properties"]["added"]["description"], "New.");
}

#[tokio::test]
async fn columns_and_selectable_fields_are_the_definitions() {
    let server = Server::start().await;
    let mut selectable = definition(plain_schema());
    selectable["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.cronSpec"}]);
    server.define(&selectable).await;
    for (name, spec) in [("a", "* 1"), ("b", "* 2")] {
        server.post(CRON_TABS, &cron_tab(name, json!({"cronSpec": spec, "replicas": 2}))).await.ok();
    }
    let table = server.get_as(CRON_TABS, TABLE).await.ok();
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(columns, ["Name", "Spec", "Replicas"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", "* 1", 2]));
    let chosen = server.get(&format!("{CRON_TABS}?fieldSelector=spec.cronSpec%3D*%202")).await.ok();
    assert_eq!(chosen["items"].as_array().unwrap().len(), 1);
    assert_eq!(chosen["items"][0]["metadata"]["name"], "b");
    let refused = server.get(&format!("{CRON_TABS}?fieldSelector=spec.image%3Dx")).await.failure();
    assert_eq!((refused.0, refused.2.as_str()), (400, "field label not supported: spec.image"));
}

#[tokio::test]
async fn a_configuration_is_applied_by_the_schemas_list_types() {
    let server = Server::start().await;
    server.define(&definition(plain_schema())).await;
    let path = |manager: &str| format!("{CRON_TABS}/a?fieldManager={manager}");
    let one = cron_tab("a", json!({"ports": [{"port": 80, "name": "web"}]}));
    server.patch(&path("one"), APPLY, &one).await.ok();
    let other = cron_tab("a", json!({"ports": [{"port": 443, "name": "tls"}]}));
    let applied = server.patch(&path("other"), APPLY, &other).await.ok();
    assert_eq!(applied["spec"]["ports"].as_array().unwrap().len(), 2);
    let taken = cron_tab("a", json!({"ports": [{"port": 80, "name": "mine"}]}));
    assert_eq!(server.patch(&path("other"), APPLY, &taken).await.code, 409);
}

#[tokio::test]
async fn rules_are_held_and_transitions_too() {
    let server = Server::start().await;
    let mut schema = plain_schema();
    schema["properties"]["spec"]["x-kubernetes-validations"] = json!([
        {"rule": "self.replicas <= 5", "messageExpression": "'at most 5, not ' + string(self.replicas)"},
        {"rule": "!has(oldSelf.image) || self.image == oldSelf.image", "message": "image is immutable", "fieldPath": ".image", "reason": "FieldValueForbidden"},
    ]);
    server.define(&definition(schema)).await;
    let (code, _, message) = server.post(CRON_TABS, &cron_tab("a", json!({"replicas": 6}))).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (422, "CronTab.stable.example.com \"a\" is invalid: spec: Invalid value: at most 5, not 6")
    );
    server.post(CRON_TABS, &cron_tab("a", json!({"image": "x"}))).await.ok();
    let patch = json!({"spec": {"image": "y"}});
    let (_, _, message) = server.patch(&format!("{CRON_TABS}/a"), MERGE, &patch).await.failure();
    assert_eq!(
        message,
        "CronTab.stable.example.com \"a\" is invalid: spec.image: Forbidden: image is immutable"
    );
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    let server = Server::start().await;
    let with_rule = |rule: &str| {
        let mut schema = plain_schema();
        schema["properties"]["spec"]["properties"]["list"] =
            json!({"type": "array", "items": {"type": "string"}});
        schema["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": rule}]);
        definition(schema)
    };
    for (bad, expected) in [
        (with_rule("self.z == 1"), "undefined field 'z'"),
        (with_rule("self = 42"), "Syntax error"),
        (with_rule("self.list.all(x, self.list.all(y, x == y))"), "exceeds budget"),
        (
            definition(json!({"type": "object", "properties": {"x": {}}})),
            "must not be empty for specified object fields",
        ),
        (
            definition(json!({"type": "object", "properties": {"x": {"type": "integer", "default": "a"}}})),
            "must be of type integer: \"string\"",
        ),
    ] {
        let (code, _, message) = server.post(DEFINITIONS, &bad).await.failure();
        assert_eq!(code, 422, "{message}");
        assert!(message.contains(expected), "{expected} is not in {message}");
    }
}

#[tokio::test]
async fn names_that_are_taken_are_not_granted() {
    let server = Server::start().await;
    server.define(&definition(plain_schema())).await;
    let mut rival = definition(plain_schema());
    rival["metadata"]["name"] = json!("others.stable.example.com");
    rival["spec"]["names"] = json!({"plural": "others", "kind": "Other", "shortNames": ["ct"]});
    server.post(DEFINITIONS, &rival).await.ok();
    let refused = server
        .definition_is("it is refused", |event| {
            event["object"]["metadata"]["name"] == "others.stable.example.com"
                && condition(&event["object"], "NamesAccepted") == "False"
        })
        .await;
    assert_eq!(condition(&refused, "Established"), "False");
    assert_eq!(server.get("/apis/stable.example.com/v1/others").await.code, 404);
    // When the first goes, the second gets what it asked for.
    server.delete(&format!("{DEFINITIONS}/crontabs.stable.example.com")).await.ok();
    server
        .definition_is("it is established", |event| {
            event["object"]["metadata"]["name"] == "others.stable.example.com"
                && condition(&event["object"], "Established") == "True"
        })
        .await;
}

#[tokio::test]
async fn a_deletion_takes_the_objects_along_and_ends_their_watches() {
    let server = Server::start().await;
    server.define(&definition(plain_schema())).await;
    for index in 0..50 {
        server.post(CRON_TABS, &cron_tab(&format!("a{index}"), json!({}))).await.ok();
    }
    let mut held = cron_tab("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let held = server.post(CRON_TABS, &held).await.ok();
    let mut watch = server.watch(&format!("{CRON_TABS}?watch=true&resourceVersion={}", version(&held))).await;
    let name = "crontabs.stable.example.com";
    server.delete(&format!("{DEFINITIONS}/{name}")).await.ok();
    for _ in 0..50 {
        while watch.next().await.0 != "DELETED" {}
    }
    let refused = server.post(CRON_TABS, &cron_tab("late", json!({}))).await;
    assert_eq!(refused.code, 405);
    assert_eq!(server.get(CRON_TABS).await.ok()["items"].as_array().unwrap().len(), 1);
    server.patch(&format!("{CRON_TABS}/held"), MERGE, &json!({"metadata": {"finalizers": null}})).await.ok();
    let mut definitions =
        server.watch(&format!("{DEFINITIONS}?watch=true&resourceVersion={}", version(&held))).await;
    while definitions.next().await != ("DELETED".into(), name.into()) {}
    while watch.event().await.is_some() {}
    assert_eq!(server.get(CRON_TABS).await.code, 404);
}

#[tokio::test]
async fn versions_differ_in_name_alone_without_a_webhook() {
    let server = Server::start().await;
    let mut two = definition(plain_schema());
    two["spec"]["versions"][0]["storage"] = json!(false);
    let mut schema = plain_schema();
    schema["properties"]["spec"]["properties"]["replicas"]["default"] = json!(7);
    let v2 = json!({"name": "v2", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    two["spec"]["versions"].as_array_mut().unwrap().push(v2);
    server.define(&two).await;
    server.post(CRON_TABS, &cron_tab("a", json!({"image": "x"}))).await.ok();
    let newer = CRON_TABS.replace("/v1/", "/v2/");
    let other = server.get(&format!("{newer}/a")).await.ok();
    assert_eq!(
        (&other["apiVersion"], &other["spec"]),
        (&json!("stable.example.com/v2"), &json!({"image": "x", "replicas": 1}))
    );
    assert_eq!(server.get(&newer).await.ok()["items"][0]["apiVersion"], "stable.example.com/v2");
    assert_eq!(server.get(CRON_TABS).await.ok()["items"][0]["apiVersion"], "stable.example.com/v1");
    let mut watch = server.watch(&format!("{CRON_TABS}?watch=true")).await;
    assert_eq!(watch.event().await.unwrap()["object"]["apiVersion"], "stable.example.com/v1");
    let group = server.get("/apis/stable.example.com").await.ok();
    assert_eq!(group["preferredVersion"]["version"], "v2");
}

#[tokio::test]
async fn what_is_stored_gets_the_defaults_of_the_definition_in_force() {
    let server = Server::start().await;
    server.define(&definition(plain_schema())).await;
    let path = format!("{CRON_TABS}/a");
    server.post(CRON_TABS, &cron_tab("a", json!({"image": "x"}))).await.ok();
    let mut schema = plain_schema();
    schema["properties"]["spec"]["properties"]["added"] = json!({"type": "string", "default": "here"});
    let change = json!({"spec": definition(schema)["spec"]});
    server.redefine(&change, async || server.get(&path).await.ok()["spec"]["added"] == "here").await;
}

#[tokio::test]
async fn a_definitions_status_is_a_subresource_and_definitions_go_as_a_collection() {
    let server = Server::start().await;
    let mut labelled = definition(plain_schema());
    labelled["metadata"]["labels"] = json!({"test": "one"});
    server.define(&labelled).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com/status");
    let mut status = server.get(&path).await.ok();
    assert_eq!(condition(&status, "Established"), "True");
    let mine = json!({"type": "Mine", "status": "True", "reason": "E2E", "message": "set by hand", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    status["status"]["conditions"].as_array_mut().unwrap().push(mine);
    let updated = server.put(&path, &status).await.ok();
    assert_eq!(condition(&updated, "Mine"), "True");
    // It may be gone before anybody looks, so the watch begins before.
    let since = updated["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = server.watch(&format!("{DEFINITIONS}?watch=true&resourceVersion={since}")).await;
    server.delete(&format!("{DEFINITIONS}?labelSelector=test%3Done")).await.ok();
    while watch.event().await.unwrap()["type"] != "DELETED" {}
    assert!(server.get(DEFINITIONS).await.ok()["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn unknown_metadata_is_found_also_in_embedded_objects() {
    let server = Server::start().await;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
        "spec": {"type": "object", "properties": {
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }},
    }});
    server.define(&definition(schema)).await;
    let mut object = cron_tab(
        "a",
        json!({"template": {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "unknownSub": 1}, "spec": {"free": true},
        }}),
    );
    object["metadata"]["unknownMeta"] = json!(1);
    object["anything"] = json!({"goes": [null]});
    let strict = format!("{CRON_TABS}?fieldValidation=Strict");
    let (code, _, message) = server.post(&strict, &object).await.failure();
    assert_eq!(code, 400);
    for field in
        ["unknown field \"metadata.unknownMeta\"", "unknown field \"spec.template.metadata.unknownSub\""]
    {
        assert!(message.contains(field), "{field} is not in {message}");
    }
    let created = server.post(CRON_TABS, &object).await.ok();
    assert_eq!(created["anything"], json!({"goes": [null]}));
    assert_eq!(created["spec"]["template"]["metadata"], json!({"name": "x"}));
    assert_eq!(created["spec"]["template"]["spec"], json!({"free": true}));
    let mut nameless = cron_tab("b", json!({"template": {"metadata": {}}}));
    nameless["spec"]["template"]["kind"] = json!("Pod");
    let (_, _, message) = server.post(CRON_TABS, &nameless).await.failure();
    assert!(message.contains("spec.template.apiVersion: Required value: must not be empty"), "{message}");
}

#[tokio::test]
async fn nulls_are_values_only_where_they_may_be() {
    let server = Server::start().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "nullable": {"type": "string", "nullable": true, "default": "x"},
        "defaulted": {"type": "string", "default": "y"},
        "plain": {"type": "string"},
        "list": {"type": "array", "items": {"type": "string"}},
    }}}});
    server.define(&definition(schema)).await;
    let object = cron_tab("a", json!({"nullable": null, "defaulted": null, "plain": null}));
    let created = server.post(CRON_TABS, &object).await.ok();
    assert_eq!(created["spec"], json!({"nullable": null, "defaulted": "y"}));
    let (_, _, message) = server.post(CRON_TABS, &cron_tab("b", json!({"list": [null]}))).await.failure();
    assert!(message.contains("spec.list[0] in body must be of type string: \"null\""), "{message}");
}

#[tokio::test]
async fn a_version_that_is_no_longer_served_is_gone_everywhere() {
    let server = Server::start().await;
    let mut two = definition(plain_schema());
    let v2 = json!({"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": plain_schema()}});
    two["spec"]["versions"].as_array_mut().unwrap().push(v2);
    server.define(&two).await;
    assert_eq!(server.get("/openapi/v3/apis/stable.example.com/v2").await.code, 200);
    two["spec"]["versions"][1]["served"] = json!(false);
    let newer = CRON_TABS.replace("/v1/", "/v2/");
    server.redefine(&json!({"spec": two["spec"]}), async || server.get(&newer).await.code == 404).await;
    assert_eq!(server.get("/openapi/v3/apis/stable.example.com/v2").await.code, 404);
    assert_eq!(server.get("/apis/stable.example.com/v2").await.code, 404);
    let v2 = server.get("/openapi/v2").await.ok();
    assert!(v2["definitions"]["com.example.stable.v1.CronTab"].is_object());
    assert!(v2["definitions"]["com.example.stable.v2.CronTab"].is_null());
}

#[tokio::test]
async fn an_expensive_rule_stops_the_evaluation_not_the_server() {
    let server = Server::start().await;
    let mut schema = plain_schema();
    schema["properties"]["spec"]["properties"]["list"] =
        json!({"type": "array", "maxItems": 725, "items": {"type": "integer"}});
    schema["properties"]["spec"]["x-kubernetes-validations"] =
        json!([{"rule": "!has(self.list) || self.list.all(x, self.list.all(y, x == y))"}]);
    server.define(&definition(schema)).await;
    let many: Vec<u32> = vec![1; 725];
    let (code, _, message) = server.post(CRON_TABS, &cron_tab("a", json!({"list": many}))).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("call cost exceeds limit"), "{message}");
    server.post(CRON_TABS, &cron_tab("b", json!({"list": [1, 1]}))).await.ok();
}

#[tokio::test]
async fn custom_resources_have_no_protobuf_but_their_metadata_has() {
    let server = Server::start().await;
    server.define(&definition(plain_schema())).await;
    server.post(CRON_TABS, &cron_tab("a", json!({"cronSpec": "* *"}))).await.ok();
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    for path in [CRON_TABS.to_string(), format!("{CRON_TABS}/a"), format!("{CRON_TABS}?watch=1")] {
        let refused = server.get_as(&path, PROTOBUF).await;
        assert_eq!(refused.code, 406, "{path}");
        let status = api::protobuf::decode(&refused.bytes).unwrap();
        assert_eq!(status.text(&["reason"]), "NotAcceptable");
        assert!(status.text(&["message"]).starts_with("only the following media types are accepted: "));
    }
    let list = server.get_as(CRON_TABS, "application/vnd.kubernetes.protobuf,application/json").await.ok();
    assert_eq!(list["kind"], "CronTabList");
    let accept = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let metadata = api::protobuf::decode(&server.get_as(CRON_TABS, &accept).await.bytes).unwrap();
    assert_eq!(metadata.list(&["items"])[0]["metadata"]["name"], "a");
    let scale = server.get_as(&format!("{CRON_TABS}/a/scale"), PROTOBUF).await;
    assert_eq!(api::protobuf::decode(&scale.bytes).unwrap().kind(), "Scale");
    let body = server.raw(http::Method::POST, CRON_TABS, PROTOBUF, "k8s\0").await.failure();
    assert_eq!(body.0, 400);
    assert!(body.2.starts_with("CronTab in version \"v1\" cannot be handled as a CronTab: "), "{}", body.2);
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";
    let json = server.get(path).await.ok();
    let read = api::protobuf::decode(&server.get_as(path, PROTOBUF).await.bytes).unwrap();
    assert_eq!(read.into_value(), json);
}

#[tokio::test]
async fn what_broke_a_rule_before_is_warned_of_and_held_against_nobody() {
    let server = Server::start().await;
    let mut loose = plain_schema();
    loose["properties"]["spec"]["properties"]["image"]["x-kubernetes-validations"] =
        json!([{"rule": "self != 'old'", "message": "no old images"}]);
    server.define(&definition(plain_schema())).await;
    let mut tab = cron_tab("a", json!({"image": "old", "replicas": 1}));
    tab["metadata"]["finalizers"] = json!(["mine", "example.com/theirs"]);
    let made = server.post(CRON_TABS, &tab).await;
    assert_eq!(
        made.headers["warning"],
        "299 - \"metadata.finalizers: \\\"mine\\\": prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers\""
    );
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";
    let schema =
        [json!({"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": loose})];
    server.patch(definitions, JSON_PATCH, &json!(schema)).await.ok();
    let tab = &format!("{CRON_TABS}/a");
    // The new rule is known as soon as a new object is held to it.
    let probe = cron_tab("b", json!({"image": "old"}));
    let dry = &format!("{CRON_TABS}?dryRun=All");
    while server.post(dry, &probe).await.code.is_success() {
        tokio::task::yield_now().await;
    }
    let changed = server.patch(tab, MERGE, &json!({"spec": {"replicas": 2}})).await;
    assert_eq!(changed.headers["warning"], "299 - \"spec.image: Invalid value: \\\"old\\\": no old images\"");
    assert_eq!(changed.ok()["spec"]["replicas"], 2);
    assert!(server.patch(tab, MERGE, &json!({"spec": {"image": "new"}})).await.code.is_success());
    let (_, _, message) = server.patch(tab, MERGE, &json!({"spec": {"image": "old"}})).await.failure();
    assert!(message.ends_with("spec.image: Invalid value: \"old\": no old images"), "{message}");
}
