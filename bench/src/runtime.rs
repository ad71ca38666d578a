//! Container runtimes side by side, through the CRI: what a pod's start and end take, and what it holds.
//!
//! Samples of the runtimes alternate, so that what else the machine does meets them alike. A sample of a start is
//! RunPodSandbox, CreateContainer and StartContainer, one after the other, with the image present.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use cri::{Remote, RuntimeService, v1::*};
use futures::future::try_join_all;

use crate::report::{Samples, Table, time};

/// What the containers run, and how their processes are told from the runtime's.
const COMMAND: [&str; 2] = ["sleep", "1000042"];

/// Which runtimes, and how much of each.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A runtime: NAME=unix:///PATH; several are measured side by side.
    #[arg(long, value_name = "NAME=URL", required = true, value_parser = endpoint)]
    endpoint: Vec<(String, String)>,
    /// Image of the containers; each runtime must have it.
    #[arg(long, default_value = "docker.io/library/busybox:1.35")]
    image: String,
    /// Pods one after another.
    #[arg(long, default_value_t = 50)]
    count: usize,
    /// Pods started at once.
    #[arg(long, default_value_t = 50)]
    at_once: usize,
    /// How often so many are started at once; the fastest counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Pods held at the same time, for their memory; 0 leaves it out.
    #[arg(long, default_value_t = 200)]
    pods: usize,
    /// Where the containers' logs go.
    #[arg(long, value_name = "DIR", default_value = "/tmp/bench-runtime")]
    logs: PathBuf,
}

fn endpoint(text: &str) -> Result<(String, String), String> {
    let (name, url) = text.split_once('=').ok_or("give NAME=unix:///PATH")?;
    Ok((name.to_owned(), url.to_owned()))
}

/// A runtime that is measured.
struct Runtime {
    name: String,
    remote: Remote,
    image: String,
    logs: PathBuf,
}

/// What the parts of one start took.
struct Start {
    sandbox: Duration,
    create: Duration,
    start: Duration,
}

/// All measures of one runtime by what is measured.
type Measures = BTreeMap<usize, (String, String)>;

/// Measures each runtime and tells them in one table, a column each.
pub async fn run(args: Args) -> Result<Table> {
    let mut runtimes = Vec::new();
    for (name, url) in &args.endpoint {
        let remote = Remote::connect(url).await.with_context(|| format!("cannot connect to {name}"))?;
        let version = remote.version(VersionRequest::default()).await?;
        eprintln!("{name}: {} {}", version.runtime_name, version.runtime_version);
        let (image, logs) = (args.image.clone(), args.logs.join(name));
        runtimes.push(Arc::new(Runtime { name: name.clone(), remote, image, logs }));
    }
    let mut measures: Vec<Measures> = runtimes.iter().map(|_| Measures::new()).collect();
    one_after_another(&runtimes, args.count, &mut measures).await?;
    while_others_end(&runtimes, args.count, &mut measures).await?;
    for (runtime, measures) in runtimes.iter().zip(&mut measures) {
        at_once(runtime, args.at_once, args.rounds, measures).await?;
        if args.pods > 0 {
            held(runtime, args.pods, measures).await?;
        }
    }
    fs::remove_dir_all(&args.logs).with_context(|| format!("cannot remove {}", args.logs.display()))?;
    Ok(table(&runtimes, &measures))
}

fn table(runtimes: &[Arc<Runtime>], measures: &[Measures]) -> Table {
    let titles: Vec<&str> =
        ["what"].into_iter().chain(runtimes.iter().map(|runtime| runtime.name.as_str())).collect();
    let mut table = Table::new(&titles);
    let rows: BTreeMap<usize, &String> =
        measures.iter().flatten().map(|(number, (what, _))| (*number, what)).collect();
    for (number, what) in rows {
        let cell = |measures: &Measures| measures.get(&number).map_or("-".into(), |(_, value)| value.clone());
        table.row([what.clone()].into_iter().chain(measures.iter().map(cell)).collect());
    }
    table
}

fn tell(measures: &mut Measures, number: usize, what: &str, value: String) {
    measures.insert(number, (what.to_owned(), value));
}

fn tell_times(measures: &mut Measures, number: usize, what: &str, samples: &Samples) {
    let cell = |share| samples.quantile(share).map_or("-".into(), time);
    tell(measures, number, &format!("{what}, fastest"), cell(0.0));
    tell(measures, number + 1, &format!("{what}, p50"), cell(0.5));
    tell(measures, number + 2, &format!("{what}, p99"), cell(0.99));
}

async fn one_after_another(runtimes: &[Arc<Runtime>], count: usize, measures: &mut [Measures]) -> Result<()> {
    let mut samples: Vec<[Samples; 5]> = runtimes.iter().map(|_| Default::default()).collect();
    // The first of each warms up what is made once: it does not count.
    for number in 0..=count {
        for (runtime, samples) in runtimes.iter().zip(&mut samples) {
            let (pod, took) = runtime.start(&format!("single-{number}")).await?;
            let ending = Instant::now();
            runtime.remove(&pod).await?;
            if number > 0 {
                let whole = took.sandbox + took.create + took.start;
                let parts = [whole, took.sandbox, took.create, took.start, ending.elapsed()];
                samples.iter_mut().zip(parts).for_each(|(samples, part)| samples.add(part));
            }
        }
    }
    for ([whole, sandbox, create, start, end], measures) in samples.iter().zip(measures) {
        let p50 = |samples: &Samples| samples.quantile(0.5).map_or("-".into(), time);
        tell_times(measures, 0, "start, one after another", whole);
        tell(measures, 3, "  of it RunPodSandbox, p50", p50(sandbox));
        tell(measures, 4, "  of it CreateContainer, p50", p50(create));
        tell(measures, 5, "  of it StartContainer, p50", p50(start));
        tell(measures, 6, "stop and remove, p50", p50(end));
    }
    Ok(())
}

/// Starts while as many others are stopped and removed.
async fn while_others_end(runtimes: &[Arc<Runtime>], count: usize, measures: &mut [Measures]) -> Result<()> {
    const TOGETHER: usize = 10;
    for (runtime, measures) in runtimes.iter().zip(measures) {
        let mut samples = Samples::default();
        for round in 0..count.div_ceil(TOGETHER) {
            let name = |number: usize| format!("ending-{round}-{number}");
            let old = try_join_all((0..TOGETHER).map(|number| runtime.start_named(name(number)))).await?;
            let ending = old.iter().map(|(pod, _)| {
                let (runtime, pod) = (runtime.clone(), pod.clone());
                tokio::spawn(async move { runtime.remove(&pod).await })
            });
            let ending: Vec<_> = ending.collect();
            let mut new = Vec::new();
            for number in 0..TOGETHER {
                let begin = Instant::now();
                new.push(runtime.start(&format!("next-{round}-{number}")).await?.0);
                samples.add(begin.elapsed());
            }
            for end in ending {
                end.await.context("a removal was cut off")??;
            }
            try_join_all(new.iter().map(|pod| runtime.remove(pod))).await?;
        }
        tell_times(measures, 7, &format!("start while {TOGETHER} others end"), &samples);
    }
    Ok(())
}

async fn at_once(
    runtime: &Arc<Runtime>,
    number: usize,
    rounds: usize,
    measures: &mut Measures,
) -> Result<()> {
    let (mut started, mut removed) = (Samples::default(), Samples::default());
    for round in 0..rounds {
        let begin = Instant::now();
        let starting = (0..number).map(|pod| {
            let runtime = runtime.clone();
            tokio::spawn(async move { runtime.start_named(format!("many-{round}-{pod}")).await })
        });
        let mut pods = Vec::new();
        for start in starting.collect::<Vec<_>>() {
            pods.push(start.await.context("a start was cut off")??.0);
        }
        started.add(begin.elapsed());
        let begin = Instant::now();
        try_join_all(pods.iter().map(|pod| runtime.remove(pod))).await?;
        removed.add(begin.elapsed());
    }
    let fastest = |samples: &Samples| samples.quantile(0.0).map_or("-".into(), time);
    tell(measures, 10, &format!("{number} started at once, fastest of {rounds}"), fastest(&started));
    tell(
        measures,
        11,
        &format!("{number} stopped and removed at once, fastest of {rounds}"),
        fastest(&removed),
    );
    Ok(())
}

/// Memory that pods take beside their containers' processes.
async fn held(runtime: &Arc<Runtime>, number: usize, measures: &mut Measures) -> Result<()> {
    let before = processes()?;
    let mut pods = Vec::new();
    let begin = Instant::now();
    for pod in 0..number {
        pods.push(runtime.start(&format!("held-{pod}")).await?.0);
    }
    let took = begin.elapsed();
    let new: BTreeSet<u32> = processes()?.difference(&before).copied().collect();
    let (mut own, mut private, mut proportional, mut count) = (0, 0, 0, 0);
    for pid in new {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command == format!("{}\0{}\0", COMMAND[0], COMMAND[1]).as_bytes() {
            own += 1;
            continue;
        }
        // One that ends meanwhile holds nothing.
        let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        private += field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:");
        proportional += field(&rollup, "Pss:");
        count += 1;
    }
    try_join_all(pods.iter().map(|pod| runtime.remove(pod))).await?;
    ensure!(own == number, "{own} containers of {number} were running");
    let megabytes = |kibibytes: u64| format!("{:.2}MB", kibibytes as f64 * 1024.0 / 1e6);
    let each = |kibibytes: u64| megabytes(kibibytes / number as u64);
    tell(measures, 12, &format!("{number} pods, one after another"), time(took));
    tell(measures, 13, "  processes of the runtime for each", format!("{:.2}", count as f64 / number as f64));
    tell(measures, 14, "  their private memory, for each pod", each(private));
    tell(measures, 15, "  their share of all memory, for each pod", each(proportional));
    tell(measures, 16, "  their share of all memory, together", megabytes(proportional));
    Ok(())
}

fn field(rollup: &str, name: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn processes() -> Result<BTreeSet<u32>> {
    let entries = fs::read_dir("/proc").context("cannot list the processes")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

impl Runtime {
    async fn start_named(&self, name: String) -> Result<(String, Start)> {
        self.start(&name).await
    }

    /// Starts a pod of one container.
    async fn start(&self, name: &str) -> Result<(String, Start)> {
        let sandbox_config = sandbox(name, &self.logs);
        let begin = Instant::now();
        let request =
            RunPodSandboxRequest { config: Some(sandbox_config.clone()), runtime_handler: String::new() };
        let pod = self.remote.run_pod_sandbox(request).await.context("RunPodSandbox")?.pod_sandbox_id;
        let sandbox = begin.elapsed();
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(container(&self.image)),
            sandbox_config: Some(sandbox_config),
        };
        let id = self.remote.create_container(request).await.context("CreateContainer")?.container_id;
        let create = begin.elapsed() - sandbox;
        let request = StartContainerRequest { container_id: id.clone() };
        self.remote.start_container(request).await.context("StartContainer")?;
        let start = begin.elapsed() - sandbox - create;
        let status =
            self.remote.container_status(ContainerStatusRequest { container_id: id, verbose: false }).await?;
        let state = status.status.map(|status| status.state());
        if state != Some(ContainerState::ContainerRunning) {
            bail!("{}: the container of {name} is {state:?}", self.name);
        }
        Ok((pod, Start { sandbox, create, start }))
    }

    async fn remove(&self, pod: &str) -> Result<()> {
        let pod_sandbox_id = pod.to_owned();
        let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        self.remote.stop_pod_sandbox(stop).await.context("StopPodSandbox")?;
        let remove = RemovePodSandboxRequest { pod_sandbox_id };
        self.remote.remove_pod_sandbox(remove).await.map(drop).context("RemovePodSandbox")
    }
}

fn namespaces() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() }
}

fn sandbox(name: &str, logs: &Path) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: name.into(),
            namespace: "bench".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: logs.join(name).display().to_string(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container(image: &str) -> ContainerConfig {
    let paths = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(ImageSpec { image: image.into(), annotations: HashMap::new(), ..Default::default() }),
        command: COMMAND.map(String::from).into(),
        log_path: "main.log".into(),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources::default()),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                seccomp: Some(SecurityProfile::default()),
                masked_paths: paths(&[
                    "/proc/acpi",
                    "/proc/kcore",
                    "/proc/keys",
                    "/proc/timer_list",
                    "/sys/firmware",
                ]),
                readonly_paths: paths(&[
                    "/proc/bus",
                    "/proc/fs",
                    "/proc/irq",
                    "/proc/sys",
                    "/proc/sysrq-trigger",
                ]),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}
