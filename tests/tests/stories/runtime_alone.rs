//! The container runtime by its socket: without a cluster, and beside one.

use std::{
    path::Path,
    process::{Child, Stdio},
};

use cri::{ImageService, Remote, RuntimeService, v1::*};
use e2e::{Cluster, Machine, cluster::IMAGE, eventually};
use tokio::runtime::Runtime;

fn executor() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The runtime at a socket, as soon as it answers.
fn connect(executor: &Runtime, socket: &Path) -> Remote {
    let remote = executor.block_on(async { Remote::at(&format!("unix://{}", socket.display())) }).unwrap();
    eventually("the runtime answers", || {
        let asked = executor.block_on(remote.version(VersionRequest::default()));
        asked.map_err(|error| error.to_string())
    });
    remote
}

fn serve(place: &Cluster) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(place.dir().join("runtime.log"));
    place.coracle_command("runtime").stderr(log.unwrap()).stdout(Stdio::null()).spawn().unwrap()
}

async fn run_pod(remote: &Remote, logs: &Path) -> (String, String) {
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "alone".into(),
            namespace: "default".into(),
            ..Default::default()
        }),
        log_directory: logs.display().to_string(),
        ..Default::default()
    };
    let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let pod = remote.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: ["sh", "-c", "echo begun; exec sleep 1000"].map(str::to_owned).into(),
        log_path: "main.log".into(),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(container),
        sandbox_config: Some(config),
    };
    let main = remote.create_container(request).await.unwrap().container_id;
    remote.start_container(StartContainerRequest { container_id: main.clone() }).await.unwrap();
    (pod, main)
}

async fn status(remote: &Remote, pod: &str) -> PodSandboxStatus {
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.to_owned(), verbose: false };
    remote.pod_sandbox_status(request).await.unwrap().status.unwrap()
}

#[test]
fn a_runtime_without_a_cluster_is_killed_and_finds_its_pods_again() {
    let (executor, place) = (executor(), Cluster::prepared(Machine::new(), &[]));
    let before = place.machine.traces();
    place.import_image();
    let socket = place.dir().join("run/cri.sock");
    let mut server = serve(&place);
    let remote = connect(&executor, &socket);
    let told = executor.block_on(remote.status(StatusRequest::default())).unwrap().status.unwrap();
    assert!(told.conditions.iter().all(|condition| condition.status), "{told:?}");
    let images = executor.block_on(remote.list_images(ListImagesRequest::default())).unwrap().images;
    assert_eq!(images.len(), 1);
    let (pod, main) = executor.block_on(run_pod(&remote, place.dir()));
    let address = executor.block_on(status(&remote, &pod)).network.unwrap().ip;
    assert!(address.starts_with("10.244.0."), "from its own block: {address}");
    place.machine.sh(&format!("busybox ping -c 1 -W 5 {address}")).ok();

    let refused = place.coracle("runtime", &[]).fails();
    assert!(refused.contains("another server runs"), "{refused}");
    assert!(place.up().fails().contains("the container runtime runs here alone"));
    assert!(place.coracle("status", &[]).ok().contains("running alone"));

    // The next one comes at once, finds the socket and perhaps a process that has not quite gone.
    server.kill().unwrap();
    let mut killed = std::mem::replace(&mut server, serve(&place));
    killed.wait().unwrap();
    let remote = connect(&executor, &socket);
    let found = executor.block_on(status(&remote, &pod));
    assert_eq!((found.state(), found.network.unwrap().ip), (PodSandboxState::SandboxReady, address));
    let cmd = ["cat", "/proc/1/cmdline"].map(str::to_owned).into();
    let request = ExecSyncRequest { container_id: main, cmd, timeout: 10 };
    let done = executor.block_on(remote.exec_sync(request)).unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "sleep\x001000\0");

    place.coracle("down", &["--grace=0"]).ok();
    server.wait().unwrap();
    assert!(!socket.exists(), "an orderly end takes the socket away");
    place.coracle("reset", &[]).ok();
    assert_eq!(place.machine.traces(), before);
    assert_eq!(place.processes(), Vec::<String>::new());
}

#[test]
fn a_cluster_serves_its_runtime_to_others() {
    let (executor, cluster) = (executor(), Cluster::start());
    let remote = connect(&executor, &cluster.dir().join("run/cri.sock"));
    cluster.kubectl(&format!("run web --image={IMAGE} --restart=Never -- sleep 1000")).ok();
    cluster.kubectl("wait --for=condition=Ready pod/web --timeout=60s").ok();
    let pods = executor.block_on(remote.list_pod_sandbox(ListPodSandboxRequest::default())).unwrap().items;
    let names: Vec<_> = pods.iter().map(|pod| pod.metadata.clone().unwrap().name).collect();
    assert_eq!(names, ["web"]);
    let shown = executor.block_on(status(&remote, &pods[0].id)).network.unwrap().ip;
    assert_eq!(cluster.kubectl("get pod web -o jsonpath={.status.podIP}").ok(), shown);
}
