//! Pods with users of their own, and volumes that are images.

use e2e::{Cluster, cluster::IMAGE};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: apart}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 0
  volumes: [{name: shared, emptyDir: {}}]
  containers:
    - name: c
      image: busybox:1.35
      command: [sh, -c, "touch /shared/made; exec sleep 1000"]
      volumeMounts: [{name: shared, mountPath: /shared}]
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1.35", command: [sleep, "1000"]}]
"#;

#[test]
fn root_in_a_pod_is_nobody_on_the_node() {
    let cluster = Cluster::start();
    cluster.apply(PODS);
    cluster.kubectl("wait --for=condition=Ready pod/apart pod/other --timeout=60s").ok();
    let first_id = |pod: &str| {
        let map = cluster.kubectl(&format!("exec {pod} -- cat /proc/self/uid_map")).ok();
        let fields: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert_eq!((fields[0], fields[2]), (0, 65_536), "{map}");
        fields[1]
    };
    let (apart, other) = (first_id("apart"), first_id("other"));
    assert!(apart > 0 && apart % 65_536 == 0 && apart != other, "{apart} {other}");
    assert_eq!(cluster.kubectl("exec apart -- id -u").ok(), "0\n");
    assert_eq!(cluster.kubectl("exec apart -- stat -c %u /shared/made").ok(), "0\n");
}

#[test]
fn a_volume_can_be_an_image() {
    let cluster = Cluster::start();
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: reader}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{{name: tools, image: {{reference: "{IMAGE}", pullPolicy: IfNotPresent}}}}]
  containers:
    - name: c
      image: "{IMAGE}"
      command: [sleep, "1000"]
      volumeMounts: [{{name: tools, mountPath: /tools, readOnly: true}}]
"#
    ));
    cluster.kubectl("wait --for=condition=Ready pod/reader --timeout=60s").ok();
    assert!(cluster.kubectl("exec reader -- cat /tools/etc/passwd").ok().starts_with("root:"));
    // As upstream, what is in it is to be read and not to be run.
    assert!(cluster.kubectl("exec reader -- /tools/bin/busybox true").fails().contains("permission denied"));
    assert!(cluster.kubectl("exec reader -- touch /tools/new").fails().contains("Read-only file system"));
}
