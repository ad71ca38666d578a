//! How fast pods get nodes: from the first POST to the last binding as a watcher sees it.
//!
//! The nodes are objects without a kubelet, so nothing runs: what is measured is the scheduler, the API server
//! and the store.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, in_namespace},
    report::{self, Table},
    server::Server,
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
    #[command(flatten)]
    server: Server,
}

/// Makes the nodes, has the pods placed and takes everything away again.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    let measured = in_namespace(cluster, NAMESPACE, measure(cluster, &args)).await;
    each(
        args.nodes,
        |number| async move { cluster.delete_now(&format!("{NODES}/{}", node_name(number))).await },
    )
    .await?;
    let Measured { posted, bound, cpu } = measured?;
    let mut table = Table::new(&["what", "pods", "seconds", "rate", "server CPU for each"]);
    for (what, took, cpu) in [("all pods created", posted, None), ("all pods bound", bound, cpu)] {
        let rate = args.pods as f64 / took.as_secs_f64();
        let cpu = cpu.map_or("-".into(), |all| {
            report::time(all / u32::try_from(args.pods).unwrap_or(u32::MAX).max(1))
        });
        let took = format!("{:.3}", took.as_secs_f64());
        table.row(vec![what.into(), args.pods.to_string(), took, format!("{rate:.0} /s"), cpu]);
    }
    Ok(table)
}

/// From the first POST to the last reply, and to the last binding; and what the server took until then.
struct Measured {
    posted: Duration,
    bound: Duration,
    cpu: Option<Duration>,
}

async fn measure(cluster: &Cluster, args: &Args) -> Result<Measured> {
    each(args.nodes, |number| make_node(cluster, number)).await?;
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let mut events = cluster.watch(&format!("{pods}?watch=true")).await?;
    let before = args.server.cpu();
    let begin = Instant::now();
    let create = async {
        each(args.pods, |number| {
            let pods = &pods;
            async move { cluster.post(pods, &pod(number)).await }
        })
        .await?;
        anyhow::Ok(begin.elapsed())
    };
    let follow = async {
        let mut bound = 0;
        while bound < args.pods {
            let Some(line) = events.next().await else { bail!("the watch ended after {bound} bindings") };
            // A pod changes once here, when it gets its node; reading every line whole would slow the clock.
            bound += usize::from(line?.contains("\"type\":\"MODIFIED\""));
        }
        Ok(begin.elapsed())
    };
    let measured = futures::try_join!(create, follow);
    let cpu = before.zip(args.server.cpu()).map(|(before, after)| after.saturating_sub(before));
    // No kubelet will ever report these pods as stopped; without grace they go at once.
    cluster.delete_now(&pods).await?;
    measured.map(|(posted, bound)| Measured { posted, bound, cpu })
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
