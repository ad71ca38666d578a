//! Volumes of every sort that the kubelet makes.

use e2e::{Cluster, eventually};

#[test]
fn configuration_secrets_tokens_and_the_pods_own_fields_are_files() {
    let cluster = Cluster::start();
    cluster.kubectl("create configmap settings --from-literal=color=blue --from-literal=unused=x").ok();
    cluster.kubectl("create secret generic login --from-literal=password=s3cret").ok();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: reader, labels: {team: a}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: c
      image: busybox:1.35
      command: [sleep, "1000"]
      env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}]
      envFrom: [{configMapRef: {name: settings}, prefix: CFG_}]
      resources: {limits: {memory: 32Mi}}
      volumeMounts:
        - {name: config, mountPath: /config}
        - {name: secret, mountPath: /secret}
        - {name: all, mountPath: /all}
        - {name: scratch, mountPath: /scratch}
        - {name: memory, mountPath: /memory}
        - {name: host, mountPath: /host, readOnly: true}
  volumes:
    - name: config
      configMap: {name: settings, items: [{key: color, path: nested/color}]}
    - name: secret
      secret: {secretName: login, defaultMode: 0400}
    - name: scratch
      emptyDir: {}
    - name: memory
      emptyDir: {medium: Memory, sizeLimit: 1Mi}
    - name: host
      hostPath: {path: /etc, type: Directory}
    - name: all
      projected:
        sources:
          - serviceAccountToken: {path: token, audience: vault, expirationSeconds: 600}
          - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: limit, resourceFieldRef: {containerName: c, resource: limits.memory}}]}
"#,
    );
    cluster.kubectl("wait --for=condition=Ready pod/reader --timeout=60s").ok();
    let run = |command: &str| cluster.kubectl_with(&["exec", "reader", "--", "sh", "-c", command], "");
    assert_eq!(run("cat /config/nested/color").ok(), "blue");
    assert_eq!(run("cat /secret/password; stat -L -c %a /secret/password").ok(), "s3cret400\n");
    assert_eq!(run("echo $PASSWORD $CFG_color").ok(), "s3cret blue\n");
    assert_eq!(run("cat /all/labels").ok().trim(), "team=\"a\"");
    assert_eq!(run("cat /all/limit").ok(), "33554432");
    assert_eq!(
        run("cut -d. -f2 /all/token | wc -c").ok().trim().parse::<u32>().map(|size| size > 100),
        Ok(true)
    );
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(run(&format!("cat {account}/namespace")).ok(), "default");
    assert!(run(&format!("head -1 {account}/ca.crt")).ok().contains("BEGIN CERTIFICATE"));
    assert!(run("touch /host/x").fails().contains("Read-only"));
    run("touch /scratch/x && df /memory | grep -q tmpfs").ok();
    run("head -c 900000 /dev/zero >/memory/x").ok();
    run("head -c 2000000 /dev/zero >/memory/x").fails();

    let change = r#"{"data":{"color":"green"}}"#;
    cluster.kubectl_with(&["patch", "configmap", "settings", "-p", change], "").ok();
    eventually("the file follows the ConfigMap", || {
        let said = run("cat /config/nested/color");
        if said.out == "green" { Ok(()) } else { Err(said.out) }
    });
}

#[test]
fn a_missing_configmap_holds_the_pod_back_until_it_is_there() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: waiting}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1.35", command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /v}]}]
  volumes: [{name: v, configMap: {name: late}}]
"#,
    );
    eventually("the event says what is missing", || {
        let events = cluster.kubectl("get events").out;
        if events.contains("configmap \"late\" not found") { Ok(()) } else { Err(events) }
    });
    assert!(cluster.kubectl("get pod waiting").ok().contains("ContainerCreating"));
    cluster.kubectl("create configmap late --from-literal=a=b").ok();
    cluster.kubectl("wait --for=condition=Ready pod/waiting --timeout=60s").ok();
}
