//! Stories about where pods go.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::{
    model::{NodeInfo, PodInfo},
    preempt::preempt,
    queue::Queue,
    schedule::{Cursor, Unschedulable, schedule},
    snapshot::{Placed, Snapshot},
};

fn node(name: &str, change: impl FnOnce(&mut Value)) -> NodeInfo {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
    });
    change(&mut node);
    NodeInfo::new(&serde_json::from_value::<Node>(node).unwrap())
}

fn pod(name: &str, spec: Value) -> Arc<PodInfo> {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c"}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value::<Pod>(object).unwrap())))
}

fn asking(name: &str, cpu: &str) -> Arc<PodInfo> {
    pod(name, json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
}

fn with_priority(name: &str, cpu: &str, priority: i32) -> Arc<PodInfo> {
    Arc::new(PodInfo { priority, ..PodInfo::clone(&asking(name, cpu)) })
}

fn cluster(nodes: impl IntoIterator<Item = NodeInfo>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(node);
    }
    snapshot
}

fn two_nodes() -> Snapshot {
    cluster([node("a", |_| {}), node("b", |_| {})])
}

fn refusal(pod: &PodInfo, snapshot: &Snapshot) -> Unschedulable {
    schedule(pod, snapshot, &mut Cursor::default()).unwrap_err()
}

#[test]
fn the_emptier_node_wins() {
    let mut snapshot = two_nodes();
    snapshot.place(asking("first", "1"), "a");
    assert_eq!(schedule(&asking("second", "500m"), &snapshot, &mut Cursor::default()).unwrap(), "b");
}

#[test]
fn equal_nodes_take_turns() {
    let snapshot = two_nodes();
    let mut cursor = Cursor::default();
    let mut next = || schedule(&asking("x", "100m"), &snapshot, &mut cursor).unwrap();
    assert_ne!(next(), next());
}

#[test]
fn in_a_large_cluster_each_pod_is_tried_on_a_part_of_the_nodes_and_all_get_their_turn() {
    let name = |number: usize| format!("node-{number:04}");
    let mut snapshot = cluster((0..1000).map(|number| node(&name(number), |_| {})));
    let mut cursor = Cursor::default();
    let mut used = BTreeSet::new();
    for number in 0..1000 {
        let pod = asking(&format!("pod-{number}"), "2");
        let chosen = schedule(&pod, &snapshot, &mut cursor).unwrap();
        snapshot.place(pod, &chosen);
        assert!(used.insert(chosen), "the others are empty");
    }
    let refused = schedule(&asking("late", "2"), &snapshot, &mut cursor).unwrap_err();
    assert_eq!(refused.per_node.len(), 1000, "before a pod is refused every node is looked at");
}

#[test]
fn a_pod_too_large_for_every_node_says_so_in_upstreams_words() {
    let text = refusal(&asking("big", "3"), &cluster([node("a", |_| {})])).to_string();
    assert_eq!(text, "0/1 nodes are available: 1 Insufficient cpu.");
}

#[test]
fn every_reason_is_counted() {
    let tainted = node("b", |node| node["spec"]["taints"] = json!([{"key": "x", "effect": "NoSchedule"}]));
    let cordoned = node("c", |node| node["spec"]["unschedulable"] = true.into());
    let snapshot = cluster([node("a", |_| {}), tainted, cordoned]);
    assert_eq!(
        refusal(&asking("big", "3"), &snapshot).to_string(),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."
    );
}

#[test]
fn no_nodes_at_all() {
    assert_eq!(
        refusal(&asking("x", "1"), &Snapshot::default()).to_string(),
        "no nodes available to schedule pods"
    );
}

#[test]
fn selectors_and_affinity_pick_nodes() {
    let snapshot =
        cluster([node("a", |_| {}), node("b", |node| node["metadata"]["labels"]["disk"] = "ssd".into())]);
    let by_selector = pod("x", json!({"nodeSelector": {"disk": "ssd"}}));
    assert_eq!(schedule(&by_selector, &snapshot, &mut Cursor::default()).unwrap(), "b");
    let elsewhere = pod(
        "x",
        json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]}}}}),
    );
    assert_eq!(schedule(&elsewhere, &snapshot, &mut Cursor::default()).unwrap(), "a");
    let nowhere = pod("x", json!({"nodeSelector": {"disk": "tape"}}));
    assert_eq!(
        refusal(&nowhere, &snapshot).to_string(),
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    );
}

#[test]
fn among_nodes_that_fit_preferred_ones_win() {
    let ssd = node("b", |node| node["metadata"]["labels"]["disk"] = "ssd".into());
    let snapshot = cluster([node("a", |_| {}), ssd]);
    let term = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]});
    let wishes = json!({"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}]}});
    let mut cursor = Cursor::default();
    for _ in 0..2 {
        assert_eq!(schedule(&pod("x", json!({"affinity": wishes})), &snapshot, &mut cursor).unwrap(), "b");
    }
}

#[test]
fn a_host_port_is_had_once_on_a_node() {
    let web = |name| {
        pod(name, json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}))
    };
    let mut snapshot = cluster([node("a", |_| {})]);
    snapshot.place(web("first"), "a");
    assert_eq!(
        refusal(&web("second"), &snapshot).to_string(),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    );
}

#[test]
fn anti_affinity_holds_in_both_directions() {
    let alone = |name| {
        pod(
            name,
            json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}]}}}),
        )
    };
    let mut snapshot = cluster([node("a", |_| {})]);
    snapshot.place(alone("first"), "a");
    let text = refusal(&alone("second"), &snapshot).to_string();
    assert_eq!(text, "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.");
    let text = refusal(&asking("meek", "1m"), &snapshot).to_string();
    assert_eq!(text, "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.");
}

#[test]
fn the_first_of_a_group_that_wants_to_be_together_may_go_anywhere() {
    let together = |name| {
        pod(
            name,
            json!({"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}]}}}),
        )
    };
    let mut snapshot = two_nodes();
    let first = schedule(&together("first"), &snapshot, &mut Cursor::default()).unwrap();
    snapshot.place(together("first"), &first);
    let mut cursor = Cursor::default();
    for _ in 0..2 {
        assert_eq!(schedule(&together("second"), &snapshot, &mut cursor).unwrap(), first);
    }
}

#[test]
fn required_spreading_keeps_the_difference_small() {
    let even = |name| {
        pod(
            name,
            json!({"topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}),
        )
    };
    let mut snapshot = two_nodes();
    snapshot.place(even("first"), "a");
    assert_eq!(schedule(&even("second"), &snapshot, &mut Cursor::default()).unwrap(), "b");
}

#[test]
fn only_as_many_pods_are_pushed_out_as_needed_and_the_least_important() {
    let mut snapshot = cluster([node("a", |_| {})]);
    snapshot.place(with_priority("low", "1", 1), "a");
    snapshot.place(with_priority("middle", "1", 5), "a");
    let urgent = with_priority("urgent", "1", 10);
    let room = preempt(&urgent, &snapshot, &refusal(&urgent, &snapshot)).unwrap();
    let names: Vec<&str> = room.victims.iter().map(|victim| victim.name.as_str()).collect();
    assert_eq!(names, ["low"]);
    let meek = with_priority("meek", "1", 0);
    assert_eq!(
        preempt(&meek, &snapshot, &refusal(&meek, &snapshot)).unwrap_err(),
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
}

#[test]
fn a_search_for_room_on_one_node_does_not_change_what_is_found_on_the_next() {
    let mut snapshot = cluster([node("a", |_| {}), node("b", |_| {})]);
    snapshot.place(with_priority("important", "2", 5), "a");
    snapshot.place(with_priority("ordinary", "1", 1), "b");
    snapshot.place(with_priority("another", "1", 1), "b");
    let urgent = with_priority("urgent", "2", 10);
    let room = preempt(&urgent, &snapshot, &refusal(&urgent, &snapshot)).unwrap();
    assert_eq!((room.node.as_str(), room.victims.len()), ("b", 2));
}

#[test]
fn pods_of_one_owner_lie_apart() {
    let owned = |name: &str, owner: &str| {
        Arc::new(PodInfo { owner: Some(owner.into()), ..PodInfo::clone(&asking(name, "100m")) })
    };
    let mut snapshot = two_nodes();
    snapshot.place(owned("web-1", "web"), "a");
    snapshot.place(owned("other-1", "other"), "b");
    for _ in 0..3 {
        assert_eq!(schedule(&owned("web-2", "web"), &snapshot, &mut Cursor::default()).unwrap(), "b");
    }
    assert!(snapshot.remove_pod("web-1") && snapshot.remove_pod("other-1"));
    assert!(snapshot.nodes().all(|node| node.by_owner.is_empty()));
}

#[test]
fn nodes_come_back_with_other_labels_and_their_pods() {
    let with_disk = |disk: &'static str| node("a", |node| node["metadata"]["labels"]["disk"] = disk.into());
    let on_disk = |disk: &str| pod("x", json!({"nodeSelector": {"disk": disk}}));
    let mut snapshot = cluster([with_disk("ssd"), node("b", |_| {})]);
    snapshot.place(asking("there", "2"), "a");
    snapshot.remove_node("a");
    assert!(schedule(&on_disk("ssd"), &snapshot, &mut Cursor::default()).is_err());
    assert!(snapshot.set_node(with_disk("tape")));
    assert!(!snapshot.set_node(with_disk("tape")), "nothing has changed");
    assert_eq!(schedule(&on_disk("tape"), &snapshot, &mut Cursor::default()).unwrap(), "a");
    assert_eq!(snapshot.node("a").unwrap().requested.milli_cpu, 2000);
    snapshot.remove_node("a");
    assert!(snapshot.remove_pod("there"));
    snapshot.set_node(node("c", |_| {}));
    assert_eq!(snapshot.nodes().map(|node| node.number).collect::<Vec<_>>(), [0, 1], "c has a's number");
}

#[test]
fn a_node_forgets_what_its_pods_took_when_they_are_gone() {
    let mut snapshot = cluster([node("a", |_| {})]);
    for round in 0..3 {
        let pod = asking(&format!("pod-{round}"), "2");
        assert_eq!(schedule(&pod, &snapshot, &mut Cursor::default()).unwrap(), "a");
        snapshot.place(pod.clone(), "a");
        assert!(schedule(&asking("other", "1"), &snapshot, &mut Cursor::default()).is_err());
        assert!(snapshot.remove_pod(&pod.uid));
    }
    assert_eq!(snapshot.node("a").unwrap().requested, crate::resources::Resources::default());
}

#[test]
fn important_pods_go_first_and_hopeless_ones_wait_for_a_change() {
    let (mut queue, now) = (Queue::default(), Timestamp::UNIX_EPOCH);
    queue.put(asking("ordinary", "1"));
    queue.put(with_priority("urgent", "1", 10));
    assert_eq!(queue.pop().unwrap().name, "urgent");
    assert_eq!(queue.pop().unwrap().name, "ordinary");
    queue.unschedulable("urgent", now);
    assert_eq!(queue.wake(now + 299.seconds()), Some(now + 300.seconds()));
    assert!(queue.pop().is_none(), "nothing has changed");
    queue.something_changed();
    assert_eq!(queue.wake(now), Some(now + 1.second()), "not before its back-off");
    assert_eq!(queue.wake(now + 1.second()), None);
    assert_eq!(queue.pop().unwrap().name, "urgent");
}

#[test]
fn a_pod_whose_binding_failed_is_tried_again_and_waits_longer_each_time() {
    let (mut queue, now) = (Queue::default(), Timestamp::UNIX_EPOCH);
    queue.put(asking("x", "1"));
    for seconds in [1, 2, 4, 8, 10, 10] {
        assert_eq!(queue.pop().unwrap().name, "x");
        assert_eq!(queue.depth(), (0, 0, 0), "it is being bound");
        assert!(queue.failed("x", now), "it still waits");
        assert_eq!(queue.wake(now), Some(now + seconds.seconds()));
        assert_eq!(queue.depth(), (0, 1, 0));
        assert_eq!(queue.wake(now + seconds.seconds()), None);
    }
    queue.pop().unwrap();
    queue.remove("x");
    assert!(!queue.failed("x", now), "it has been placed meanwhile");
    assert_eq!(queue.depth(), (0, 0, 0));
}

#[test]
fn a_pod_that_fitted_nowhere_is_tried_again_after_five_minutes_whatever_happens() {
    let (mut queue, now) = (Queue::default(), Timestamp::UNIX_EPOCH);
    queue.put(asking("x", "1"));
    queue.pop().unwrap();
    queue.unschedulable("x", now);
    assert_eq!(queue.depth(), (0, 0, 1));
    assert_eq!(queue.wake(now + 300.seconds()), None);
    assert_eq!(queue.pop().unwrap().name, "x");
}

#[test]
fn a_pod_that_waits_for_a_neighbour_is_tried_again_when_one_has_come() {
    let db = json!({"matchLabels": {"app": "db"}});
    let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": db, "topologyKey": "kubernetes.io/hostname"}]}});
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": db}]);
    let mut queue = Queue::default();
    queue.put(pod("near", json!({"affinity": near})));
    queue.put(pod("spread", json!({"topologySpreadConstraints": spread})));
    queue.put(asking("alone", "4"));
    while let Some(pod) = queue.pop() {
        queue.unschedulable(&pod.uid, Timestamp::UNIX_EPOCH);
    }
    let neighbour = |app: &str| {
        let labels = [("app".to_string(), app.to_string())].into();
        PodInfo { labels, ..PodInfo::clone(&asking("neighbour", "1")) }
    };
    queue.neighbour_came(&neighbour("web"));
    assert_eq!(queue.depth(), (0, 0, 3), "of no interest to anybody");
    queue.neighbour_came(&neighbour("db"));
    assert_eq!(queue.depth(), (0, 2, 1), "there is no more room than before");
    queue.something_changed();
    assert_eq!(queue.depth(), (0, 3, 0));
}

#[test]
fn a_pod_that_is_placed_again_says_whether_that_may_help_others() {
    let mut snapshot = two_nodes();
    let with_labels = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Arc::new(PodInfo { labels, ..PodInfo::clone(&asking("x", "2")) })
    };
    assert_eq!(snapshot.place(asking("x", "1"), "a"), Placed::New);
    assert_eq!(snapshot.place(asking("x", "1"), "a"), Placed::Again);
    assert_eq!(snapshot.place(asking("x", "2"), "a"), Placed::Again, "it takes more");
    assert_eq!(snapshot.place(asking("x", "1"), "a"), Placed::Changed);
    assert_eq!(snapshot.place(with_labels(&[("app", "db")]), "a"), Placed::Changed);
    assert_eq!(snapshot.place(with_labels(&[("app", "db")]), "b"), Placed::Changed);
}

#[test]
fn a_pod_that_fitted_nowhere_is_tried_at_once_when_it_has_changed_itself() {
    let mut queue = Queue::default();
    queue.put(asking("x", "4"));
    queue.pop().unwrap();
    queue.unschedulable("x", Timestamp::UNIX_EPOCH);
    queue.put(asking("x", "4"));
    assert!(queue.pop().is_none(), "seen again, and the same");
    queue.put(asking("x", "1"));
    assert_eq!(queue.pop().unwrap().requests.milli_cpu, 1000);
    queue.put(asking("x", "2"));
    assert!(queue.pop().is_none(), "it is being tried");
    queue.remove("x");
    queue.something_changed();
    assert_eq!((queue.depth(), queue.wake(Timestamp::MAX)), ((0, 0, 0), None));
}

#[test]
fn a_pod_that_is_seen_again_does_not_stand_twice_in_the_queue() {
    let mut queue = Queue::default();
    queue.put(asking("x", "1"));
    queue.put(asking("x", "1"));
    assert_eq!(queue.depth(), (1, 0, 0));
    queue.remove("x");
    assert!(queue.pop().is_none());
}
