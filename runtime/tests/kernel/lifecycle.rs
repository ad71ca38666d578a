//! What a container is and sees, from its creation to its removal.

use cri::v1::*;
use cri::{Code, RuntimeService};

use crate::world::{IMAGE, in_world};

#[test]
fn a_container_runs_logs_and_tells_its_exit_code() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let script = world.script("main", "echo out; echo err >&2; printf end; exit 3");
        let (code, log) = world.outcome(&sandbox, script).await;
        assert_eq!(code, 3);
        let mut lines: Vec<&str> = log.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P end"]);
        let listed = world.runtime.list_containers(Default::default()).await.unwrap().containers;
        let status = world.status(&listed[0].id).await;
        assert_eq!((status.state(), status.reason.as_str()), (ContainerState::ContainerExited, "Error"));
        assert!(status.started_at > 0 && status.finished_at >= status.started_at);
        world
    });
}

#[test]
fn a_container_sees_its_own_world() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let script = "hostname; echo pid $$; cat /etc/resolv.conf; cat /etc/hostname; echo $COLOR $HOME $HOSTNAME; \
                      readlink /proc/self/cwd; ls /dev; ls /proc | grep -c '^[0-9]'; cat /proc/keys | wc -c; \
                      ls -A /sys/firmware; touch /proc/sys/kernel/x 2>/dev/null || echo protected; \
                      cat /sys/fs/cgroup/memory/memory.usage_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null | grep -q . && echo cgroup";
        let (code, log) = world.outcome(&sandbox, world.script("main", script)).await;
        let text = log.replace("stdout F ", "");
        assert_eq!(code, 0, "{text}");
        let expected = "web-0\npid 1\nnameserver 10.96.0.10\nweb-0\nblue /root web-0\n/home\n\
                        core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("0\nprotected\ncgroup\n"), "{text}");
        world
    });
}

#[test]
fn containers_of_a_pod_share_what_they_should() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        world.run(&sandbox, world.script("one", "echo shared > /dev/shm/file; sleep 100")).await;
        let wait = "while ! test -s /dev/shm/file; do sleep 0.01; done; cat /dev/shm/file; ps | wc -l; \
                    readlink /proc/self/ns/net; readlink /proc/self/ns/ipc";
        let (_, two) = world.outcome(&sandbox, world.script("two", wait)).await;
        let other = world.sandbox().await;
        let (_, alone) = world
            .outcome(
                &other,
                world.script("alone", "echo; echo; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc"),
            )
            .await;
        let lines: Vec<&str> = two.lines().collect();
        assert_eq!(lines[0], "stdout F shared");
        for (mine, other) in lines[2..].iter().zip(alone.lines().skip(2)) {
            assert_ne!(*mine, other, "another pod has its own namespaces");
        }
        world
    });
}

#[test]
fn a_pod_can_share_its_processes() {
    in_world(|world| async move {
        let pod = |pid| NamespaceOption { pid, ..Default::default() };
        let sandbox = world
            .sandbox_with(|config| {
                config.linux = Some(LinuxPodSandboxConfig {
                    security_context: Some(LinuxSandboxSecurityContext {
                        namespace_options: Some(pod(NamespaceMode::Pod as i32)),
                        ..Default::default()
                    }),
                    ..Default::default()
                });
            })
            .await;
        let mut first = world.script("first", "sleep 1234");
        let context = |config: &mut ContainerConfig, mode| {
            let linux = config.linux.as_mut().unwrap();
            linux.security_context.as_mut().unwrap().namespace_options = Some(pod(mode));
        };
        context(&mut first, NamespaceMode::Pod as i32);
        world.run(&sandbox, first).await;
        let mut second = world.script("second", "ps | grep -q '[s]leep 1234' && echo seen");
        context(&mut second, NamespaceMode::Pod as i32);
        assert_eq!(world.outcome(&sandbox, second).await, (0, "stdout F seen\n".into()));
        world
    });
}

#[test]
fn a_container_that_cannot_start_says_why() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        for (command, expected) in [
            ("no-such-program", r#"exec: "no-such-program": executable file not found in $PATH"#),
            ("/no/such", r#"exec: "/no/such": stat /no/such: no such file or directory"#),
            ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
        ] {
            let mut config = world.script("main", "");
            config.command = vec![command.into()];
            let container = world.create(&sandbox, config).await.unwrap();
            let error = world.start(&container).await.unwrap_err();
            assert_eq!(error.message, format!("unable to start container process: {expected}"));
            let status = world.status(&container).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
            assert_eq!(status.message, error.message);
        }
        let mut config = world.script("main", "");
        config.image = Some(ImageSpec { image: "nowhere".into(), ..Default::default() });
        assert_eq!(world.create(&sandbox, config).await.unwrap_err().code, Code::NotFound);
        world
    });
}

#[test]
fn exec_runs_beside_the_first_process() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        let output = world
            .exec(&container, &["sh", "-c", "echo $COLOR; echo no >&2; hostname; exit 7"], 10)
            .await
            .unwrap();
        assert_eq!(
            (output.exit_code, &output.stdout[..], &output.stderr[..]),
            (7, &b"blue\nweb-0\n"[..], &b"no\n"[..])
        );
        let missing = world.exec(&container, &["nothing-here"], 10).await.unwrap_err();
        assert!(
            missing.message.ends_with(r#"exec: "nothing-here": executable file not found in $PATH"#),
            "{missing}"
        );
        let slow = world.exec(&container, &["sleep", "77"], 1).await.unwrap_err();
        assert_eq!(slow.code, Code::DeadlineExceeded);
        // What ran too long is gone.
        let left = "for i in $(seq 100); do ps | grep -q '[s]leep 77' || exit 0; sleep 0.05; done; exit 1";
        assert_eq!(world.exec(&container, &["sh", "-c", left], 20).await.unwrap().exit_code, 0);
        world.stop(&container, 0).await;
        let gone = world.exec(&container, &["true"], 1).await.unwrap_err();
        assert!(gone.message.contains("CONTAINER_EXITED"), "{gone}");
        world
    });
}

#[test]
fn stopping_asks_first_and_kills_then() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let script = "trap 'echo asked; exit 5' TERM; echo ready; while true; do sleep 0.05; done";
        let polite = world.run(&sandbox, world.script("polite", script)).await;
        while !world.log("polite.log").contains("ready") {
            tokio::task::yield_now().await;
        }
        world.stop(&polite, 20).await;
        assert_eq!(world.status(&polite).await.exit_code, 5);
        assert!(world.log("polite.log").contains("asked"));
        // The first process of a pid namespace ignores what it has no handler for.
        let deaf =
            world.run(&sandbox, world.script("deaf", "trap '' TERM; while true; do sleep 1; done")).await;
        world.stop(&deaf, 1).await;
        let status = world.status(&deaf).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
        world
    });
}

#[test]
fn users_groups_and_capabilities_are_as_asked() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let show = "id -u; id -g; id -G; grep -E '^Cap(Prm|Eff|Bnd)|^NoNewPrivs|^Seccomp:' /proc/self/status";
        let mut config = world.script("web", show);
        {
            let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            context.run_as_username = "web".into();
            context.supplemental_groups = vec![77];
            context.no_new_privs = true;
            context.capabilities =
                Some(Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
        }
        let (code, log) = world.outcome(&sandbox, config).await;
        assert_eq!(code, 0, "{log}");
        let zero = "0000000000000000";
        assert_eq!(
            log.replace("stdout F ", ""),
            format!(
                "33\n34\n34 50 77\nCapPrm:\t{zero}\nCapEff:\t{zero}\nCapBnd:\t{zero}\nNoNewPrivs:\t1\nSeccomp:\t2\n"
            )
        );
        let (_, log) = world.outcome(&sandbox, world.script("root", show)).await;
        assert!(log.contains("CapEff:\t00000000a80425fb"), "{log}");
        assert!(log.contains("Seccomp:\t2"), "{log}");
        let (code, log) = world.outcome(&sandbox, world.script("mount", "mount -t tmpfs none /tmp")).await;
        assert!(code != 0, "{log}");
        world
    });
}

#[test]
fn volumes_appear_where_and_how_they_are_asked_for() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let data = world.directory.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("file"), "hello\n").unwrap();
        let mount = |path: &str, source: &std::path::Path, readonly| Mount {
            container_path: path.into(),
            host_path: source.display().to_string(),
            readonly,
            ..Default::default()
        };
        let script = "cat /deep/er/one; echo new > /rw/made; touch /deep/er/one 2>/dev/null || echo read-only; \
                      touch /here 2>/dev/null || echo root read-only; touch /rw/still && echo writable";
        let mut config = world.script("main", script);
        config.mounts = vec![mount("/deep/er/one", &data.join("file"), true), mount("/rw", &data, false)];
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().readonly_rootfs = true;
        let (code, log) = world.outcome(&sandbox, config).await;
        assert_eq!(log.replace("stdout F ", ""), "hello\nread-only\nroot read-only\nwritable\n");
        assert_eq!(code, 0);
        assert_eq!(std::fs::read_to_string(data.join("made")).unwrap(), "new\n");
        let mut config = world.script("proc", "true");
        config.mounts = vec![mount("/proc/self", &data, false)];
        let container = world.create(&sandbox, config).await.unwrap();
        let error = world.start(&container).await.unwrap_err();
        assert!(error.message.contains("it is inside /proc"), "{error}");
        world
    });
}

#[test]
fn a_terminal_is_a_terminal() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let mut config = world.script("main", "tty; test -c /dev/console && echo console; echo $TERM");
        config.tty = true;
        let (code, log) = world.outcome(&sandbox, config).await;
        assert_eq!(code, 0, "{log}");
        let text = log.replace("stdout F ", "").replace('\r', "");
        assert_eq!(text, "/dev/pts/0\nconsole\nxterm\n");
        world
    });
}

#[test]
fn the_shims_binary_cannot_be_reached() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        // All that a container can see through its processes is its own programs.
        let look = "for p in /proc/[0-9]*; do readlink $p/exe; done; echo x > /proc/1/exe || true";
        let output = world.exec(&container, &["sh", "-c", look], 10).await.unwrap();
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(seen.lines().all(|path| path == "/bin/busybox"), "{seen}");
        world
    });
}

#[test]
fn images_are_told_as_the_kubelet_expects() {
    in_world(|world| async move {
        use cri::ImageService;
        let image = |name: &str| Some(ImageSpec { image: name.into(), ..Default::default() });
        let found = world
            .runtime
            .image_status(ImageStatusRequest { image: image("coracle/test:1"), verbose: false })
            .await;
        let found = found.unwrap().image.unwrap();
        assert_eq!(found.repo_tags, [IMAGE]);
        let pulled = world
            .runtime
            .pull_image(PullImageRequest { image: image(IMAGE), ..Default::default() })
            .await
            .unwrap();
        assert_eq!(pulled.image_ref, found.id);
        let error =
            world.runtime.pull_image(PullImageRequest { image: image("nginx"), ..Default::default() }).await;
        let error = error.unwrap_err();
        assert!(
            error.message.starts_with("failed to pull and unpack image \"docker.io/library/nginx:latest\""),
            "{error}"
        );
        world.runtime.remove_image(RemoveImageRequest { image: image(IMAGE) }).await.unwrap();
        assert!(world.runtime.list_images(Default::default()).await.unwrap().images.is_empty());
        assert_eq!(std::fs::read_dir(world.config.root.join("layers")).unwrap().count(), 0);
        world
    });
}

#[test]
fn a_stop_that_comes_before_the_handler_is_heard() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        // A shell that takes its time before it can be asked anything, and says when it was.
        let script =
            "read go </tmp/go; trap 'echo heard; exit 7' TERM; echo ready; while true; do sleep 0.01; done";
        let mut config = world.script("late", &format!("mknod /tmp/go p; echo begun; {script}"));
        config.command[0] = "/bin/sh".into();
        let container = world.run(&sandbox, config).await;
        while !world.log("late.log").contains("begun") {
            tokio::task::yield_now().await;
        }
        let let_go = async {
            let told = world.exec(&container, &["sh", "-c", "echo > /tmp/go"], 20).await.unwrap();
            assert_eq!(told.exit_code, 0);
        };
        // The stop asks at its first turn, when there is no handler yet.
        tokio::join!(world.stop(&container, 20), let_go);
        assert_eq!(world.status(&container).await.exit_code, 7);
        assert_eq!(world.log("late.log"), "stdout F begun\nstdout F ready\nstdout F heard\n");
        world
    });
}
