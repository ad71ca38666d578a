//! The same kubelet on another container runtime: Debian's containerd, with a CNI network.

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use e2e::{Cluster, Containerd, Machine, eventually, machine::ADDRESS};

const WORKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec:
  terminationGracePeriodSeconds: 1
  initContainers: [{name: first, image: "busybox:1.35", command: [sh, -c, "echo first"]}]
  containers:
    - name: server
      image: busybox:1.35
      command: [sh, -c, "echo serving; mkdir /www; hostname >/www/index.html; touch /tmp/alive; exec httpd -f -p 8080 -h /www"]
      ports: [{containerPort: 8080, hostPort: 18080}]
      readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
      livenessProbe: {exec: {command: [test, -e, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: failing}
spec:
  containers: [{name: c, image: "busybox:1.35", command: [sh, -c, "echo attempt; exit 3"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  containers: [{name: c, image: "busybox:1.35", command: [sleep, "4321"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: unpulled}
spec:
  containers: [{name: c, image: "coracle.test/none:1", imagePullPolicy: Never}]
"#;

#[test]
fn containerd_runs_the_pods_when_it_is_asked_to() {
    let endpoint = format!("--container-runtime-endpoint={}", Containerd::endpoint());
    let cluster = Cluster::prepared(Machine::new(), &[&endpoint]);
    let mut containerd = Containerd::start(&cluster.machine, &cluster.dir().join("containerd"));
    cluster.up().ok();
    let node = cluster.get("nodes")["items"][0].clone();
    let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap().to_string();
    assert!(version.starts_with("containerd://1."), "{version}");

    cluster.apply(WORKER);
    cluster.kubectl("wait --for=condition=Ready pod/worker --timeout=60s").ok();
    let pod = cluster.get("pod worker");
    let status = &pod["status"]["containerStatuses"][0];
    assert!(status["containerID"].as_str().unwrap().starts_with("containerd://"), "{status}");
    let block = node["spec"]["podCIDR"].as_str().unwrap().trim_end_matches("0/24").to_string();
    assert!(pod["status"]["podIP"].as_str().unwrap().starts_with(&block), "{pod}");
    assert_eq!(cluster.kubectl("logs worker").ok(), "serving\n");
    assert_eq!(cluster.kubectl("logs worker -c first").ok(), "first\n");
    assert_eq!(cluster.kubectl("exec worker -- hostname").ok(), "worker\n");
    assert_eq!(cluster.kubectl_with(&["exec", "worker", "--", "sh", "-c", "exit 7"], "").code, 7);
    assert_eq!(cluster.kubectl_with(&["exec", "-i", "worker", "--", "cat"], "to and fro").ok(), "to and fro");
    forwarded(&cluster);
    eventually("the host port leads to the pod", || cluster.fetch(&format!("http://{ADDRESS}:18080/")));

    eventually("the back-off is told", || {
        let table = cluster.kubectl("get pod failing").out;
        if table.contains("CrashLoopBackOff") { Ok(()) } else { Err(table) }
    });
    cluster.wait_for(
        "pod unpulled",
        "{.status.containerStatuses[0].state.waiting.reason}",
        "ErrImageNeverPull",
    );
    cluster.kubectl("exec worker -- rm /tmp/alive").ok();
    cluster.wait_for("pod worker", "{.status.containerStatuses[0].restartCount}", "1");
    eventually("the restarted server answers", || cluster.fetch(&format!("http://{ADDRESS}:18080/")));

    // What ends while containerd is away is seen when it is back.
    containerd.kill();
    let pid = cluster.processes().into_iter().find(|line| line.contains("sleep 4321")).expect("it runs");
    cluster.machine.sh(&format!("kill -9 {}", pid.split(' ').next().unwrap())).ok();
    containerd.restart(&cluster.machine);
    cluster.wait_for("pod once", "{.status.containerStatuses[0].state.terminated.exitCode}", "137");
    assert_eq!(cluster.get("pod once")["status"]["phase"], "Failed");

    cluster.kubectl("delete pod worker failing unpulled once --timeout=60s").ok();
    eventually("nothing of the pods is left", || {
        let tasks = cluster.machine.sh("ctr -a /run/containerd.sock -n k8s.io containers ls -q").ok();
        let groups = cluster.pod_groups();
        if tasks.is_empty() && groups.is_empty() { Ok(()) } else { Err(format!("{tasks} {groups:?}")) }
    });
}

#[test]
fn services_lead_to_pods_of_containerd() {
    let endpoint = format!("--container-runtime-endpoint={}", Containerd::endpoint());
    let cluster = Cluster::prepared(Machine::new(), &[&endpoint]);
    let _containerd = Containerd::start(&cluster.machine, &cluster.dir().join("containerd"));
    cluster.up().ok();
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/guestbook");
    cluster.kubectl(&format!("apply -f {}", manifests.display())).ok();
    for what in ["deployment/backend", "deployment/frontend", "daemonset/visitor"] {
        cluster.kubectl(&format!("-n guestbook rollout status {what} --timeout=60s")).ok();
    }
    eventually("the visitor has signed", || {
        let page = cluster.fetch(&format!("http://{ADDRESS}:30080/"))?;
        if page.contains("was here") { Ok(()) } else { Err(page) }
    });
    eventually("a pod reaches itself through its Service, by its name", || {
        let by_name = "wget -q -O - http://frontend.guestbook.svc.cluster.local/";
        let said = cluster.kubectl(&format!("-n guestbook exec deployment/frontend -- {by_name}"));
        if said.code == 0 && said.out.contains("<h1>Guestbook</h1>") { Ok(()) } else { Err(said.err) }
    });
    cluster.coracle("down", &["--grace=1"]).ok();
    let left = cluster.machine.sh("ctr -a /run/containerd.sock -n k8s.io tasks ls -q").ok();
    assert_eq!(left, "", "down stops the pods of containerd too");
}

/// A request through `kubectl port-forward`.
fn forwarded(cluster: &Cluster) {
    let mut forward = cluster.kubectl_child(&["port-forward", "pod/worker", ":8080"]);
    let mut line = String::new();
    // Held until the end: kubectl goes on talking.
    let mut said = BufReader::new(forward.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    let port =
        line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port").to_string();
    assert_eq!(cluster.fetch(&format!("http://127.0.0.1:{port}/")).unwrap(), "worker\n");
    forward.kill().unwrap();
    forward.wait().unwrap();
}
