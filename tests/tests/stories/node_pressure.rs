//! What becomes of pods on a node that is short of memory.

use e2e::{Cluster, eventually};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers:
    - {name: c, image: "busybox:1.35", command: [sleep, "1000"], resources: {requests: {memory: 1Ki}}}
---
apiVersion: v1
kind: Pod
metadata: {name: careless}
spec:
  nodeName: NODE
  containers: [{name: c, image: "busybox:1.35", command: [sleep, "1000"]}]
"#;

#[test]
fn a_node_short_of_memory_says_so_refuses_the_careless_and_evicts_the_rest() {
    // More than any machine has.
    let cluster = Cluster::start_with(&["--eviction-hard=memory.available<1000Ti"]);
    let node = cluster.get("nodes")["items"][0]["metadata"]["name"].as_str().unwrap().to_string();
    let pressure = "{.status.conditions[?(@.type==\"MemoryPressure\")].status}";
    cluster.wait_for(&format!("node {node}"), pressure, "True");
    cluster.wait_for(&format!("node {node}"), "{.spec.taints[0].key}", "node.kubernetes.io/memory-pressure");
    cluster.apply(&PODS.replace("NODE", &node));
    cluster.wait_for("pod careless", "{.status.phase}", "Failed");
    let careless = cluster.get("pod careless")["status"].clone();
    assert_eq!(careless["reason"], "Evicted");
    assert_eq!(careless["message"], "Pod was rejected: The node had condition: [MemoryPressure]. ");
    assert_eq!(careless["containerStatuses"][0]["restartCount"], 0);

    cluster.wait_for("pod modest", "{.status.phase}", "Failed");
    let modest = cluster.get("pod modest")["status"].clone();
    assert_eq!(modest["reason"], "Evicted", "{modest}");
    let message = modest["message"].as_str().unwrap();
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 1000Ti, available: ")
    );
    assert!(message.contains("Container c was using ") && message.contains("request is 1Ki, "), "{message}");
    let disruption = "{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    cluster.wait_for("pod modest", disruption, "TerminationByKubelet");
    eventually("it is told", || {
        let events = cluster.kubectl("get events -A").out;
        let wanted = ["EvictionThresholdMet", "The node was low on resource: memory"];
        if wanted.iter().all(|text| events.contains(text)) { Ok(()) } else { Err(events) }
    });
}
