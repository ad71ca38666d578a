//! Webhooks that change and refuse, called as the configurations say.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{client::*, cluster::Cluster, remote::Remote};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// An answer that lets a request pass.
fn allowed(review: &Value) -> Value {
    answer(review, json!({"allowed": true}))
}

/// An answer that changes the object.
fn patched(review: &Value, patch: Value) -> Value {
    let patch = BASE64_STANDARD.encode(patch.to_string());
    answer(review, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

fn answer(review: &Value, mut response: Value) -> Value {
    response["uid"] = review["request"]["uid"].clone();
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
}

/// A webhook for config maps, with what is special about it.
fn hook(name: &str, client: Value, more: Value) -> Value {
    let mut hook = json!({
        "name": name, "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["default"]},
        ]},
    });
    hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    hook
}

async fn configure(admin: &Server, resource: &str, name: &str, hooks: Value) {
    let object = json!({"metadata": {"name": name}, "webhooks": hooks});
    admin.post(&format!("{CONFIGURATIONS}/{resource}"), &object).await.ok();
}

async fn mutating(admin: &Server, name: &str, hooks: Value) {
    configure(admin, "mutatingwebhookconfigurations", name, hooks).await;
}

async fn validating(admin: &Server, name: &str, hooks: Value) {
    configure(admin, "validatingwebhookconfigurations", name, hooks).await;
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

#[tokio::test]
async fn one_webhook_changes_and_another_sees_and_warns() {
    let change =
        Remote::start(|review| patched(review, json!([{"op": "add", "path": "/data/b", "value": "2"}])))
            .await;
    let warn =
        Remote::start(|review| answer(review, json!({"allowed": true, "warnings": ["take care"]}))).await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rules = json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    let hooks = json!([hook("change.example.com", change.client("/m"), json!({"rules": rules}))]);
    mutating(&admin, "change", hooks).await;
    validating(&admin, "warn", json!([hook("warn.example.com", warn.client("/v"), json!({}))])).await;

    let created = admin.post(&format!("{CONFIG_MAPS}?fieldManager=me"), &config_map("a")).await;
    assert_eq!(created.headers["warning"], "299 - \"take care\"");
    let created = created.ok();
    assert_eq!(created["data"], json!({"a": "1", "b": "2"}));
    let request = &change.asked()[0]["request"];
    assert_eq!(
        (&request["operation"], &request["name"], &request["namespace"]),
        (&json!("CREATE"), &json!("a"), &json!("default"))
    );
    assert_eq!((&request["userInfo"]["username"], &request["dryRun"]), (&json!("admin"), &json!(false)));
    assert_eq!(
        request["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"})
    );
    assert_eq!((&request["object"]["data"], &request["oldObject"]), (&json!({"a": "1"}), &Value::Null));
    assert_eq!(warn.asked()[0]["request"]["object"]["data"], json!({"a": "1", "b": "2"}));

    admin.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let gone = &warn.asked()[1]["request"];
    assert_eq!((&gone["operation"], &gone["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(gone["oldObject"]["data"]["b"], "2");
    assert_eq!(gone["options"]["kind"], "DeleteOptions");
}

#[tokio::test]
async fn a_denial_is_told_in_the_webhooks_words() {
    let refuse = Remote::start(|review| {
        let status = json!({"message": "not today", "code": 409, "reason": "TooEarly"});
        answer(review, json!({"allowed": false, "status": status}))
    })
    .await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    validating(&admin, "refuse", json!([hook("refuse.example.com", refuse.client("/"), json!({}))])).await;
    let (code, reason, message) = admin.post(CONFIG_MAPS, &config_map("a")).await.failure();
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (409, "TooEarly", r#"admission webhook "refuse.example.com" denied the request: not today"#)
    );
    assert_eq!(admin.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    let elsewhere = admin.post("/api/v1/namespaces/kube-public/configmaps", &config_map("a")).await;
    assert_eq!(elsewhere.code, 201, "the namespace is not selected");
    assert_eq!(refuse.asked().len(), 1);
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/refuse");
    admin.delete(&path).await.ok();
    admin.post(CONFIG_MAPS, &config_map("a")).await.ok();
}

#[tokio::test]
async fn selectors_and_conditions_choose_what_a_webhook_sees() {
    let refuse = Remote::start(|review| answer(review, json!({"allowed": false}))).await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let more = json!({
        "objectSelector": {"matchLabels": {"checked": "yes"}},
        "matchConditions": [
            {"name": "not-lenient", "expression": "!('lenient' in object.data)"},
            {"name": "by-admin", "expression": "request.userInfo.username == 'admin'"},
        ],
    });
    validating(&admin, "choose", json!([hook("choose.example.com", refuse.client("/"), more)])).await;
    let post = async |labels: Value, data: Value| {
        let object = json!({"metadata": {"generateName": "c-", "labels": labels}, "data": data});
        admin.post(CONFIG_MAPS, &object).await.code.as_u16()
    };
    assert_eq!(post(json!({}), json!({"a": "1"})).await, 201);
    assert_eq!(post(json!({"checked": "yes"}), json!({"lenient": "1"})).await, 201);
    assert_eq!(post(json!({"checked": "yes"}), json!({"a": "1"})).await, 400);
    let unclear = json!({"metadata": {"name": "empty", "labels": {"checked": "yes"}}});
    let (code, _, message) = admin.post(CONFIG_MAPS, &unclear).await.failure();
    let why = "configmaps \"empty\" is forbidden: expression '!('lenient' in object.data)' resulted in error: no such key: data";
    assert_eq!((code, message.as_str()), (403, why));
}

#[tokio::test]
async fn who_cannot_be_asked_refuses_unless_optional() {
    let silent = Remote::start(|_| Value::Null).await;
    let stranger = Remote::start(allowed).await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut untrusted = stranger.client("/");
    untrusted["caBundle"] = silent.bundle.clone().into();
    let unreachable = json!({"url": format!("https://127.0.0.1:{nobody}/x"), "caBundle": silent.bundle});
    let missing = json!({"service": {"namespace": "default", "name": "gone"}, "caBundle": silent.bundle});
    let broken = json!({"url": "https://127.0.0.1:1/", "caBundle": "bm8="});
    let port = stranger.port;
    let cases = [
        (untrusted, format!("failed to call webhook: Post \"https://127.0.0.1:{port}/?timeout=30s\": tls: failed to verify certificate: x509: certificate signed by unknown authority")),
        (unreachable, format!("failed to call webhook: Post \"https://127.0.0.1:{nobody}/x?timeout=30s\": dial tcp 127.0.0.1:{nobody}: connect: connection refused")),
        (missing, "failed to call webhook: Post \"https://gone.default.svc:443/?timeout=30s\": service \"gone\" not found".into()),
        (broken, "could not get REST client: unable to load root certificates: unable to parse bytes as PEM block".into()),
        (silent.client("/slow"), format!("failed to call webhook: Post \"https://127.0.0.1:{}/slow?timeout=1s\": context deadline exceeded", silent.port)),
    ];
    for (index, (client, why)) in cases.into_iter().enumerate() {
        let configuration = format!("case-{index}");
        // Only who is silent has to be waited for.
        let seconds = if why.contains("timeout=1s") { 1 } else { 30 };
        let more = json!({"timeoutSeconds": seconds, "failurePolicy": "Fail"});
        validating(&admin, &configuration, json!([hook("case.example.com", client, more)])).await;
        let (code, _, message) = admin.post(CONFIG_MAPS, &config_map(&configuration)).await.failure();
        let expected = format!("Internal error occurred: failed calling webhook \"case.example.com\": {why}");
        assert_eq!((code, message), (500, expected));
        let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/{configuration}");
        let lenient = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
        admin.patch(&path, JSON_PATCH, &lenient).await.ok();
        admin.post(CONFIG_MAPS, &config_map(&configuration)).await.ok();
        admin.delete(&path).await.ok();
    }
}

#[tokio::test]
async fn a_webhook_is_reached_by_its_service() {
    let inside = Remote::start(|review| answer(review, json!({"allowed": false}))).await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    admin.post("/api/v1/namespaces/default/services", &service).await.ok();
    let client = json!({
        "service": {"namespace": "default", "name": "hook", "path": "/deny"}, "caBundle": inside.bundle,
    });
    validating(&admin, "inside", json!([hook("inside.example.com", client, json!({}))])).await;
    let (_, _, message) = admin.post(CONFIG_MAPS, &config_map("a")).await.failure();
    assert!(message.ends_with("no endpoints available for service \"hook\""), "{message}");
    // Slices may not name this machine's own addresses; a name may.
    admin.delete("/api/v1/namespaces/default/services/hook").await.ok();
    let outside =
        json!({"metadata": {"name": "hook"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    admin.post("/api/v1/namespaces/default/services", &outside).await.ok();
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/inside");
    let port =
        json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": inside.port}]);
    admin.patch(&path, JSON_PATCH, &port).await.ok();
    let (_, _, message) = admin.post(CONFIG_MAPS, &config_map("a")).await.failure();
    assert_eq!(message, r#"admission webhook "inside.example.com" denied the request without explanation"#);
}

#[tokio::test]
async fn who_changed_early_sees_what_came_later() {
    // Counts the sidecars once more each time it is asked.
    let count = Remote::start(|review| {
        let data = &review["request"]["object"]["data"];
        let seen = data.as_object().unwrap().len().to_string();
        patched(review, json!([{"op": "add", "path": "/data/seen", "value": seen}]))
    })
    .await;
    let add =
        Remote::start(|review| patched(review, json!([{"op": "add", "path": "/data/late", "value": "1"}])))
            .await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    mutating(&admin, "a-count", json!([hook("count.example.com", count.client("/"), again)])).await;
    mutating(&admin, "b-add", json!([hook("add.example.com", add.client("/"), json!({}))])).await;
    let made = admin.post(CONFIG_MAPS, &config_map("a")).await.ok();
    assert_eq!(made["data"], json!({"a": "1", "seen": "3", "late": "1"}));
    assert_eq!((count.asked().len(), add.asked().len()), (2, 1));
}

#[tokio::test]
async fn connections_sizes_and_bindings_are_seen_as_what_they_are() {
    let refuse = Remote::start(|review| {
        let request = &review["request"];
        let what = format!(
            "{} {}",
            request["kind"]["kind"].as_str().unwrap(),
            request["subResource"].as_str().unwrap()
        );
        answer(review, json!({"allowed": false, "status": {"message": what}}))
    })
    .await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.post(PODS, &pod("web")).await.ok();
    admin.post("/apis/apps/v1/namespaces/default/deployments", &deployment("web")).await.ok();
    let rules = json!([{
        "operations": ["CREATE", "UPDATE", "CONNECT"], "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": ["pods/exec", "pods/binding", "pods/eviction", "deployments/scale"],
    }]);
    validating(
        &admin,
        "parts",
        json!([hook("parts.example.com", refuse.client("/"), json!({"rules": rules}))]),
    )
    .await;
    let said = |answer: Answer| {
        let message = answer.failure().2;
        message.rsplit("denied the request: ").next().unwrap().to_string()
    };
    let exec = admin.post(&format!("{PODS}/web/exec?command=ls&stdout=true"), &json!({})).await;
    assert_eq!(said(exec), "PodExecOptions exec");
    assert_eq!(refuse.asked()[0]["request"]["object"]["command"], json!(["ls"]));
    let binding = json!({"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(said(admin.post(&format!("{PODS}/web/binding"), &binding).await), "Binding binding");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}});
    assert_eq!(said(admin.post(&format!("{PODS}/web/eviction"), &eviction).await), "Eviction eviction");
    let scale = "/apis/apps/v1/namespaces/default/deployments/web/scale";
    let scaled = admin.patch(scale, MERGE, &json!({"spec": {"replicas": 5}})).await;
    assert_eq!(said(scaled), "Scale scale");
    let asked = refuse.asked();
    let request = &asked.last().unwrap()["request"];
    assert_eq!(
        (&request["object"]["spec"]["replicas"], &request["oldObject"]["spec"]["replicas"]),
        (&json!(5), &json!(2))
    );
}

#[tokio::test]
async fn no_webhook_gets_hold_of_its_own_configuration() {
    let refuse = Remote::start(|review| answer(review, json!({"allowed": false}))).await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let everything = json!({
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}],
        "namespaceSelector": {},
    });
    validating(&admin, "all", json!([hook("all.example.com", refuse.client("/"), everything)])).await;
    assert_eq!(admin.post(CONFIG_MAPS, &config_map("a")).await.code, 400);
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/all");
    admin.delete(&path).await.ok();
    admin.post(CONFIG_MAPS, &config_map("a")).await.ok();
}

#[tokio::test]
async fn a_status_is_not_a_way_to_change_the_spec() {
    let grow = Remote::start(|review| {
        patched(review, json!([{"op": "replace", "path": "/spec/replicas", "value": 9}]))
    })
    .await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    admin.post(deployments, &deployment("web")).await.ok();
    let rules = json!([{"operations": ["UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/status"]}]);
    mutating(&admin, "grow", json!([hook("grow.example.com", grow.client("/"), json!({"rules": rules}))]))
        .await;
    let status = json!({"status": {"replicas": 1}});
    let written = admin.patch(&format!("{deployments}/web/status"), MERGE, &status).await.ok();
    assert_eq!((&written["spec"]["replicas"], &written["status"]["replicas"]), (&json!(2), &json!(1)));
    assert_eq!(grow.asked().len(), 1);
}

#[tokio::test]
async fn what_is_answered_and_not_stored_is_shown_as_well() {
    let refuse = Remote::start(|review| {
        let name = review["request"]["userInfo"]["username"].as_str().unwrap_or_default();
        answer(review, json!({"allowed": name != "ann"}))
    })
    .await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rules = json!([
        {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["serviceaccounts/token"]},
        {"operations": ["CREATE"], "apiGroups": ["authorization.k8s.io"], "apiVersions": ["v1"], "resources": ["*"]},
    ]);
    let more = json!({"rules": rules, "namespaceSelector": {}});
    validating(&admin, "refuse", json!([hook("refuse.example.com", refuse.client("/"), more)])).await;
    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    admin.post(token, &json!({"spec": {}})).await.ok();
    let request = refuse.asked()[0]["request"].clone();
    assert_eq!((&request["name"], &request["subResource"]), (&json!("default"), &json!("token")));
    assert_eq!(request["kind"]["kind"], "TokenRequest");
    let asked = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    admin.post(review, &asked).await.ok();
    assert_eq!(cluster.user("ann").post(review, &asked).await.code, 400);
    assert_eq!(refuse.asked().len(), 3);
}

#[tokio::test]
async fn a_condition_may_ask_what_the_user_may_do() {
    let refuse = Remote::start(|review| answer(review, json!({"allowed": false}))).await;
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let expression =
        "!authorizer.group('').resource('configmaps').namespace('default').check('breakglass').allowed()";
    let more = json!({"matchConditions": [{"name": "not-in-need", "expression": expression}]});
    validating(&admin, "refuse", json!([hook("refuse.example.com", refuse.client("/"), more)])).await;
    // The administrator may do everything, so nobody asks the webhook.
    admin.post(CONFIG_MAPS, &config_map("a")).await.ok();
    assert!(refuse.asked().is_empty());
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"verbs": ["create"], "apiGroups": [""], "resources": ["configmaps"]}]);
    admin.post(&format!("{rbac}/roles"), &json!({"metadata": {"name": "r"}, "rules": rules})).await.ok();
    let binding = json!({
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
    });
    admin.post(&format!("{rbac}/rolebindings"), &binding).await.ok();
    assert_eq!(cluster.user("ann").post(CONFIG_MAPS, &config_map("b")).await.code, 400);
    assert_eq!(refuse.asked().len(), 1);
}
