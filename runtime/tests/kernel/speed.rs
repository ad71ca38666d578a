//! How long a pod takes: `cargo nextest run -p runtime --run-ignored only --no-capture speed`.

use std::time::{Duration, Instant};

use cri::RuntimeService;
use cri::v1::*;

use crate::world::in_world;

#[test]
#[ignore = "a measurement, not a test"]
fn speed_of_a_pod() {
    in_world(|world| async move {
        let mut steps: [Vec<Duration>; 5] = Default::default();
        for _ in 0..50 {
            let start = Instant::now();
            let sandbox = world.sandbox().await;
            let made = Instant::now();
            let container = world.create(&sandbox, world.script("main", "exec sleep 100")).await.unwrap();
            let created = Instant::now();
            world.start(&container).await.unwrap();
            let started = Instant::now();
            world
                .runtime
                .remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox })
                .await
                .unwrap();
            let times = [made - start, created - made, started - created, started - start, started.elapsed()];
            steps.iter_mut().zip(times).for_each(|(step, time)| step.push(time));
        }
        for (name, mut times) in ["sandbox", "create", "start", "all three", "remove"].into_iter().zip(steps)
        {
            times.sort();
            println!(
                "{name:>10}: p50 {:>9.3?}  p90 {:>9.3?}",
                times[times.len() / 2],
                times[times.len() * 9 / 10]
            );
        }
        let sandbox = world.sandbox().await;
        world.run(&sandbox, world.script("main", "exec sleep 100")).await;
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let command = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            if command.trim_end_matches('\0').ends_with(&sandbox) {
                let rollup = std::fs::read_to_string(process.path().join("smaps_rollup")).unwrap();
                let lines = rollup.lines().filter(|line| {
                    ["Rss", "Pss:", "Private_Dirty", "Private_Clean"]
                        .iter()
                        .any(|name| line.starts_with(name))
                });
                lines.for_each(|line| println!("shim {line}"));
            }
        }
        world
    });
}
