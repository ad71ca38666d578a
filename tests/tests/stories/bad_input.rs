//! What is wrong gets upstream's answer, and nothing is stored.

use e2e::Cluster;

/// Input, and what kubectl must print about it.
const REFUSED: [(&str, &str, &str); 12] = [
    ("malformed YAML", "apiVersion: v1\nkind: [", "error: error parsing STDIN"),
    ("malformed JSON", "{\"apiVersion\": \"v1\",", "error"),
    (
        "an unknown field",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatas: {}\n",
        "strict decoding error: unknown field \"datas\"",
    ),
    (
        "a wrong type",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: three, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}\n",
        "cannot be handled as a Deployment",
    ),
    (
        "a bad name",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_Good}\n",
        "metadata.name: Invalid value: \"Not_Good\": a lowercase RFC 1123 subdomain",
    ),
    (
        "a bad label",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, labels: {app: 'no blanks here'}}\n",
        "metadata.labels: Invalid value: \"no blanks here\": a valid label must be",
    ),
    (
        "a missing namespace",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: nowhere}\n",
        "namespaces \"nowhere\" not found",
    ),
    (
        "a pod without containers",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}\n",
        "spec.containers: Required value",
    ),
    (
        "a selector that does not match",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}\n",
        "`selector` does not match template `labels`",
    ),
    (
        "a bad port",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 70000}]}\n",
        "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    (
        "a node port outside the range",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 80}]}\n",
        "provided port is not in the valid range. The range of valid ports is 30000-32767",
    ),
    (
        "an unknown kind",
        "apiVersion: v1\nkind: Spaceship\nmetadata: {name: x}\n",
        "no matches for kind \"Spaceship\"",
    ),
];

#[test]
fn bad_objects_are_refused_in_upstreams_words_and_not_stored() {
    let cluster = Cluster::start();
    for (what, input, words) in REFUSED {
        let said = cluster.kubectl_with(&["apply", "-f", "-"], input).fails();
        assert!(said.contains(words), "{what}: {said}");
    }
    let stored = cluster.kubectl("get configmaps,deployments,services,pods -A -o name").ok();
    assert!(!stored.contains("/x"), "{stored}");

    cluster.apply(&crate::rollout::web("web", 0));
    let change = r#"{"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#;
    let said = cluster.kubectl_with(&["patch", "deployment", "web", "-p", change], "").fails();
    assert!(said.contains("field is immutable"), "{said}");
}

#[test]
fn large_objects_wrong_content_types_and_strangers() {
    let cluster = Cluster::start();
    // Above the limit of a ConfigMap's data, below that of a request.
    let big = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata: {{a: {}}}\n",
        "x".repeat(2 << 20)
    );
    let said = cluster.kubectl_with(&["create", "-f", "-"], &big).fails();
    assert!(said.contains("Too long"), "{}", &said[..said.len().min(300)]);
    let huge = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: huge}}\ndata: {{a: {}}}\n",
        "x".repeat(4 << 20)
    );
    let said = cluster.kubectl_with(&["create", "-f", "-"], &huge).fails();
    assert!(said.contains("limit is 3145728"), "{}", &said[..said.len().min(300)]);

    let token = cluster.kubectl("create token default").ok();
    let url = "https://127.0.0.1:6443/api/v1/namespaces/default/configmaps";
    let curl = |flags: &str| {
        cluster.machine.sh(&format!("curl -sk -o /dev/stdout -w ' %{{http_code}}' {flags} {url}")).out
    };
    let stranger = curl("");
    assert!(stranger.ends_with(" 401") || stranger.ends_with(" 403"), "{stranger}");
    let weak = curl(&format!("-H 'Authorization: Bearer {}'", token.trim()));
    assert!(
        weak.contains(
            "configmaps is forbidden: User \\\"system:serviceaccount:default:default\\\" cannot list resource"
        ),
        "{weak}"
    );
    assert!(curl("-H 'Authorization: Bearer nonsense'").ends_with(" 401"));
    cluster
        .kubectl("create clusterrolebinding all --clusterrole=cluster-admin --serviceaccount=default:default")
        .ok();
    let wrong = curl(&format!(
        "-X POST -H 'Authorization: Bearer {}' -H 'Content-Type: text/plain' -d hello",
        token.trim()
    ));
    assert!(wrong.ends_with(" 415"), "{wrong}");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    std::fs::write(cluster.dir().join("deep"), deep).unwrap();
    let refused = curl(&format!(
        "-X POST -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' --data-binary @{}",
        token.trim(),
        cluster.dir().join("deep").display()
    ));
    assert!(refused.ends_with(" 400"), "{}", &refused[..refused.len().min(300)]);
    cluster.kubectl("get --raw=/readyz").ok();
}
