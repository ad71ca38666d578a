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
    cluster::{self, Cluster, JSON, in_namespace},
    report::{Samples, Table},
    server::Server,
};

const NAMESPACE: &str = "bench-api";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How much load.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many pods are created in all and then listed.
    #[arg(long, default_value_t = 3000)]
    pods: usize,
    /// How many of them one after the other, half of them in each version of HTTP.
    #[arg(long, default_value_t = 1000)]
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
    #[command(flatten)]
    server: Server,
}

/// Puts the load on the cluster, one sort after the other.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    ensure!(args.one_by_one <= args.pods && args.pods > 0, "--one-by-one may not be more than --pods");
    in_namespace(cluster, NAMESPACE, measure(cluster, &args)).await
}

async fn measure(cluster: &Cluster, args: &Args) -> Result<Table> {
    let mut load = Load { server: args.server, table: Table::of_times() };
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let path = path.as_str();
    let http2 = &cluster.over_http2().await?;

    // Made before the clock starts: what is measured is the server.
    let bodies: Vec<_> = (0..args.pods).map(|number| cluster::bytes(&pod(number))).collect();
    let bodies = &bodies;
    // A kept connection of each version of HTTP: what one client waits for.
    let half = args.one_by_one / 2;
    for (what, first, cluster) in [("HTTP/2", 0, http2), ("HTTP/1.1", half, cluster)] {
        load.row(&format!("create pod, one by one, {what}"), half, 1, |number| {
            cluster.post_bytes(path, bodies[first + number].clone())
        })
        .await?;
    }
    let at_once = args.concurrency;
    let rest = args.pods - 2 * half;
    load.row(&format!("create pod, {at_once} at a time"), rest, at_once, |number| {
        cluster.post_bytes(path, bodies[2 * half + number].clone())
    })
    .await?;
    load.row(&format!("get pod, {at_once} at a time"), args.gets, at_once, |number| async move {
        cluster.get_text(&format!("{path}/pod-{}", number % args.pods)).await.map(drop)
    })
    .await?;

    let lists = [
        ("cached", "?resourceVersion=0", JSON, args.lists, cluster),
        ("consistent", "", JSON, args.lists, cluster),
        ("consistent, HTTP/2", "", JSON, args.lists, http2),
        // The first one finds objects that nobody has wanted in protobuf before.
        ("protobuf for the first time", "", PROTOBUF, 1, cluster),
        ("protobuf", "", PROTOBUF, args.lists, cluster),
    ];
    for (what, query, accept, times, cluster) in lists {
        load.row(&format!("list {} pods, {what}", args.pods), times, 1, |_| async move {
            let length = cluster.get_length(&format!("{path}{query}"), accept).await?;
            ensure!(length > args.pods, "the list of pods is too short to be true");
            Ok(())
        })
        .await?;
    }

    let samples = watch(cluster, args).await?;
    load.table.times(&format!("change seen by {} watchers", args.watchers), &samples, None);
    Ok(load.table)
}

/// What is done to a server, a row for each sort.
pub(crate) struct Load {
    pub(crate) server: Server,
    pub(crate) table: Table,
}

impl Load {
    /// Does something as [`repeat`] does and tells how it went.
    pub(crate) async fn row<F, Fut>(
        &mut self,
        what: &str,
        times: usize,
        concurrency: usize,
        act: F,
    ) -> Result<()>
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let before = self.server.cpu();
        let (samples, elapsed) = repeat(times, concurrency, act).await?;
        let after = self.server.cpu();
        let cpu = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        self.table.times_and_cpu(what, &samples, Some(elapsed), cpu);
        Ok(())
    }
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
pub(crate) fn pod(number: usize) -> Value {
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
