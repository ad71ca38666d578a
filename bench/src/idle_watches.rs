//! What watches cost that nothing happens in: the server's memory for each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    cluster::{Cluster, JSON},
    connection::Answer,
    report::{Table, time},
    server::{Server, megabytes},
};

/// How long the server is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(2);
/// How many watches begin at once.
const AT_ONCE: usize = 32;

/// How many watches, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many watches.
    #[arg(long, default_value_t = 1000)]
    watches: usize,
    /// Over how many connections in HTTP/2; a client-go client has one for all its watches.
    #[arg(long, default_value_t = 10)]
    connections: usize,
    /// Give each watch a connection of its own instead, in HTTP/1.1.
    #[arg(long)]
    http1: bool,
    #[command(flatten)]
    server: Server,
}

/// Opens the watches, one kind and namespace, and looks at the server before and after.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    let Args { watches, connections, http1, server } = args;
    ensure!(watches > 0 && connections > 0, "there has to be something to watch");
    let path = "/api/v1/namespaces/default/configmaps";
    let list = cluster.get(path).await?;
    let version = list["metadata"]["resourceVersion"].as_str().context("the list has no version")?;
    let path = &format!("{path}?watch=true&resourceVersion={version}");
    let clients: Vec<Cluster> = match http1 {
        true => vec![cluster.clone()],
        false => stream::iter(0..connections).then(|_| cluster.over_http2()).try_collect().await?,
    };

    tokio::time::sleep(REST).await;
    let before = server.memory()?;
    let begin = Instant::now();
    let open = |number: usize| clients[number % clients.len()].response(path, JSON);
    let open: Vec<Answer> =
        stream::iter(0..watches).map(open).buffer_unordered(AT_ONCE).try_collect().await?;
    let took = begin.elapsed();
    tokio::time::sleep(REST).await;
    let after = server.memory()?;

    let way = if http1 { "a connection each".into() } else { format!("{connections} connections, HTTP/2") };
    let mut table =
        Table::new(&["what", "watches", "opened in", "server's memory before", "after", "for each"]);
    let figure = |figure: Option<u64>| figure.map_or("-".into(), megabytes);
    let each = before.zip(after).map(|(before, after)| after.saturating_sub(before) / open.len() as u64);
    let each = each.map_or("-".into(), |bytes| format!("{:.1} KB", bytes as f64 / 1e3));
    table.row(vec![
        format!("idle watches, {way}"),
        open.len().to_string(),
        time(took),
        figure(before),
        figure(after),
        each,
    ]);
    Ok(table)
}
