//! What becomes of pods: restarts, probes, init containers, limits, users.

use e2e::{Cluster, eventually};

fn pod(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}

#[test]
fn containers_are_restarted_with_back_off_or_left_as_the_policy_says() {
    let cluster = Cluster::start();
    let failing = |name: &str, policy: &str, command: &str| {
        cluster.apply(&pod(
            name,
            &format!(
                "  restartPolicy: {policy}\n  containers: [{{name: c, image: \"busybox:1.35\", command: [sh, -c, \"{command}\"]}}]\n"
            ),
        ))
    };
    failing("crashing", "Always", "echo attempt; exit 3");
    failing("once", "Never", "exit 3");
    failing("fine", "OnFailure", "exit 0");
    cluster.wait_for("pod once", "{.status.phase}", "Failed");
    cluster.wait_for("pod fine", "{.status.phase}", "Succeeded");
    eventually("the back-off is told", || {
        let table = cluster.kubectl("get pod crashing").out;
        if table.contains("CrashLoopBackOff") { Ok(()) } else { Err(table) }
    });
    let status = cluster.get("pod crashing");
    let container = &status["status"]["containerStatuses"][0];
    let message = container["state"]["waiting"]["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("back-off 10s restarting failed container=c pod=crashing_default("),
        "{container}"
    );
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert!(container["restartCount"].as_i64() >= Some(1));
    assert_eq!(cluster.kubectl("logs crashing --previous").ok(), "attempt\n");
    assert_eq!(cluster.get("pod once")["status"]["containerStatuses"][0]["restartCount"], 0);
    let described = cluster.kubectl("describe pod crashing").ok();
    assert!(
        described.contains("Back-off restarting failed container c in pod crashing_default"),
        "{described}"
    );
}

#[test]
fn init_containers_run_one_after_the_other_and_sidecars_stay() {
    let cluster = Cluster::start();
    cluster.apply(&pod(
        "staged",
        r#"  terminationGracePeriodSeconds: 0
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
    - {name: first, image: "busybox:1.35", command: [sh, -c, "echo 1 >>/shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
    - {name: side, image: "busybox:1.35", restartPolicy: Always, command: [sleep, "1000"]}
    - {name: second, image: "busybox:1.35", command: [sh, -c, "echo 2 >>/shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
    - {name: main, image: "busybox:1.35", command: [sleep, "1000"], volumeMounts: [{name: shared, mountPath: /shared}]}
"#,
    ));
    cluster.kubectl("wait --for=condition=Ready pod/staged --timeout=60s").ok();
    assert_eq!(cluster.kubectl("exec staged -c main -- cat /shared/order").ok(), "1\n2\n");
    let table = cluster.kubectl("get pod staged").ok();
    assert!(table.contains("2/2"), "the sidecar counts: {table}");
}

#[test]
fn probes_make_ready_and_restart() {
    let cluster = Cluster::start();
    cluster.apply(&pod(
        "probed",
        r#"  terminationGracePeriodSeconds: 0
  containers:
    - name: c
      image: busybox:1.35
      command: [sh, -c, "touch /tmp/alive; exec sleep 1000"]
      startupProbe: {exec: {command: [test, -e, /tmp/alive]}, periodSeconds: 1}
      readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}
      livenessProbe: {exec: {command: [test, -e, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1}
"#,
    ));
    let ready = "{.status.containerStatuses[0].ready}";
    cluster.wait_for("pod probed", "{.status.containerStatuses[0].started}", "true");
    cluster.wait_for("pod probed", ready, "false");
    cluster.kubectl("exec probed -- touch /tmp/ready").ok();
    cluster.wait_for("pod probed", ready, "true");
    cluster.kubectl("exec probed -- rm /tmp/alive").ok();
    cluster.wait_for("pod probed", "{.status.containerStatuses[0].restartCount}", "1");
    let events = cluster.kubectl("get events").ok();
    assert!(events.contains("Readiness probe failed"), "{events}");
    assert!(events.contains("Container c failed liveness probe, will be restarted"), "{events}");
}

#[test]
fn a_container_has_its_limits_its_user_and_a_read_only_root() {
    let cluster = Cluster::start();
    cluster.apply(&pod(
        "confined",
        r#"  terminationGracePeriodSeconds: 0
  hostname: boat
  securityContext: {runAsUser: 1000, runAsGroup: 2000, fsGroup: 3000}
  containers:
    - name: c
      image: busybox:1.35
      command: [sh, -c, "exec sleep $(SECONDS_TO_LIVE)"]
      env: [{name: SECONDS_TO_LIVE, value: "1000"}, {name: ESCAPED, value: "$$(SECONDS_TO_LIVE)"}]
      resources: {limits: {cpu: 500m, memory: 64Mi}}
      securityContext:
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
    - name: hungry
      image: busybox:1.35
      command: [sh, -c, "sleep 1; exec tail /dev/zero"]
      resources: {limits: {memory: 16Mi}}
"#,
    ));
    cluster.wait_for("pod confined", "{.status.containerStatuses[0].ready}", "true");
    let run =
        |command: &str| cluster.kubectl_with(&["exec", "confined", "-c", "c", "--", "sh", "-c", command], "");
    assert_eq!(run("id -u; id -g; id -G").ok(), "1000\n2000\n2000 3000\n");
    assert_eq!(run("hostname").ok(), "boat\n");
    assert!(run("touch /file").fails().contains("Read-only file system"));
    assert_eq!(run("grep CapEff /proc/1/status | cut -f2").ok().trim(), "0000000000000000");
    assert_eq!(run("grep CapBnd /proc/1/status | cut -f2").ok().trim(), "0000000000000400");
    assert_eq!(run("grep NoNewPrivs /proc/1/status | cut -f2").ok().trim(), "1");
    assert_eq!(
        run("grep Seccomp: /proc/1/status | cut -f2").ok().trim(),
        "2",
        "the default profile, unless asked otherwise"
    );
    assert_eq!(run("tr '\\0' '\\n' </proc/1/environ | grep ESCAPED").ok(), "ESCAPED=$(SECONDS_TO_LIVE)\n");
    let limit =
        run("cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max")
            .ok();
    assert_eq!(limit.trim(), "67108864");
    eventually("the hungry one is killed for its memory", || {
        let reason = cluster
            .kubectl("get pod confined -o jsonpath={.status.containerStatuses[?(@.name==\"hungry\")].lastState.terminated.reason}")
            .out;
        if reason == "OOMKilled" { Ok(()) } else { Err(reason) }
    });
}

#[test]
fn a_pod_that_fits_nowhere_says_why_and_runs_when_there_is_room() {
    let cluster = Cluster::start();
    cluster.apply(&pod(
        "big",
        "  containers: [{name: c, image: \"busybox:1.35\", command: [sleep, \"1000\"], resources: {requests: {cpu: \"1000\"}}}]\n",
    ));
    eventually("the event says why", || {
        let events = cluster.kubectl("get events --field-selector reason=FailedScheduling").out;
        let wanted = "0/1 nodes are available: 1 Insufficient cpu.";
        if events.contains(wanted) { Ok(()) } else { Err(events) }
    });
    cluster.wait_for("pod big", "{.status.conditions[?(@.type==\"PodScheduled\")].reason}", "Unschedulable");
    cluster.kubectl("cordon -l kubernetes.io/os=linux").ok();
    cluster.apply(&pod(
        "small",
        "  containers: [{name: c, image: \"busybox:1.35\", command: [sleep, \"1000\"]}]\n",
    ));
    eventually("a cordoned node takes nothing", || {
        let events = cluster.kubectl("get events --field-selector involvedObject.name=small").out;
        if events.contains("1 node(s) were unschedulable") { Ok(()) } else { Err(events) }
    });
    cluster.kubectl("uncordon -l kubernetes.io/os=linux").ok();
    cluster.wait_for("pod small", "{.status.phase}", "Running");
}
