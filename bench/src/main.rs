//! Load generators for any Kubernetes cluster, so that peers can be measured side by side.
//!
//! Each command does one thing to the cluster behind a kubeconfig, cleans up after itself and prints one
//! table. What is measured, and how the figures compare, stands in docs/BENCHMARKS.md.

mod api_load;
mod cluster;
mod custom_resources;
mod footprint;
mod pod_start;
mod report;
mod rollout;
mod runtime;
mod schedule;
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
}

#[tokio::main]
async fn main() -> Result<()> {
    let Cli { kubeconfig, command } = Cli::parse();
    let table = match command {
        Command::StartUp(args) => start_up::run(&kubeconfig, args).await?,
        Command::Footprint(args) => footprint::run(args).await?,
        Command::Runtime(args) => runtime::run(args).await?,
        Command::PodStart(args) => pod_start::run(&Cluster::connect(&kubeconfig).await?, args).await?,
        Command::Rollout(args) => rollout::run(&Cluster::connect(&kubeconfig).await?, args).await?,
        Command::Schedule(args) => schedule::run(&Cluster::connect(&kubeconfig).await?, args).await?,
        Command::CustomResources(args) => {
            custom_resources::run(&Cluster::connect(&kubeconfig).await?, args).await?
        }
        Command::Api(args) => api_load::run(&Cluster::connect(&kubeconfig).await?, args).await?,
    };
    print!("{table}");
    Ok(())
}
