//! From nothing running to a node that is Ready.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::{
    cluster::Cluster,
    report::{Samples, Table},
};

/// How to start the cluster, and how to stop it again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What starts the cluster, in the background or in the foreground.
    #[arg(long, default_value = "coracle up", value_name = "SHELL")]
    command: String,
    /// What stops it after each run; a command that stays in the foreground is terminated first.
    #[arg(long, default_value = "coracle down", value_name = "SHELL")]
    stop: String,
    /// What makes each run a first one, such as `coracle reset`; without it the cluster's data stays.
    #[arg(long, value_name = "SHELL")]
    reset: Option<String>,
    /// How often.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// Starts and stops the cluster again and again.
pub async fn run(kubeconfig: &Path, args: Args) -> Result<Table> {
    let Args { command, stop, reset, runs } = args;
    let (mut answers, mut ready) = (Samples::default(), Samples::default());
    for _ in 0..runs {
        if let Some(reset) = &reset {
            shell(reset).await?;
        }
        let begin = Instant::now();
        let mut child = spawn(&command)?;
        let times = until_ready(kubeconfig, begin, &mut child).await;
        end(child).await?;
        shell(&stop).await?;
        let (answered, became_ready) = times?;
        answers.add(answered);
        ready.add(became_ready);
    }
    let mut table = Table::of_times();
    table.times("start to API server ready", &answers, None);
    table.times("start to node Ready", &ready, None);
    Ok(table)
}

fn spawn(command: &str) -> Result<Child> {
    Command::new("sh")
        .args(["-c", &format!("exec {command}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {command}"))
}

async fn shell(command: &str) -> Result<()> {
    let output = Command::new("sh").args(["-c", command]).output().await?;
    ensure!(output.status.success(), "{command} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// A server in the foreground is asked to end; what went into the background has ended already.
async fn end(mut child: Child) -> Result<()> {
    if child.try_wait()?.is_none()
        && let Some(pid) = child.id()
    {
        shell(&format!("kill -TERM {pid}")).await?;
        child.wait().await?;
    }
    Ok(())
}

/// When the API server was ready and when a node was.
async fn until_ready(kubeconfig: &Path, begin: Instant, child: &mut Child) -> Result<(Duration, Duration)> {
    const LOOK: Duration = Duration::from_millis(2);
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut answered = None;
    let mut cluster = None;
    loop {
        ensure!(begin.elapsed() < PATIENCE, "no node was Ready after {} s", PATIENCE.as_secs());
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "the command ended with {status}");
        }
        // The kubeconfig may be written anew while the cluster starts.
        if answered.is_none() {
            cluster = Cluster::connect(kubeconfig, false).await.ok();
        }
        if let Some(cluster) = &cluster {
            if answered.is_none() && cluster.get_text("/readyz").await.is_ok() {
                answered = Some(begin.elapsed());
            }
            if let Some(answered) = answered
                && cluster.get("/api/v1/nodes").await.is_ok_and(|nodes| has_ready_node(&nodes))
            {
                return Ok((answered, begin.elapsed()));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn has_ready_node(nodes: &Value) -> bool {
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    list(&nodes["items"]).iter().any(|node| list(&node["status"]["conditions"]).iter().any(is_ready))
}
