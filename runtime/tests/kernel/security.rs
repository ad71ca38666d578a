//! What a container may do, and what it is told when it may not.

use std::path::Path;

use cri::v1::*;

use crate::world::{World, in_world};

fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| name.to_string()).collect()
}

async fn text(world: &World, sandbox: &str, config: ContainerConfig) -> String {
    let (_, log) = world.outcome(sandbox, config).await;
    log.replace("stdout F ", "").replace("stderr F ", "")
}

/// What the kernel's word for the container is, whether it refuses to make or to start it.
async fn refusal(world: &World, sandbox: &str, config: ContainerConfig) -> String {
    match world.create(sandbox, config).await {
        Err(error) => error.message,
        Ok(container) => world.start(&container).await.unwrap_err().message,
    }
}

const SHOW: &str = "grep -E '^Cap' /proc/self/status | tr '\\t\\n' '  '";

#[test]
fn no_capability_is_inherited_but_the_ambient_ones() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        // CVE-2022-24769 and CVE-2022-29162: inheritable ones turn into more with a file's capabilities.
        let seen = text(&world, &sandbox, world.script("root", SHOW)).await;
        let zero = "0000000000000000";
        assert!(
            seen.contains(&format!("CapInh: {zero}")) && seen.contains(&format!("CapAmb: {zero}")),
            "{seen}"
        );
        let container = world.run(&sandbox, world.script("exec", "sleep 100")).await;
        let output = world.exec(&container, &["sh", "-c", SHOW], 10).await.unwrap();
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.contains(&format!("CapInh: {zero}")), "{output}");

        let mut config = world.script("user", SHOW);
        context(&mut config).run_as_user = Some(Int64Value { value: 1000 });
        context(&mut config).capabilities = Some(Capability {
            add_ambient_capabilities: names(&["NET_BIND_SERVICE"]),
            drop_capabilities: names(&["ALL"]),
            ..Default::default()
        });
        let seen = text(&world, &sandbox, config).await;
        let bind = "0000000000000400";
        for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
            assert!(seen.contains(&format!("Cap{set}: {bind}")), "{set}: {seen}");
        }
        world
    });
}

#[test]
fn a_profile_of_the_node_decides_about_system_calls() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let profile = world.directory.path().join("profile.json");
        let localhost = |path: &Path| {
            Some(SecurityProfile {
                profile_type: security_profile::ProfileType::Localhost as i32,
                localhost_ref: path.display().to_string(),
            })
        };
        let with = |name: &str, path: &Path| {
            let mut config = world.script(name, "mkdir /made; echo code $?; grep Seccomp: /proc/self/status");
            context(&mut config).seccomp = localhost(path);
            config
        };
        let rules = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }] }"#;
        std::fs::write(&profile, rules).unwrap();
        let seen = text(&world, &sandbox, with("refuses", &profile)).await;
        assert!(seen.contains("No space left on device") && seen.contains("Seccomp:\t2"), "{seen}");

        let refused = refusal(&world, &sandbox, with("missing", Path::new("/no/such/profile"))).await;
        assert!(refused.contains("failed to load seccomp profile \"/no/such/profile\""), "{refused}");
        std::fs::write(&profile, r#"{ "defaultAction": "SCMP_ACT_SING" }"#).unwrap();
        let refused = refusal(&world, &sandbox, with("nonsense", &profile)).await;
        assert!(refused.contains("SCMP_ACT_SING"), "{refused}");

        let mut config = world.script("free", "grep Seccomp: /proc/self/status");
        context(&mut config).seccomp = Some(SecurityProfile {
            profile_type: security_profile::ProfileType::Unconfined as i32,
            ..Default::default()
        });
        assert_eq!(text(&world, &sandbox, config).await, "Seccomp:\t0\n");
        world
    });
}

#[test]
fn a_security_module_that_is_not_there_is_missed_aloud() {
    in_world(|world| async move {
        if Path::new("/sys/module/apparmor").exists() {
            eprintln!("SKIPPED: this kernel has AppArmor");
            return world;
        }
        let sandbox = world.sandbox().await;
        let mut config = world.script("main", "true");
        let profile_type = security_profile::ProfileType::Localhost as i32;
        context(&mut config).apparmor =
            Some(SecurityProfile { profile_type, localhost_ref: "web-profile".into() });
        let refused = refusal(&world, &sandbox, config).await;
        assert!(refused.contains("apparmor is not supported"), "{refused}");
        // That there is none asks for nothing.
        let mut config = world.script("free", "echo free");
        let profile_type = security_profile::ProfileType::Unconfined as i32;
        context(&mut config).apparmor = Some(SecurityProfile { profile_type, ..Default::default() });
        assert_eq!(text(&world, &sandbox, config).await, "free\n");
        world
    });
}

#[test]
fn proc_is_masked_unless_the_pod_asks_for_all_of_it() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let look = "head -c 1 /proc/keys | wc -c; touch -c /proc/sys/kernel/panic; \
                    (echo 0 > /proc/sys/kernel/panic) 2>/dev/null && echo writable || echo protected";
        let seen = text(&world, &sandbox, world.script("masked", look)).await;
        assert!(seen.starts_with('0') && seen.ends_with("protected\n"), "{seen}");
        let look =
            "grep -c ' /proc' /proc/self/mountinfo; test -w /proc/sys/net/ipv4/ip_forward && echo writable";
        let mut config = world.script("unmasked", look);
        context(&mut config).masked_paths.clear();
        context(&mut config).readonly_paths.clear();
        assert_eq!(text(&world, &sandbox, config).await, "1\nwritable\n");
        world
    });
}

#[test]
fn the_privileged_see_the_machine() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let look = "ls /dev | wc -l; grep -c ' /sys/firmware ' /proc/self/mountinfo; grep ' /sys ' /proc/self/mountinfo | grep -c ' rw,'; \
                    cat /dev/mem 2>&1 >/dev/null | grep -c 'not permitted'; grep CapEff /proc/self/status";
        let mut config = world.script("main", look);
        context(&mut config).privileged = true;
        let seen = text(&world, &sandbox, config).await;
        let lines: Vec<&str> = seen.lines().collect();
        assert!(lines[0].parse::<usize>().unwrap() > 20, "all devices: {seen}");
        assert_eq!(lines[1..3], ["0", "1"], "nothing is masked, and /sys can be written: {seen}");
        assert!(!seen.contains("CapEff:\t00000000a80425fb"), "{seen}");
        world
    });
}

#[test]
fn devices_of_the_node_are_used_as_they_are_granted() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let look = "stat -c %t:%T /dev/mine; head -c 1 /dev/mine | wc -c; (echo x > /dev/mine) 2>/dev/null || echo read only";
        let mut config = world.script("main", look);
        // 1:11 is /dev/kmsg, which no container has by itself.
        config.devices = vec![Device {
            container_path: "/dev/mine".into(),
            host_path: "/dev/kmsg".into(),
            permissions: "r".into(),
        }];
        let seen = text(&world, &sandbox, config).await;
        assert!(seen.starts_with("1:b\n") && seen.ends_with("read only\n"), "{seen}");
        world
    });
}

#[test]
fn groups_of_the_image_count_unless_the_pod_is_strict() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        for (name, policy, expected) in [
            ("merge", SupplementalGroupsPolicy::Merge, "34 50 77\n"),
            ("strict", SupplementalGroupsPolicy::Strict, "34 77\n"),
        ] {
            let mut config = world.script(name, "id -G");
            context(&mut config).run_as_username = "web".into();
            context(&mut config).supplemental_groups = vec![77];
            context(&mut config).supplemental_groups_policy = policy as i32;
            let mut groups: Vec<String> =
                text(&world, &sandbox, config).await.split_whitespace().map(str::to_owned).collect();
            groups.sort();
            assert_eq!(groups.join(" ") + "\n", expected, "{name}");
        }
        world
    });
}

#[test]
fn kernel_parameters_are_the_pods_own_or_refused() {
    in_world(|world| async move {
        use cri::RuntimeService;
        let set = |config: &mut PodSandboxConfig, name: &str, value: &str| {
            let sysctls = &mut config.linux.get_or_insert_default().sysctls;
            sysctls.insert(name.to_owned(), value.to_owned());
        };
        let sandbox =
            world.sandbox_with(|config| set(config, "net.ipv4.ip_local_port_range", "5000 6000")).await;
        let look = world.script("main", "cat /proc/sys/net/ipv4/ip_local_port_range | tr '\\t' ' '");
        assert_eq!(text(&world, &sandbox, look).await, "5000 6000\n");
        let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        for name in ["kernel.core_pattern", "net/../kernel/core_pattern", "vm.swappiness"] {
            let metadata = Some(PodSandboxMetadata { name: "x".into(), ..Default::default() });
            let mut config = PodSandboxConfig { metadata, ..Default::default() };
            set(&mut config, name, "|/tmp/evil");
            let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
            let error = world.runtime.run_pod_sandbox(request).await.unwrap_err();
            assert!(error.message.contains(&format!("sysctl {name:?} is n")), "{error}");
        }
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
        world
    });
}

#[test]
fn bad_descriptions_are_answered_in_known_words() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let volume = world.directory.path().join("programs");
        std::fs::create_dir_all(&volume).unwrap();
        let program = |name: &str, content: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = volume.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("script", "#!/no/interpreter\n");
        program("other-machine", "no program at all");
        let case = |command: &str| {
            let mut config = world.script("main", "");
            config.command = vec![command.to_owned()];
            config.mounts = vec![Mount {
                container_path: "/programs".into(),
                host_path: volume.display().to_string(),
                ..Default::default()
            }];
            config
        };
        for (command, expected) in [
            ("x", r#"exec: "x": executable file not found in $PATH"#),
            ("/etc", r#"exec: "/etc": is a directory"#),
            ("/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
            ("/programs/script", "exec /programs/script: no such file or directory"),
            ("/programs/other-machine", "exec /programs/other-machine: exec format error"),
        ] {
            let refused = refusal(&world, &sandbox, case(command)).await;
            assert_eq!(refused, format!("unable to start container process: {expected}"));
        }
        let mut config = world.script("main", "");
        config.working_dir = "/etc/passwd".into();
        let refused = refusal(&world, &sandbox, config).await;
        assert_eq!(refused, "unable to start container process: mkdir /etc/passwd: not a directory");
        let mut config = world.script("main", "");
        context(&mut config).run_as_username = "ghost".into();
        let refused = refusal(&world, &sandbox, config).await;
        assert!(
            refused.ends_with("unable to find user ghost: no matching entries in passwd file"),
            "{refused}"
        );
        world
    });
}

#[test]
fn the_out_of_memory_score_and_the_limits_of_processes_are_as_asked_or_as_near_as_allowed() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let look = "cat /proc/self/oom_score_adj; grep 'open files' /proc/self/limits | tr -s ' '";
        for score in [-997, 0, 500, 1000] {
            let mut config = world.script(&format!("score{score}"), look);
            config.linux.as_mut().unwrap().resources.as_mut().unwrap().oom_score_adj = score;
            let seen = text(&world, &sandbox, config).await;
            let told: i64 = seen.lines().next().unwrap().parse().unwrap();
            // A shim that may not go lower stays where it is.
            assert!(told == score || (score < 0 && told >= score), "{score}: {seen}");
            assert!(seen.contains("Max open files"), "{seen}");
        }
        world
    });
}

#[test]
fn a_traced_start_tells_where_the_time_went() {
    in_world(|world| async move {
        use cri::RuntimeService;
        let annotation = (runtime::trace::ANNOTATION.to_owned(), "true".to_owned());
        let sandbox = world.sandbox_with(|config| config.annotations = [annotation].into()).await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        let request = ContainerStatusRequest { container_id: container.clone(), verbose: true };
        let info = world.runtime.container_status(request).await.unwrap().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        let steps: Vec<runtime::trace::Step> = serde_json::from_value(info["trace"].clone()).unwrap();
        let taken =
            |name: &str| steps.iter().find(|step| step.name == name).unwrap_or_else(|| panic!("{name}"));
        // From the first to the last, each of its own actor, by one clock.
        let order =
            ["PreparePod", "MakeNamespaces", "RecordPod", "PlanContainer", "Fork", "MountRoot", "EnterRoot"];
        for pair in order.windows(2) {
            assert!(taken(pair[0]).end <= taken(pair[1]).end, "{pair:?}");
        }
        assert!(taken("StartContainer").begin <= taken("MountRoot").begin);
        assert!(taken("StartContainer").end >= taken("EnterRoot").end);
        let quiet = world.sandbox().await;
        world.run(&quiet, world.script("quiet", "sleep 100")).await;
        assert!(!world.config.state.join("pods").join(&quiet).join("trace.json").exists());
        world
    });
}
