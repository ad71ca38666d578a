//! Load generators for any Kubernetes cluster, so that peers can be measured side by side.
//!
//! Each command does one thing to the cluster behind a kubeconfig, cleans up after itself and prints one
//! table. What is measured, and how the figures compare, stands in docs/BENCHMARKS.md.

mod api_load;
mod cluster;
mod connection;
mod custom_resources;
mod etcd;
mod fairness;
mod footprint;
mod idle_watches;
mod list_memory;
mod pod_start;
mod report;
mod rollout;
mod runtime;
mod schedule;
mod server;
mod start_up;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::Cluster;

/// Measures a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "bench", arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    /// The cluster to measure.
    #[arg(
        long,
        global = true,
        env = "KUBECONFIG",
        default_value = "/var/lib/coracle/kubeconfig",
        value_name = "FILE"
    )]
    kubeconfig: PathBuf,
    /// The API server runs alone: do what controllers would do with namespaces.
    #[arg(long, global = true)]
    bare: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From nothing running to a node that is Ready.
    StartUp(start_up::Args),
    /// From the POST of a pod to phase Running as a watcher sees it, one pod at a time.
    PodStart(pod_start::Args),
    /// From the POST of a Deployment to all its pods available.
    Rollout(rollout::Args),
    /// Memory and idle CPU of processes, such as the server and its shims.
    Footprint(footprint::Args),
    /// From the POST of many pods to the last one's binding, on nodes that are objects only.
    Schedule(schedule::Args),
    /// Container runtimes side by side through the CRI; bench/runtimes starts them and this.
    Runtime(runtime::Args),
    /// Creates, gets, lists and watches: what the API server and its store can do.
    Api(api_load::Args),
    /// Thousands of custom resources: creates, lists, and their end with their definition.
    CustomResources(custom_resources::Args),
    /// A thousand watches in which nothing happens: the server's memory for each.
    IdleWatches(idle_watches::Args),
    /// Many clients that list thousands of pods at once: the server's highest memory.
    ListMemory(list_memory::Args),
    /// Creates and gets with and without API Priority and Fairness, in turns.
    Fairness(fairness::Args),
    /// What bare etcd does with values of the same size, for comparison; it needs no cluster.
    Etcd(etcd::Args),
}

// One thread: what is handed from one to another, the server's processors would have to do.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Cli { kubeconfig, bare, command } = Cli::parse();
    let cluster = || Cluster::connect(&kubeconfig, bare);
    let table = match command {
        Command::StartUp(args) => start_up::run(&kubeconfig, args).await?,
        Command::Footprint(args) => footprint::run(args).await?,
        Command::Runtime(args) => runtime::run(args).await?,
        Command::Etcd(args) => etcd::run(args).await?,
        Command::PodStart(args) => pod_start::run(&cluster().await?, args).await?,
        Command::Rollout(args) => rollout::run(&cluster().await?, args).await?,
        Command::Schedule(args) => schedule::run(&cluster().await?, args).await?,
        Command::CustomResources(args) => custom_resources::run(&cluster().await?, args).await?,
        Command::Api(args) => api_load::run(&cluster().await?, args).await?,
        Command::IdleWatches(args) => idle_watches::run(&cluster().await?, args).await?,
        Command::ListMemory(args) => list_memory::run(&cluster().await?, args).await?,
        Command::Fairness(args) => fairness::run(&cluster().await?, args).await?,
    };
    print!("{table}");
    Ok(())
}
