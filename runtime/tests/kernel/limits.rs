//! What a container may not use.

use cri::RuntimeService;
use cri::v1::*;

use runtime::cgroup::{Cgroup, DeviceRule, Layout};

use crate::world::in_world;

#[test]
fn memory_has_an_end() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        // A single write of 64 MiB takes as much memory.
        let mut config = world.script("hungry", "exec dd if=/dev/zero of=/dev/null bs=64M count=2");
        config.linux.as_mut().unwrap().resources =
            Some(LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..Default::default() });
        let events = world.events().await;
        let container = world.run(&sandbox, config).await;
        let status = world.end_of(&container, events).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
        world
    });
}

#[test]
fn limits_are_in_the_control_groups_and_can_be_changed() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let mut config = world.script("main", "sleep 100");
        let resources = |quota| LinuxContainerResources {
            cpu_quota: quota,
            cpu_period: 100_000,
            cpu_shares: 512,
            memory_limit_in_bytes: 32 << 20,
            unified: [("pids.max".to_owned(), "50".to_owned())].into(),
            ..Default::default()
        };
        config.linux.as_mut().unwrap().resources = Some(resources(20_000));
        let container = world.run(&sandbox, config).await;
        let read = |file: &str| {
            let groups = world.groups();
            let paths = groups.iter().map(|group| group.join(&sandbox).join(&container).join(file));
            let found = paths.into_iter().find_map(|path| std::fs::read_to_string(path).ok());
            found.map(|value| value.trim().to_owned())
        };
        if read("cpu.cfs_quota_us").is_some() {
            assert_eq!(read("cpu.cfs_quota_us").unwrap(), "20000");
            assert_eq!(read("memory.limit_in_bytes").unwrap(), (32 << 20).to_string());
            assert_eq!(read("pids.max").unwrap(), "50");
        }
        let request = UpdateContainerResourcesRequest {
            container_id: container.clone(),
            linux: Some(resources(70_000)),
            ..Default::default()
        };
        world.runtime.update_container_resources(request).await.unwrap();
        if read("cpu.cfs_quota_us").is_some() {
            assert_eq!(read("cpu.cfs_quota_us").unwrap(), "70000");
        }
        let status = world.status(&container).await;
        assert_eq!(status.resources.unwrap().linux.unwrap().cpu_quota, 70_000);
        let stats = ContainerStatsRequest { container_id: container.clone() };
        let stats = world.runtime.container_stats(stats).await.unwrap().stats.unwrap();
        assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
        assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
        world
    });
}

#[test]
fn other_devices_cannot_be_opened() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        // 1:1 is /dev/mem: making the node is allowed, using it is not.
        let script = "mknod /tmp/mem c 1 1 && cat /tmp/mem; echo code $?; head -c 4 /dev/urandom | wc -c";
        let (_, log) = world.outcome(&sandbox, world.script("main", script)).await;
        assert!(log.contains("Operation not permitted"), "{log}");
        assert!(log.contains("stdout F 4"), "{log}");
        world
    });
}

#[test]
fn version_2_guards_devices_too() {
    in_world(|world| async move {
        let layout = Layout::detect().unwrap();
        let Some(unified) = layout.unified.clone() else {
            eprintln!("SKIPPED: no version 2 hierarchy is mounted");
            return world;
        };
        // As on a machine that has nothing else.
        let layout = Layout { unified: Some(unified), ..Layout::default() };
        let group = Cgroup::new(&layout, &world.config.cgroup_parent).child("devices");
        group.create().unwrap();
        group.allow_devices(&[DeviceRule::character(1, Some(3), "rw")]).unwrap();
        let procs = group.unified().unwrap().join("cgroup.procs");
        let script =
            format!("echo $$ > {}; echo ok > /dev/null && echo null; head -c 1 /dev/zero", procs.display());
        let output = std::process::Command::new("busybox").args(["sh", "-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "null\n");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Operation not permitted"));
        assert!(group.remove().unwrap());
        world
    });
}

/// The first of these files that the container's groups have, whichever version of control groups it is of.
fn limit_of(world: &crate::world::World, sandbox: &str, container: &str, files: &[&str]) -> Option<String> {
    let groups = world.groups();
    let paths = groups.iter().map(|group| group.join(sandbox).join(container));
    let mut found = paths.flat_map(|path| files.iter().map(move |file| path.join(file)));
    let value = found.find_map(|path| std::fs::read_to_string(path).ok())?;
    Some(value.trim().to_owned())
}

#[test]
fn every_limit_can_be_set_and_changed() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let hugepages = |limit| vec![HugepageLimit { page_size: "2MB".into(), limit }];
        let mut config = world.script("main", "sleep 100");
        config.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
            memory_limit_in_bytes: 32 << 20,
            memory_swap_limit_in_bytes: 48 << 20,
            cpuset_cpus: "0".into(),
            cpuset_mems: "0".into(),
            hugepage_limits: hugepages(4 << 20),
            ..Default::default()
        });
        let container = world.run(&sandbox, config).await;
        let limit = |files: &[&str]| limit_of(&world, &sandbox, &container, files);
        assert_eq!(limit(&["cpuset.cpus"]).as_deref(), Some("0"));
        assert_eq!(limit(&["memory.limit_in_bytes", "memory.max"]).unwrap(), (32 << 20).to_string());
        let swap = [limit(&["memory.memsw.limit_in_bytes"]), limit(&["memory.swap.max"])];
        let expected = [Some((48 << 20).to_string()), Some((16 << 20).to_string())];
        assert!(
            swap.iter().zip(expected).all(|(value, expected)| value.is_none() || *value == expected),
            "{swap:?}"
        );
        let huge = limit(&["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"]);
        assert!(huge.is_none_or(|value| value == (4 << 20).to_string()));

        // Growing both at once needs the order that version 1 insists on, shrinking them the other one.
        for (memory, both, cpus) in [(64 << 20, 96 << 20, "0-1"), (40 << 20, 41 << 20, "1")] {
            let change = LinuxContainerResources {
                memory_limit_in_bytes: memory,
                memory_swap_limit_in_bytes: both,
                cpuset_cpus: cpus.into(),
                hugepage_limits: hugepages(2 << 20),
                ..Default::default()
            };
            let request = UpdateContainerResourcesRequest {
                container_id: container.clone(),
                linux: Some(change),
                ..Default::default()
            };
            world.runtime.update_container_resources(request).await.unwrap();
            assert_eq!(limit(&["memory.limit_in_bytes", "memory.max"]).unwrap(), memory.to_string());
            assert_eq!(limit(&["cpuset.cpus"]).as_deref(), Some(cpus));
        }
        let request = |linux| UpdateContainerResourcesRequest {
            container_id: container.clone(),
            linux: Some(linux),
            ..Default::default()
        };
        let wrong = LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            memory_swap_limit_in_bytes: 1 << 20,
            ..Default::default()
        };
        let refused = world.runtime.update_container_resources(request(wrong)).await.unwrap_err();
        assert!(refused.message.contains("memory+swap limit should be >= memory limit"), "{refused}");
        let wrong = LinuxContainerResources {
            unified: [("../memory.max".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        let refused = world.runtime.update_container_resources(request(wrong)).await.unwrap_err();
        assert!(refused.message.contains("must be a file name (no slashes)"), "{refused}");
        world
    });
}
