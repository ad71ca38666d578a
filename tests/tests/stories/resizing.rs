//! Containers that are given more while they run.

use e2e::{Cluster, eventually};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: growing}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: c
      image: busybox:1.35
      command: [sh, -c, "trap exit TERM; while true; do sleep 0.1; done"]
      resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
      resizePolicy:
        - {resourceName: cpu, restartPolicy: NotRequired}
        - {resourceName: memory, restartPolicy: RestartContainer}
"#;

fn resize(cluster: &Cluster, resources: &str) {
    let patch = format!(r#"{{"spec":{{"containers":[{{"name":"c","resources":{resources}}}]}}}}"#);
    cluster.kubectl_with(&["patch", "pod", "growing", "--subresource", "resize", "-p", &patch], "").ok();
}

/// The quota of CPU time that the container's own group has, per 100 ms.
fn quota(cluster: &Cluster) -> String {
    let read = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max";
    cluster.kubectl_with(&["exec", "growing", "--", "sh", "-c", read], "").out.trim().to_string()
}

#[test]
fn cpu_grows_in_place_memory_with_a_restart_and_too_much_not_at_all() {
    let cluster = Cluster::start();
    cluster.apply(POD);
    cluster.kubectl("wait --for=condition=Ready pod/growing --timeout=60s").ok();
    assert_eq!(quota(&cluster), "20000");

    resize(&cluster, r#"{"requests":{"cpu":"150m"},"limits":{"cpu":"300m"}}"#);
    let status = |path: &str| format!("{{.status.containerStatuses[0].{path}}}");
    cluster.wait_for("pod growing", &status("resources.limits.cpu"), "300m");
    cluster.wait_for("pod growing", &status("allocatedResources.cpu"), "150m");
    assert_eq!(quota(&cluster), "30000");
    assert_eq!(cluster.get("pod growing")["status"]["containerStatuses"][0]["restartCount"], 0);

    resize(&cluster, r#"{"requests":{"memory":"48Mi"},"limits":{"memory":"96Mi"}}"#);
    cluster.wait_for("pod growing", &status("restartCount"), "1");
    cluster.wait_for("pod growing", &status("resources.limits.memory"), "96Mi");
    cluster.wait_for("pod growing", &status("ready"), "true");

    resize(&cluster, r#"{"requests":{"cpu":"1000"},"limits":{"cpu":"1000"}}"#);
    let pending = "{.status.conditions[?(@.type==\"PodResizePending\")].reason}";
    cluster.wait_for("pod growing", pending, "Infeasible");
    assert_eq!(quota(&cluster), "30000");
    resize(&cluster, r#"{"requests":{"cpu":"100m"},"limits":{"cpu":"200m"}}"#);
    cluster.wait_for("pod growing", pending, "");
    eventually("it has shrunk", || match quota(&cluster) {
        quota if quota == "20000" => Ok(()),
        quota => Err(quota),
    });
    let events = cluster.kubectl("get events").ok();
    assert!(events.contains("ResizeCompleted") && events.contains("ResizeInfeasible"), "{events}");
}
