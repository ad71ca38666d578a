//! Built-in admission plug-ins, asked as users do.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::{client::*, cluster::Cluster};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test]
async fn a_quota_counts_custom_resources_exactly_also_when_many_write_at_once() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let definition = json!({
        "metadata": {"name": "widgets.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    admin.define(&definition).await;
    let hard = json!({"count/widgets.stable.example.com": "3"});
    admin.post(QUOTAS, &json!({"metadata": {"name": "few"}, "spec": {"hard": hard}})).await.ok();
    let widgets = "/apis/stable.example.com/v1/namespaces/default/widgets";
    let objects: Vec<Value> = (0..10)
        .map(|number| {
            json!({"apiVersion": "stable.example.com/v1", "kind": "Widget", "metadata": {"name": format!("w{number}")}})
        })
        .collect();
    let answers = join_all(objects.iter().map(|object| admin.post(widgets, object))).await;
    let (made, refused): (Vec<Answer>, Vec<Answer>) =
        answers.into_iter().partition(|answer| answer.code.is_success());
    assert_eq!((made.len(), refused.len()), (3, 7));
    for answer in refused {
        let (code, _, message) = answer.failure();
        assert_eq!(code, 403);
        let why = "is forbidden: exceeded quota: few, requested: count/widgets.stable.example.com=1, used: count/widgets.stable.example.com=3, limited: count/widgets.stable.example.com=3";
        assert!(message.ends_with(why), "{message}");
    }
}

#[tokio::test]
async fn a_pod_says_for_each_container_what_a_quota_counts() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let hard = json!({"limits.memory": "1Gi", "cpu": "1"});
    admin.post(QUOTAS, &json!({"metadata": {"name": "small"}, "spec": {"hard": hard}})).await.ok();
    let (code, _, message) = admin.post(PODS, &pod("web")).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (
            403,
            r#"pods "web" is forbidden: failed quota: small: must specify cpu for: main; limits.memory for: main"#
        )
    );
}

#[tokio::test]
async fn who_approves_a_certificate_has_to_be_allowed_to_for_its_signer() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
    let request = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let request = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, request);
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let csr = json!({
        "metadata": {"name": "jane"},
        "spec": {"request": request, "signerName": "example.com/people", "usages": ["client auth"]},
    });
    let made = admin.post(requests, &csr).await.ok();
    let role = json!({"metadata": {"name": "approver"}, "rules": [
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["update"]},
    ]});
    admin.post(&format!("{RBAC}/clusterroles"), &role).await.ok();
    let binding = json!({
        "metadata": {"name": "approver"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "approver"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "boss"}],
    });
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.ok();
    let mut approved = made;
    approved["status"]["conditions"] =
        json!([{"type": "Approved", "status": "True", "reason": "Fine", "message": "fine"}]);
    let boss = cluster.user("boss");
    let path = format!("{requests}/jane/approval");
    let (code, _, message) = boss.put(&path, &approved).await.failure();
    assert_eq!(code, 403);
    let why = r#"certificatesigningrequests.certificates.k8s.io "jane" is forbidden: user not permitted to approve requests with signerName "example.com/people""#;
    assert_eq!(message, why);
    let signers = json!([{"op": "add", "path": "/rules/-", "value": {
        "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["example.com/*"], "verbs": ["approve"],
    }}]);
    admin.patch(&format!("{RBAC}/clusterroles/approver"), JSON_PATCH, &signers).await.ok();
    boss.put(&path, &approved).await.ok();
}

#[tokio::test]
async fn a_tighter_namespace_warns_of_pods_that_would_not_get_in() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut host = pod("host");
    host["spec"]["hostNetwork"] = true.into();
    admin.post(PODS, &host).await.ok();
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let answer = admin.patch("/api/v1/namespaces/default?dryRun=All", MERGE, &label).await;
    let warnings: Vec<&str> =
        answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(
        warnings,
        [
            "299 - \"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"host: host namespaces\"",
        ]
    );
    let wrong = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce-version": "1.30"}}});
    let (code, _, message) = admin.patch("/api/v1/namespaces/default", MERGE, &wrong).await.failure();
    assert_eq!(code, 422);
    assert!(message.ends_with(r#"Invalid value: "1.30": must be "latest" or "v1.x""#), "{message}");
}

#[tokio::test]
async fn a_claim_grows_only_where_its_class_allows_it() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "resources": {"requests": {"storage": "1Gi"}}},
    });
    admin.post(claims, &claim).await.ok();
    let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let grow = || admin.patch("/api/v1/namespaces/default/persistentvolumeclaims/data", MERGE, &larger);
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    admin.patch(&format!("{claims}/data/status"), MERGE, &bound).await.ok();
    let (code, _, message) = grow().await.failure();
    assert_eq!(code, 403);
    assert!(message.contains("only dynamically provisioned pvc can be resized"), "{message}");
    let class =
        json!({"metadata": {"name": "slow"}, "provisioner": "example.com/x", "allowVolumeExpansion": true});
    admin.post("/apis/storage.k8s.io/v1/storageclasses", &class).await.ok();
    grow().await.ok();
}

#[tokio::test]
async fn a_bound_pod_bears_the_zone_of_its_node() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let labels = json!({"topology.kubernetes.io/zone": "z1", "kubernetes.io/os": "linux"});
    admin.post("/api/v1/nodes", &json!({"metadata": {"name": "n1", "labels": labels}})).await.ok();
    admin.post(PODS, &pod("web")).await.ok();
    let binding = json!({"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}});
    admin.post(&format!("{PODS}/web/binding"), &binding).await.ok();
    let mut placed = pod("placed");
    placed["spec"]["nodeName"] = "n1".into();
    admin.post(PODS, &placed).await.ok();
    for name in ["web", "placed"] {
        let labels = admin.get(&format!("{PODS}/{name}")).await.ok()["metadata"]["labels"].clone();
        assert_eq!(labels["topology.kubernetes.io/zone"], "z1", "{name}: {labels}");
        assert!(labels.get("kubernetes.io/os").is_none());
    }
}

#[tokio::test]
async fn a_range_of_pods_counts_sidecars_and_what_a_pod_says_itself() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let limits = json!([{"type": "Pod", "max": {"memory": "1Gi"}}]);
    let ranges = "/api/v1/namespaces/default/limitranges";
    admin.post(ranges, &json!({"metadata": {"name": "r"}, "spec": {"limits": limits}})).await.ok();
    let amount = json!({"limits": {"memory": "600Mi"}});
    let mut both = pod("both");
    both["spec"]["containers"][0]["resources"] = amount.clone();
    both["spec"]["initContainers"] =
        json!([{"name": "beside", "image": "a", "restartPolicy": "Always", "resources": amount}]);
    let (code, _, message) = admin.post(PODS, &both).await.failure();
    let why = r#"pods "both" is forbidden: maximum memory usage per Pod is 1Gi, but limit is 1200Mi"#;
    assert_eq!((code, message.as_str()), (403, why));
    both["spec"]["resources"] = json!({"limits": {"memory": "700Mi"}, "requests": {"memory": "1Mi"}});
    let (code, _, message) = admin.post(PODS, &both).await.failure();
    assert_eq!(code, 422);
    let why = r#"spec.resources.requests[memory]: Invalid value: "1Mi": must be greater than or equal to aggregate container requests of 1200Mi"#;
    assert!(message.contains(why), "{message}");
    both["spec"]["initContainers"][0]["resources"] = json!({});
    both["spec"]["resources"] = json!({"limits": {"memory": "700Mi"}});
    let made = admin.post(PODS, &both).await.ok();
    assert_eq!(made["spec"]["resources"]["requests"], json!({"memory": "600Mi"}));
}

#[tokio::test]
async fn of_several_default_ingress_classes_the_newest_counts() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let networking = "/apis/networking.k8s.io/v1";
    for name in ["old", "new"] {
        let annotations = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
        let class = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": "example.com/c"}});
        admin.post(&format!("{networking}/ingressclasses"), &class).await.ok();
    }
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({"metadata": {"name": "web"}, "spec": {"defaultBackend": backend}});
    let made = admin.post(&format!("{networking}/namespaces/default/ingresses"), &ingress).await.ok();
    // Within one second the first by name counts, which is the same.
    assert_eq!(made["spec"]["ingressClassName"], "new");
}
