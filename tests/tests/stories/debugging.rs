//! Looking into a running pod: ephemeral containers, and what a status says of a container.

use e2e::{Cluster, eventually};

const SUBJECT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: subject}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 1000, runAsGroup: 2000, fsGroup: 3000}
  volumes: [{name: shared, emptyDir: {}}]
  containers:
    - name: main
      image: busybox:1.35
      command: [sh, -c, "exec sleep 1234"]
      lifecycle: {stopSignal: SIGUSR1}
      volumeMounts:
        - {name: shared, mountPath: /shared, readOnly: true, recursiveReadOnly: Enabled}
"#;

#[test]
fn a_debugger_sees_the_processes_of_its_target() {
    let cluster = Cluster::start();
    cluster.apply(SUBJECT);
    cluster.kubectl("wait --for=condition=Ready pod/subject --timeout=60s").ok();
    let args = [
        "debug",
        "subject",
        "--image=busybox:1.35",
        "--target=main",
        "--container=debugger",
        "--profile=general",
    ];
    let run = ["--", "sh", "-c", "ps -o args; exec sleep 100"];
    cluster.kubectl_with(&[&args[..], &run[..]].concat(), "").ok();
    let state = "{.status.ephemeralContainerStatuses[0].state.running.startedAt}";
    eventually("the debugger runs", || {
        let said = cluster.kubectl(&format!("get pod subject -o jsonpath={state}"));
        if said.out.is_empty() { Err(cluster.get("pod subject")["status"].to_string()) } else { Ok(()) }
    });
    eventually("it has seen its target", || {
        let log = cluster.kubectl("logs subject -c debugger").out;
        if log.contains("sleep 1234") { Ok(()) } else { Err(log) }
    });
    assert_eq!(cluster.kubectl("exec subject -c debugger -- echo here").ok(), "here\n");
    let pod = cluster.get("pod subject");
    assert_eq!(pod["status"]["containerStatuses"].as_array().unwrap().len(), 1);
    assert!(cluster.kubectl("get pod subject").ok().contains("1/1"));
    let events = cluster.kubectl("get events").ok();
    assert!(events.contains("Started container debugger"), "{events}");
    cluster.kubectl("delete pod subject --timeout=30s").ok();
}

#[test]
fn a_status_tells_whom_a_container_runs_as_and_what_became_of_its_mounts() {
    let cluster = Cluster::start();
    cluster.apply(SUBJECT);
    cluster.kubectl("wait --for=condition=Ready pod/subject --timeout=60s").ok();
    let status = cluster.get("pod subject")["status"]["containerStatuses"][0].clone();
    assert_eq!(status["user"]["linux"]["uid"], 1000, "{status}");
    assert_eq!(status["user"]["linux"]["gid"], 2000, "{status}");
    assert!(
        status["user"]["linux"]["supplementalGroups"].as_array().unwrap().contains(&3000.into()),
        "{status}"
    );
    assert_eq!(status["stopSignal"], "SIGUSR1", "{status}");
    assert_eq!(status["volumeMounts"][0]["recursiveReadOnly"], "Enabled", "{status}");
}
