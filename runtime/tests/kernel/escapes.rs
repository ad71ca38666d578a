//! The ways out that containers have found in recent years: each is tried here, and refused.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cri::v1::*;

use crate::world::{World, in_world};

fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn bind(source: &Path, target: &str) -> Mount {
    Mount { container_path: target.into(), host_path: source.display().to_string(), ..Default::default() }
}

async fn text(world: &World, sandbox: &str, config: ContainerConfig) -> String {
    let (_, log) = world.outcome(sandbox, config).await;
    log.replace("stdout F ", "").replace("stderr F ", "")
}

/// Why a container does not start.
async fn refusal(world: &World, sandbox: &str, config: ContainerConfig) -> String {
    let container = world.create(sandbox, config).await.unwrap();
    world.start(&container).await.unwrap_err().message
}

/// An image of busybox with these links in place of what is usually there.
async fn image_with_links(world: &World, name: &str, links: &[(&str, &str)]) -> ContainerConfig {
    let archive = world.directory.path().join("links.tar");
    let busybox = crate::world::busybox();
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    layer.append_data(&mut header, "bin/busybox", busybox.as_slice()).unwrap();
    for (place, target) in [("bin/sh", "busybox")].iter().chain(links) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        layer.append_link(&mut header, place, target).unwrap();
    }
    let name = format!("docker.io/coracle/{name}:1");
    crate::world::write_archive(&name, layer.into_inner().unwrap(), &archive);
    world.runtime.images().import(File::open(archive).unwrap(), None).unwrap();
    let mut config = world.script("linked", "true");
    config.image = Some(ImageSpec { image: name, ..Default::default() });
    config.command = vec!["/bin/sh".into(), "-c".into(), "exit 0".into()];
    config.working_dir = "/".into();
    config
}

#[test]
fn cve_2019_5736_the_runtimes_own_program_cannot_be_overwritten() {
    in_world(|world| async move {
        let shim = world.config.shim.program.clone().unwrap();
        let before = fs::read(&shim).unwrap();
        let sandbox = world.sandbox().await;
        // Whoever comes as far as the program finds it on a mount that nobody can write through.
        let program = File::open(format!("/proc/{}/exe", shim_of(&sandbox))).unwrap();
        let mount = nix::sys::statvfs::fstatvfs(&program).unwrap().flags();
        assert!(mount.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{mount:?}");

        // An exec of /proc/self/exe is the runtime itself, in the container, for a moment.
        let attack = "trap 'exit 0' TERM; while true; do for p in /proc/[0-9]*; do \
                      case $(readlink $p/exe) in /bin/busybox|'') ;; *) (echo evil > $p/exe) 2>/dev/null && echo won;; esac; \
                      done; done";
        let container = world.run(&sandbox, world.script("main", attack)).await;
        for _ in 0..50 {
            let victim = world.exec(&container, &["/proc/self/exe", "/tmp"], 20).await.unwrap();
            assert_ne!(victim.exit_code, 0, "the runtime does nothing of use in there");
        }
        world.stop(&container, 5).await;
        assert_eq!(world.log("main.log"), "");
        assert!(fs::read(&shim).unwrap() == before, "the program has changed");
        world
    });
}

/// The process whose last argument is the sandbox's directory.
fn shim_of(sandbox: &str) -> i32 {
    let found = fs::read_dir("/proc").unwrap().flatten().find(|process| {
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        command.trim_end_matches('\0').ends_with(sandbox)
    });
    found.and_then(|process| process.file_name().to_str()?.parse().ok()).expect("the shim is there")
}

#[test]
fn cve_2024_21626_no_descriptor_leads_out() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        for number in 0..24 {
            for path in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../..")] {
                let mut config =
                    world.script("main", "cat etc/shadow root/.bashrc ../../../etc/shadow && echo out");
                config.working_dir = path.clone();
                let container = world.create(&sandbox, config).await.unwrap();
                let error = world.start(&container).await.expect_err(&path);
                let known = ["failed", "mkdir"].iter().any(|word| error.message.contains(word));
                assert!(known && !world.log("main.log").contains("out"), "{path}: {error}");
            }
        }
        let look = "ls /proc/self/fd | tr '\\n' ' '";
        assert_eq!(text(&world, &sandbox, world.script("first", look)).await, "stdout P 0 1 2 3 \n");
        let container = world.run(&sandbox, world.script("second", "sleep 100")).await;
        let output = world.exec(&container, &["sh", "-c", look], 10).await.unwrap();
        assert_eq!(&output.stdout[..], b"0 1 2 3 ", "3 is the directory that is listed");
        world
    });
}

#[test]
fn cve_2025_31133_masks_are_made_of_our_own_null_device() {
    in_world(|world| async move {
        let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let sandbox = world.sandbox().await;
        let evil = world.directory.path().join("dev");
        fs::create_dir_all(&evil).unwrap();
        for name in ["null", "zero", "console"] {
            symlink("/proc/sys/kernel/core_pattern", evil.join(name)).unwrap();
        }
        let look = "head -c 1 /proc/keys | wc -c; ls -A /sys/firmware | wc -l; \
                    (echo '|/evil' > /proc/sys/kernel/core_pattern) 2>&1";
        let mut config = world.script("main", look);
        config.mounts = vec![bind(&evil, "/dev")];
        let seen = text(&world, &sandbox, config).await;
        assert!(seen.starts_with("0\n0\n") && seen.contains("Read-only file system"), "{seen}");
        assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
        world
    });
}

#[test]
fn cve_2025_52565_the_console_is_bound_where_we_made_it() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        for (name, links) in [
            ("console", vec![("console", "/proc/sysrq-trigger")]),
            ("pts", vec![("pts", "/proc/sys/kernel")]),
            ("ptmx", vec![("pts/ptmx", "/proc/sys/kernel/core_pattern")]),
        ] {
            let evil = world.directory.path().join(format!("dev-{name}"));
            fs::create_dir_all(&evil).unwrap();
            for (place, target) in links {
                if let Some(parent) = Path::new(place).parent() {
                    fs::create_dir_all(evil.join(parent)).unwrap();
                }
                symlink(target, evil.join(place)).unwrap();
            }
            let mut config = world.script(name, "true");
            config.tty = true;
            config.mounts = vec![bind(&evil, "/dev")];
            let refused = refusal(&world, &sandbox, config).await;
            assert!(refused.contains("failed to open a terminal"), "{name}: {refused}");
        }
        world
    });
}

#[test]
fn cve_2025_52881_what_the_kernel_is_told_goes_nowhere_else() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        // A container that owns its mounts puts files of its own where a runtime would write.
        let mut config = world.script(
            "main",
            "mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/thread-self/attr /proc/sys/kernel && \
             echo before > /proc/self/oom_score_adj && echo before > /proc/self/attr/exec && \
             echo before > /proc/thread-self/attr/exec && touch /tmp/ready && sleep 100",
        );
        context(&mut config).privileged = true;
        let container = world.run(&sandbox, config).await;
        let look = "while ! test -e /tmp/ready; do sleep 0.01; done; \
                    cat /proc/self/oom_score_adj /proc/self/attr/exec /proc/thread-self/attr/exec";
        let output = world.exec(&container, &["sh", "-c", look], 10).await.unwrap();
        assert_eq!(&output.stdout[..], b"before\nbefore\nbefore\n");

        // A mount that a link leads into procfs would be such a file too.
        let data = world.directory.path().join("data");
        fs::create_dir_all(&data).unwrap();
        let mut config = image_with_links(&world, "proc-link", &[("innocent", "/proc")]).await;
        config.mounts = vec![bind(&data, "/innocent/self")];
        let refused = refusal(&world, &sandbox, config).await;
        assert!(refused.contains("cannot be mounted because it is inside /proc"), "{refused}");
        world
    });
}

#[test]
fn cve_2023_27561_a_linked_proc_sys_or_dev_is_no_place_for_mounts() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        for place in ["proc", "sys", "dev"] {
            let config = image_with_links(&world, &format!("linked-{place}"), &[(place, "/tmp")]).await;
            let refused = refusal(&world, &sandbox, config).await;
            assert!(refused.contains(&format!("failed to mount /{place}: ")), "{place}: {refused}");
        }
        world
    });
}

#[test]
fn cve_2024_45310_nothing_is_made_outside_on_the_way_to_a_mount() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let (shared, outside) =
            (world.directory.path().join("shared"), world.directory.path().join("outside"));
        fs::create_dir_all(&shared).unwrap();
        fs::create_dir_all(&outside).unwrap();
        symlink(&outside, shared.join("link")).unwrap();
        symlink("../../../../../../..", shared.join("up")).unwrap();
        let data = world.directory.path().join("data");
        fs::create_dir_all(&data).unwrap();
        for target in ["/shared/link/made/deep", "/shared/up/made-by-a-container"] {
            let mut config = world.script("main", "true");
            config.mounts = vec![bind(&shared, "/shared"), bind(&data, target)];
            let container = world.create(&sandbox, config).await.unwrap();
            // Whether the link leads somewhere in the container or nowhere, it does not lead out of it.
            world.start(&container).await.ok();
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{target}");
            assert!(!Path::new("/made-by-a-container").exists());
        }
        world
    });
}

/// Exchanges a directory and a link for each other until it is dropped.
struct Exchange {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Exchange {
    fn of(one: PathBuf, other: PathBuf) -> Exchange {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
            let mut rounds = 0;
            while !told.load(Ordering::Relaxed) {
                let root = nix::fcntl::AT_FDCWD;
                nix::fcntl::renameat2(root, &one, root, &other, flags).unwrap();
                rounds += 1;
            }
            rounds
        });
        Exchange { stop, thread: Some(thread) }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn cve_2021_30465_a_link_exchanged_for_a_directory_wins_nothing() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let shared = world.directory.path().join("shared");
        fs::create_dir_all(shared.join("place")).unwrap();
        symlink("/../../../../../../../..", shared.join("trap")).unwrap();
        let data = world.directory.path().join("data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("secret"), "x").unwrap();
        let exchange = Exchange::of(shared.join("place"), shared.join("trap"));
        for round in 0..30 {
            let mut config = world.script(&format!("round{round}"), "ls / | tr '\\n' ' '; ls /shared/place/");
            config.mounts = vec![bind(&shared, "/shared"), bind(&data, "/shared/place/inside")];
            // It may be refused, or be mounted inside; what it may not do is to lead out.
            let container = world.create(&sandbox, config).await.unwrap();
            world.start(&container).await.ok();
            assert!(!Path::new("/inside").exists(), "the node's root was reached");
        }
        assert!(exchange.end() > 100, "the trap was set");
        world
    });
}

#[test]
fn cve_2022_0185_no_namespaces_and_no_mounts_without_the_right_to() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let attempts = "for what in '-U' '-m' '-n' '-i' '-u' '-p'; do busybox unshare $what true 2>/dev/null && echo made $what; done; \
                        mount -t tmpfs none /tmp 2>/dev/null && echo mounted; mount -o remount,rw /proc/sys 2>/dev/null && echo remounted; \
                        busybox chroot / true 2>/dev/null && echo chrooted; busybox dmesg 2>/dev/null && echo dmesg; \
                        busybox setsid true && echo harmless";
        let seen = text(&world, &sandbox, world.script("main", attempts)).await;
        assert_eq!(seen, "chrooted\nharmless\n", "chroot is Docker's and containerd's default too");
        world
    });
}

#[test]
fn cve_2020_15257_nothing_listens_where_the_nodes_network_leads() {
    in_world(|world| async move {
        let sandbox = world
            .sandbox_with(|config| {
                let linux = config.linux.get_or_insert_default();
                linux.security_context.get_or_insert_default().namespace_options = Some(network_options());
            })
            .await;
        let mut config = world.script("main", "grep -c '@' /proc/net/unix");
        context(&mut config).namespace_options = Some(network_options());
        assert_eq!(text(&world, &sandbox, config).await, "0\n", "no abstract socket of ours");
        world
    });
}

fn network_options() -> NamespaceOption {
    let (network, pid) = (NamespaceMode::Node as i32, NamespaceMode::Container as i32);
    NamespaceOption { network, pid, ..Default::default() }
}

#[test]
fn devices_and_kernel_files_of_the_node_stay_closed() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let attempts = "for d in 'b 8 0' 'b 254 0' 'b 253 0' 'c 1 1' 'c 1 11' 'c 10 200'; do mknod /tmp/d $d && head -c 1 /tmp/d 2>/dev/null && echo read $d; busybox rm -f /tmp/d; done; \
                        for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /sys/kernel/uevent_helper /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/devices/devices.allow; do \
                        test -e $f && (echo x > $f) 2>/dev/null && echo wrote $f; done; echo done";
        let mut config = world.script("main", attempts);
        context(&mut config).readonly_paths.push("/proc/sysrq-trigger".into());
        let seen = text(&world, &sandbox, config).await;
        assert_eq!(seen, "done\n");
        world
    });
}
