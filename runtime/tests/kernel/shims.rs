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
use runtime::shim::protocol::{Introduction, Reply, VERSIONS, Versions, encode};

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
