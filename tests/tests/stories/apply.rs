//! Declaring what shall be: client-side and server-side apply, diff, edit, replace, and helm.

use std::fs;

use e2e::{Cluster, eventually};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: busybox:1.35
          env: [{name: COLOR, value: blue}, {name: SIZE, value: small}]
          ports: [{containerPort: 80}]
"#;

fn server_side(cluster: &Cluster, yaml: &str, more: &str) -> e2e::Said {
    let args: Vec<&str> = "apply --server-side -f -".split(' ').chain(more.split_whitespace()).collect();
    cluster.kubectl_with(&args, yaml)
}

/// `manager operation` of every entry of an object.
fn managers(cluster: &Cluster, what: &str) -> Vec<String> {
    let text = cluster.kubectl(&format!("get {what} --show-managed-fields -o json")).ok();
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
    entries.iter().map(|entry| format!("{} {}", text(&entry["manager"]), text(&entry["operation"]))).collect()
}

#[test]
fn the_server_applies_and_names_who_is_in_the_way() {
    let cluster = Cluster::start();
    assert_eq!(server_side(&cluster, WEB, "").ok(), "deployment.apps/web serverside-applied\n");
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {color: blue}\n";
    server_side(&cluster, settings, "").ok();
    let before = cluster.get("configmap settings --show-managed-fields");
    server_side(&cluster, settings, "").ok();
    assert_eq!(cluster.get("configmap settings --show-managed-fields"), before);
    assert!(!cluster.kubectl("get deployment web -o yaml").ok().contains("managedFields"));

    cluster.kubectl("scale deployment web --replicas=1").ok();
    let conflict = server_side(&cluster, WEB, "").fails();
    assert!(conflict.contains("Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"), "{conflict}");
    server_side(&cluster, WEB, "--force-conflicts").ok();
    assert_eq!(cluster.get("deployment web")["spec"]["replicas"], 0);

    // What is no longer said goes; a port of another protocol is another port.
    let changed = WEB
        .replace(", {name: SIZE, value: small}", "")
        .replace("{containerPort: 80}", "{containerPort: 80}, {containerPort: 80, protocol: UDP}");
    let diff = cluster.kubectl_with(&["diff", "--server-side", "-f", "-"], &changed);
    assert_eq!(diff.code, 1, "{}", diff.err);
    assert!(
        diff.out.contains("-        - name: SIZE") && diff.out.contains("+          protocol: UDP"),
        "{}",
        diff.out
    );
    server_side(&cluster, &changed, "").ok();
    // Controllers may still be reporting between the two looks that kubectl takes.
    eventually("nothing differs", || {
        let diff = cluster.kubectl_with(&["diff", "--server-side", "-f", "-"], &changed);
        if diff.code == 0 { Ok(()) } else { Err(diff.out) }
    });
    let container = cluster.get("deployment web")["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!(container["env"].as_array().unwrap().len(), 1);
    assert_eq!(container["ports"].as_array().unwrap().len(), 2);

    let unknown = server_side(&cluster, &WEB.replace("replicas: 0", "replica: 0"), "").fails();
    assert!(unknown.contains(".spec.replica: field not declared in schema"), "{unknown}");
    let dry = server_side(&cluster, &WEB.replace("name: web,", "name: other,"), "--dry-run=server").ok();
    assert_eq!(dry, "deployment.apps/other serverside-applied (server dry run)\n");
    cluster.kubectl("get deployment other").fails();
}

#[test]
fn clients_apply_and_go_over_to_the_server() {
    let cluster = Cluster::start();
    assert_eq!(cluster.apply(WEB), "deployment.apps/web created\n");
    assert!(managers(&cluster, "deployment web").contains(&"kubectl-client-side-apply Update".into()));
    assert_eq!(cluster.apply(WEB), "deployment.apps/web unchanged\n");
    cluster.kubectl("label deployment web by=hand").ok();
    let changed = WEB
        .replace(
            "labels: {app: web}}\nspec:\n  replicas",
            "labels: {app: web, tier: front}}\nspec:\n  replicas",
        )
        .replace("value: blue}, {name: SIZE, value: small", "value: red");
    let diff = cluster.kubectl_with(&["diff", "-f", "-"], &changed);
    assert_eq!(diff.code, 1, "{}", diff.err);
    assert!(diff.out.contains("+          value: red"), "{}", diff.out);
    assert_eq!(cluster.apply(&changed), "deployment.apps/web configured\n");
    let web = cluster.get("deployment web");
    assert_eq!(web["metadata"]["labels"], serde_json::json!({"app": "web", "by": "hand", "tier": "front"}));
    let env = &web["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(*env, serde_json::json!([{"name": "COLOR", "value": "red"}]));
    let last = cluster.kubectl("apply view-last-applied deployment/web").ok();
    assert!(last.contains("value: red"), "{last}");

    server_side(&cluster, &WEB.replace("blue", "green"), "").ok();
    let managers = managers(&cluster, "deployment web");
    assert!(managers.contains(&"kubectl Apply".into()), "{managers:?}");
    assert!(!managers.contains(&"kubectl-client-side-apply Update".into()), "{managers:?}");
    assert_eq!(cluster.get("deployment web")["metadata"]["labels"]["tier"], serde_json::Value::Null);
}

#[test]
fn objects_are_edited_and_replaced() {
    let cluster = Cluster::start();
    cluster.apply(WEB);
    let uid = cluster.get("deployment web")["metadata"]["uid"].clone();
    let edited = cluster.machine.sh(&format!(
        "KUBECONFIG={} KUBE_EDITOR='sed -i s/blue/yellow/' {} edit deployment web",
        cluster.data_dir().join("kubeconfig").display(),
        std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".into()),
    ));
    assert_eq!(edited.ok(), "deployment.apps/web edited\n");
    let env = &cluster.get("deployment web")["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[0]["value"], "yellow");
    let replaced = cluster.kubectl_with(&["replace", "-f", "-"], WEB).ok();
    assert_eq!(replaced, "deployment.apps/web replaced\n");
    assert_eq!(cluster.get("deployment web")["metadata"]["uid"], uid);
    cluster.kubectl_with(&["replace", "--force", "-f", "-"], WEB).ok();
    assert_ne!(cluster.get("deployment web")["metadata"]["uid"], uid);

    for (sort, patch, color) in [
        (
            "json",
            r#"[{"op":"replace","path":"/spec/template/spec/containers/0/env/0/value","value":"a"}]"#,
            "a",
        ),
        (
            "strategic",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"COLOR","value":"b"}]}]}}}}"#,
            "b",
        ),
        (
            "merge",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"x","env":[{"name":"COLOR","value":"c"}]}]}}}}"#,
            "c",
        ),
    ] {
        cluster.kubectl_with(&["patch", "deployment", "web", "--type", sort, "-p", patch], "").ok();
        let env = &cluster.get("deployment web")["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(env[0]["value"], color);
    }
}

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls() {
    let cluster = Cluster::start();
    let chart = cluster.dir().join("shop");
    for (file, text) in [
        ("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 0.1.0\nappVersion: \"1\"\n"),
        ("values.yaml", "replicas: 0\ncolor: blue\nextra: true\n"),
        (
            "templates/deployment.yaml",
            &WEB.replace("name: web, labels", "name: {{ .Release.Name }}-web, labels")
                .replace("replicas: 0", "replicas: {{ .Values.replicas }}")
                .replace("value: blue", "value: {{ .Values.color }}"),
        ),
        (
            "templates/service.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: \"{{ .Release.Name }}-web\"}\nspec:\n  selector: {app: web}\n  ports: [{port: 80, name: http}]\n",
        ),
        (
            "templates/extra.yaml",
            "{{ if .Values.extra }}\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {color: \"{{ .Values.color }}\"}\n{{ end }}\n",
        ),
    ] {
        let path = chart.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let helm = |words: &str| {
        let words = words.replace("SHOP", &chart.display().to_string());
        let args: Vec<&str> = words.split_whitespace().collect();
        let helm = std::env::var("HELM").unwrap_or_else(|_| "helm".into());
        let mut command = cluster.machine.command(&helm);
        command.args(args).env("HOME", cluster.dir());
        command.env("KUBECONFIG", cluster.data_dir().join("kubeconfig"));
        e2e::Said::from(command.output().expect("helm can be run"))
    };
    let color = || cluster.get("configmap extra")["data"]["color"].clone();

    let installed = helm("install a SHOP --wait --timeout 60s").ok();
    assert!(installed.contains("STATUS: deployed"), "{installed}");
    assert_eq!(managers(&cluster, "deployment a-web")[0], "helm Apply");
    let address = cluster.get("service a-web")["spec"]["clusterIP"].clone();
    helm("upgrade a SHOP --set color=red,replicas=1 --timeout 60s").ok();
    assert_eq!(color(), "red");
    assert_eq!(cluster.get("deployment a-web")["spec"]["replicas"], 1);
    assert_eq!(cluster.get("service a-web")["spec"]["clusterIP"], address);
    helm("upgrade a SHOP --set extra=false").ok();
    cluster.kubectl("get configmap extra").fails();
    helm("rollback a 1").ok();
    assert_eq!(color(), "blue");
    assert_eq!(helm("history a -o json").ok().matches("\"revision\"").count(), 4);
    helm("uninstall a --wait").ok();
    cluster.kubectl("get deployment a-web").fails();
    assert_eq!(helm("list -q").ok(), "");
}
