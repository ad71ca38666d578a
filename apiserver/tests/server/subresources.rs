//! scale, binding, eviction, ephemeral containers, status.

use http::StatusCode;
use serde_json::{Value, json};

use crate::client::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn a_deployment_is_scaled_by_its_scale() {
    let server = Server::start().await;
    let created = server.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let path = format!("{DEPLOYMENTS}/web/scale");
    let mut scale = server.get(&path).await.ok();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("app=web")));
    assert_eq!(version(&scale), version(&created));
    let table = server.get_as(&path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    assert_eq!(
        columns.map(|column| column["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Name", "Desired", "Available", "Age"]
    );
    assert_eq!((&table["rows"][0]["cells"][0], &table["rows"][0]["cells"][1]), (&json!("web"), &json!(2)));
    scale["spec"]["replicas"] = 5.into();
    assert_eq!(server.put(&path, &scale).await.ok()["spec"]["replicas"], 5);
    assert_eq!(server.put(&path, &scale).await.failure().0, 409);
    let stale = json!({"metadata": {"name": "web", "uid": "gone"}, "spec": {"replicas": 9}});
    for refused in [server.put(&path, &stale).await, server.patch(&path, MERGE, &stale).await] {
        let (code, reason, message) = refused.failure();
        assert_eq!((code, reason.as_str()), (409, "Conflict"));
        assert!(message.contains("Precondition failed: UID in precondition: gone"), "{message}");
    }
    let patched = server.patch(&path, MERGE, &json!({"spec": {"replicas": 7}})).await.ok();
    assert_eq!(patched["spec"]["replicas"], 7);
    let stored = server.get(&format!("{DEPLOYMENTS}/web")).await.ok();
    assert_eq!((&stored["spec"]["replicas"], &stored["metadata"]["generation"]), (&json!(7), &json!(3)));
    let negative = server.patch(&path, MERGE, &json!({"spec": {"replicas": -1}})).await.failure();
    assert_eq!((negative.0, negative.1.as_str()), (422, "Invalid"));
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a/scale")).await.failure().0, 404);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
    });
    let answer = server.post(&format!("{PODS}/a/binding"), &binding).await;
    assert_eq!(answer.code, StatusCode::CREATED);
    assert_eq!(answer.ok()["status"], "Success");
    let bound = server.get(&format!("{PODS}/a")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, _, message) = server.post(&format!("{PODS}/a/binding"), &binding).await.failure();
    assert_eq!(code, 409);
    assert!(message.ends_with("pod a is already assigned to node \"n1\""), "{message}");
    server.post(PODS, &pod("b")).await.ok();
    let by_collection = json!({"metadata": {"name": "b"}, "target": {"kind": "Node", "name": "n2"}});
    server.post("/api/v1/namespaces/default/bindings", &by_collection).await.ok();
    assert_eq!(server.get(&format!("{PODS}/b")).await.ok()["spec"]["nodeName"], "n2");
}

#[tokio::test]
async fn an_eviction_asks_the_disruption_budget() {
    let server = Server::start().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    server.post(budgets, &budget).await.ok();
    let status = json!({"status": {
        "observedGeneration": 1, "disruptionsAllowed": 0, "desiredHealthy": 1, "currentHealthy": 1, "expectedPods": 1,
    }});
    server.patch(&format!("{budgets}/b/status"), MERGE, &status).await.ok();
    server.post(PODS, &pod("a")).await.ok();
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    server.patch(&format!("{PODS}/a/status"), MERGE, &running).await.ok();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let refused = server.post(&format!("{PODS}/a/eviction"), &eviction).await.failure();
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(refused, (429, "TooManyRequests".into(), message.into()));
    let allowed = json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 2}});
    server.patch(&format!("{budgets}/b/status"), MERGE, &allowed).await.ok();
    let evicted = server.post(&format!("{PODS}/a/eviction"), &eviction).await;
    assert_eq!(evicted.code, StatusCode::CREATED);
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, StatusCode::NOT_FOUND);
    assert_eq!(server.get(&format!("{budgets}/b")).await.ok()["status"]["disruptionsAllowed"], 0);
}

#[tokio::test]
async fn ephemeral_containers_are_added_and_stay() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let path = format!("{PODS}/a/ephemeralcontainers");
    let add = |name: &str| json!({"spec": {"ephemeralContainers": [{"name": name, "image": "busybox:1", "terminationMessagePolicy": "File"}]}});
    let changed = server.patch(&path, STRATEGIC, &add("debug")).await.ok();
    assert_eq!(changed["spec"]["ephemeralContainers"][0]["name"], "debug");
    assert_eq!(changed["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "IfNotPresent");
    let more = server.patch(&path, STRATEGIC, &add("more")).await.ok();
    assert_eq!(more["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(2));
    let removed = server.patch(&path, MERGE, &add("other")).await.failure();
    assert_eq!(removed.0, 422);
}

#[tokio::test]
async fn a_status_keeps_to_itself() {
    let server = Server::start().await;
    let created = server.post(PODS, &pod("a")).await.ok();
    assert_eq!(created["status"]["phase"], "Pending");
    let mut change: Value = created.clone();
    change["status"]["phase"] = "Running".into();
    change["spec"]["containers"][0]["image"] = "other:1".into();
    let updated = server.put(&format!("{PODS}/a/status"), &change).await.ok();
    assert_eq!(updated["status"]["phase"], "Running");
    assert_eq!(updated["spec"], created["spec"]);
    assert_eq!(server.get(&format!("{PODS}/a/status")).await.ok(), updated);
}

#[tokio::test]
async fn reviews_are_answered_and_not_stored() {
    let server = Server::start().await;
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = server.post(reviews, &json!({"spec": {"token": "x"}})).await;
    assert_eq!(answer.code, StatusCode::CREATED);
    assert_eq!(server.get(reviews).await.failure().0, 405);
}

/// What each of these is answered with: code, reason and the end of the message.
async fn told(server: &Server, asked: &[(&str, &str, Value, u16, &str, &str)]) {
    for (verb, path, body, code, reason, end) in asked {
        let answer = match *verb {
            "PUT" => server.put(path, body).await,
            "PATCH" => server.patch(path, MERGE, body).await,
            _ => server.post(path, body).await,
        };
        let (found, why, message) = answer.failure();
        assert_eq!((found, why.as_str()), (*code, *reason), "{verb} {path} {body}: {message}");
        assert!(message.ends_with(end), "{verb} {path} {body}: {message}");
    }
}

#[tokio::test]
async fn evictions_that_make_no_sense_are_refused_as_upstream_does() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let path = &format!("{PODS}/a/eviction");
    let dry = &format!("{path}?dryRun=All");
    let eviction = |options: Value| json!({"metadata": {"name": "a"}, "deleteOptions": options});
    let name = "name in URL does not match name in Eviction object";
    told(
        &server,
        &[
            ("POST", path, json!({}), 400, "BadRequest", name),
            ("POST", path, json!({"metadata": {"name": "b"}}), 400, "BadRequest", name),
            (
                "POST",
                path,
                json!({"kind": "Pod", "apiVersion": "v1"}),
                400,
                "BadRequest",
                "unknown conversion",
            ),
            ("POST", path, eviction(json!({"gracePeriodSeconds": "x"})), 400, "BadRequest", "of type int64"),
            (
                "POST",
                path,
                eviction(json!({"preconditions": {"uid": "x"}})),
                409,
                "Conflict",
                "and then recreated",
            ),
            ("POST", dry, eviction(json!({"dryRun": ["x"]})), 500, "", "[All] and [x]"),
        ],
    )
    .await;
    // Old clients call it so; and a dry run leaves the pod where it is.
    let old = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "a"}});
    assert_eq!(server.post(dry, &old).await.code, StatusCode::CREATED);
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, StatusCode::OK);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    for name in ["b", "c"] {
        let budget = json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": "a"}}}});
        server.post(budgets, &budget).await.ok();
    }
    server.patch(&format!("{PODS}/a/status"), MERGE, &json!({"status": {"phase": "Running"}})).await.ok();
    let several = "more than one PodDisruptionBudget, which the eviction subresource does not support.";
    told(&server, &[("POST", path, eviction(json!({})), 500, "", several)]).await;
}

#[tokio::test]
async fn bindings_and_token_requests_are_about_what_the_url_says() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let (binding, bindings) = (&format!("{PODS}/a/binding"), "/api/v1/namespaces/default/bindings");
    let target = |name: &str, target: Value| json!({"metadata": {"name": name}, "target": target});
    let name = "name in URL does not match name in Binding object";
    told(
        &server,
        &[
            ("POST", binding, json!({}), 400, "BadRequest", name),
            ("POST", binding, target("a", json!({})), 500, "", "target.name: Required value"),
            (
                "POST",
                binding,
                target("a", json!({"kind": "Pod"})),
                500,
                "",
                "[target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\", target.name: Required value]",
            ),
            ("POST", bindings, target("", json!({"name": "n"})), 400, "BadRequest", "Name parameter required."),
            ("PUT", &format!("{bindings}/a"), target("a", json!({"name": "n"})), 404, "NotFound", "the requested resource"),
        ],
    )
    .await;
    let scale = &format!("{DEPLOYMENTS}/web/scale");
    server.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let spec = json!({"replicas": 1});
    told(
        &server,
        &[
            (
                "PUT",
                scale,
                json!({"spec": spec}),
                400,
                "BadRequest",
                "was undeterminable: name must be provided",
            ),
            (
                "PUT",
                scale,
                json!({"metadata": {"name": "b"}, "spec": spec}),
                400,
                "BadRequest",
                "does not match the name on the URL (web)",
            ),
            (
                "PUT",
                scale,
                json!({"kind": "Foo", "metadata": {"name": "web"}}),
                400,
                "BadRequest",
                "registered for version \"autoscaling/v1\"",
            ),
            (
                "PATCH",
                scale,
                json!({"metadata": {"name": "b"}}),
                400,
                "BadRequest",
                "does not match the name on the URL (web)",
            ),
            ("PATCH", scale, json!({"spec": {"replicas": "x"}}), 422, "Invalid", "of type int32"),
        ],
    )
    .await;
    let none = json!({"metadata": {"name": "web"}, "spec": {"replicas": 0}});
    assert_eq!(server.put(scale, &none).await.ok()["spec"], json!({}));
}

#[tokio::test]
async fn what_came_late_is_replaced_only_by_those_who_know_its_version() {
    let server = Server::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease =
        json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 5}});
    let created = server.post(leases, &lease).await.ok();
    let path = &format!("{leases}/l");
    let needed = "leases.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update";
    told(&server, &[("PUT", path, lease.clone(), 422, "Invalid", needed)]).await;
    server.put(path, &created).await.ok();
    // Others take the newest for meant.
    let map = json!({"metadata": {"name": "m"}});
    server.post(CONFIG_MAPS, &map).await.ok();
    server.put(&format!("{CONFIG_MAPS}/m"), &map).await.ok();
}
