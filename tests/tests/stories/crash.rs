//! kill -9, and what must survive it.

use std::collections::BTreeMap;

use e2e::{Cluster, eventually};
use serde_json::Value;

use crate::rollout::web;

/// Each pod's container id and restart count.
fn containers(cluster: &Cluster) -> BTreeMap<String, (String, i64)> {
    containers_of(cluster, |_| true)
}

/// The same of the pods whose container runs.
fn running_containers(cluster: &Cluster) -> BTreeMap<String, (String, i64)> {
    containers_of(cluster, |pod| pod["status"]["containerStatuses"][0]["state"]["running"].is_object())
}

fn containers_of(cluster: &Cluster, is_meant: fn(&Value) -> bool) -> BTreeMap<String, (String, i64)> {
    let pods = cluster.get("pods -l app=web");
    let entry = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let id = status["containerID"].as_str().unwrap_or_default().to_string();
        (
            pod["metadata"]["name"].as_str().unwrap().to_string(),
            (id, status["restartCount"].as_i64().unwrap_or(-1)),
        )
    };
    pods["items"].as_array().unwrap().iter().filter(|pod| is_meant(pod)).map(entry).collect()
}

#[test]
fn a_server_killed_in_the_middle_of_a_rollout_goes_on_and_restarts_no_pod() {
    let cluster = Cluster::start();
    cluster.apply(&web("web", 6));
    // At another moment of the rollout each time: nothing replaced yet, some pods, all of them.
    for moment in [0, 1, 3, 6] {
        cluster.kubectl(&format!("set env deployment/web MOMENT={moment}")).ok();
        eventually("the rollout has come so far", || {
            let web = cluster.get("deployment web");
            let seen = web["status"]["observedGeneration"] == web["metadata"]["generation"];
            let updated = web["status"]["updatedReplicas"].as_i64().unwrap_or(0);
            if seen && updated >= moment { Ok(()) } else { Err(web["status"].to_string()) }
        });
        let running = running_containers(&cluster);
        cluster.kill_server();
        cluster.up().ok();
        cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
        eventually("only the new pods are left", || {
            let pods = containers(&cluster);
            if pods.len() == 6 { Ok(()) } else { Err(format!("{pods:?}")) }
        });
        for (pod, (id, restarts)) in containers(&cluster) {
            match running.get(&pod) {
                Some(before) => assert_eq!((&id, restarts), (&before.0, before.1), "{pod} was restarted"),
                // Caught between its making and its start, a container is made once more, which counts.
                None => assert!(restarts <= 1, "{pod} was restarted {restarts} times"),
            }
        }
    }
}

#[test]
fn pods_run_on_while_the_server_is_dead_and_are_taken_over() {
    let cluster = Cluster::start();
    cluster.apply(&web("web", 2));
    cluster.kubectl("expose deployment web --port=80 --target-port=http").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    let address = cluster.get("service web")["spec"]["clusterIP"].as_str().unwrap().to_string();
    eventually("the service answers", || cluster.fetch(&format!("http://{address}/")));
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: brief}\nspec: {restartPolicy: Never, containers: [{name: c, image: \"busybox:1.35\", command: [sh, -c, \"while [ ! -e /tmp/end ]; do sleep 0.1; done; echo last words; exit 9\"]}]}\n");
    cluster.wait_for("pod brief", "{.status.phase}", "Running");
    let before = containers(&cluster);

    cluster.kill_server();
    cluster.fetch(&format!("http://{address}/")).expect("the service answers without its server");
    // Ends while nobody looks: its code and its last words must not be lost.
    let brief = cluster.processes().into_iter().find(|line| line.contains("last words"));
    let brief = brief.expect("the container runs on");
    let pid = brief.split(' ').next().unwrap();
    cluster.machine.sh(&format!("touch /proc/{pid}/root/tmp/end")).ok();
    eventually("it has ended", || match std::fs::metadata(format!("/proc/{pid}")) {
        Err(_) => Ok(()),
        Ok(_) => Err(brief.clone()),
    });
    cluster.up().ok();
    cluster.wait_for("pod brief", "{.status.containerStatuses[0].state.terminated.exitCode}", "9");
    assert_eq!(cluster.kubectl("logs brief").ok(), "last words\n");
    assert_eq!(containers(&cluster), before, "the same containers, not started again");
    cluster.kubectl("exec deployment/web -- true").ok();
}
