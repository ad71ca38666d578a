//! How fast pods get nodes: from the first POST to the last binding as a watcher sees it.
//!
//! The nodes are objects without a kubelet, so nothing runs: what is measured is the scheduler, the API server
//! and the store.

use std::time::Instant;

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, in_namespace},
    report::Table,
};

const NAMESPACE: &str = "bench-schedule";
const NODES: &str = "/api/v1/nodes";
/// Only the nodes made here have this label, and the pods ask for it.
const LABEL: &str = "bench.coracle/schedule";
/// How many requests are on their way at once.
const AT_ONCE: usize = 32;

/// How many nodes and pods.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// How many pods.
    #[arg(long, default_value_t = 3000)]
    pods: usize,
}

/// Makes the nodes, has the pods placed and takes everything away again.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    let measured = in_namespace(cluster, NAMESPACE, measure(cluster, &args)).await;
    each(
        args.nodes,
        |number| async move { cluster.delete_now(&format!("{NODES}/{}", node_name(number))).await },
    )
    .await?;
    let (posted, bound) = measured?;
    let mut table = Table::new(&["what", "pods", "seconds", "rate"]);
    for (what, took) in [("all pods created", posted), ("all pods bound", bound)] {
        let rate = args.pods as f64 / took;
        table.row(vec![what.into(), args.pods.to_string(), format!("{took:.3}"), format!("{rate:.0} /s")]);
    }
    Ok(table)
}

/// Seconds from the first POST to the last reply, and to the last binding.
async fn measure(cluster: &Cluster, args: &Args) -> Result<(f64, f64)> {
    each(args.nodes, |number| make_node(cluster, number)).await?;
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let mut events = cluster.watch(&format!("{pods}?watch=true")).await?;
    let begin = Instant::now();
    let create = async {
        each(args.pods, |number| {
            let pods = &pods;
            async move { cluster.post(pods, &pod(number)).await }
        })
        .await?;
        Ok::<f64, anyhow::Error>(begin.elapsed().as_secs_f64())
    };
    let follow = async {
        let mut bound = 0;
        while bound < args.pods {
            let Some(line) = events.next().await else { bail!("the watch ended after {bound} bindings") };
            // A pod changes once here, when it gets its node; reading every line whole would slow the clock.
            bound += usize::from(line?.contains("\"type\":\"MODIFIED\""));
        }
        Ok(begin.elapsed().as_secs_f64())
    };
    let measured = futures::try_join!(create, follow);
    // No kubelet will ever report these pods as stopped; without grace they go at once.
    cluster.delete_now(&pods).await?;
    measured
}

async fn each<F>(count: usize, work: impl Fn(usize) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    stream::iter((0..count).map(Ok)).try_for_each_concurrent(AT_ONCE, work).await
}

async fn make_node(cluster: &Cluster, number: usize) -> Result<()> {
    let name = node_name(number);
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {LABEL: "", "kubernetes.io/hostname": name}},
    });
    cluster.post(NODES, &node).await?;
    let resources = json!({"cpu": "32", "memory": "256Gi", "pods": "110"});
    let status = json!({"status": {
        "capacity": resources,
        "allocatable": resources,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Bench"}],
    }});
    cluster.patch(&format!("{NODES}/{name}/status"), &status).await
}

fn node_name(number: usize) -> String {
    format!("bench-schedule-{number}")
}

fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("pod-{number}"), "namespace": NAMESPACE},
        "spec": {
            "nodeSelector": {LABEL: ""},
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "c",
                "image": "busybox:1.35",
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            }],
        },
    })
}
