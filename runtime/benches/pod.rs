//! How long a pod takes in the runtime alone, and what its shim costs: `cargo bench -p runtime --bench pod`, as root.

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
        for (name, mut times) in COLUMNS.into_iter().zip(samples) {
            times.sort();
            let (median, late) = (times[PODS / 2], times[PODS * 9 / 10]);
            println!("{name:>10}: p50 {median:>9.3?}  p90 {late:>9.3?}");
        }
        show_memory_of_a_shim(&world).await;
        world
    });
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
