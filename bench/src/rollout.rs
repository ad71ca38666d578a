//! From the POST of a Deployment to all its pods available.

use std::time::Instant;

use anyhow::{Result, bail};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, in_namespace},
    report::{Samples, Table},
};

const NAMESPACE: &str = "bench-rollout";

/// How large a Deployment, and how often.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many pods.
    #[arg(long, default_value_t = 50)]
    pods: i64,
    /// How often.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Image of the pods; it should be on the node already.
    #[arg(long, default_value = "busybox:1.35")]
    image: String,
}

/// Rolls a Deployment out again and again.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    let (available, gone) = in_namespace(cluster, NAMESPACE, measure(cluster, &args)).await?;
    let mut table = Table::of_times();
    table.times(&format!("POST to {} pods available", args.pods), &available, None);
    table.times(&format!("DELETE to {} pods gone", args.pods), &gone, None);
    Ok(table)
}

async fn measure(cluster: &Cluster, args: &Args) -> Result<(Samples, Samples)> {
    let deployments = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let (mut available, mut gone) = (Samples::default(), Samples::default());
    for number in 0..args.runs {
        let name = format!("rollout-{number}");
        let mut events = cluster.watch(&format!("{deployments}?watch=true")).await?;
        let begin = Instant::now();
        cluster.post(&deployments, &deployment(&name, args)).await?;
        loop {
            let Some(line) = events.next().await else {
                bail!("the watch ended before {name} was available")
            };
            let seen = Instant::now();
            let event: Value = serde_json::from_str(&line?)?;
            let object = &event["object"];
            if object["metadata"]["name"] == name.as_str()
                && object["status"]["availableReplicas"] == args.pods
            {
                available.add(seen - begin);
                break;
            }
        }
        let begin = Instant::now();
        cluster.delete_now(&format!("{deployments}/{name}")).await?;
        cluster
            .until("the pods to go away", || async {
                Ok(cluster.get(&pods).await?["items"].as_array().is_none_or(Vec::is_empty))
            })
            .await?;
        gone.add(begin.elapsed());
    }
    Ok((available, gone))
}

fn deployment(name: &str, args: &Args) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": args.pods,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "main",
                        "image": args.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "1000000"],
                    }],
                },
            },
        },
    })
}
