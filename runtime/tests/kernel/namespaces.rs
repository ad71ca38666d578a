//! Whose world a container is in: its own, the pod's, another container's, the node's; and users who are others
//! outside.

use std::os::unix::fs::{MetadataExt, chown};

use cri::v1::*;

use crate::world::{World, in_world};

/// Ids that no user of a machine has.
const FIRST: u32 = 1 << 20;
const RANGE: u32 = 1 << 16;

fn mapping() -> Vec<IdMapping> {
    vec![IdMapping { host_id: FIRST, container_id: 0, length: RANGE }]
}

fn options(pid: NamespaceMode) -> NamespaceOption {
    let users = UserNamespace { mode: NamespaceMode::Pod as i32, uids: mapping(), gids: mapping() };
    NamespaceOption { pid: pid as i32, userns_options: Some(users), ..Default::default() }
}

fn with_options(config: &mut PodSandboxConfig, options: NamespaceOption) {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().namespace_options = Some(options);
}

/// A pod whose users are others on the node.
async fn pod_with_users(world: &World) -> String {
    world.sandbox_with(|config| with_options(config, options(NamespaceMode::Container))).await
}

fn script(world: &World, name: &str, script: &str) -> ContainerConfig {
    let mut config = world.script(name, script);
    context(&mut config).namespace_options = Some(options(NamespaceMode::Container));
    config
}

fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

async fn text(world: &World, sandbox: &str, config: ContainerConfig) -> String {
    let (code, log) = world.outcome(sandbox, config).await;
    assert_eq!(code, 0, "{log}");
    log.replace("stdout F ", "").replace("stderr F ", "")
}

#[test]
fn root_of_a_pod_with_users_is_nobody_on_the_node() {
    in_world(|world| async move {
        let sandbox = pod_with_users(&world).await;
        let look = "id -u; id -g; echo $$; cat /proc/self/uid_map | tr -s ' '; touch /made; stat -c %u:%g /made /bin/busybox /dev /dev/shm; \
                    echo x > /dev/null && head -c 2 /dev/zero | wc -c; touch /dev/shm/x && cat /proc/self/cgroup | head -n 1";
        let seen = text(&world, &sandbox, script(&world, "main", look)).await;
        let expected = format!("0\n0\n1\n 0 {FIRST} {RANGE}\n0:0\n0:0\n0:0\n0:0\n2\n");
        assert!(seen.starts_with(&expected), "{seen}");
        assert!(seen.trim_end().ends_with(":/"), "its control group is the root of all: {seen}");

        let long = world.run(&sandbox, script(&world, "long", "echo hello > /made; sleep 100")).await;
        let pid = pid_of(&world, &long);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
        assert_eq!(uid.split_whitespace().nth(1), Some(FIRST.to_string().as_str()));
        let output =
            world.exec(&long, &["sh", "-c", "id -u; cat /made; readlink /proc/self/ns/user"], 10).await;
        let output = String::from_utf8(output.unwrap().stdout.to_vec()).unwrap();
        assert!(output.starts_with("0\nhello\n"), "{output}");
        let node = std::fs::read_link("/proc/self/ns/user").unwrap();
        assert!(!output.contains(node.to_str().unwrap()), "an exec is in the pod's namespace too");
        world
    });
}

/// The number of a container's first process, by the record of its start.
fn pid_of(world: &World, container: &str) -> i32 {
    let pods = std::fs::read_dir(world.config.state.join("pods")).unwrap().flatten();
    let records = pods.map(|pod| pod.path().join("containers").join(container).join("started.json"));
    let record = records.into_iter().find_map(|path| std::fs::read(path).ok()).expect("it is recorded");
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["pid"].as_i64().unwrap() as i32
}

#[test]
fn volumes_keep_their_owners_in_a_pod_with_users() {
    in_world(|world| async move {
        let sandbox = pod_with_users(&world).await;
        let data = world.directory.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("theirs"), "x").unwrap();
        chown(data.join("theirs"), Some(1000), Some(1001)).unwrap();
        let mut config = script(&world, "main", "stat -c %u:%g /data/theirs; echo y > /data/mine; id -u");
        config.mounts = vec![Mount {
            container_path: "/data".into(),
            host_path: data.display().to_string(),
            uid_mappings: mapping(),
            gid_mappings: mapping(),
            ..Default::default()
        }];
        assert_eq!(text(&world, &sandbox, config.clone()).await, "1000:1001\n0\n");
        let mine = std::fs::metadata(data.join("mine")).unwrap();
        assert_eq!((mine.uid(), mine.gid()), (0, 0), "the volume does not know of the pod's ids");

        // Without the mapping its files are nobody's, and nobody may write.
        config.mounts[0].uid_mappings.clear();
        config.command[2] = "stat -c %u /data/theirs; touch /data/other || echo refused".into();
        config.log_path = "other.log".into();
        let (_, seen) = world.outcome(&sandbox, config).await;
        assert!(seen.contains("65534") && seen.contains("refused"), "{seen}");
        world
    });
}

#[test]
fn a_pod_with_users_may_do_as_it_likes_in_its_own_world() {
    in_world(|world| async move {
        let sandbox = world
            .sandbox_with(|config| {
                with_options(config, options(NamespaceMode::Pod));
                config.linux.get_or_insert_default().sysctls = [
                    ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
                    ("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned()),
                ]
                .into();
            })
            .await;
        let mut config = script(
            &world,
            "main",
            "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start; \
             mount -t tmpfs none /tmp && touch /tmp/x && echo mounted; \
             mknod /tmp/mem c 1 1 2>/dev/null || echo no device; \
             mount -o remount,rw /proc/sys 2>/dev/null; (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo no panic; \
             (echo b > /proc/sysrq-trigger) 2>/dev/null || echo no sysrq; tr '\\0' ' ' < /proc/1/cmdline",
        );
        context(&mut config).namespace_options = Some(options(NamespaceMode::Pod));
        context(&mut config).seccomp = None;
        let all = Capability { add_capabilities: vec!["ALL".into()], ..Default::default() };
        context(&mut config).capabilities = Some(all);
        let seen = text(&world, &sandbox, config).await;
        let expected = "1\n80\nmounted\nno device\nno panic\nno sysrq\nstdout P pause \n";
        assert_eq!(seen, expected);
        world
    });
}

#[test]
fn a_terminal_works_for_users_of_a_pod() {
    in_world(|world| async move {
        let sandbox = pod_with_users(&world).await;
        let mut config =
            script(&world, "main", "tty; test -c /dev/console && echo console; stat -c %u /dev/pts/0");
        config.tty = true;
        context(&mut config).run_as_user = Some(Int64Value { value: 33 });
        let seen = text(&world, &sandbox, config).await.replace('\r', "");
        assert_eq!(seen, "/dev/pts/0\nconsole\n33\n");
        world
    });
}

#[test]
fn a_failure_in_a_pod_with_users_is_told() {
    in_world(|world| async move {
        let sandbox = pod_with_users(&world).await;
        let mut config = script(&world, "main", "");
        config.command = vec!["/no/such".into()];
        let container = world.create(&sandbox, config).await.unwrap();
        let error = world.start(&container).await.unwrap_err();
        assert!(error.message.ends_with("stat /no/such: no such file or directory"), "{error}");
        assert_eq!(world.status(&container).await.exit_code, 128);
        // Many short lives: the process that counts is not the one that was forked, and no end is lost.
        for round in 0..10 {
            let name = format!("short{round}");
            let (code, _) = world.outcome(&sandbox, script(&world, &name, &format!("exit {round}"))).await;
            assert_eq!(code, round);
        }
        world
    });
}

#[test]
fn users_of_a_pod_do_not_go_with_the_nodes_namespaces() {
    in_world(|world| async move {
        use cri::RuntimeService;
        let refused = |change: fn(&mut NamespaceOption)| {
            let mut options = options(NamespaceMode::Container);
            change(&mut options);
            let metadata = Some(PodSandboxMetadata { name: "x".into(), ..Default::default() });
            let mut config = PodSandboxConfig { metadata, ..Default::default() };
            with_options(&mut config, options);
            RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }
        };
        let network = refused(|options| options.network = NamespaceMode::Node as i32);
        let error = world.runtime.run_pod_sandbox(network).await.unwrap_err();
        assert!(error.message.contains("cannot have the node's network namespace"), "{error}");
        let root = refused(|options| options.userns_options.as_mut().unwrap().uids[0].host_id = 0);
        let error = world.runtime.run_pod_sandbox(root).await.unwrap_err();
        assert!(error.message.contains("leads to the node's root"), "{error}");
        world
    });
}

#[test]
fn namespaces_of_the_node_are_the_nodes() {
    in_world(|world| async move {
        let node = NamespaceMode::Node as i32;
        let shared = || NamespaceOption { network: node, pid: node, ipc: node, ..Default::default() };
        let sandbox = world.sandbox_with(|config| with_options(config, shared())).await;
        let look = "for n in net ipc uts pid mnt cgroup; do readlink /proc/self/ns/$n; done";
        let mut config = world.script("main", look);
        context(&mut config).namespace_options = Some(shared());
        let seen = text(&world, &sandbox, config).await;
        let seen: Vec<&str> = seen.lines().collect();
        let own = |name: &str| {
            // The task's: the test's other threads are in other namespaces.
            let link = std::fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap();
            link.to_str().unwrap().to_owned()
        };
        for (number, name) in ["net", "ipc", "uts", "pid"].into_iter().enumerate() {
            assert_eq!(seen[number], own(name), "{name}");
        }
        for (number, name) in [(4, "mnt"), (5, "cgroup")] {
            assert_ne!(seen[number], own(name), "{name} is never the node's");
        }
        world
    });
}

#[test]
fn a_container_can_look_into_another_one() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let target = world.run(&sandbox, world.script("target", "sleep 4321")).await;
        let mut config =
            world.script("debugger", "tr '\\0' ' ' < /proc/1/cmdline; echo; ls /proc/1/root/bin/busybox");
        context(&mut config).namespace_options = Some(NamespaceOption {
            pid: NamespaceMode::Target as i32,
            target_id: target,
            ..Default::default()
        });
        let seen = text(&world, &sandbox, config).await;
        assert_eq!(seen, "sleep 4321 \n/proc/1/root/bin/busybox\n");
        world
    });
}

#[test]
fn the_holder_of_a_pods_processes_shows_nothing_of_the_node() {
    in_world(|world| async move {
        let shared = NamespaceOption { pid: NamespaceMode::Pod as i32, ..Default::default() };
        let sandbox = world.sandbox_with(|config| with_options(config, shared.clone())).await;
        let look = "tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/1/comm; ls -A /proc/1/root/ | wc -l; ls -A /proc/1/cwd/ | wc -l; \
                    cat /proc/1/cgroup | head -n 1; cat /proc/*/cmdline | tr '\\0' '\\n'; cat /proc/1/mountinfo";
        let mut config = world.script("main", look);
        context(&mut config).namespace_options = Some(shared);
        let tracer = Capability { add_capabilities: vec!["SYS_PTRACE".into()], ..Default::default() };
        context(&mut config).capabilities = Some(tracer);
        let seen = text(&world, &sandbox, config).await;
        assert!(seen.starts_with("pause \npause\n0\n0\n"), "{seen}");
        let path = world.directory.path().to_str().unwrap();
        assert!(!seen.contains(path), "a path of the node is told: {seen}");
        world
    });
}
