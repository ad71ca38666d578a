//! Shims of other releases, and shims in trouble.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cri::v1::*;
use cri::{Code, RuntimeService};
use nix::mount::{MntFlags, MsFlags};
use runtime::LogLimit;
use runtime::shim::protocol::{Attached, Introduction, Reply, Request, VERSIONS, Versions, encode};

use crate::survival::shim_of;
use crate::world::{World, in_world};

/// Takes a shim's place: what the real one would not understand if it were of another release, `answer` answers.
/// Without an answer the connection ends, as a shim of the first version does it.
fn stand_in_for_shim(world: &World, sandbox: &str, answer: fn() -> Option<Reply>) -> Disguise {
    let directory = world.config.state.join("pods").join(sandbox);
    let (socket, real) = (directory.join("shim.sock"), directory.join("real.sock"));
    fs::rename(&socket, &real).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let to = real.clone();
    // Both threads end with the process; what they hold is the test's.
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, to) = (client.unwrap(), to.clone());
            std::thread::spawn(move || pass_on(client, &to, answer).unwrap_or_default());
        }
    });
    Disguise { socket, real }
}

/// Where the real shim's socket is meanwhile.
struct Disguise {
    socket: PathBuf,
    real: PathBuf,
}

impl Disguise {
    fn drop(self) {
        fs::rename(self.real, self.socket).unwrap();
    }
}

fn pass_on(mut client: UnixStream, shim: &Path, answer: fn() -> Option<Reply>) -> io::Result<()> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let mut request = vec![0; u32::from_le_bytes(length) as usize];
    client.read_exact(&mut request)?;
    if request.starts_with(br#"{"Introduce""#) {
        if let Some(reply) = answer() {
            client.write_all(&encode(&reply)?)?;
            client.read_exact(&mut length)?;
        }
        return Ok(());
    }
    let mut shim = UnixStream::connect(shim)?;
    shim.write_all(&length)?;
    shim.write_all(&request)?;
    let (mut from_shim, mut to_client) = (shim.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        io::copy(&mut from_shim, &mut to_client).and_then(|_| to_client.shutdown(Shutdown::Both))
    });
    io::copy(&mut client, &mut shim)?;
    shim.shutdown(Shutdown::Both)
}

#[test]
fn a_shim_of_the_first_version_is_adopted() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let script = "trap 'exit 5' TERM; while true; do sleep 0.05; done";
        let running = world.run(&sandbox, world.script("running", script)).await;
        let created = world.create(&sandbox, world.script("created", "exit 4")).await.unwrap();
        let disguise = stand_in_for_shim(&world, &sandbox, || None);
        let world = world.restart().await;
        assert_eq!(world.status(&running).await.state(), ContainerState::ContainerRunning);
        let events = world.events().await;
        world.start(&created).await.unwrap();
        assert_eq!(world.end_of(&created, events).await.exit_code, 4);
        world.stop(&running, 10).await;
        assert_eq!(world.status(&running).await.exit_code, 5);
        disguise.drop();
        world
    });
}

#[test]
fn a_shim_that_is_too_new_is_left_alone() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        let disguise = stand_in_for_shim(&world, &sandbox, || {
            let (oldest, newest) = (VERSIONS.newest + 1, VERSIONS.newest + 2);
            let versions = Versions { oldest, newest };
            let release = "coracle 99.0".to_owned();
            Some(Reply::Introduced(Introduction { versions, release, unsaved: Default::default() }))
        });
        let world = world.restart().await;
        let told = [
            world.exec(&container, &["true"], 5).await.unwrap_err(),
            world
                .runtime
                .stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() })
                .await
                .unwrap_err(),
            world
                .runtime
                .remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox.clone() })
                .await
                .unwrap_err(),
        ];
        for error in &told {
            let expected = format!("(coracle 99.0) speaks versions {} to", VERSIONS.newest + 1);
            assert!(error.message.contains(&expected), "{error}");
        }
        assert_eq!(told[1].code, Code::FailedPrecondition);
        let listed = world.runtime.list_pod_sandbox(Default::default()).await.unwrap().items;
        assert_eq!(listed[0].state(), PodSandboxState::SandboxReady);
        assert_eq!(world.status(&container).await.state(), ContainerState::ContainerRunning);
        // A release that understands the shim finds the pod as it was.
        disguise.drop();
        let world = world.restart().await;
        assert_eq!(world.exec(&container, &["true"], 5).await.unwrap().exit_code, 0);
        world
    });
}

#[test]
fn full_disks_end_no_shim_and_lose_no_exit_code() {
    in_world(|mut world| async move {
        let places = [world.config.state.clone(), world.directory.path().join("logs")];
        world = world.restart_after(|_| places.iter().for_each(|place| mount_small(place))).await;
        let sandbox = world.sandbox().await;
        let script = "while ! test -e /dev/shm/go; do sleep 0.01; done; seq 1000; \
                      while ! test -e /dev/shm/end; do sleep 0.01; done; echo last; exit 7";
        let container = world.run(&sandbox, world.script("main", script)).await;
        places.iter().for_each(|place| fill(place));
        world.exec(&container, &["touch", "/dev/shm/go"], 5).await.unwrap();
        world.exec(&container, &["touch", "/dev/shm/end"], 5).await.unwrap();
        let events = world.events().await;
        assert_eq!(world.end_of(&container, events).await.exit_code, 7);
        // The next server cannot read it anywhere, and is told.
        let record = world.config.state.join("pods").join(&sandbox).join("containers").join(&container);
        assert!(!record.join("exit.json").exists());
        let world = world.restart().await;
        assert_eq!(world.status(&container).await.exit_code, 7);
        // Every line that was written is whole, however little room there was for it.
        assert!(world.log("main.log").lines().all(|line| line.starts_with("stdout F ")));
        places.iter().for_each(|place| fs::remove_file(place.join("filler")).unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !record.join("exit.json").exists() {
            assert!(Instant::now() < deadline, "the exit code is written when there is room for it");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let after = world.run(&sandbox, world.script("after", "echo well")).await;
        let events = world.events().await;
        assert_eq!(world.end_of(&after, events).await.exit_code, 0);
        assert_eq!(world.log("after.log"), "stdout F well\n");
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox };
        world.runtime.remove_pod_sandbox(request).await.unwrap();
        world
            .restart_after(|_| {
                places.iter().for_each(|place| nix::mount::umount2(place, MntFlags::MNT_DETACH).unwrap());
            })
            .await
    });
}

fn mount_small(place: &Path) {
    fs::create_dir_all(place).unwrap();
    nix::mount::mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).unwrap();
}

fn fill(place: &Path) {
    let mut filler = fs::File::create(place.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
}

#[test]
fn logs_go_on_in_new_files_when_they_are_long() {
    in_world(|mut world| async move {
        world.config.log_limit = Some(LogLimit { bytes: 2000, files: 2 });
        let world = world.restart().await;
        let sandbox = world.sandbox().await;
        let script = "for i in $(seq 100); do echo line $i; done";
        let (code, log) = world.outcome(&sandbox, world.script("main", script)).await;
        assert_eq!(code, 0);
        let logs = fs::read_dir(world.directory.path().join("logs")).unwrap();
        let rotated = logs.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("main.log"));
        let rotated: Vec<_> = rotated.collect();
        assert_eq!(rotated.len(), 1, "{rotated:?}");
        // The last line may have filled its file; the next one is empty then.
        let newest = if log.is_empty() { fs::read_to_string(&rotated[0]).unwrap() } else { log };
        assert!(newest.ends_with("stdout F line 100\n"), "{newest}");
        world
    });
}

#[test]
fn a_request_to_end_does_not_end_a_pod() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        for signal in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT, nix::sys::signal::SIGHUP] {
            nix::sys::signal::kill(shim_of(&sandbox), signal).unwrap();
        }
        // Answered after the signals were.
        assert_eq!(world.exec(&container, &["true"], 5).await.unwrap().exit_code, 0);
        assert_eq!(world.status(&container).await.state(), ContainerState::ContainerRunning);
        world
    });
}

/// A connection to a shim as a server has it, for what a server would not do.
fn connect(world: &World, sandbox: &str) -> UnixStream {
    let stream =
        UnixStream::connect(world.config.state.join("pods").join(sandbox).join("shim.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn next_reply(stream: &mut UnixStream) -> serde_json::Value {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut reply).unwrap();
    serde_json::from_slice(&reply).unwrap()
}

fn start(container: &str) -> Request {
    let attach = Attached { stdin: true, stdout: true, stderr: true };
    Request::Start { container: container.to_owned(), attach, size: None }
}

#[test]
fn what_comes_while_a_pod_is_being_stopped_is_refused() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.create(&sandbox, world.script("late", "sleep 100")).await.unwrap();
        let mut shim = connect(&world, &sandbox);
        // In one piece, so that the shim hears of the second before it can have ended.
        let both = [encode(&Request::Shutdown).unwrap(), encode(&start(&container)).unwrap()].concat();
        shim.write_all(&both).unwrap();
        let refused = next_reply(&mut shim);
        assert_eq!(refused["Failed"]["message"], "the pod is being stopped");
        assert_eq!(next_reply(&mut shim), "Done");
        assert_eq!(shim.read(&mut [0]).unwrap(), 0, "the shim ends");
        world
    });
}

#[test]
fn a_start_that_runs_out_of_descriptors_leaves_no_process() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let shim = shim_of(&sandbox);
        let open = fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
        let mut failed = 0;
        for limit in open.. {
            let name = format!("main{limit}");
            let mut config = world.script(&name, "sleep 100");
            config.stdin = true;
            let container = world.create(&sandbox, config).await.unwrap();
            let mut connection = connect(&world, &sandbox);
            // Answered when the connection has its descriptor.
            connection.write_all(&encode(&Request::Hello).unwrap()).unwrap();
            next_reply(&mut connection);
            limit_files(shim, limit + 1);
            connection.write_all(&encode(&start(&container)).unwrap()).unwrap();
            let reply = next_reply(&mut connection);
            limit_files(shim, 4096);
            if reply.get("Failed").is_none() {
                break;
            }
            failed += 1;
            let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
            assert_eq!(children, "", "after {reply}");
            assert!(limit < open + 100, "{reply}");
        }
        assert!(failed > 5, "each descriptor was missed once");
        world
    });
}

/// Lets a process have so many descriptors at most.
fn limit_files(process: nix::unistd::Pid, most: usize) {
    let arguments = [format!("--pid={process}"), format!("--nofile={most}:4096")];
    let limited = std::process::Command::new("prlimit").args(arguments).status().unwrap();
    assert!(limited.success());
}

fn stop(shim: nix::unistd::Pid) {
    nix::sys::signal::kill(shim, nix::sys::signal::SIGSTOP).unwrap();
}

/// No test waits longer than this for what must not take for ever.
const FOR_EVER: Duration = Duration::from_secs(100);

#[test]
fn a_shim_that_hangs_holds_up_neither_start_nor_removal() {
    in_world(|world| async move {
        let (hangs, well) = (world.sandbox().await, world.sandbox().await);
        let script = "while ! test -e /dev/shm/end; do sleep 0.01; done; exit 3";
        let in_hangs = world.run(&hangs, world.script("hangs", script)).await;
        let in_well = world.run(&well, world.script("well", "sleep 100")).await;
        let shim = shim_of(&hangs);
        let restarted = tokio::time::timeout(FOR_EVER, world.restart_after(|_| stop(shim))).await;
        let world = restarted.expect("a server starts beside a shim that hangs");
        assert_eq!(world.exec(&in_well, &["true"], 20).await.unwrap().exit_code, 0);
        assert_eq!(world.status(&in_hangs).await.state(), ContainerState::ContainerRunning);
        // It goes on, and is met at last.
        nix::sys::signal::kill(shim, nix::sys::signal::SIGCONT).unwrap();
        let events = world.events().await;
        world.exec(&in_hangs, &["touch", "/dev/shm/end"], 20).await.unwrap();
        assert_eq!(world.end_of(&in_hangs, events).await.exit_code, 3);
        stop(shim);
        let request = RemovePodSandboxRequest { pod_sandbox_id: hangs };
        let removed = tokio::time::timeout(FOR_EVER, world.runtime.remove_pod_sandbox(request)).await;
        removed.expect("a pod whose shim hangs is removed").unwrap();
        assert_eq!(world.exec(&in_well, &["true"], 20).await.unwrap().exit_code, 0);
        world
    });
}

#[test]
fn a_container_is_killed_and_all_is_reset_whatever_its_shim_does() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        let record = world.config.state.join("pods").join(&sandbox);
        let started = record.join("containers").join(&container).join("started.json");
        let started: serde_json::Value = serde_json::from_slice(&fs::read(started).unwrap()).unwrap();
        let pid = started["pid"].as_i64().unwrap();
        stop(shim_of(&sandbox));
        let request = StopContainerRequest { container_id: container, timeout: 0 };
        let stopped = tokio::time::timeout(FOR_EVER, world.runtime.stop_container(request)).await;
        // Nobody tells that it has ended, though it has: who would bury it hangs.
        assert_eq!(stopped.expect("it is told in time").unwrap_err().code, Code::DeadlineExceeded);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("State:\tZ"), "{status}");
        let World { runtime: server, config, directory } = world;
        drop(server);
        let reset = tokio::time::timeout(FOR_EVER, runtime::reset(&config)).await;
        reset.expect("a shim that hangs holds up no reset").unwrap();
        // One that nobody has buried has no program any more either, but is there.
        let is_buried = async {
            while Path::new(&format!("/proc/{pid}")).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(FOR_EVER, is_buried).await.expect("the container's process is gone");
        World { runtime: runtime::Runtime::start(config.clone()).await.unwrap(), config, directory }
    });
}

#[test]
fn only_the_shim_itself_is_killed_for_not_ending() {
    in_world(|world| async move {
        let (recorded, unrecorded) = (world.sandbox().await, world.sandbox().await);
        let pods = world.config.state.join("pods");
        // Sockets that this process made and nobody serves: it is this one that they seem to lead to, as with shims of
        // the first version.
        let disguises = [&recorded, &unrecorded].map(|sandbox| {
            let (socket, real) = (pods.join(sandbox).join("shim.sock"), pods.join(sandbox).join("real.sock"));
            fs::rename(&socket, &real).unwrap();
            (UnixListener::bind(&socket).unwrap(), Disguise { socket, real })
        });
        let shim = shim_of(&unrecorded);
        let world = world
            .restart_after(|_| {
                let path = pods.join(&unrecorded).join("record.json");
                let mut record: serde_json::Value =
                    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                record["shim"] = serde_json::Value::Null;
                fs::write(path, record.to_string()).unwrap();
            })
            .await;
        let stop = |sandbox: &str| {
            world.runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: sandbox.to_owned() })
        };
        let known = shim_of(&recorded);
        let (stopped, refused) = tokio::join!(stop(&recorded), stop(&unrecorded));
        stopped.unwrap();
        assert!(!Path::new(&format!("/proc/{known}/exe")).exists(), "the shim has been killed");
        let refused = refused.unwrap_err().message;
        assert!(refused.contains("no process is known to be the pod's shim"), "{refused}");
        assert!(Path::new(&format!("/proc/{shim}/exe")).exists());
        let [_, (listener, disguise)] = disguises;
        drop(listener);
        disguise.drop();
        world
    });
}

#[test]
fn one_pod_that_cannot_be_read_keeps_no_server_from_starting() {
    in_world(|world| async move {
        let (bad, good) = (world.sandbox().await, world.sandbox().await);
        let in_bad = world.run(&bad, world.script("bad", "sleep 100")).await;
        let in_good = world.run(&good, world.script("good", "sleep 100")).await;
        let config = world.config.state.join("pods").join(&bad).join("config.pb");
        let aside = config.with_extension("aside");
        let world = world
            .restart_after(|_| {
                fs::rename(&config, &aside).unwrap();
                // Something that the system refuses to read is no file that a crash has torn.
                fs::create_dir(&config).unwrap();
            })
            .await;
        assert_eq!(world.exec(&in_good, &["true"], 20).await.unwrap().exit_code, 0);
        let world = world
            .restart_after(|_| {
                fs::remove_dir(&config).unwrap();
                fs::rename(&aside, &config).unwrap();
            })
            .await;
        assert_eq!(world.exec(&in_bad, &["true"], 20).await.unwrap().exit_code, 0, "it was left as it was");
        world
    });
}
