//! What nodes and pods use (`metrics.k8s.io`), for `kubectl top` and autoscalers: measured when somebody asks, at the
//! kubelets' `/metrics/resource`, and at no other time.
//!
//! Processor time is counted, so a rate takes two [`sample::Sample`]s. Two are kept for each node; whoever asks often
//! makes one more each time that the newest is [`FRESH`] no more, and whoever asks seldom waits for two.

mod objects;
mod rate;
mod sample;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{Kind, Object, Status, kinds};
use futures::{StreamExt, stream};
use jiff::Timestamp;

use crate::{
    proxy::Kubelets,
    registry::{Registry, now},
};
use sample::Sample;

/// The group of NodeMetrics and PodMetrics.
pub(crate) const GROUP: &str = "metrics.k8s.io";

/// For so long a sample counts as new.
const FRESH: Duration = Duration::from_secs(10);
/// A sample older than this says nothing about what is used now.
const STALE: Duration = Duration::from_secs(90);
/// How far the two samples lie apart for somebody who asks out of the blue.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
/// How many kubelets are asked at the same time.
const AT_ONCE: usize = 32;

/// The samples of every node.
#[derive(Default)]
pub(crate) struct Usage {
    nodes: Mutex<Nodes>,
}

/// By name. Whoever measures a node holds its lock, so that others wait for the same samples.
type Nodes = HashMap<String, Arc<tokio::sync::Mutex<Kept>>>;

/// The last two samples of a node.
#[derive(Default)]
struct Kept {
    older: Option<Arc<Sample>>,
    newer: Option<Arc<Sample>>,
}

/// Two samples between which things were used.
type Pair = (Arc<Sample>, Arc<Sample>);

impl Usage {
    /// NodeMetrics or PodMetrics as of now: the one with this name, or all in the namespace, or all. What cannot be
    /// measured is left out.
    pub(crate) async fn measure(
        &self,
        registry: &Registry,
        kubelets: &Kubelets,
        kind: &Kind,
        namespace: &str,
        name: Option<&str>,
    ) -> Result<Vec<Object>, Status> {
        let is_meant = |object: &Object| name.is_none_or(|name| object.name() == name);
        let nodes = registry.list(core("nodes"), None).await?;
        self.forget_all_but(&nodes);
        if kind.plural == "nodes" {
            let nodes: Vec<Object> = nodes.into_iter().filter(is_meant).collect();
            let names = nodes.iter().map(Object::name).collect();
            let samples = self.of_nodes(registry, kubelets, names).await;
            let metrics = nodes.iter().filter_map(|node| objects::of_node(node, samples.get(node.name())?));
            return Ok(metrics.collect());
        }
        let within = (!namespace.is_empty()).then_some(namespace);
        let pods = registry.list(core("pods"), within).await?;
        let pods: Vec<Object> = pods.into_iter().filter(is_meant).filter(is_running).collect();
        let names: HashSet<&str> = pods.iter().map(node_of).filter(|node| !node.is_empty()).collect();
        let samples = self.of_nodes(registry, kubelets, names).await;
        let metrics = pods.iter().filter_map(|pod| objects::of_pod(pod, samples.get(node_of(pod))?));
        Ok(metrics.collect())
    }

    async fn of_nodes<'a>(
        &self,
        registry: &Registry,
        kubelets: &Kubelets,
        nodes: HashSet<&'a str>,
    ) -> HashMap<&'a str, Pair> {
        // A list of futures, not a stream that makes them: one that borrows names would not be Send.
        let asked =
            nodes.into_iter().map(|node| async move { (node, self.of_node(registry, kubelets, node).await) });
        let asked: Vec<_> = asked.collect();
        let answers: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        let mut measured = HashMap::new();
        for (node, answer) in answers {
            match answer {
                Ok(pair) => drop(measured.insert(node, pair)),
                Err(status) => {
                    tracing::warn!(node, error = %status.message, "cannot measure what a node uses");
                }
            }
        }
        measured
    }

    async fn of_node(&self, registry: &Registry, kubelets: &Kubelets, node: &str) -> Result<Pair, Status> {
        let kept = self.nodes().entry(node.to_string()).or_default().clone();
        let mut kept = kept.lock().await;
        let take = async || {
            let text = kubelets.resource_metrics(registry, node).await?;
            Ok::<_, Status>(Arc::new(Sample::parse(&text, now())))
        };
        match kept.next(now()) {
            Next::Keep => {}
            Next::One => {
                let newest = take().await?;
                kept.older = kept.newer.replace(newest);
            }
            Next::Two => {
                kept.older = Some(take().await?);
                tokio::time::sleep(SHORTEST_WINDOW).await;
                kept.newer = Some(take().await?);
            }
        }
        match (&kept.older, &kept.newer) {
            (Some(older), Some(newer)) => Ok((older.clone(), newer.clone())),
            _ => Err(Status::internal("a node was measured once only")),
        }
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_all_but(&self, nodes: &[Object]) {
        let names: HashSet<&str> = nodes.iter().map(Object::name).collect();
        self.nodes().retain(|node, _| names.contains(node.as_str()));
    }
}

/// Which samples to take before an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Keep,
    One,
    Two,
}

impl Kept {
    fn next(&self, now: Timestamp) -> Next {
        let age = self.newer.as_ref().map(|newer| now.duration_since(newer.taken).unsigned_abs());
        match age {
            Some(age) if age < FRESH && self.older.is_some() => Next::Keep,
            Some(age) if age < STALE => Next::One,
            _ => Next::Two,
        }
    }
}

fn core(plural: &str) -> &'static Kind {
    kinds::built_in("", plural)
}

fn is_running(pod: &Object) -> bool {
    pod.text(&["status", "phase"]) == "Running"
}

fn node_of(pod: &Object) -> &str {
    pod.text(&["spec", "nodeName"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_as_seldom_as_answers_allow() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let sample = Some(Arc::new(Sample::parse("", start)));
        let kept = Kept { older: sample.clone(), newer: sample.clone() };
        let after = |seconds: i64| start + jiff::SignedDuration::from_secs(seconds);
        assert_eq!(Kept::default().next(start), Next::Two);
        assert_eq!(kept.next(after(9)), Next::Keep);
        assert_eq!(kept.next(after(15)), Next::One);
        assert_eq!(kept.next(after(3600)), Next::Two);
        assert_eq!(Kept { older: None, newer: sample }.next(after(1)), Next::One);
    }
}
