//! What the API server and its store can do: durable creates, gets, lists and watches.
//!
//! The pods name a scheduler that does not exist, so that they are stored and watched and nothing else.

use std::{
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, future::try_join_all};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    cluster::{Cluster, in_namespace},
    report::{Samples, Table},
};

const NAMESPACE: &str = "bench-api";

/// How much load.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many pods are created in all and then listed.
    #[arg(long, default_value_t = 3000)]
    pods: usize,
    /// How many of them one after the other.
    #[arg(long, default_value_t = 500)]
    one_by_one: usize,
    /// How many requests at a time in the rest.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// How many gets.
    #[arg(long, default_value_t = 20_000)]
    gets: usize,
    /// How many lists of each sort.
    #[arg(long, default_value_t = 30)]
    lists: usize,
    /// How many watchers.
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// How many changes they watch.
    #[arg(long, default_value_t = 50)]
    changes: usize,
}

/// Puts the load on the cluster, one sort after the other.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    ensure!(args.one_by_one <= args.pods && args.pods > 0, "--one-by-one may not be more than --pods");
    in_namespace(cluster, NAMESPACE, measure(cluster, &args)).await
}

async fn measure(cluster: &Cluster, args: &Args) -> Result<Table> {
    let mut table = Table::of_times();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");

    let (samples, elapsed) = create(cluster, &path, 0..args.one_by_one, 1).await?;
    table.times("create pod, one by one", &samples, Some(elapsed));
    let (samples, elapsed) = create(cluster, &path, args.one_by_one..args.pods, args.concurrency).await?;
    table.times(&format!("create pod, {} at a time", args.concurrency), &samples, Some(elapsed));

    let (samples, elapsed) = repeat(args.gets, args.concurrency, |number| {
        let path = format!("{path}/pod-{}", number % args.pods);
        async move { cluster.get_text(&path).await.map(drop) }
    })
    .await?;
    table.times(&format!("get pod, {} at a time", args.concurrency), &samples, Some(elapsed));

    for (what, query) in [("cached", "?resourceVersion=0"), ("consistent", "")] {
        let path = format!("{path}{query}");
        let (samples, elapsed) = repeat(args.lists, 1, |_| async {
            let body = cluster.get_text(&path).await?;
            ensure!(body.len() > args.pods, "the list of pods is too short to be true");
            Ok(())
        })
        .await?;
        table.times(&format!("list {} pods, {what}", args.pods), &samples, Some(elapsed));
    }

    // The first one finds objects that nobody has wanted in protobuf before.
    for (what, times) in [("protobuf for the first time", 1), ("protobuf", args.lists)] {
        let (samples, elapsed) = repeat(times, 1, |_| async {
            let length = cluster.get_length(&path, "application/vnd.kubernetes.protobuf").await?;
            ensure!(length > args.pods, "the list of pods is too short to be true");
            Ok(())
        })
        .await?;
        table.times(&format!("list {} pods, {what}", args.pods), &samples, Some(elapsed));
    }

    let samples = watch(cluster, args).await?;
    table.times(&format!("change seen by {} watchers", args.watchers), &samples, None);
    Ok(table)
}

async fn create(
    cluster: &Cluster,
    path: &str,
    numbers: std::ops::Range<usize>,
    concurrency: usize,
) -> Result<(Samples, Duration)> {
    let first = numbers.start;
    repeat(numbers.len(), concurrency, |number| {
        let pod = pod(first + number);
        async move { cluster.post(path, &pod).await }
    })
    .await
}

/// Does something `times` times, so many at once. Each worker takes the next number when it is free.
pub(crate) async fn repeat<F, Fut>(times: usize, concurrency: usize, act: F) -> Result<(Samples, Duration)>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    let worker = || async {
        let mut samples = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= times {
                return anyhow::Ok(samples);
            }
            let begin = Instant::now();
            act(number).await?;
            samples.push(begin.elapsed());
        }
    };
    let samples = try_join_all((0..concurrency).map(|_| worker())).await?;
    Ok((samples.into_iter().flatten().collect(), begin.elapsed()))
}

/// Changes one object and takes the time until each watcher has it.
async fn watch(cluster: &Cluster, args: &Args) -> Result<Samples> {
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched"}, "data": {"n": "0"}});
    cluster.post(&collection, &object).await?;
    let version = cluster.get(&format!("{collection}/watched")).await?;
    let version =
        version["metadata"]["resourceVersion"].as_str().context("the object has no version")?.to_string();

    let (seen, mut sightings) = mpsc::channel(args.watchers * args.changes.max(1));
    let query = format!("?watch=true&fieldSelector=metadata.name%3Dwatched&resourceVersion={version}");
    let path: Arc<str> = format!("{collection}{query}").into();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..args.watchers {
        let mut events = cluster.watch(&path).await?;
        let seen = seen.clone();
        tasks.spawn(async move {
            while let Some(Ok(_)) = events.next().await {
                if seen.send(Instant::now()).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut samples = Samples::default();
    for number in 1..=args.changes {
        let begin = Instant::now();
        cluster.patch(&format!("{collection}/watched"), &json!({"data": {"n": number.to_string()}})).await?;
        for _ in 0..args.watchers {
            let moment = sightings.recv().await.context("the watchers have gone")?;
            samples.add(moment.saturating_duration_since(begin));
        }
    }
    tasks.shutdown().await;
    Ok(samples)
}

/// About 2.5 KB as stored, as an ordinary pod has.
fn pod(number: usize) -> Value {
    let variables: Vec<Value> =
        (0..10).map(|index| json!({"name": format!("VARIABLE_{index}"), "value": "x".repeat(60)})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("pod-{number}"), "labels": {"app": "bench", "number": number.to_string()}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main",
                "image": "example.com/bench:1",
                "env": variables,
                "ports": [{"containerPort": 80}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
            }],
        },
    })
}
