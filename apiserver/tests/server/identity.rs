//! Who somebody is and what they may: tokens, RBAC, kubelets, reviews.

use apiserver::request::User;
use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::{client::*, cluster::Cluster};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Lets `user` do `verb` on `resource` in namespace `default`.
async fn grant(cluster: &Cluster, user: &str, verb: &str, resource: &str) {
    let role = json!({
        "metadata": {"name": format!("{verb}-{resource}")},
        "rules": [{"verbs": [verb], "apiGroups": [""], "resources": [resource]}],
    });
    let binding = json!({
        "metadata": {"name": format!("{user}-{verb}-{resource}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": format!("{verb}-{resource}")},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    cluster.admin().post(&format!("{RBAC}/namespaces/default/roles"), &role).await.ok();
    cluster.admin().post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await.ok();
}

async fn token(cluster: &Cluster, spec: Value) -> Answer {
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    cluster.admin().post(path, &json!({"spec": spec})).await
}

async fn review(cluster: &Cluster, token: &str) -> Value {
    let review = json!({"spec": {"token": token}});
    cluster.admin().post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.ok()["status"].clone()
}

#[tokio::test]
async fn a_binding_counts_from_the_moment_it_is_written_until_it_is_gone() {
    let cluster = Cluster::start().await;
    let ann = cluster.user("ann");
    let (code, reason, message) = ann.get(PODS).await.failure();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        r#"pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    grant(&cluster, "ann", "list", "pods").await;
    ann.get(PODS).await.ok();
    cluster.admin().delete(&format!("{RBAC}/namespaces/default/rolebindings/ann-list-pods")).await.ok();
    assert_eq!(ann.get(PODS).await.code, 403);
}

#[tokio::test]
async fn nobody_grants_more_than_they_have() {
    let cluster = Cluster::start().await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    for rule in [json!(["roles"]), json!(["rolebindings"])] {
        let name = rule[0].as_str().unwrap();
        let role = json!({"metadata": {"name": name}, "rules": [{"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": rule}]});
        cluster.admin().post(&roles, &role).await.ok();
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
        });
        cluster.admin().post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await.ok();
    }
    let ann = cluster.user("ann");
    let secrets = json!({"metadata": {"name": "x"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]});
    let (code, _, message) = ann.post(&roles, &secrets).await.failure();
    assert_eq!(code, 403);
    assert!(message.contains(r#"user "ann" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:"#), "{message}");
    let binding = json!({
        "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
    });
    assert_eq!(ann.post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding).await.code, 403);
}

#[tokio::test]
async fn who_may_escalate_one_role_makes_it_where_the_url_names_it() {
    let cluster = Cluster::start().await;
    let (group, roles) = ("rbac.authorization.k8s.io", format!("{RBAC}/clusterroles"));
    let author = json!({
        "metadata": {"name": "author"},
        "rules": [
            {"verbs": ["create", "update"], "apiGroups": [group], "resources": ["clusterroles"]},
            {"verbs": ["escalate"], "apiGroups": [group], "resources": ["clusterroles"], "resourceNames": ["wide"]},
        ],
    });
    cluster.admin().post(&roles, &author).await.ok();
    let binding = json!({
        "metadata": {"name": "author"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "author"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "ann"}],
    });
    cluster.admin().post(&format!("{RBAC}/clusterrolebindings"), &binding).await.ok();
    let ann = cluster.user("ann");
    let role = |name: &str| {
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]});
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]})
    };
    assert_eq!(ann.post(&roles, &role("wide")).await.code, 403);
    assert_eq!(ann.put(&format!("{roles}/other"), &role("other")).await.code, 403);
    assert_eq!(ann.put(&format!("{roles}/wide"), &role("wide")).await.code, 201);
}

#[tokio::test]
async fn a_token_stands_for_its_account_as_long_as_its_pod_is_there() {
    let cluster = Cluster::start().await;
    let pod = cluster.admin().post(PODS, &pod("web")).await.ok();
    let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": pod["metadata"]["uid"]});
    let answer = token(&cluster, json!({"boundObjectRef": reference})).await.ok();
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    let bound = answer["status"]["token"].as_str().unwrap();
    let status = review(&cluster, bound).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["web"]));
    cluster.admin().delete_with(&format!("{PODS}/web"), &json!({"gracePeriodSeconds": 0})).await.ok();
    assert_ne!(review(&cluster, bound).await["authenticated"], true);
    assert_ne!(review(&cluster, "nonsense").await["authenticated"], true);
}

#[tokio::test]
async fn a_token_is_refused_for_other_uids_and_short_lives() {
    let cluster = Cluster::start().await;
    cluster.admin().post(PODS, &pod("web")).await.ok();
    let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "another"});
    assert_eq!(token(&cluster, json!({"boundObjectRef": reference})).await.code, 409);
    assert_eq!(token(&cluster, json!({"expirationSeconds": 10})).await.code, 422);
}

#[tokio::test]
async fn people_can_ask_who_they_are_and_what_they_may() {
    let cluster = Cluster::start().await;
    let ann = cluster.user("ann");
    let who = ann.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.ok();
    assert!(who["metadata"]["creationTimestamp"].is_string(), "{who}");
    assert_eq!(who["status"]["userInfo"]["username"], "ann");
    grant(&cluster, "ann", "list", "pods").await;
    let may = |verb: &'static str| {
        let ann = &ann;
        async move {
            let asked = json!({"spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}});
            ann.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &asked).await.ok()["status"]["allowed"].clone()
        }
    };
    assert_eq!((may("list").await, may("delete").await), (json!(true), json!(false)));
    let asked = json!({"spec": {"namespace": "default"}});
    let rules = ann.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &asked).await.ok();
    let rules = rules["status"]["resourceRules"].as_array().unwrap().clone();
    assert!(rules.contains(&json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]})));
    let other = json!({"spec": {"user": "bob", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer =
        cluster.admin().post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &other).await.ok();
    assert_eq!(answer["status"]["allowed"], false);
}

#[tokio::test]
async fn a_kubelet_reads_what_its_pods_refer_to() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for name in ["used", "unused"] {
        admin.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": name}})).await.ok();
    }
    let mut web = pod("web");
    web["spec"]["nodeName"] = "n1".into();
    web["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "used"}}]);
    admin.post(PODS, &web).await.ok();
    let secret = |name: &str| format!("/api/v1/namespaces/default/secrets/{name}");
    let (n1, n2) = (cluster.kubelet("n1"), cluster.kubelet("n2"));
    n1.get(&secret("used")).await.ok();
    let (code, _, message) = n1.get(&secret("unused")).await.failure();
    assert_eq!(code, 403);
    assert!(message.ends_with("no relationship found between node 'n1' and this object"), "{message}");
    assert_eq!(n2.get(&secret("used")).await.code, 403);
    let status = json!({"status": {"phase": "Running"}});
    assert_eq!(n2.patch(&format!("{PODS}/web/status"), MERGE, &status).await.code, 403);
    n1.patch(&format!("{PODS}/web/status"), MERGE, &status).await.ok();
    assert_eq!(n1.post("/api/v1/nodes", &json!({"metadata": {"name": "n2"}})).await.code, 403);
    n1.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await.ok();
}

#[tokio::test]
async fn an_administrator_may_act_as_another() {
    let cluster = Cluster::start().await;
    let request = |user: &str| {
        Request::builder()
            .method(Method::GET)
            .uri(PODS)
            .header("impersonate-user", user)
            .body(Body::empty())
            .unwrap()
    };
    let (_, _, message) = cluster.admin().send(request("ann")).await.failure();
    assert!(message.contains(r#"User "ann" cannot list"#), "{message}");
    let (_, _, message) = cluster.user("bob").send(request("ann")).await.failure();
    assert_eq!(
        message,
        r#"users "ann" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    let groups_alone = Request::builder()
        .method(Method::GET)
        .uri(PODS)
        .header("impersonate-group", "system:masters")
        .body(Body::empty())
        .unwrap();
    let (code, _, message) = cluster.admin().send(groups_alone).await.failure();
    assert!(code == 500 && message.contains("without impersonating a user"), "{code} {message}");
}

#[tokio::test]
async fn keys_are_published_for_those_who_verify_tokens() {
    let cluster = Cluster::start().await;
    let account = cluster.client(User::new(
        "system:serviceaccount:default:default",
        &["system:serviceaccounts", "system:authenticated"],
    ));
    let configuration = account.get("/.well-known/openid-configuration").await.ok();
    assert_eq!(configuration["jwks_uri"], "https://192.0.2.7:6443/openid/v1/jwks");
    let keys = account.get("/openid/v1/jwks").await.ok();
    assert_eq!(keys["keys"][0]["alg"], "ES256");
}

#[tokio::test]
async fn a_review_names_the_binding_that_allows() {
    let cluster = Cluster::start().await;
    grant(&cluster, "ann", "list", "pods").await;
    let asked = json!({"spec": {"user": "ann", "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let answer =
        cluster.admin().post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &asked).await.ok();
    assert_eq!(
        answer["status"],
        json!({"allowed": true, "reason": r#"RBAC: allowed by RoleBinding "ann-list-pods/default" of Role "list-pods" to User "ann""#})
    );
}

#[tokio::test]
async fn a_kubelet_sees_the_pods_of_its_node_alone() {
    let cluster = Cluster::start().await;
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = node.into();
        cluster.admin().post(PODS, &pod).await.ok();
    }
    let n1 = cluster.kubelet("n1");
    n1.get(&format!("{PODS}/mine")).await.ok();
    assert_eq!(n1.get(&format!("{PODS}/other")).await.code, 403);
    let listed = n1.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let (code, _, message) = n1.get("/api/v1/pods").await.failure();
    assert_eq!(code, 403);
    assert!(message.ends_with("can only list/watch pods with spec.nodeName field selector"), "{message}");
    let asked = json!({"spec": {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": {
        "verb": "list", "resource": "pods",
        "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
    }}});
    let answer =
        cluster.admin().post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &asked).await.ok();
    assert_eq!(answer["status"]["allowed"], true);
}

#[tokio::test]
async fn a_request_for_a_certificate_says_who_asks_and_signers_say_who_approves() {
    let cluster = Cluster::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = |group: &str| {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        let pem = parameters.serialize_request(&key).unwrap().pem().unwrap();
        json!({
            "metadata": {"generateName": "csr-"},
            "spec": {
                "request": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pem),
                "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"],
                "username": "somebody-else",
            },
        })
    };
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let (code, _, message) = cluster.admin().post(path, &request("system:masters")).await.failure();
    assert_eq!(code, 403);
    assert!(message.contains("signer with system:masters group is not allowed"), "{message}");
    let mut made = cluster.admin().post(path, &request("dev")).await.ok();
    assert_eq!(made["spec"]["username"], "admin");

    // Whoever may write approvals still needs the signer.
    let role = json!({
        "metadata": {"name": "approver"},
        "rules": [{"verbs": ["update"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"]}],
    });
    let binding = |role: &str| {
        json!({
            "metadata": {"name": format!("ann-{}", role.replace(':', "-"))},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
        })
    };
    cluster.admin().post(&format!("{RBAC}/clusterroles"), &role).await.ok();
    cluster.admin().post(&format!("{RBAC}/clusterrolebindings"), &binding("approver")).await.ok();
    made["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "ByHand"}]});
    let approval = format!("{path}/{}/approval", made["metadata"]["name"].as_str().unwrap());
    let (code, _, message) = cluster.user("ann").put(&approval, &made).await.failure();
    assert_eq!(code, 403);
    assert!(
        message.ends_with(
            r#"user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client""#
        ),
        "{message}"
    );
    let approver = "system:certificates.k8s.io:kube-apiserver-client-approver";
    cluster.admin().post(&format!("{RBAC}/clusterrolebindings"), &binding(approver)).await.ok();
    let approved = cluster.user("ann").put(&approval, &made).await.ok();
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
}

#[tokio::test]
async fn a_kubelet_gets_tokens_for_the_audiences_of_its_pods() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut web = pod("web");
    web["spec"]["nodeName"] = "n1".into();
    let source = json!({"serviceAccountToken": {"path": "token", "audience": "vault"}});
    web["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": [source]}}]);
    let web = admin.post(PODS, &web).await.ok();
    let ask = |node: &'static str, uid: Value, audiences: Value| {
        let kubelet = cluster.kubelet(node);
        async move {
            let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid});
            let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
            let request = json!({"spec": {"boundObjectRef": reference, "audiences": audiences}});
            kubelet.post(path, &request).await
        }
    };
    let uid = || web["metadata"]["uid"].clone();
    ask("n1", uid(), json!(["vault"])).await.ok();
    ask("n1", uid(), json!([])).await.ok();
    let (code, _, message) = ask("n1", uid(), json!(["bank"])).await.failure();
    assert_eq!(code, 403);
    assert!(
        message.ends_with("system:node:n1 is not authorized to request tokens for this audience"),
        "{message}"
    );
    let (_, _, message) = ask("n1", uid(), json!(["vault", "bank"])).await.failure();
    assert!(message.ends_with("node may only request 0 or 1 audiences"), "{message}");
    let (_, _, message) = ask("n1", json!("other"), json!(["vault"])).await.failure();
    assert!(message.contains("does not match the UID in record"), "{message}");
    let (code, _, message) = ask("n2", uid(), json!(["vault"])).await.failure();
    assert_eq!(code, 403);
    assert!(message.contains("no relationship found between node 'n2' and this object"), "{message}");
    // Whom an administrator lets ask may ask.
    let rules = json!([{"verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""], "resources": ["bank"]}]);
    let role = json!({"metadata": {"name": "bank"}, "rules": rules});
    admin.post(&format!("{RBAC}/clusterroles"), &role).await.ok();
    let binding = json!({
        "metadata": {"name": "bank"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bank"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    });
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.ok();
    ask("n1", uid(), json!(["bank"])).await.ok();
}
