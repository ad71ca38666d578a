//! The shim, the server, or both are killed between any two steps of a pod's life: what is listed afterwards is
//! true, a repeat of the interrupted call succeeds, and in the end nothing is left.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cri::v1::*;
use cri::{Code, RuntimeService};
use runtime::sys::failpoint::{POINTS, VARIABLE};

use crate::census::{Census, groups};
use crate::world::{World, in_world, pod_network, tiny_archive};

/// Set in the process that is to be killed: the directory of the world that its server works in.
const SERVER: &str = "CORACLE_TEST_CRASHING";
/// The control group of that world.
const GROUP: &str = "CORACLE_TEST_CRASHING_GROUP";

/// The image that is imported when an import is to be cut short.
const IMAGE: &str = "docker.io/coracle/crash:1";

/// The calls of a life, in their order.
const STEPS: [&str; 8] =
    ["pull", "sandbox", "create", "start", "stop", "remove", "stop-sandbox", "remove-sandbox"];

#[test]
fn whoever_comes_to_a_step_may_be_killed_there() {
    crash_everywhere("self", "crashes::whoever_comes_to_a_step_may_be_killed_there");
}

#[test]
fn the_other_may_be_killed_at_every_step() {
    crash_everywhere("other", "crashes::the_other_may_be_killed_at_every_step");
}

#[test]
fn shim_and_server_may_be_killed_together_at_every_step() {
    crash_everywhere("both", "crashes::shim_and_server_may_be_killed_together_at_every_step");
}

fn crash_everywhere(who: &str, test: &str) {
    if let Ok(directory) = std::env::var(SERVER) {
        return live(Path::new(&directory), std::env::var(GROUP).unwrap());
    }
    if !cfg!(debug_assertions) {
        eprintln!("SKIPPED: a release build has no failpoints");
        return;
    }
    in_world(|world| async move {
        tiny_archive(IMAGE, &world.directory.path().join("tiny.tar"));
        let mut world = world.with_pod_network().await;
        // The first life makes what all share: the bridge, chains, the shims' group, the filter of system calls.
        for step in STEPS {
            take(&world, step, Duration::from_secs(5)).await.unwrap();
        }
        clean_up(&world).await;
        let before = Census::take(&world.places());
        for point in POINTS {
            let mark = world.directory.path().join("mark");
            let story = format!("{who} killed at {point}");
            let (directory, group) = (world.directory.path().to_owned(), world.config.cgroup_parent.clone());
            let mut interrupted = String::new();
            world = world
                .restart_after(|config| {
                    interrupted = crash(&directory, &group, &format!("{point}={who}="), &mark, test);
                    // It reads at its start which addresses are in use.
                    config.network = Some(pod_network(&directory));
                })
                .await;
            assert!(fs::remove_file(&mark).is_ok(), "{story}: nobody came to the point");
            world.set_pod_cidr().await;
            // A container whose start was cut off may still be on its way, and so may the end of one that was asked
            // to end; all else is true at once.
            match truth(&world).await {
                Err(lie) if !["shim.forked", "stop.asked"].contains(point) => panic!("{story}: {lie}"),
                _ => wait_for_truth(&world).await,
            }
            if !interrupted.is_empty() {
                repeat(&world, &interrupted, &story).await;
            }
            clean_up(&world).await;
            let difference = world.difference_to(&before).await;
            assert!(difference.is_empty(), "{story}:\n{}", difference.join("\n"));
        }
        world.config.network.as_ref().unwrap().cleanup().await.unwrap();
        world
    });
}

/// Runs a life in a process of its own that ends at the point; tells which step was interrupted, if one was.
fn crash(directory: &Path, group: &str, point: &str, mark: &Path, test: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(SERVER, directory)
        .env(GROUP, group)
        .env(VARIABLE, format!("{point}{}", mark.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    use std::os::unix::process::ExitStatusExt;
    let was_killed = output.status.signal() == Some(libc::SIGKILL);
    assert!(
        was_killed || output.status.success(),
        "{point}: {text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = text.lines().filter_map(|line| line.rsplit_once("step ")).map(|(_, step)| step).next_back();
    if was_killed { last.unwrap_or_default().to_owned() } else { String::new() }
}

/// In the process that is to be killed, or whose shim is.
fn live(directory: &Path, group: String) {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(async {
        let mut world = World::in_directory(directory.to_owned(), group).await;
        world = world.with_network(pod_network(directory)).await;
        world.set_pod_cidr().await;
        // Only who does not end when asked is killed.
        let is_deaf = std::env::var(VARIABLE).is_ok_and(|point| point.starts_with("stop.killed"));
        let grace = Duration::from_secs(if is_deaf { 0 } else { 5 });
        for step in STEPS {
            println!("step {step}");
            if take(&world, step, grace).await.is_err() {
                // The shim was killed: the server hears of it, tells the truth, and goes on. Until it has heard,
                // a dying shim is as true as one that lives.
                wait_for_end_of_pod(&world).await;
                wait_for_truth(&world).await;
                repeat(&world, step, step).await;
                break;
            }
        }
        wait_for_truth(&world).await;
    });
}

/// One call of a life, on whatever pod and container there is.
async fn take(world: &World, step: &str, grace: Duration) -> Result<(), cri::Error> {
    let (sandbox, container) = (sandbox(world).await, container(world).await);
    let sandbox = sandbox.map(|sandbox| sandbox.id).unwrap_or_default();
    let container = container.map(|container| container.id).unwrap_or_default();
    let runtime = &world.runtime;
    match step {
        "pull" => world.import(&world.directory.path().join("tiny.tar")),
        "sandbox" => run_sandbox(world).await.map(drop),
        "create" => create(world, &sandbox).await.map(drop),
        "start" => world.start(&container).await,
        "stop" => {
            let request = StopContainerRequest { container_id: container, timeout: grace.as_secs() as i64 };
            runtime.stop_container(request).await.map(drop)
        }
        "remove" => {
            let request = RemoveContainerRequest { container_id: container };
            runtime.remove_container(request).await.map(drop)
        }
        "stop-sandbox" => {
            // With something in it to end.
            if let Ok(container) = create(world, &sandbox).await {
                world.start(&container).await?;
            }
            let request = StopPodSandboxRequest { pod_sandbox_id: sandbox };
            runtime.stop_pod_sandbox(request).await.map(drop)
        }
        "remove-sandbox" => {
            let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox };
            runtime.remove_pod_sandbox(request).await.map(drop)
        }
        other => panic!("there is no step {other}"),
    }
}

async fn run_sandbox(world: &World) -> Result<String, cri::Error> {
    let port = PortMapping { host_port: 8080, container_port: 80, ..Default::default() };
    let config = world.sandbox_config(|config| config.port_mappings = vec![port]);
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    Ok(world.runtime.run_pod_sandbox(request).await?.pod_sandbox_id)
}

async fn create(world: &World, sandbox: &str) -> Result<String, cri::Error> {
    let script = "trap 'exit 5' TERM; while true; do sleep 0.05; done";
    world.create(sandbox, world.script("main", script)).await
}

/// What was interrupted is done again. Where the pod died over it, it says so, and a new one takes its place.
async fn repeat(world: &World, step: &str, story: &str) {
    let grace = Duration::from_secs(1);
    let sandbox = sandbox(world).await;
    let is_ready = sandbox.as_ref().is_some_and(|sandbox| sandbox.state() == PodSandboxState::SandboxReady);
    match step {
        "pull" | "stop" | "remove" | "remove-sandbox" => take(world, step, grace).await.expect(story),
        "stop-sandbox" => {
            if let Some(PodSandbox { id, .. }) = sandbox {
                let request = StopPodSandboxRequest { pod_sandbox_id: id };
                world.runtime.stop_pod_sandbox(request).await.expect(story);
            }
        }
        "sandbox" => drop(run_sandbox(world).await.expect(story)),
        "create" if is_ready => take(world, step, grace).await.expect(story),
        "create" => {
            if let Some(dead) = sandbox {
                let refused = create(world, &dead.id).await.expect_err(story);
                assert_eq!(refused.code, Code::FailedPrecondition, "{story}: {refused}");
            }
            let sandbox = run_sandbox(world).await.expect(story);
            create(world, &sandbox).await.expect(story);
        }
        "start" => {
            let container = container(world).await.expect(story);
            match container.state() {
                ContainerState::ContainerCreated if is_ready => {
                    world.start(&container.id).await.expect(story)
                }
                ContainerState::ContainerRunning => {
                    let output = world.exec(&container.id, &["true"], 5).await.expect(story);
                    assert_eq!(output.exit_code, 0, "{story}");
                }
                state => {
                    assert!(!is_ready, "{story}: {state:?} in a pod that is ready");
                    let status = world.status(&container.id).await;
                    let told = (status.exit_code, status.reason.as_str());
                    assert!(
                        state == ContainerState::ContainerCreated
                            || told == (137, "Error")
                            || told == (128, "StartError"),
                        "{story}: {status:?}"
                    );
                }
            }
        }
        other => panic!("{story}: there is no step {other}"),
    }
    wait_for_truth(world).await;
}

/// Whether what is listed is so: a ready pod has a shim, a running container processes, and no other has.
async fn truth(world: &World) -> Result<(), String> {
    for sandbox in world.runtime.list_pod_sandbox(Default::default()).await.unwrap().items {
        let is_ready = sandbox.state() == PodSandboxState::SandboxReady;
        if is_ready != has_shim(&sandbox.id) {
            return Err(format!("sandbox {} is listed as {:?}", sandbox.id, sandbox.state()));
        }
    }
    let all = groups(&world.config.cgroup_parent);
    for container in world.runtime.list_containers(Default::default()).await.unwrap().containers {
        let own = all.iter().filter(|group| group.ends_with(&container.id));
        let processes =
            own.map(|group| fs::read_to_string(format!("{group}/cgroup.procs")).unwrap_or_default());
        let has_processes = processes.into_iter().any(|processes| !processes.is_empty());
        let is_running = container.state() == ContainerState::ContainerRunning;
        if is_running != has_processes {
            return Err(format!("container {} is listed as {:?}", container.id, container.state()));
        }
    }
    Ok(())
}

async fn wait_for_truth(world: &World) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(lie) = truth(world).await {
        assert!(Instant::now() < deadline, "{lie}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn wait_for_end_of_pod(world: &World) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_ready = |sandbox: PodSandbox| sandbox.state() == PodSandboxState::SandboxReady;
    let is_running = |container: Container| container.state() == ContainerState::ContainerRunning;
    while sandbox(world).await.is_some_and(is_ready) || container(world).await.is_some_and(is_running) {
        assert!(Instant::now() < deadline, "what a killed shim was there for still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn has_shim(sandbox: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        command.trim_end_matches('\0').ends_with(sandbox)
    })
}

async fn sandbox(world: &World) -> Option<PodSandbox> {
    world.runtime.list_pod_sandbox(Default::default()).await.unwrap().items.pop()
}

async fn container(world: &World) -> Option<Container> {
    world.runtime.list_containers(Default::default()).await.unwrap().containers.pop()
}

async fn clean_up(world: &World) {
    for sandbox in world.runtime.list_pod_sandbox(Default::default()).await.unwrap().items {
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.id };
        world.runtime.remove_pod_sandbox(request).await.unwrap();
    }
    world.runtime.images().remove(IMAGE).unwrap();
    world.runtime.images().collect_garbage().unwrap();
}
