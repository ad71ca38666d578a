//! Deployments as users handle them.

use std::io::{BufRead, BufReader};

use e2e::{Cluster, eventually};

/// A Deployment of pods that serve their own name on port 8080.
pub fn web(name: &str, replicas: u32) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: busybox:1.35
          command: [sh, -c, "mkdir /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www"]
          ports: [{{name: http, containerPort: 8080}}]
          readinessProbe: {{tcpSocket: {{port: http}}, periodSeconds: 1}}
"#
    )
}

#[test]
fn a_deployment_is_applied_scaled_changed_undone_and_deleted() {
    let cluster = Cluster::start();
    assert_eq!(cluster.apply(&web("web", 2)).trim(), "deployment.apps/web created");
    assert_eq!(cluster.apply(&web("web", 2)).trim(), "deployment.apps/web unchanged");
    let rolled_out = cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    assert!(rolled_out.contains("successfully rolled out"), "{rolled_out}");

    cluster.kubectl("scale deployment/web --replicas=4").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    let table = cluster.kubectl("get deployment web").ok();
    let cells: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells[..4], ["web", "4/4", "4", "4"], "{table}");

    cluster.kubectl("set env deployment/web COLOR=blue").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    let history = cluster.kubectl("rollout history deployment/web").ok();
    assert_eq!(history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count(), 2);

    cluster.kubectl("set image deployment/web web=busybox:none").ok();
    eventually("the new image cannot be pulled", || {
        let pods = cluster.kubectl("get pods").out;
        if pods.contains("ImagePull") { Ok(()) } else { Err(pods) }
    });
    let available = cluster.get("deployment web")["status"]["availableReplicas"].as_i64();
    assert!(available >= Some(3), "a bad image must not take the good pods down: {available:?}");
    cluster.kubectl("rollout undo deployment/web").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    let deployment = cluster.get("deployment web");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "busybox:1.35");
    assert_eq!(container["env"][0]["value"], "blue");
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "4");

    cluster.kubectl("delete deployment web").ok();
    eventually("its pods and replica sets are gone", || {
        let left = cluster.kubectl("get pods,replicasets -l app=web -o name").out;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    let events = cluster.kubectl("get events").ok();
    for reason in
        ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "Pulled", "Created", "Started", "Killing"]
    {
        assert!(events.contains(reason), "no event {reason} in\n{events}");
    }
}

#[test]
fn a_watch_shows_each_step_as_it_happens() {
    let cluster = Cluster::start();
    // A pod that nobody schedules: once kubectl shows it, it has listed, and misses nothing that follows.
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: waits}\nspec: {schedulerName: nobody, containers: [{name: c, image: \"busybox:1.35\"}]}\n");
    let mut watch = cluster.kubectl_child(&["get", "pods", "-w", "--output-watch-events"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("waits")), "kubectl shows what is there");
    cluster.apply(&web("web", 1));
    let mut seen = String::new();
    for line in lines {
        seen.push_str(&format!("{line}\n"));
        if line.contains("1/1") && line.contains("Running") {
            break;
        }
    }
    for step in ["ADDED", "MODIFIED", "Pending", "ContainerCreating", "Running"] {
        assert!(seen.contains(step), "no {step} in\n{seen}");
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_daemon_set_runs_on_the_node_and_is_updated() {
    let cluster = Cluster::start();
    let daemon = |message: &str| {
        format!(
            r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  selector: {{matchLabels: {{app: agent}}}}
  template:
    metadata: {{labels: {{app: agent}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: agent, image: "busybox:1.35", command: [sh, -c, "echo {message}; exec sleep 1000"]}}]
"#
        )
    };
    cluster.apply(&daemon("one"));
    cluster.kubectl("rollout status daemonset/agent --timeout=60s").ok();
    cluster.apply(&daemon("two"));
    cluster.kubectl("rollout status daemonset/agent --timeout=60s").ok();
    eventually("the new pod has spoken", || {
        let said = cluster.kubectl("logs daemonset/agent");
        if said.out == "two\n" { Ok(()) } else { Err(format!("{said:?}")) }
    });
}

#[test]
fn owners_take_their_dependents_with_them_or_leave_them() {
    let cluster = Cluster::start();
    cluster.apply(&web("web", 1));
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    cluster.kubectl("delete deployment web --cascade=orphan").ok();
    let left = cluster.kubectl("get replicasets,pods -l app=web -o name").ok();
    assert_eq!(left.lines().count(), 2, "{left}");
    cluster.kubectl("delete replicaset -l app=web --cascade=foreground").ok();
    eventually("the pods are gone", || {
        let left = cluster.kubectl("get pods -l app=web -o name").out;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    cluster.kubectl("create namespace shop").ok();
    cluster.kubectl("-n shop create configmap note --from-literal=a=b").ok();
    cluster.kubectl("delete namespace shop --timeout=60s").ok();
    let gone = cluster.kubectl("get namespace shop").fails();
    assert_eq!(gone.trim(), "Error from server (NotFound): namespaces \"shop\" not found");
}

#[test]
fn a_pod_that_its_job_lets_go_of_is_nobodys() {
    let cluster = Cluster::start();
    cluster.kubectl("create job work --image=busybox:1.35 -- sleep 1000").ok();
    let pod = |besides: &str| {
        let mut found = None;
        eventually("the job has a pod", || {
            let pods = cluster.get("pods")["items"].as_array().cloned().unwrap_or_default();
            found = pods.into_iter().find(|pod| pod["metadata"]["name"] != besides);
            if found.is_some() { Ok(()) } else { Err("none yet".to_string()) }
        });
        found.map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_string()).unwrap_or_default()
    };
    let is_owned = |name: &str, expected: bool| {
        eventually("the pod's owner and finalizer fit together", || {
            let metadata = cluster.get(&format!("pod {name}"))["metadata"].clone();
            let has = |field: &str| metadata[field].as_array().is_some_and(|list| !list.is_empty());
            let fits = has("ownerReferences") == expected && has("finalizers") == expected;
            if fits { Ok(()) } else { Err(metadata.to_string()) }
        });
    };
    let first = pod("");
    is_owned(&first, true);
    cluster.kubectl(&format!("label pod {first} batch.kubernetes.io/controller-uid-")).ok();
    is_owned(&first, false);
    let second = pod(&first);
    cluster
        .kubectl(&format!(
            "patch pod {second} -p {{\"metadata\":{{\"ownerReferences\":null,\"finalizers\":null}}}}"
        ))
        .ok();
    is_owned(&second, true);
    cluster.kubectl(&format!("delete pod {first} --now --timeout=60s")).ok();
}

#[test]
fn a_port_of_the_node_is_given_away_once() {
    let cluster = Cluster::start();
    let node = cluster.get("nodes")["items"][0]["metadata"]["name"].as_str().unwrap_or_default().to_string();
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n  containers:\n  \
             - {{name: c, image: \"busybox:1.35\", command: [sleep, \"1000\"], ports: [{{containerPort: 80, hostPort: 21017}}]}}\n"
        )
    };
    // Nobody but the kubelet looks at pods that name their node.
    cluster.apply(&format!("{}---\n{}", pod("a"), pod("b")));
    eventually("one runs and the other is refused", || {
        let pods = cluster.get("pods")["items"].clone();
        let mut phases = [0, 1].map(|at: usize| pods[at]["status"]["phase"].as_str().unwrap_or_default());
        phases.sort_unstable();
        if phases == ["Failed", "Running"] { Ok(()) } else { Err(pods.to_string()) }
    });
    let pods = cluster.get("pods")["items"].as_array().cloned().unwrap_or_default();
    let refused =
        pods.iter().find(|pod| pod["status"]["phase"] == "Failed").map(|pod| &pod["status"]["reason"]);
    assert_eq!(refused, Some(&"NodePorts".into()));
}
