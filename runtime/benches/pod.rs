//! How long a pod takes in the runtime alone, what stopping others does to it, and what its shim costs: `cargo bench -p
//! runtime --bench pod`, as root. With `CORACLE_SHIM=<binary>` its shims are those of that binary.

#![allow(clippy::unwrap_used)] // A step that fails ends the measurement.

#[path = "../tests/kernel/census.rs"]
#[allow(dead_code)] // The tests need more of it.
mod census;
#[path = "../tests/kernel/world.rs"]
#[allow(dead_code)] // The tests need more of it.
mod world;

use std::fs;
use std::time::{Duration, Instant};

use cri::RuntimeService;
use cri::v1::*;

use crate::world::{World, in_world};

const PODS: usize = 50;
const COLUMNS: [&str; 5] = ["sandbox", "create", "start", "all three", "remove"];

fn main() {
    in_world(|world| async move {
        pod(&world).await; // The first one makes what all share.
        let mut samples: [Vec<Duration>; COLUMNS.len()] = Default::default();
        for _ in 0..PODS {
            samples.iter_mut().zip(pod(&world).await).for_each(|(column, time)| column.push(time));
        }
        for (name, times) in COLUMNS.into_iter().zip(samples) {
            show(name, times);
        }
        show_memory_of_a_shim(&world).await;
        world
    });
    // A process has been in one world at most.
    let beside_ends = std::thread::spawn(|| in_world(|world| async move { beside_ends(world).await }));
    beside_ends.join().unwrap();
}

/// How long pods on the network take to start alone, and while as many others are being removed.
async fn beside_ends(world: World) -> World {
    let world = world.with_pod_network().await;
    start(&world).await;
    let mut alone = Vec::new();
    let mut doomed = Vec::new();
    for _ in 0..PODS {
        let begin = Instant::now();
        doomed.push(start(&world).await);
        alone.push(begin.elapsed());
    }
    let (mut beside, mut ends) = (Vec::new(), Vec::new());
    for pod in doomed {
        let remove = async {
            let begin = Instant::now();
            let request = RemovePodSandboxRequest { pod_sandbox_id: pod };
            world.runtime.remove_pod_sandbox(request).await.unwrap();
            begin.elapsed()
        };
        let begin_next = async {
            let begin = Instant::now();
            start(&world).await;
            begin.elapsed()
        };
        let (end, next) = tokio::join!(remove, begin_next);
        ends.push(end);
        beside.push(next);
    }
    for (name, times) in [("alone", alone), ("beside end", beside), ("end", ends)] {
        show(name, times);
    }
    let whole = Instant::now();
    let pods = world.runtime.list_pod_sandbox(Default::default()).await.unwrap().items;
    let count = pods.len();
    let removals = pods.into_iter().map(|pod| {
        let request = RemovePodSandboxRequest { pod_sandbox_id: pod.id };
        world.runtime.remove_pod_sandbox(request)
    });
    for removed in futures::future::join_all(removals).await {
        removed.unwrap();
    }
    println!("{count} pods at once removed in {:.3?}", whole.elapsed());
    world.config.network.as_ref().unwrap().cleanup().await.unwrap();
    world
}

async fn start(world: &World) -> String {
    let sandbox = world.sandbox().await;
    world.run(&sandbox, world.script("main", "exec sleep 100")).await;
    sandbox
}

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, late) = (times[times.len() / 2], times[times.len() * 9 / 10]);
    println!("{name:>10}: p50 {median:>9.3?}  p90 {late:>9.3?}");
}

/// Runs one pod through its life; one time for each column.
async fn pod(world: &World) -> [Duration; COLUMNS.len()] {
    let begin = Instant::now();
    let sandbox = world.sandbox().await;
    let made = Instant::now();
    let container = world.create(&sandbox, world.script("main", "exec sleep 100")).await.unwrap();
    let created = Instant::now();
    world.start(&container).await.unwrap();
    let started = Instant::now();
    world.runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox }).await.unwrap();
    [made - begin, created - made, started - created, started - begin, started.elapsed()]
}

async fn show_memory_of_a_shim(world: &World) {
    let sandbox = world.sandbox().await;
    world.run(&sandbox, world.script("main", "exec sleep 100")).await;
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        // A shim's last argument is the directory of its sandbox.
        if command.trim_end_matches('\0').ends_with(&sandbox) {
            let rollup = fs::read_to_string(process.path().join("smaps_rollup")).unwrap();
            let wanted = ["Rss:", "Pss:", "Private_Clean:", "Private_Dirty:"];
            let lines = rollup.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
            lines.for_each(|line| println!("shim {line}"));
        }
    }
}
