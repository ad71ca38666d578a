//! Thousands of containers come and go, and nothing is left of them: `LIVES=10000 cargo test -p runtime --test kernel
//! lives -- --nocapture` for a long run, which tells how long a life takes and what it weighs.

use std::fs;
use std::time::Instant;

use cri::RuntimeService;
use cri::v1::*;
use nix::unistd::Pid;

use crate::census::Census;
use crate::survival::shim_of;
use crate::world::{World, in_world};

/// After so many containers comes a pod of its own.
const CONTAINERS_A_POD: usize = 10;

#[test]
fn lives_leave_nothing_behind() {
    let lives: usize = std::env::var("LIVES").map_or(200, |lives| lives.parse().unwrap());
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        // The first lives make what all share, and fill the allocator's pools.
        live(&world, &sandbox, lives / 2).await;
        let census = Census::take(&world.places());
        let (own, shim) = (Pid::this(), shim_of(&sandbox));
        let (before, shim_before) = (Weight::of(own), Weight::of(shim));
        let begin = Instant::now();
        live(&world, &sandbox, lives).await;
        let took = begin.elapsed();
        let difference = world.difference_to(&census).await;
        assert!(difference.is_empty(), "after {lives} lives:\n{}", difference.join("\n"));
        let (after, shim_after) = (Weight::of(own), Weight::of(shim));
        println!(
            "{lives} lives in {took:?}, {:?} each\nserver: {before:?} -> {after:?}\nshim: {shim_before:?} -> {shim_after:?}",
            took / lives as u32
        );
        assert_eq!(after.descriptors, before.descriptors, "the server's descriptors");
        assert_eq!(shim_after.descriptors, shim_before.descriptors, "the shim's descriptors");
        // What an allocator keeps for itself does not grow with the number of lives.
        let allowance = 512 + lives as u64 / 20;
        assert!(
            after.kilobytes <= before.kilobytes + allowance,
            "the server's memory: {before:?} -> {after:?}"
        );
        assert!(
            shim_after.kilobytes <= shim_before.kilobytes + 64,
            "the shim's memory: {shim_before:?} -> {shim_after:?}"
        );
        world
    });
}

async fn live(world: &World, sandbox: &str, lives: usize) {
    for number in 0..lives {
        if number % CONTAINERS_A_POD == 0 {
            let pod = world.sandbox().await;
            live_once(world, &pod).await;
            let request = RemovePodSandboxRequest { pod_sandbox_id: pod };
            world.runtime.remove_pod_sandbox(request).await.unwrap();
        } else {
            live_once(world, sandbox).await;
        }
    }
}

async fn live_once(world: &World, sandbox: &str) {
    let (code, _) = world.outcome(sandbox, world.script("main", "exit 3")).await;
    assert_eq!(code, 3);
    let filter = Some(ContainerFilter { pod_sandbox_id: sandbox.to_owned(), ..Default::default() });
    for container in world.runtime.list_containers(ListContainersRequest { filter }).await.unwrap().containers
    {
        let request = RemoveContainerRequest { container_id: container.id };
        world.runtime.remove_container(request).await.unwrap();
    }
}

#[test]
fn a_shim_is_small() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let shims = ["one", "two", "three"].map(|name| world.run(&sandbox, world.script(name, "sleep 100")));
        for container in futures::future::join_all(shims).await {
            assert_eq!(world.exec(&container, &["true"], 5).await.unwrap().exit_code, 0);
        }
        let weight = Weight::of(shim_of(&sandbox));
        println!("{weight:?}");
        assert!(weight.kilobytes < 1536, "{weight:?}");
        let threads = fs::read_dir(format!("/proc/{}/task", shim_of(&sandbox))).unwrap().count();
        assert_eq!(threads, 1);
        world
    });
}

/// What a process holds.
#[derive(Debug)]
struct Weight {
    /// Of memory that it has written to and shares with nobody; pages of its program are the same for all.
    kilobytes: u64,
    descriptors: usize,
}

impl Weight {
    fn of(process: Pid) -> Weight {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
        let own = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
        let kilobytes = own.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        Weight { kilobytes, descriptors }
    }
}
