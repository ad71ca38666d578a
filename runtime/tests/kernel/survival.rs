//! Pods outlive the server, and nothing outlives a pod.

use std::fs;
use std::path::PathBuf;

use cri::RuntimeService;
use cri::v1::*;

use crate::world::in_world;

#[test]
fn pods_run_on_without_the_server_and_are_adopted() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let long = world.run(&sandbox, world.script("long", "while true; do sleep 0.1; done")).await;
        let short = world
            .run(&sandbox, world.script("short", "while ! test -e /dev/shm/go; do sleep 0.01; done; exit 9"))
            .await;
        let created = world.create(&sandbox, world.script("created", "exit 4")).await.unwrap();
        let before = world.status(&long).await;
        world.exec(&long, &["touch", "/dev/shm/go"], 5).await.unwrap();
        let world = world.restart().await;
        let events = world.events().await;
        let short = world.end_of(&short, events).await;
        assert_eq!((short.exit_code, short.reason.as_str()), (9, "Error"));
        let after = world.status(&long).await;
        assert_eq!((after.state(), after.started_at), (ContainerState::ContainerRunning, before.started_at));
        assert_eq!(world.exec(&long, &["true"], 5).await.unwrap().exit_code, 0);
        let events = world.events().await;
        world.start(&created).await.unwrap();
        assert_eq!(world.end_of(&created, events).await.exit_code, 4);
        world.stop(&long, 0).await;
        assert_eq!(world.status(&long).await.exit_code, 137);
        world
    });
}

#[test]
fn a_killed_shim_takes_its_pod_along_and_leaves_nothing() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let events = world.events().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        nix::sys::signal::kill(shim_of(&sandbox), nix::sys::signal::Signal::SIGKILL).unwrap();
        let status = world.end_of(&container, events).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
        assert_eq!(status.message, "the pod's shim was killed, and the container with it");
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: false };
        let told = world.runtime.pod_sandbox_status(request).await.unwrap().status.unwrap();
        assert_eq!(told.state(), PodSandboxState::SandboxNotready);
        world
    });
}

#[test]
fn a_shim_killed_while_the_server_is_away_is_noticed() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        let pid = shim_of(&sandbox);
        let world = world
            .restart_after(|_| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap())
            .await;
        let events = world.events().await;
        assert_eq!(world.end_of(&container, events).await.exit_code, 137);
        world
    });
}

#[test]
fn rotated_logs_go_on_in_a_new_file() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let script = "echo one; while ! test -e /dev/shm/go; do sleep 0.01; done; echo two";
        let events = world.events().await;
        let container = world.run(&sandbox, world.script("main", script)).await;
        let log = world.directory.path().join("logs/main.log");
        while !fs::read_to_string(&log).unwrap_or_default().contains("one") {
            tokio::task::yield_now().await;
        }
        fs::rename(&log, log.with_extension("1")).unwrap();
        let request = ReopenContainerLogRequest { container_id: container.clone() };
        world.runtime.reopen_container_log(request).await.unwrap();
        world.exec(&container, &["touch", "/dev/shm/go"], 5).await.unwrap();
        world.end_of(&container, events).await;
        assert_eq!(world.log("main.log"), "stdout F two\n");
        world
    });
}

#[test]
fn stopping_a_sandbox_ends_everything_in_it() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        world.runtime.stop_pod_sandbox(request.clone()).await.unwrap();
        let status = world.status(&container).await;
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));
        // Again, and one that never was, are fine.
        world.runtime.stop_pod_sandbox(request).await.unwrap();
        world
            .runtime
            .stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: "none".into() })
            .await
            .unwrap();
        let world = world.restart().await;
        let listed = world.runtime.list_pod_sandbox(Default::default()).await.unwrap().items;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].state(), PodSandboxState::SandboxNotready);
        world
    });
}

#[test]
fn stopping_what_has_ended_is_fine() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        // The ends race with the requests: whoever comes first, nobody complains.
        for round in 0..20 {
            let name = format!("short{round}");
            let container = world.run(&sandbox, world.script(&name, "exit 0")).await;
            world.stop(&container, round % 2).await;
            assert_eq!(world.status(&container).await.state(), ContainerState::ContainerExited);
        }
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        nix::sys::signal::kill(shim_of(&sandbox), nix::sys::signal::Signal::SIGKILL).unwrap();
        world.stop(&container, 1).await;
        world
    });
}

#[test]
fn a_pods_group_goes_with_it_and_unknown_groups_with_the_next_server() {
    in_world(|world| async move {
        let parent = format!("{}/kubepods/besteffort/podu", world.config.cgroup_parent);
        let sandbox = world
            .sandbox_with(|config| config.linux.get_or_insert_default().cgroup_parent = parent.clone())
            .await;
        world.run(&sandbox, world.script("main", "sleep 100")).await;
        let is_there = |world: &crate::world::World, pod: &str| {
            let pod = format!("kubepods/besteffort/{pod}");
            world.groups().iter().any(|group| group.join(&pod).exists())
        };
        assert!(is_there(&world, "podu"));
        world
            .runtime
            .stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() })
            .await
            .unwrap();
        assert!(!is_there(&world, "podu"));
        for group in world.groups() {
            fs::create_dir_all(group.join("kubepods/besteffort/podv/container")).unwrap();
        }
        let world = world.restart().await;
        assert!(!is_there(&world, "podv"));
        world
    });
}

/// The process whose last argument is the sandbox's directory.
pub fn shim_of(sandbox: &str) -> nix::unistd::Pid {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let found = processes.filter(|process| {
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        command.trim_end_matches('\0').ends_with(sandbox)
    });
    let pid = found.filter_map(|process| process.file_name().to_str()?.parse().ok()).next();
    nix::unistd::Pid::from_raw(pid.expect("the shim is there"))
}

/// Set in the process that is to be killed: the directory of the world that its server works in.
const SERVER: &str = "CORACLE_TEST_SERVER";
/// The control group of that world.
const GROUP: &str = "CORACLE_TEST_GROUP";

#[test]
fn a_server_killed_at_any_time_loses_nothing() {
    if let Ok(directory) = std::env::var(SERVER) {
        return be_the_server_of_another_process(directory.into(), std::env::var(GROUP).unwrap());
    }
    in_world(|world| async move {
        // A second server, of another process, with pods of its own; it is this test's binary again.
        let mut server = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "survival::a_server_killed_at_any_time_loses_nothing", "--nocapture"])
            .env(SERVER, world.directory.path())
            .env(GROUP, &world.config.cgroup_parent)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(server.stdout.take().unwrap());
        let line =
            std::io::BufRead::lines(output).map_while(Result::ok).find(|line| line.contains("container is "));
        let line = line.expect("the server runs a container");
        let container = line.split_once("container is ").unwrap().1.trim().to_owned();
        server.kill().unwrap();
        server.wait().unwrap();
        let world = world.restart().await;
        assert_eq!(world.status(&container).await.state(), ContainerState::ContainerRunning);
        let output = world.exec(&container, &["cat", "/tmp/mark"], 5).await.unwrap();
        assert_eq!(&output.stdout[..], b"alive\n");
        let events = world.events().await;
        world.exec(&container, &["touch", "/tmp/go"], 5).await.unwrap();
        assert_eq!(world.end_of(&container, events).await.exit_code, 6);
        assert_eq!(world.log("other.log"), "stdout F over\n");
        world
    });
}

fn be_the_server_of_another_process(directory: PathBuf, group: String) {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(async {
        let world = crate::world::World::in_directory(directory, group).await;
        let sandbox = world.sandbox().await;
        let script =
            "echo alive > /tmp/mark; while ! test -e /tmp/go; do sleep 0.01; done; echo over; exit 6";
        let container = world.run(&sandbox, world.script("other", script)).await;
        println!("container is {container}");
        std::future::pending::<()>().await;
    });
}
