//! What bare etcd does with values of the size of a pod: the floor for an API server that keeps its objects there.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, DeleteOptions, GetOptions, WatchOptions};
use tokio::sync::mpsc;

use crate::{
    api_load::Load,
    report::{Samples, Table},
    server::Server,
};

const PREFIX: &str = "/bench-etcd/";

/// Which etcd, and how much load.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The etcd server, without TLS.
    #[arg(long, default_value = "http://127.0.0.1:2379", value_name = "URL")]
    endpoint: String,
    /// How many keys are put and then read.
    #[arg(long, default_value_t = 3000)]
    keys: usize,
    /// How many of them one after the other.
    #[arg(long, default_value_t = 500)]
    one_by_one: usize,
    /// How many requests at a time in the rest.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// How many gets.
    #[arg(long, default_value_t = 20_000)]
    gets: usize,
    /// How many ranges over all keys.
    #[arg(long, default_value_t = 30)]
    ranges: usize,
    /// How many bytes a value has; a pod of `bench api` has about so many.
    #[arg(long, default_value_t = 2500)]
    size: usize,
    /// How many watchers.
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// How many changes they watch.
    #[arg(long, default_value_t = 50)]
    changes: usize,
    #[command(flatten)]
    server: Server,
}

/// Puts the load on etcd and removes its keys again.
pub async fn run(args: Args) -> Result<Table> {
    ensure!(args.one_by_one <= args.keys && args.keys > 0, "--one-by-one may not be more than --keys");
    let client = Client::connect([&args.endpoint], None)
        .await
        .with_context(|| format!("cannot reach etcd at {}", args.endpoint))?;
    let measured = measure(&client, &args).await;
    client.clone().delete(PREFIX, Some(DeleteOptions::new().with_prefix())).await?;
    measured
}

async fn measure(client: &Client, args: &Args) -> Result<Table> {
    let mut load = Load { server: args.server, table: Table::of_times() };
    let value = &vec![b'x'; args.size];
    let put = |number: usize| {
        let mut client = client.clone();
        async move {
            client.put(format!("{PREFIX}{number}"), value.clone(), None).await?;
            Ok(())
        }
    };
    load.row("put, one by one", args.one_by_one, 1, put).await?;
    let rest = args.keys - args.one_by_one;
    load.row(&format!("put, {} at a time", args.concurrency), rest, args.concurrency, |number| {
        put(args.one_by_one + number)
    })
    .await?;
    load.row(&format!("get, {} at a time", args.concurrency), args.gets, args.concurrency, |number| {
        let mut client = client.clone();
        async move {
            let found = client.get(format!("{PREFIX}{}", number % args.keys), None).await?;
            ensure!(found.count() == 1, "a key has gone");
            Ok(())
        }
    })
    .await?;
    load.row(&format!("range over {} keys", args.keys), args.ranges, 1, |_| {
        let mut client = client.kv_client().max_decoding_message_size(usize::MAX);
        async move {
            let found = client.get(PREFIX, Some(GetOptions::new().with_prefix())).await?;
            ensure!(found.kvs().len() == args.keys, "keys have gone");
            Ok(())
        }
    })
    .await?;
    let samples = watch(client, args).await?;
    load.table.times(&format!("change seen by {} watchers", args.watchers), &samples, None);
    Ok(load.table)
}

/// Changes one key and takes the time until each watcher has it.
async fn watch(client: &Client, args: &Args) -> Result<Samples> {
    let key = format!("{PREFIX}0");
    let (seen, mut sightings) = mpsc::channel(args.watchers * args.changes.max(1));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..args.watchers {
        let mut events = client.clone().watch(key.as_str(), Some(WatchOptions::new())).await?;
        let seen = seen.clone();
        tasks.spawn(async move {
            while let Ok(Some(message)) = events.message().await {
                for _ in message.events() {
                    if seen.send(Instant::now()).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
    let mut samples = Samples::default();
    for number in 0..args.changes {
        let begin = Instant::now();
        client.clone().put(key.as_str(), number.to_string(), None).await?;
        for _ in 0..args.watchers {
            let moment = sightings.recv().await.context("the watchers have gone")?;
            samples.add(moment.saturating_duration_since(begin));
        }
    }
    tasks.shutdown().await;
    Ok(samples)
}
