//! What many clients that list much at once cost: it must not grow with clients times objects.

use std::time::Instant;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};

use crate::{
    api_load,
    cluster::{Cluster, JSON, in_namespace},
    report::{Table, time},
    server::{Server, megabytes},
};

const NAMESPACE: &str = "bench-list-memory";
/// How many requests at a time make the pods.
const AT_ONCE: usize = 32;

/// How many objects and clients.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many pods are listed.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// How many clients list them at once, each over a connection of its own.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// How often.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    server: Server,
}

/// Makes the pods, lists them, and takes them away again.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    in_namespace(cluster, NAMESPACE, measure(cluster, &args)).await
}

async fn measure(cluster: &Cluster, args: &Args) -> Result<Table> {
    let path = &format!("/api/v1/namespaces/{NAMESPACE}/pods");
    api_load::repeat(
        args.pods,
        AT_ONCE,
        |number| async move { cluster.post(path, &api_load::pod(number)).await },
    )
    .await?;
    let clients: Vec<Cluster> =
        stream::iter(0..args.clients).then(|_| cluster.over_http2()).try_collect().await?;

    let mut table =
        Table::new(&["what", "took", "MB each", "server's memory before", "peak", "beyond, for each client"]);
    for _ in 0..args.rounds {
        // Everybody reads as fast as it can.
        row(&mut table, args, "all listed", || async {
            let lengths = try_join_all(clients.iter().map(|client| client.get_length(path, JSON))).await?;
            Ok(lengths.into_iter().max().unwrap_or_default())
        })
        .await?;
    }
    // Everybody has asked and nobody reads: what waits for them is the server's.
    row(&mut table, args, "all asked, nobody reads", || async {
        let answers = try_join_all(clients.iter().map(|client| client.response(path, JSON))).await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        ensure!(answers.len() == clients.len(), "a client got no answer");
        Ok(0)
    })
    .await?;
    Ok(table)
}

async fn row<F, Fut>(table: &mut Table, args: &Args, what: &str, act: F) -> Result<()>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<usize>>,
{
    let before = args.server.resident()?;
    args.server.begin_peak()?;
    let begin = Instant::now();
    let length = act().await?;
    let took = begin.elapsed();
    let peak = args.server.peak()?;
    let figure = |figure: Option<u64>| figure.map_or("-".into(), megabytes);
    let beyond =
        before.zip(peak).map(|(before, peak)| peak.saturating_sub(before) / args.clients.max(1) as u64);
    table.row(vec![
        format!("{} pods, {} clients, {what}", args.pods, args.clients),
        time(took),
        format!("{:.1}", length as f64 / 1e6),
        figure(before),
        figure(peak),
        figure(beyond),
    ]);
    Ok(())
}
