//! Servers of the users' own behind the API: a webhook reached by its Service, and an extension API server.

#[path = "../../../apiserver/tests/server/extension.rs"]
mod extension;
#[path = "../../../apiserver/tests/server/remote.rs"]
mod remote;

use std::net::TcpListener;

use base64::{Engine, prelude::BASE64_STANDARD};
use e2e::{Cluster, machine::ADDRESS};
use extension::Extension;
use remote::Remote;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A socket at the machine's address.
fn listener(cluster: &Cluster) -> TcpListener {
    cluster.machine.on_its_network(|| TcpListener::bind((ADDRESS, 0)).unwrap())
}

/// A Service that leads to a process on the machine.
fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{name: https, port: 443}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-host, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: https, port: {port}}}]
endpoints: [{{addresses: [{ADDRESS}]}}]
"
    )
}

/// Gives every config map an owner, and refuses those that are forbidden.
fn admit(review: &Value) -> Value {
    let request = &review["request"];
    let labels = &request["object"]["metadata"]["labels"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if labels["forbidden"] == "yes" {
        response["allowed"] = false.into();
        response["status"] = json!({"message": "this label is not for everybody", "code": 403});
    } else if request["operation"] == "CREATE" && request["object"]["data"]["owner"].is_null() {
        let patch = json!([{"op": "add", "path": "/data/owner", "value": "jane"}]);
        response["patchType"] = "JSONPatch".into();
        response["patch"] = BASE64_STANDARD.encode(patch.to_string()).into();
        response["warnings"] = json!(["jane has it now"]);
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
}

#[test]
fn a_webhook_changes_and_refuses_what_kubectl_applies() {
    let cluster = Cluster::start();
    let runtime = Runtime::new().unwrap();
    let hook = runtime.block_on(Remote::on(listener(&cluster), admit));
    cluster.apply(&service("hook", hook.port));
    cluster.apply(&format!(
        "apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {{name: owners}}
webhooks:
- name: owners.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {{caBundle: {}, service: {{name: hook, namespace: default}}}}
  rules: [{{operations: [CREATE, UPDATE], apiGroups: [''], apiVersions: [v1], resources: [configmaps]}}]
  namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: default}}}}
",
        hook.bundle
    ));
    let map = |name: &str, label: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{forbidden: '{label}'}}}}\ndata: {{a: b}}\n"
        )
    };
    let said = cluster.kubectl_with(&["apply", "-f", "-"], &map("good", "no"));
    assert!(said.err.contains("Warning: jane has it now"), "{}", said.err);
    assert_eq!(said.ok().trim(), "configmap/good created");
    assert_eq!(cluster.get("configmap good")["data"]["owner"], "jane");
    let dry =
        cluster.kubectl_with(&["apply", "--dry-run=server", "-o", "yaml", "-f", "-"], &map("dry", "no"));
    assert!(dry.ok().contains("owner: jane"));
    let refused = cluster.kubectl_with(&["apply", "-f", "-"], &map("bad", "yes")).fails();
    let words =
        r#"admission webhook "owners.example.com" denied the request: this label is not for everybody"#;
    assert!(refused.contains(words), "{refused}");
    let changed = cluster.kubectl("label configmap good forbidden=yes --overwrite").fails();
    assert!(changed.contains(words), "{changed}");
    let table = cluster.kubectl("get mutatingwebhookconfigurations").ok();
    let cells: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        (&cells[0][..2], &cells[1][..2]),
        (&["NAME", "WEBHOOKS"][..], &["owners", "1"][..]),
        "{table}"
    );

    cluster.kubectl("delete endpointslice hook-host").ok();
    let failed = cluster.kubectl_with(&["apply", "-f", "-"], &map("late", "no")).fails();
    assert!(failed.contains(r#"failed calling webhook "owners.example.com""#), "{failed}");
    assert!(failed.contains(r#"no endpoints available for service "hook""#), "{failed}");
}

#[test]
fn kubectl_uses_a_group_behind_another_server_like_any_other() {
    let cluster = Cluster::start();
    let runtime = Runtime::new().unwrap();
    // As extension servers do: they learn from the cluster whom to believe.
    let trusted = cluster.get("configmap extension-apiserver-authentication -n kube-system");
    let authority = trusted["data"]["requestheader-client-ca-file"].as_str().unwrap();
    let extension = runtime.block_on(Extension::on(listener(&cluster), authority));
    cluster.apply(&service("wardle", extension.port));
    cluster.apply(&format!(
        "apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1.wardle.example.com}}
spec:
  group: wardle.example.com
  version: v1
  groupPriorityMinimum: 2000
  versionPriority: 10
  caBundle: {}
  service: {{name: wardle, namespace: default}}
",
        extension.bundle
    ));
    cluster.kubectl("wait --for=condition=Available --timeout=30s apiservice/v1.wardle.example.com").ok();
    let services = cluster.kubectl("get apiservices").ok();
    let line = services.lines().find(|line| line.starts_with("v1.wardle.example.com")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("default/wardle"), "{services}");
    assert!(
        services.lines().any(|line| line.starts_with("v1.apps ") && line.contains("Local")),
        "{services}"
    );

    let known = cluster.kubectl("api-resources --api-group=wardle.example.com").ok();
    assert!(known.contains("flunders") && known.contains("Flunder"), "{known}");
    let names = cluster.kubectl("get flunders -o name").ok();
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        ["flunder.wardle.example.com/a", "flunder.wardle.example.com/b"]
    );
    let explained = cluster.kubectl("explain flunders.spec").ok();
    assert!(explained.contains("What it flunds."), "{explained}");
    let said = cluster.kubectl("get --raw /apis/wardle.example.com/v1/namespaces/default/flunders/a").ok();
    assert!(said.contains(r#""name":"a""#), "{said}");

    cluster.kubectl("delete endpointslice wardle-host").ok();
    cluster
        .kubectl("wait --for=condition=Available=false --timeout=30s apiservice/v1.wardle.example.com")
        .ok();
    let gone = cluster.kubectl("get flunders").fails();
    assert!(gone.contains("the server is currently unable to handle the request"), "{gone}");
    cluster.kubectl("delete apiservice v1.wardle.example.com").ok();
}

const HOST_PORTS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: hosts.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: hosts, singular: host, kind: Host}
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig: {caBundle: BUNDLE, service: {name: hook, namespace: default, path: /convert}}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {address: {type: string}}}}
    - name: v2
      served: true
      storage: false
      schema: {openAPIV3Schema: {type: object, properties: {host: {type: string}, port: {type: string}}}}
"#;

/// `address: h:p` of v1 is `host: h` and `port: p` of v2.
fn convert(review: &Value) -> Value {
    let request = &review["request"];
    let one = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        let map = object.as_object_mut().unwrap();
        if request["desiredAPIVersion"] == "example.com/v2" {
            let address = map.remove("address").unwrap_or_default();
            let (host, port) = address.as_str().unwrap_or_default().split_once(':').unwrap_or_default();
            map.insert("host".into(), host.into());
            map.insert("port".into(), port.into());
        } else {
            let mut part = |name: &str| map.remove(name).and_then(|part| Some(part.as_str()?.to_string()));
            let (host, port) = (part("host").unwrap_or_default(), part("port").unwrap_or_default());
            map.insert("address".into(), format!("{host}:{port}").into());
        }
        object
    };
    let converted: Vec<Value> = request["objects"].as_array().unwrap().iter().map(one).collect();
    let response =
        json!({"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted});
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response})
}

#[test]
fn a_custom_resource_is_converted_by_a_webhook_behind_a_service() {
    let cluster = Cluster::start();
    let runtime = Runtime::new().unwrap();
    let converter = runtime.block_on(Remote::on(listener(&cluster), convert));
    cluster.apply(&service("hook", converter.port));
    cluster.apply(&HOST_PORTS.replace("BUNDLE", &converter.bundle));
    cluster.kubectl("wait --for=condition=Established --timeout=30s crd/hosts.example.com").ok();
    cluster.apply(
        "apiVersion: example.com/v2\nkind: Host\nmetadata: {name: web}\nhost: web.local\nport: '80'\n",
    );
    assert_eq!(cluster.get("hosts.v1.example.com web")["address"], "web.local:80");
    assert_eq!(cluster.get("hosts.v2.example.com web")["host"], "web.local");
    cluster.kubectl(r#"patch hosts.v1.example.com web --type=merge -p {"address":"db.local:5432"}"#).ok();
    assert_eq!(cluster.get("hosts.v2.example.com web")["port"], "5432");
}
