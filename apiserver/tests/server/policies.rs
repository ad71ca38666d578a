//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy, with bindings and parameters.

use serde_json::{Value, json};

use crate::{client::*, cluster::Cluster};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";

/// A policy about config maps, with what is special about it.
fn policy(name: &str, more: Value) -> Value {
    let mut policy = json!({
        "metadata": {"name": name},
        "spec": {"matchConstraints": {"resourceRules": [
            {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]},
        ]}},
    });
    policy["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    policy
}

/// The binding of a policy in the namespace `default`.
fn binding(name: &str, policy: &str, more: Value) -> Value {
    let mut binding = json!({
        "metadata": {"name": name},
        "spec": {"policyName": policy, "matchResources": {"namespaceSelector":
            {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}},
    });
    binding["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    binding
}

async fn validating(admin: &Server, policy: Value, binding: Value) {
    admin.post(&format!("{POLICIES}/validatingadmissionpolicies"), &policy).await.ok();
    admin.post(&format!("{POLICIES}/validatingadmissionpolicybindings"), &binding).await.ok();
}

async fn mutating(admin: &Server, policy: Value, binding: Value) {
    admin.post(&format!("{POLICIES}/mutatingadmissionpolicies"), &policy).await.ok();
    admin.post(&format!("{POLICIES}/mutatingadmissionpolicybindings"), &binding).await.ok();
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

const DENY: &str = "Deny";

#[tokio::test]
async fn a_policy_denies_in_upstreams_words_where_it_is_bound() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rule = json!({"validations": [{"expression": "size(object.data) <= 1", "reason": "Forbidden"}]});
    validating(&admin, policy("small", rule), binding("here", "small", json!({"validationActions": [DENY]})))
        .await;
    let large = config_map("large", json!({"a": "1", "b": "2"}));
    let (code, reason, message) = admin.post(CONFIG_MAPS, &large).await.failure();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        r#"configmaps "large" is forbidden: ValidatingAdmissionPolicy 'small' with binding 'here' denied request: failed expression: size(object.data) <= 1"#
    );
    admin.post("/api/v1/namespaces/kube-system/configmaps", &large).await.ok();
    admin.post(CONFIG_MAPS, &config_map("small", json!({"a": "1"}))).await.ok();
    let grown = json!({"data": {"b": "2"}});
    assert_eq!(admin.patch(&format!("{CONFIG_MAPS}/small"), MERGE, &grown).await.failure().0, 403);

    // A changed policy is in force at once, and so is its end.
    let path = format!("{POLICIES}/validatingadmissionpolicies/small");
    let looser = json!({"spec": {"validations": [{"expression": "size(object.data) <= 2"}]}});
    admin.patch(&path, MERGE, &looser).await.ok();
    admin.patch(&format!("{CONFIG_MAPS}/small"), MERGE, &grown).await.ok();
    let more = json!({"data": {"c": "3"}});
    let (code, reason, _) = admin.patch(&format!("{CONFIG_MAPS}/small"), MERGE, &more).await.failure();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    admin.delete(&path).await.ok();
    admin.patch(&format!("{CONFIG_MAPS}/small"), MERGE, &more).await.ok();
}

#[tokio::test]
async fn a_policy_may_warn_instead() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rule = json!({"validations": [{"expression": "false", "messageExpression": "'not so ' + object.metadata.name"}]});
    let warn = json!({"validationActions": ["Warn", "Audit"]});
    validating(&admin, policy("warner", rule), binding("b", "warner", warn)).await;
    let answer = admin.post(CONFIG_MAPS, &config_map("good", json!({}))).await;
    let warning = answer.headers["warning"].to_str().unwrap().to_string();
    answer.ok();
    assert_eq!(
        warning,
        r#"299 - "Validation failed for ValidatingAdmissionPolicy 'warner' with binding 'b': not so good""#
    );
}

#[tokio::test]
async fn parameters_come_from_the_object_that_the_binding_names() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rule = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "not-itself", "expression": "object.metadata.name != 'limits'"}],
        "variables": [{"name": "most", "expression": "int(params.data.most)"}],
        "validations": [{"expression": "size(object.data) <= variables.most", "message": "too much"}],
    });
    let reference =
        json!({"validationActions": [DENY], "paramRef": {"name": "limits", "parameterNotFoundAction": DENY}});
    validating(&admin, policy("limited", rule), binding("b", "limited", reference)).await;
    let two = config_map("two", json!({"a": "1", "b": "2"}));
    let (code, _, message) = admin.post(CONFIG_MAPS, &two).await.failure();
    assert_eq!(code, 422);
    let expected = "ValidatingAdmissionPolicy 'limited' with binding 'b' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(message.ends_with(expected), "{message}");

    // Elsewhere nothing is bound; the parameter itself has to come in while the policy is not yet in force for it.
    let path = format!("{POLICIES}/validatingadmissionpolicybindings/b");
    let allow = json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}});
    admin.patch(&path, MERGE, &allow).await.ok();
    admin.post(CONFIG_MAPS, &config_map("limits", json!({"most": "1"}))).await.ok();
    let (_, _, message) = admin.post(CONFIG_MAPS, &two).await.failure();
    assert!(message.ends_with("denied request: too much"), "{message}");
    admin.patch(&format!("{CONFIG_MAPS}/limits"), MERGE, &json!({"data": {"most": "2"}})).await.ok();
    admin.post(CONFIG_MAPS, &two).await.ok();
}

#[tokio::test]
async fn a_policy_asks_what_the_user_may_do() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let expression = "authorizer.group('').resource('secrets').namespace('default').check('delete').allowed() \
        || !has(object.metadata.labels)";
    let rule = json!({"validations": [{"expression": expression, "message": "only for the powerful"}]});
    validating(&admin, policy("p", rule), binding("b", "p", json!({"validationActions": [DENY]}))).await;
    let role = json!({"metadata": {"name": "maps"}, "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]}]});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.ok();
    let bound = json!({"metadata": {"name": "maps"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "alice"}]});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &bound).await.ok();
    let labelled = json!({"metadata": {"name": "x", "labels": {"a": "b"}}});
    let (_, _, message) = cluster.user("alice").post(CONFIG_MAPS, &labelled).await.failure();
    assert!(message.ends_with("denied request: only for the powerful"), "{message}");
    admin.post(CONFIG_MAPS, &labelled).await.ok();
}

#[tokio::test]
async fn policies_change_objects_and_see_what_others_have_changed() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let apply = |expression: &str| json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]);
    let counting =
        apply("Object{metadata: Object.metadata{annotations: {'count': string(size(object.data))}}}");
    let again = json!({"reinvocationPolicy": "IfNeeded", "mutations": counting});
    mutating(&admin, policy("a-counts", again), binding("a", "a-counts", json!({}))).await;
    let patch = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/added', value: 'yes'}]"}}]);
    let once = json!({"reinvocationPolicy": "Never", "mutations": patch, "matchConditions": [
        {"name": "has-data", "expression": "has(object.data)"}]});
    mutating(&admin, policy("b-adds", once), binding("b", "b-adds", json!({}))).await;
    let made = admin.post(CONFIG_MAPS, &config_map("x", json!({"a": "1"}))).await.ok();
    assert_eq!(made["data"], json!({"a": "1", "added": "yes"}));
    assert_eq!(made["metadata"]["annotations"]["count"], "2");

    let broken = json!({"reinvocationPolicy": "Never", "mutations": apply("Object{metadata: Object.metadata{name: 'y'}}")});
    mutating(&admin, policy("c-breaks", broken), binding("c", "c-breaks", json!({}))).await;
    let (code, _, message) = admin.post(CONFIG_MAPS, &config_map("z", json!({"a": "1"}))).await.failure();
    assert_eq!(code, 422);
    let expected = "policy 'c-breaks' with binding 'c' denied request: metadata.name must not be changed";
    assert!(message.ends_with(expected), "{message}");
}

#[tokio::test]
async fn a_policy_that_is_wrong_is_refused_and_none_is_in_the_way_of_its_repair() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let wrong = policy("p", json!({"validations": [{"expression": "object.metadata.nam ==="}]}));
    let (code, _, message) =
        admin.post(&format!("{POLICIES}/validatingadmissionpolicies"), &wrong).await.failure();
    assert_eq!(code, 422);
    assert!(
        message.contains("spec.validations[0].expression") && message.contains("Syntax error"),
        "{message}"
    );
    let everything = json!({"metadata": {"name": "shut"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]},
        "validations": [{"expression": "false"}]}});
    let bound =
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "shut", "validationActions": [DENY]}});
    validating(&admin, everything, bound).await;
    assert_eq!(admin.post(CONFIG_MAPS, &config_map("x", json!({}))).await.failure().0, 422);
    admin.delete(&format!("{POLICIES}/validatingadmissionpolicybindings/b")).await.ok();
    admin.post(CONFIG_MAPS, &config_map("x", json!({}))).await.ok();
}

#[tokio::test]
async fn what_looks_wrong_about_a_policy_is_in_its_status() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rule = json!({"validations": [{"expression": "object.dataa.size() == 0"}]});
    let checked = type_checked(&admin, &policy("p", rule)).await;
    assert_eq!(checked["expressionWarnings"][0]["fieldRef"], "spec.validations[0].expression");
    let warning = checked["expressionWarnings"][0]["warning"].as_str().unwrap();
    assert!(
        warning.starts_with("/v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined field 'dataa'"),
        "{warning}"
    );
}

/// `status.typeChecking` of a policy once somebody has looked at it.
async fn type_checked(admin: &Server, policy: &Value) -> Value {
    let path = format!("{POLICIES}/validatingadmissionpolicies");
    let revision = version(&admin.get(&path).await.ok()).to_string();
    let mut watch = admin.watch(&format!("{path}?watch=true&resourceVersion={revision}")).await;
    admin.post(&path, policy).await.ok();
    loop {
        let event = watch.event().await.unwrap();
        if event["object"]["status"]["observedGeneration"] == 1 {
            return event["object"]["status"]["typeChecking"].clone();
        }
    }
}

#[tokio::test]
async fn the_types_of_custom_resources_are_known_to_policies() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let definition = json!({
        "metadata": {"name": "crontabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}}},
            }}}],
        },
    });
    admin.define(&definition).await;
    let about = |name: &str, expressions: &[&str]| {
        let validations: Vec<Value> = expressions.iter().map(|text| json!({"expression": text})).collect();
        json!({
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["crontabs"],
                }]},
                "validations": validations,
            },
        })
    };
    let right = ["object.spec.replicas > 1", "object.metadata.labels['a'] == 'b'"];
    assert_eq!(type_checked(&admin, &about("right", &right)).await, json!({}));
    let wrong = ["object.spec.replicas > '1'", "object.spec.maxRetries < 10"];
    let told = type_checked(&admin, &about("wrong", &wrong)).await;
    for (index, part) in
        ["found no matching overload for '_>_' applied to '(int, string)'", "undefined field 'maxRetries'"]
            .into_iter()
            .enumerate()
    {
        let warning = &told["expressionWarnings"][index];
        assert_eq!(warning["fieldRef"], format!("spec.validations[{index}].expression"), "{told}");
        assert!(warning["warning"].as_str().unwrap().contains(part), "{told}");
    }
}

#[tokio::test]
async fn whoever_writes_a_policy_has_to_be_allowed_its_parameters() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let give = |name: &'static str, group: &'static str, resources: Value, verb: &'static str| {
        let admin = &admin;
        async move {
            let rules = json!([{"verbs": [verb], "apiGroups": [group], "resources": resources}]);
            let role = json!({"metadata": {"name": name}, "rules": rules});
            let binding = json!({
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
            });
            admin.post(&format!("{rbac}/clusterroles"), &role).await.ok();
            admin.post(&format!("{rbac}/clusterrolebindings"), &binding).await.ok();
        }
    };
    give("authors", "admissionregistration.k8s.io", json!(["*"]), "create").await;
    let ann = cluster.user("ann");
    let rule = json!({
        "paramKind": {"apiVersion": "v1", "kind": "Secret"},
        "validations": [{"expression": "params.data.size() == 0"}],
    });
    let policies = format!("{POLICIES}/validatingadmissionpolicies");
    let peeping = policy("peeping", rule);
    let (code, _, message) = ann.post(&policies, &peeping).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (
            422,
            "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"peeping\" is invalid: spec.paramKind: Forbidden: user \
             &{ann  [system:authenticated] map[]} must have \"get\" permission on all objects of the referenced paramKind \
             (kind=Secret, apiVersion=v1)"
        )
    );
    admin.post(&policies, &peeping).await.ok();
    let reference = json!({"name": "s", "namespace": "kube-system", "parameterNotFoundAction": DENY});
    let bound = binding("b", "peeping", json!({"validationActions": [DENY], "paramRef": reference}));
    let bindings = format!("{POLICIES}/validatingadmissionpolicybindings");
    let (code, _, message) = ann.post(&bindings, &bound).await.failure();
    assert_eq!(code, 422);
    assert!(message.ends_with(r#"spec.paramRef: Forbidden: user &{ann  [system:authenticated] map[]} does not have "get" permission on the object referenced by paramRef"#), "{message}");
    // Without parameters nobody has to be asked.
    let plain = policy("plain", json!({"validations": [{"expression": "true"}]}));
    ann.post(&policies, &plain).await.ok();
    give("readers", "", json!(["secrets"]), "get").await;
    ann.post(&bindings, &bound).await.ok();
}
