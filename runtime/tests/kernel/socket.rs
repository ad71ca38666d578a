//! Every call through the socket, as crictl and other kubelets make them.

use std::collections::HashMap;
use std::time::Duration;

use cri::v1::*;
use cri::{Code, ImageService, Remote, RuntimeService, Socket};
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::world::{IMAGE, World, in_world};

/// A client of the world's runtime, and the task that serves it.
async fn remote(world: &World) -> (Remote, JoinHandle<()>) {
    let path = world.directory.path().join("cri.sock");
    let socket = Socket::bind(&path).unwrap();
    let runtime = world.runtime.clone();
    let serving = tokio::spawn(async move {
        cri::serve(socket, runtime.clone(), runtime, std::future::pending()).await.unwrap();
    });
    (Remote::connect(&format!("unix://{}", path.display())).await.unwrap(), serving)
}

async fn hang_up(serving: JoinHandle<()>) {
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
}

fn json(info: &HashMap<String, String>, name: &str) -> Value {
    serde_json::from_str(&info[name]).unwrap()
}

fn sandbox_config(world: &World, name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        log_directory: world.directory.path().join("logs").display().to_string(),
        labels: HashMap::from([("app".into(), name.into())]),
        ..Default::default()
    }
}

async fn run_sandbox(remote: &Remote, config: PodSandboxConfig) -> String {
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    remote.run_pod_sandbox(request).await.unwrap().pod_sandbox_id
}

async fn run_container(remote: &Remote, sandbox: &str, config: ContainerConfig) -> String {
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.to_owned(),
        config: Some(config),
        sandbox_config: None,
    };
    let id = remote.create_container(request).await.unwrap().container_id;
    remote.start_container(StartContainerRequest { container_id: id.clone() }).await.unwrap();
    id
}

#[test]
fn the_runtime_tells_of_itself() {
    in_world(|world| async move {
        let (remote, serving) = remote(&world).await;
        let version = remote.version(VersionRequest::default()).await.unwrap();
        assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("coracle", "v1"));
        let config = remote.runtime_config(RuntimeConfigRequest {}).await.unwrap();
        assert_eq!(config.linux.unwrap().cgroup_driver(), CgroupDriver::Cgroupfs);

        let told = remote.status(StatusRequest { verbose: false }).await.unwrap();
        assert_eq!(told.info, HashMap::new());
        let conditions = told.status.unwrap().conditions;
        let states: Vec<_> = conditions.iter().map(|it| (it.r#type.as_str(), it.status)).collect();
        // This world has no pod network.
        assert_eq!(states, [("RuntimeReady", true), ("NetworkReady", false)]);
        assert_eq!(conditions[1].reason, "NetworkPluginNotReady");
        let told = remote.status(StatusRequest { verbose: true }).await.unwrap();
        assert_eq!(json(&told.info, "config")["stateDir"], world.config.state.to_str().unwrap());

        remote.update_runtime_config(UpdateRuntimeConfigRequest::default()).await.unwrap();
        let refused = remote.checkpoint_container(CheckpointContainerRequest::default()).await.unwrap_err();
        assert_eq!(refused.code, Code::Unimplemented);
        hang_up(serving).await;
        world
    });
}

#[test]
fn images_are_found_by_every_name_and_removed() {
    in_world(|world| async move {
        let (remote, serving) = remote(&world).await;
        let spec = |name: &str| Some(ImageSpec { image: name.into(), ..Default::default() });
        let list = |name: &'static str| {
            let filter = Some(ImageFilter { image: spec(name) }).filter(|_| !name.is_empty());
            remote.list_images(ListImagesRequest { filter })
        };
        let images = list("").await.unwrap().images;
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].repo_tags, [IMAGE]);
        assert_eq!(list(IMAGE).await.unwrap().images, images);
        assert_eq!(list("nobody/knows").await.unwrap().images, []);

        let pulled =
            remote.pull_image(PullImageRequest { image: spec(IMAGE), ..Default::default() }).await.unwrap();
        for name in [IMAGE, &images[0].id, &pulled.image_ref] {
            let status =
                remote.image_status(ImageStatusRequest { image: spec(name), verbose: true }).await.unwrap();
            assert_eq!(status.image.as_ref(), Some(&images[0]), "{name}");
            assert_eq!(json(&status.info, "info")["imageSpec"]["config"]["WorkingDir"], "/home");
        }
        let used = remote.image_fs_info(ImageFsInfoRequest {}).await.unwrap().image_filesystems;
        assert!(used[0].used_bytes.unwrap().value > 100_000, "{used:?}");

        let remove = || remote.remove_image(RemoveImageRequest { image: spec(IMAGE) });
        remove().await.unwrap();
        let status = ImageStatusRequest { image: spec(IMAGE), verbose: true };
        assert_eq!(remote.image_status(status).await.unwrap(), ImageStatusResponse::default());
        remove().await.unwrap();
        hang_up(serving).await;
        world
    });
}

#[test]
fn a_pod_lives_through_all_its_calls() {
    in_world(|world| async move {
        let (remote, serving) = remote(&world).await;
        let mut events = remote.get_container_events(GetEventsRequest {}).await.unwrap();
        let pod = run_sandbox(&remote, sandbox_config(&world, "web")).await;
        let other = run_sandbox(&remote, sandbox_config(&world, "other")).await;
        let script = "echo begun; while true; do sleep 0.05; done";
        let main = run_container(&remote, &pod, world.script("main", script)).await;

        // Listing, by everything that can be asked for.
        let pods = |filter: PodSandboxFilter| {
            let request = ListPodSandboxRequest { filter: Some(filter) };
            let remote = remote.clone();
            async move {
                remote
                    .list_pod_sandbox(request)
                    .await
                    .unwrap()
                    .items
                    .into_iter()
                    .map(|pod| pod.id)
                    .collect::<Vec<_>>()
            }
        };
        let labelled = HashMap::from([("app".to_owned(), "web".to_owned())]);
        assert_eq!(pods(PodSandboxFilter::default()).await.len(), 2);
        assert_eq!(
            pods(PodSandboxFilter { label_selector: labelled, ..Default::default() }).await,
            std::slice::from_ref(&pod)
        );
        assert_eq!(
            pods(PodSandboxFilter { id: other[..13].into(), ..Default::default() }).await,
            std::slice::from_ref(&other)
        );
        let state = |state: PodSandboxState| Some(PodSandboxStateValue { state: state as i32 });
        let not_ready =
            PodSandboxFilter { state: state(PodSandboxState::SandboxNotready), ..Default::default() };
        assert_eq!(pods(not_ready).await, Vec::<String>::new());
        let filter = ContainerFilter { pod_sandbox_id: pod.clone(), ..Default::default() };
        let listed =
            remote.list_containers(ListContainersRequest { filter: Some(filter) }).await.unwrap().containers;
        assert_eq!(
            (listed.len(), listed[0].id.as_str(), listed[0].state()),
            (1, main.as_str(), ContainerState::ContainerRunning)
        );

        // What is told to those who ask for more.
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
        let told = remote.pod_sandbox_status(request).await.unwrap();
        assert_eq!(told.status.unwrap().state(), PodSandboxState::SandboxReady);
        assert_eq!(told.containers_statuses.len(), 1);
        let info = json(&told.info, "info");
        assert_eq!(info["config"]["metadata"]["name"], "web");
        assert!(std::path::Path::new("/proc").join(info["pid"].to_string()).exists());
        let request = ContainerStatusRequest { container_id: main.clone(), verbose: true };
        let info = json(&remote.container_status(request).await.unwrap().info, "info");
        assert_eq!(info["sandboxID"], pod);
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", info["pid"])).unwrap();
        assert!(command.contains("echo begun"), "{command}");

        // Limits.
        let resources = LinuxContainerResources { cpu_shares: 512, ..Default::default() };
        let request = UpdateContainerResourcesRequest {
            container_id: main.clone(),
            linux: Some(resources.clone()),
            ..Default::default()
        };
        remote.update_container_resources(request).await.unwrap();
        let request = UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: pod.clone(),
            overhead: None,
            resources: Some(resources),
        };
        remote.update_pod_sandbox_resources(request).await.unwrap();
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
        let info = json(&remote.pod_sandbox_status(request).await.unwrap().info, "info");
        assert_eq!(info["config"]["linux"]["resources"]["cpu_shares"], 512);

        // What is used.
        let request = ContainerStatsRequest { container_id: main.clone() };
        let stats = remote.container_stats(request).await.unwrap().stats.unwrap();
        assert_eq!(stats.attributes.unwrap().id, main);
        let stats = remote.list_container_stats(ListContainerStatsRequest::default()).await.unwrap().stats;
        assert!(stats[0].memory.as_ref().unwrap().usage_bytes.unwrap().value > 0);
        let request = PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
        let stats = remote.pod_sandbox_stats(request).await.unwrap().stats.unwrap().linux.unwrap();
        assert_eq!(stats.containers.len(), 1);
        assert!(stats.process.unwrap().process_count.unwrap().value > 0);
        let stats = remote.list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await.unwrap().stats;
        assert_eq!(stats.len(), 2);
        let described =
            remote.list_metric_descriptors(ListMetricDescriptorsRequest {}).await.unwrap().descriptors;
        let metrics =
            remote.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await.unwrap().pod_metrics;
        let of_main =
            metrics.iter().flat_map(|pod| &pod.container_metrics).find(|of| of.container_id == main);
        let names: Vec<&str> = of_main.unwrap().metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert!(names.contains(&"container_memory_working_set_bytes"), "{names:?}");
        assert!(names.iter().all(|name| described.iter().any(|descriptor| descriptor.name == *name)));

        // Commands.
        let exec = |command: &str, timeout: i64| {
            let cmd = command.split(' ').map(str::to_owned).collect();
            remote.exec_sync(ExecSyncRequest { container_id: main.clone(), cmd, timeout })
        };
        let done = exec("echo hello", 10).await.unwrap();
        assert_eq!((done.stdout.as_slice(), done.exit_code), (b"hello\n".as_slice(), 0));
        let late = exec("sleep 4321", 1).await.unwrap_err();
        assert_eq!(late.code, Code::DeadlineExceeded);
        let processes = String::from_utf8(exec("ps", 10).await.unwrap().stdout).unwrap();
        assert!(!processes.contains("4321"), "what took too long is gone when that is said: {processes}");

        // Logs, in a new file.
        let log = world.directory.path().join("logs/main.log");
        std::fs::rename(&log, log.with_extension("1")).unwrap();
        remote.reopen_container_log(ReopenContainerLogRequest { container_id: main.clone() }).await.unwrap();
        assert!(log.exists());

        // The end.
        let request = StopContainerRequest { container_id: main.clone(), timeout: 0 };
        remote.stop_container(request).await.unwrap();
        remote.remove_container(RemoveContainerRequest { container_id: main.clone() }).await.unwrap();
        let mut happened = Vec::new();
        while !happened.contains(&ContainerEventType::ContainerDeletedEvent) {
            let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap();
            happened.extend(
                event
                    .unwrap()
                    .ok()
                    .filter(|event| event.container_id == main)
                    .map(|event| event.container_event_type()),
            );
        }
        use ContainerEventType::*;
        assert_eq!(
            happened,
            [ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent, ContainerDeletedEvent]
        );
        for id in [&pod, &other] {
            remote.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await.unwrap();
            remote.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.clone() }).await.unwrap();
            // A repeat succeeds.
            remote.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.clone() }).await.unwrap();
        }
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod, verbose: false };
        assert_eq!(remote.pod_sandbox_status(request).await.unwrap_err().code, Code::NotFound);
        hang_up(serving).await;
        world
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    in_world(|world| async move {
        let (remote, serving) = remote(&world).await;
        let id = || "nobody".to_owned();
        let pod = PodSandboxStatsRequest { pod_sandbox_id: id() };
        let container = ContainerStatsRequest { container_id: id() };
        let exec =
            ExecRequest { container_id: id(), cmd: vec!["true".into()], stdout: true, ..Default::default() };
        let attach = AttachRequest { container_id: id(), stdout: true, ..Default::default() };
        let forward = PortForwardRequest { pod_sandbox_id: id(), port: vec![80] };
        let codes = [
            remote.pod_sandbox_stats(pod).await.unwrap_err().code,
            remote.container_stats(container).await.unwrap_err().code,
            remote.exec(exec).await.unwrap_err().code,
            remote.attach(attach).await.unwrap_err().code,
            remote.port_forward(forward).await.unwrap_err().code,
            remote.start_container(StartContainerRequest { container_id: id() }).await.unwrap_err().code,
            remote
                .reopen_container_log(ReopenContainerLogRequest { container_id: id() })
                .await
                .unwrap_err()
                .code,
        ];
        assert_eq!(codes, [Code::NotFound; 7]);
        hang_up(serving).await;
        world
    });
}

#[test]
fn a_privileged_container_has_the_nodes_devices() {
    in_world(|world| async move {
        let (remote, serving) = remote(&world).await;
        let pod = run_sandbox(&remote, sandbox_config(&world, "root")).await;
        let mut config = world.script("main", "sleep 100");
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        let main = run_container(&remote, &pod, config).await;
        let cmd = ["sh", "-c", "ls /dev; readlink /dev/ptmx"].map(str::to_owned).into();
        let listed =
            remote.exec_sync(ExecSyncRequest { container_id: main, cmd, timeout: 10 }).await.unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let names: Vec<&str> = listed.lines().collect();
        assert_eq!(names.last(), Some(&"pts/ptmx"), "its own terminals");
        for device in std::fs::read_dir("/dev").unwrap() {
            use std::os::unix::fs::FileTypeExt;
            let device = device.unwrap();
            let kind = device.file_type().unwrap();
            let name = device.file_name().into_string().unwrap();
            if (kind.is_block_device() || kind.is_char_device()) && name != "console" {
                assert!(names.contains(&name.as_str()), "{name} is not in {names:?}");
            }
        }
        hang_up(serving).await;
        world
    });
}

#[test]
fn what_a_caller_has_begun_is_finished_without_him() {
    in_world(|world| async move {
        let mut events = world.events().await;
        let request =
            RunPodSandboxRequest { config: Some(sandbox_config(&world, "left")), ..Default::default() };
        // The caller leaves at the first wait.
        assert!(world.runtime.run_pod_sandbox(request).now_or_never().is_none());
        let pod = loop {
            let pods = world.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().items;
            match pods.into_iter().next() {
                Some(pod) => break pod,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(pod.state(), PodSandboxState::SandboxReady);
        let main = world.create(&pod.id, world.script("main", "sleep 1000")).await.unwrap();
        assert!(world.start(&main).now_or_never().is_none());
        let started = async {
            while events.next().await.unwrap().unwrap().container_event_type()
                != ContainerEventType::ContainerStartedEvent
            {}
        };
        tokio::time::timeout(Duration::from_secs(20), started).await.unwrap();
        assert_eq!(world.status(&main).await.state(), ContainerState::ContainerRunning);
        let request = RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        assert!(world.runtime.remove_pod_sandbox(request).now_or_never().is_none());
        let list = || world.runtime.list_pod_sandbox(ListPodSandboxRequest::default());
        while !list().await.unwrap().items.is_empty()
            || world.config.state.join("pods").join(&pod.id).exists()
        {
            tokio::task::yield_now().await;
        }
        world
    });
}
