//! From the POST of a pod to phase Running as a watcher sees it.

use std::time::Instant;

use anyhow::{Result, bail};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, in_namespace},
    report::{Samples, Table},
};

const NAMESPACE: &str = "bench-pod-start";

/// Which pods, and how many.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image of the pods; it should be on the node already.
    #[arg(long, default_value = "busybox:1.35")]
    image: String,
    /// How many pods, one after the other.
    #[arg(long, default_value_t = 50)]
    count: usize,
}

/// Starts pods one after the other.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    let (running, gone) = in_namespace(cluster, NAMESPACE, measure(cluster, &args)).await?;
    let mut table = Table::of_times();
    table.times("POST to Running", &running, None);
    table.times("DELETE (grace 0) to gone", &gone, None);
    Ok(table)
}

async fn measure(cluster: &Cluster, args: &Args) -> Result<(Samples, Samples)> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let mut events = cluster.watch(&format!("{path}?watch=true")).await?;
    let (mut running, mut gone) = (Samples::default(), Samples::default());
    // The first pod warms up what is made once: it does not count.
    for number in 0..=args.count {
        let name = format!("pod-{number}");
        let begin = Instant::now();
        cluster.post(&path, &pod(&name, &args.image)).await?;
        let started =
            wait(&mut events, &name, |kind, pod| kind != "DELETED" && pod["status"]["phase"] == "Running")
                .await?;
        let begin_of_end = Instant::now();
        cluster.delete_now(&format!("{path}/{name}")).await?;
        let ended = wait(&mut events, &name, |kind, _| kind == "DELETED").await?;
        if number > 0 {
            running.add(started - begin);
            gone.add(ended - begin_of_end);
        }
    }
    Ok((running, gone))
}

/// When the watch told what was waited for about a pod.
async fn wait(
    events: &mut futures::stream::BoxStream<'static, std::io::Result<String>>,
    name: &str,
    is_it: impl Fn(&str, &Value) -> bool,
) -> Result<Instant> {
    while let Some(line) = events.next().await {
        let seen = Instant::now();
        let event: Value = serde_json::from_str(&line?)?;
        let pod = &event["object"];
        if pod["metadata"]["name"] == name {
            if pod["status"]["phase"] == "Failed" {
                bail!("{name} failed: {}", pod["status"]);
            }
            if is_it(event["type"].as_str().unwrap_or_default(), pod) {
                return Ok(seen);
            }
        }
    }
    bail!("the watch ended before {name} got where it was wanted")
}

fn pod(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "1000000"],
            }],
        },
    })
}
