//! Decides which pods nobody will miss.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use crate::pods::PodExt;

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its node is gone.
    Orphaned,
    /// It was deleted before it had a node; no kubelet will end it.
    NeverScheduled,
    /// It has finished, and there are too many of these.
    Finished,
}

/// The pods to delete. `nodes` are the names of those that exist; `threshold` is how many finished pods are kept.
pub fn plan(pods: &[Arc<Pod>], nodes: &BTreeSet<String>, threshold: usize) -> Vec<(Arc<Pod>, Reason)> {
    let orphaned = |pod: &&Arc<Pod>| !pod.node().is_empty() && !nodes.contains(pod.node());
    let never_scheduled = |pod: &&Arc<Pod>| pod.is_terminating() && pod.node().is_empty();
    let mut gone: Vec<_> = pods.iter().filter(orphaned).map(|pod| (pod.clone(), Reason::Orphaned)).collect();
    gone.extend(pods.iter().filter(never_scheduled).map(|pod| (pod.clone(), Reason::NeverScheduled)));
    if threshold > 0 {
        let finished = |pod: &&Arc<Pod>| pod.is_finished() && !orphaned(pod) && !never_scheduled(pod);
        let mut finished: Vec<_> = pods.iter().filter(finished).collect();
        finished.sort_by_key(|pod| (pod.created_at(), pod.metadata.name.clone()));
        let surplus = finished.len().saturating_sub(threshold);
        gone.extend(finished.into_iter().take(surplus).map(|pod| (pod.clone(), Reason::Finished)));
    }
    gone
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::{
        api::core::v1::{PodSpec, PodStatus},
        apimachinery::pkg::apis::meta::v1::Time,
    };
    use kube::{ResourceExt, api::ObjectMeta};

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, created: i64) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                creation_timestamp: Some(Time(Timestamp::from_second(created).unwrap())),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { node_name: (!node.is_empty()).then(|| node.into()), ..PodSpec::default() }),
            status: Some(PodStatus { phase: Some(phase.into()), ..PodStatus::default() }),
        }
    }

    fn gone(pods: Vec<Pod>, threshold: usize) -> Vec<(String, Reason)> {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let nodes = BTreeSet::from(["here".to_string()]);
        plan(&pods, &nodes, threshold).iter().map(|(pod, reason)| (pod.name_any(), *reason)).collect()
    }

    #[test]
    fn pods_of_a_node_that_is_gone_go_too() {
        let pods =
            vec![pod("a", "here", "Running", 1), pod("b", "gone", "Running", 1), pod("c", "", "Pending", 1)];
        assert_eq!(gone(pods, 0), [("b".into(), Reason::Orphaned)]);
    }

    #[test]
    fn a_pod_deleted_before_it_was_scheduled_goes() {
        let mut dying = pod("a", "", "Pending", 1);
        dying.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(gone(vec![dying], 0), [("a".into(), Reason::NeverScheduled)]);
    }

    #[test]
    fn the_oldest_finished_pods_beyond_the_threshold_go() {
        let pods = vec![
            pod("new", "here", "Succeeded", 3),
            pod("oldest", "here", "Failed", 1),
            pod("old", "here", "Succeeded", 2),
            pod("running", "here", "Running", 0),
        ];
        assert_eq!(
            gone(pods.clone(), 1),
            [("oldest".into(), Reason::Finished), ("old".into(), Reason::Finished)]
        );
        assert_eq!(gone(pods, 0), []);
    }
}
