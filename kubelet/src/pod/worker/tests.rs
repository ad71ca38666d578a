//! Whole lives of pods: the real planner, worker and status against a runtime and an API in memory.

use std::net::IpAddr;

use client::{Selection, informer};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::Config;
use crate::context::NodeFacts;
use crate::fake::{FakeApi, FakeRuntime};
use crate::pod::{Evictions, Pods};
use crate::source::Sources;
use crate::volume::VolumeManager;

const POD: &str = "/api/v1/namespaces/shop/pods/web";
const LONG: Duration = Duration::from_secs(20);

/// A kubelet without its node: workers, a runtime and an API.
struct Kubelet {
    api: Arc<FakeApi>,
    runtime: Arc<FakeRuntime>,
    root: TempDir,
    stop: CancellationToken,
    evictions: Evictions,
    running: JoinHandle<()>,
}

impl Kubelet {
    fn start(images: &[&str]) -> Kubelet {
        let root = tempfile::tempdir().unwrap();
        Kubelet::start_on(FakeApi::new(), FakeRuntime::new(images), root)
    }

    fn start_on(api: Arc<FakeApi>, runtime: Arc<FakeRuntime>, root: TempDir) -> Kubelet {
        let client = api.client();
        let stop = CancellationToken::new();
        let mut config = Config::new("node", IpAddr::from([192, 0, 2, 1]));
        config.root = root.path().join("kubelet");
        config.log_dir = root.path().join("logs");
        config.cgroup_parent = format!("/coracle-kubelet-test-{}", std::process::id());
        let sources = Arc::new(Sources::new(client.clone()));
        let pods = informer::start::<Pod>(client.clone(), Selection::default(), stop.clone());
        let context = Arc::new(Context {
            volumes: VolumeManager::new(client.clone(), sources.clone(), config.root.clone()),
            events: client::events::Recorder::new(client.clone(), "kubelet", Some("node")),
            services: informer::start::<Service>(client.clone(), Selection::default(), stop.clone()),
            node: NodeFacts {
                runtime: crate::context::RuntimeName { name: "coracle".into(), ..Default::default() },
                ..NodeFacts::default()
            },
            client: client.clone(),
            runtime: runtime.clone(),
            images: runtime.clone(),
            pulls: crate::image::Pulls::new(config.pull_limit),
            image_keeper: crate::image::keeper::Images::channel().0,
            user_namespaces: crate::userns::UserNamespaces::default(),
            taken: crate::pod::admission::Taken::default(),
            pods: pods.clone(),
            pressure: tokio::sync::watch::channel(Default::default()).1,
            sources,
            config,
        });
        let (evictions, verdicts) = Evictions::channel();
        let running = tokio::spawn(Pods::run(context, pods, verdicts, stop.clone()));
        Kubelet { api, runtime, root, stop, evictions, running }
    }

    async fn restart(self) -> Kubelet {
        self.stop.cancel();
        self.running.await.unwrap();
        Kubelet::start_on(self.api, self.runtime, self.root)
    }

    fn create(&self, spec: Value) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "web", "namespace": "shop", "uid": "u" },
            "spec": spec,
        });
        self.api.put(POD, pod);
    }

    async fn wait(&self, what: impl Fn(&Value) -> bool) -> Value {
        let waited = timeout(LONG, self.api.wait(POD, what)).await;
        waited.unwrap_or_else(|_| {
            panic!("the pod stays {:#}\ncalls {:?}", self.api.get(POD).unwrap(), self.runtime.calls())
        })
    }

    async fn wait_phase(&self, phase: &str) -> Value {
        self.wait(|pod| pod["status"]["phase"] == phase).await
    }

    fn ask_to_delete(&self, grace: i64) {
        let mut pod = self.api.get(POD).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T08:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.api.put(POD, pod);
    }
}

fn one_container() -> Value {
    json!({ "containers": [{ "name": "a", "image": "busybox:1" }] })
}

fn waiting_reason(pod: &Value) -> &str {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_pod_lives_and_dies() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    kubelet.create(one_container());
    let pod = kubelet.wait_phase("Running").await;
    assert_eq!(pod["status"]["podIP"], "10.244.0.5");
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], true);
    assert_eq!(kubelet.runtime.calls(), ["run sandbox0", "create a/0", "start a-1"]);
    let expected = [
        "Pulled: Container image \"busybox:1\" already present on machine",
        "Created: Created container: a",
        "Started: Started container a",
    ];
    timeout(LONG, kubelet.api.wait_event("Started")).await.unwrap();
    assert_eq!(kubelet.api.events(), expected);

    kubelet.ask_to_delete(5);
    timeout(LONG, kubelet.api.wait_gone(POD)).await.unwrap();
    timeout(LONG, kubelet.runtime.wait(|calls| calls.last().unwrap() == "remove sandbox0")).await.unwrap();
    let end = ["stop a-1 in 5s", "stop sandbox0", "remove sandbox0"];
    assert_eq!(kubelet.runtime.calls()[3..], end);
    assert!(kubelet.api.events().contains(&"Killing: Stopping container a".to_string()));
}

#[tokio::test]
async fn a_crashed_container_is_started_again_and_then_left_alone_for_a_while() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    kubelet.create(one_container());
    kubelet.wait_phase("Running").await;
    kubelet.runtime.exit("a", 1);
    kubelet
        .wait(|pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 1 && waiting_reason(pod).is_empty()
        })
        .await;
    kubelet.runtime.exit("a", 2);
    let pod = kubelet.wait(|pod| waiting_reason(pod) == "CrashLoopBackOff").await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 2);
    assert_eq!(pod["status"]["phase"], "Running");
    timeout(
        LONG,
        kubelet.api.wait_event("BackOff: Back-off restarting failed container a in pod web_shop(u)"),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_pod_that_never_restarts_succeeds() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    let mut spec = one_container();
    spec["restartPolicy"] = json!("Never");
    kubelet.create(spec);
    kubelet.wait_phase("Running").await;
    kubelet.runtime.exit("a", 0);
    let pod = kubelet.wait_phase("Succeeded").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    timeout(LONG, kubelet.runtime.wait(|calls| calls.last().unwrap() == "stop sandbox0")).await.unwrap();
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_told_and_waited_for() {
    let kubelet = Kubelet::start(&[]);
    kubelet.create(one_container());
    let pod = kubelet.wait(|pod| waiting_reason(pod) == "ImagePullBackOff").await;
    assert_eq!(pod["status"]["phase"], "Pending");
    timeout(LONG, kubelet.api.wait_event("Failed: Failed to pull image \"busybox:1\": there is no registry"))
        .await
        .unwrap();
    // Deleting it does not wait for the image.
    kubelet.ask_to_delete(30);
    timeout(LONG, kubelet.api.wait_gone(POD)).await.unwrap();
}

#[tokio::test]
async fn an_image_that_must_not_be_pulled_is_not() {
    let kubelet = Kubelet::start(&[]);
    let mut spec = one_container();
    spec["containers"][0]["imagePullPolicy"] = json!("Never");
    kubelet.create(spec);
    kubelet.wait(|pod| waiting_reason(pod) == "ErrImageNeverPull").await;
    assert!(!kubelet.runtime.calls().iter().any(|call| call.starts_with("pull")));
    kubelet.runtime.import("busybox:1");
}

#[tokio::test]
async fn a_restarted_kubelet_touches_nothing() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    let mut spec = one_container();
    spec["containers"][0]["readinessProbe"] = json!({ "exec": { "command": ["0"] }, "periodSeconds": 1 });
    kubelet.create(spec);
    let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    let before = kubelet.wait(ready).await;
    let calls = kubelet.runtime.calls();
    let kubelet = kubelet.restart().await;
    // A change that the new kubelet reports shows that it has looked at everything.
    let mut pod = kubelet.api.get(POD).unwrap();
    pod["metadata"]["generation"] = json!(7);
    kubelet.api.put(POD, pod);
    let after = kubelet.wait(|pod| pod["status"]["observedGeneration"] == 7).await;
    assert_eq!(kubelet.runtime.calls(), calls);
    let statuses = |pod: &Value| pod["status"]["containerStatuses"].clone();
    assert_eq!(statuses(&after), statuses(&before));
}

#[tokio::test]
async fn a_pod_deleted_while_no_kubelet_ran_is_cleaned_up() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    kubelet.create(one_container());
    kubelet.wait_phase("Running").await;
    kubelet.stop.cancel();
    kubelet.api.delete(POD);
    let kubelet = kubelet.restart().await;
    timeout(LONG, kubelet.runtime.wait(|calls| calls.last().unwrap() == "remove sandbox0")).await.unwrap();
}

#[tokio::test]
async fn the_logs_of_a_pod_that_is_gone_are_removed() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    let logs = kubelet.root.path().join("logs/shop_old_v");
    std::fs::create_dir_all(&logs).unwrap();
    let kubelet = kubelet.restart().await;
    kubelet.create(one_container());
    kubelet.wait_phase("Running").await;
    assert!(!logs.exists());
    assert!(kubelet.root.path().join("logs/shop_web_u").exists());
}

/// After a reboot the runtime knows nothing of what ran before.
#[tokio::test]
async fn what_ran_before_a_reboot_counts_as_a_restart_and_is_not_run_twice() {
    for (policy, phase) in [("Always", "Running"), ("Never", "Failed")] {
        let mut kubelet = Kubelet::start(&["busybox:1"]);
        let mut spec = one_container();
        spec["restartPolicy"] = json!(policy);
        kubelet.create(spec);
        let mut pod = kubelet.wait_phase("Running").await;
        // Another than the new runtime will give.
        pod["status"]["containerStatuses"][0]["containerID"] = json!("coracle://before");
        kubelet.stop.cancel();
        kubelet.api.put(POD, pod);
        kubelet.runtime = FakeRuntime::new(&["busybox:1"]);
        let kubelet = kubelet.restart().await;
        let lost = |state: &Value| state["terminated"]["reason"] == "ContainerStatusUnknown";
        let told = |pod: &Value| {
            let container = &pod["status"]["containerStatuses"][0];
            let came_back = container["restartCount"] == 1 && lost(&container["lastState"]);
            let has_ended = policy == "Never" && lost(&container["state"]);
            pod["status"]["phase"] == phase && (came_back || has_ended)
        };
        let pod = kubelet.wait(told).await;
        let runs = kubelet.runtime.calls().iter().filter(|call| call.starts_with("start")).count();
        assert_eq!((policy, runs), (policy, usize::from(policy == "Always")), "{}", pod["status"]);
    }
}

#[tokio::test]
async fn a_dead_sandbox_is_replaced() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    kubelet.create(one_container());
    kubelet.wait_phase("Running").await;
    kubelet.runtime.kill_sandboxes();
    let restarted = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    };
    kubelet.wait(restarted).await;
    assert!(kubelet.runtime.calls().contains(&"run sandbox1".to_string()));
    timeout(LONG, kubelet.api.wait_event("SandboxChanged")).await.unwrap();
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_the_container() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    let mut spec = one_container();
    spec["terminationGracePeriodSeconds"] = json!(4);
    spec["containers"][0]["livenessProbe"] =
        json!({ "exec": { "command": ["3"] }, "periodSeconds": 1, "failureThreshold": 1 });
    kubelet.create(spec);
    timeout(LONG, kubelet.runtime.wait(|calls| calls.contains(&"create a/1".to_string()))).await.unwrap();
    assert!(kubelet.runtime.calls().contains(&"stop a-1 in 4s".to_string()));
    timeout(LONG, kubelet.api.wait_event("Unhealthy: Liveness probe failed: probed")).await.unwrap();
    timeout(LONG, kubelet.api.wait_event("Killing: Container a failed liveness probe, will be restarted"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_config_map_is_waited_for_shown_and_kept_up_to_date() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    let mut spec = one_container();
    spec["volumes"] = json!([{ "name": "v", "configMap": { "name": "theme" } }]);
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/etc/settings" }]);
    spec["containers"][0]["env"] = json!([
        { "name": "COLOR", "valueFrom": { "configMapKeyRef": { "name": "theme", "key": "color" } } } ]);
    kubelet.create(spec);
    let missing = "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"theme\" not found";
    timeout(LONG, kubelet.api.wait_event(missing)).await.unwrap();
    let settings = |color: &str| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "theme", "namespace": "shop" }, "data": { "color": color } })
    };
    let path = "/api/v1/namespaces/shop/configmaps/theme";
    kubelet.api.put(path, settings("blue"));
    kubelet.wait_phase("Running").await;
    assert_eq!(kubelet.runtime.environment("a")["COLOR"], "blue");
    let file = std::path::Path::new(&kubelet.runtime.mount("a", "/etc/settings")).join("color");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "blue");

    let changed = crate::logs::LogChange::watch(file.parent().unwrap()).unwrap();
    kubelet.api.put(path, settings("green"));
    let waiting = async {
        while std::fs::read_to_string(&file).ok().as_deref() != Some("green") {
            changed.wait().await.unwrap();
        }
    };
    timeout(LONG, waiting).await.unwrap();
}

#[tokio::test]
async fn init_containers_hold_back_the_others() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    let mut spec = one_container();
    spec["initContainers"] = json!([{ "name": "i", "image": "busybox:1" }]);
    kubelet.create(spec);
    let pod =
        kubelet.wait(|pod| pod["status"]["initContainerStatuses"][0]["state"]["running"].is_object()).await;
    assert_eq!(waiting_reason(&pod), "PodInitializing");
    kubelet.runtime.exit("i", 0);
    kubelet.wait_phase("Running").await;
    assert_eq!(
        kubelet.runtime.calls(),
        ["run sandbox0", "create i/0", "start i-1", "create a/0", "start a-2"]
    );
}

#[tokio::test]
async fn an_evicted_pod_has_a_second_and_fails_with_the_reason() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    kubelet.create(one_container());
    kubelet.wait_phase("Running").await;
    let verdict = crate::pod::memory::Verdict {
        reason: "Evicted".into(),
        message: "The node was low on resource: memory. ".into(),
        grace: Duration::from_secs(1),
        is_disruption: true,
    };
    kubelet.evictions.send("u".into(), verdict).await;
    let pod = kubelet.wait_phase("Failed").await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert_eq!(pod["status"]["message"], "The node was low on resource: memory. ");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let disruption = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!(
        (&disruption["status"], &disruption["reason"]),
        (&json!("True"), &json!("TerminationByKubelet"))
    );
    assert!(kubelet.runtime.calls().contains(&"stop a-1 in 1s".to_string()), "{:?}", kubelet.runtime.calls());
    timeout(LONG, kubelet.runtime.wait(|calls| calls.last().unwrap() == "stop sandbox0")).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_the_node_does_not_take_fails_before_anything_is_made() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    let mut spec = one_container();
    spec["securityContext"] = json!({ "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] });
    kubelet.create(spec);
    let pod = kubelet.wait_phase("Failed").await;
    assert_eq!(pod["status"]["reason"], "SysctlForbidden");
    assert_eq!(
        pod["status"]["message"],
        "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted"
    );
    assert_eq!(kubelet.runtime.calls(), Vec::<String>::new());
    timeout(LONG, kubelet.api.wait_event("SysctlForbidden: forbidden sysctl")).await.unwrap();
}

#[tokio::test]
async fn a_container_is_given_more_while_it_runs() {
    let kubelet = Kubelet::start(&["busybox:1"]);
    let mut spec = one_container();
    let asking = |cpu: &str| json!({ "requests": { "cpu": cpu } });
    spec["containers"][0]["resources"] = asking("100m");
    kubelet.create(spec);
    let pod = kubelet.wait_phase("Running").await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        (&status["resources"], &status["allocatedResources"]),
        (&asking("100m"), &json!({ "cpu": "100m" }))
    );
    let mut pod = kubelet.api.get(POD).unwrap();
    pod["spec"]["containers"][0]["resources"] = asking("200m");
    kubelet.api.put(POD, pod);
    let is_given = |pod: &Value| pod["status"]["containerStatuses"][0]["resources"] == asking("200m");
    let is_over = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        !conditions.iter().any(|condition| condition["type"] == "PodResizeInProgress")
    };
    kubelet.wait(|pod| is_given(pod) && is_over(pod)).await;
    assert_eq!(kubelet.runtime.calls().last().unwrap(), "update a-1 to 204 shares");
    crate::cgroup::remove(&format!("/coracle-kubelet-test-{}", std::process::id())).unwrap();
}
