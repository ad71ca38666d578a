//! A runtime and an API server that do as they are told, in memory: for tests of workers and of the server.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use cri::v1::*;
use cri::{Error, EventStream, ImageService, RuntimeService};
use futures::{FutureExt, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio_stream_free::from_broadcast;

/// A CRI runtime whose containers run until the test ends them.
pub(crate) struct FakeRuntime {
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEventResponse>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    sandboxes: Vec<(PodSandboxConfig, PodSandbox)>,
    containers: Vec<(ContainerConfig, ContainerStatus, String)>,
    images: Vec<String>,
    calls: Vec<String>,
    next: u32,
}

impl FakeRuntime {
    pub(crate) fn new(images: &[&str]) -> Arc<FakeRuntime> {
        let images = images.iter().map(|image| image.to_string()).collect();
        Arc::new(FakeRuntime {
            state: Mutex::new(State { images, ..State::default() }),
            events: broadcast::channel(64).0,
            changed: watch::Sender::new(0),
        })
    }

    /// The calls that changed something, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    /// Ends the newest container of this name.
    pub(crate) fn exit(&self, name: &str, code: i32) {
        let mut state = self.state();
        let found = state
            .containers
            .iter_mut()
            .rev()
            .find(|(config, ..)| config.metadata.as_ref().unwrap().name == name);
        end(&mut found.unwrap().1, code);
        drop(state);
        self.tell();
    }

    /// Has a running container in it, as if it had been started before.
    pub(crate) async fn add_running(&self, pod: &str, name: &str, image: &str) {
        let labels = HashMap::from([("io.kubernetes.pod.uid".to_string(), "u".to_string())]);
        let metadata =
            PodSandboxMetadata { name: pod.into(), uid: "u".into(), ..PodSandboxMetadata::default() };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            labels: labels.clone(),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest { config: Some(config), ..RunPodSandboxRequest::default() };
        let pod_sandbox_id = self.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: image.into(), ..ImageSpec::default() }),
            labels,
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest { pod_sandbox_id, config: Some(config), sandbox_config: None };
        let container_id = self.create_container(request).await.unwrap().container_id;
        self.start_container(StartContainerRequest { container_id }).await.unwrap();
    }

    /// Adds an image.
    pub(crate) fn import(&self, image: &str) {
        self.state().images.push(image.to_string());
    }

    /// Kills all sandboxes with everything in them.
    pub(crate) fn kill_sandboxes(&self) {
        let mut state = self.state();
        state
            .sandboxes
            .iter_mut()
            .for_each(|(_, sandbox)| sandbox.state = PodSandboxState::SandboxNotready as i32);
        state.containers.iter_mut().for_each(|(_, status, _)| end(status, 137));
        drop(state);
        self.tell();
    }

    /// The environment of the newest container of this name.
    pub(crate) fn environment(&self, name: &str) -> HashMap<String, String> {
        let state = self.state();
        let found =
            state.containers.iter().rev().find(|(config, ..)| config.metadata.as_ref().unwrap().name == name);
        found.unwrap().0.envs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
    }

    /// Where a path of the newest container of this name is on the node.
    pub(crate) fn mount(&self, name: &str, path: &str) -> String {
        let state = self.state();
        let found =
            state.containers.iter().rev().find(|(config, ..)| config.metadata.as_ref().unwrap().name == name);
        let mounts = &found.unwrap().0.mounts;
        mounts.iter().find(|mount| mount.container_path == path).unwrap().host_path.clone()
    }

    /// Returns when the calls are as the test wants them.
    pub(crate) async fn wait(&self, what: impl Fn(&[String]) -> bool) {
        let mut changed = self.changed.subscribe();
        changed.wait_for(|_| what(&self.calls())).await.unwrap();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn note(&self, call: String) {
        self.state().calls.push(call);
        self.tell();
    }

    fn tell(&self) {
        // Nobody may be listening yet.
        self.events.send(ContainerEventResponse::default()).ok();
        self.changed.send_modify(|count| *count += 1);
    }
}

fn end(status: &mut ContainerStatus, code: i32) {
    if status.state == ContainerState::ContainerRunning as i32 {
        status.state = ContainerState::ContainerExited as i32;
        status.exit_code = code;
        status.finished_at = now();
    }
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
}

fn selected(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse, Error> {
        let config = request.config.unwrap();
        let metadata = config.metadata.clone().unwrap();
        let id = format!("sandbox{}", metadata.attempt);
        let sandbox = PodSandbox {
            id: id.clone(),
            metadata: Some(metadata),
            state: PodSandboxState::SandboxReady as i32,
            created_at: now(),
            labels: config.labels.clone(),
            ..PodSandbox::default()
        };
        self.state().sandboxes.push((config, sandbox));
        self.note(format!("run {id}"));
        Ok(RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: StopPodSandboxRequest,
    ) -> Result<StopPodSandboxResponse, Error> {
        let id = request.pod_sandbox_id;
        for (_, sandbox) in self.state().sandboxes.iter_mut().filter(|(_, sandbox)| sandbox.id == id) {
            sandbox.state = PodSandboxState::SandboxNotready as i32;
        }
        self.note(format!("stop {id}"));
        Ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse, Error> {
        let id = request.pod_sandbox_id;
        let mut state = self.state();
        state.sandboxes.retain(|(_, sandbox)| sandbox.id != id);
        state.containers.retain(|(_, _, sandbox)| *sandbox != id);
        drop(state);
        self.note(format!("remove {id}"));
        Ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: PodSandboxStatusRequest,
    ) -> Result<PodSandboxStatusResponse, Error> {
        let network =
            PodSandboxNetworkStatus { ip: "10.244.0.5".into(), ..PodSandboxNetworkStatus::default() };
        let status = PodSandboxStatus {
            id: request.pod_sandbox_id,
            network: Some(network),
            ..PodSandboxStatus::default()
        };
        Ok(PodSandboxStatusResponse { status: Some(status), ..PodSandboxStatusResponse::default() })
    }

    async fn list_pod_sandbox(
        &self,
        request: ListPodSandboxRequest,
    ) -> Result<ListPodSandboxResponse, Error> {
        let wanted = request.filter.unwrap_or_default().label_selector;
        let state = self.state();
        let all = state.sandboxes.iter().map(|(_, sandbox)| sandbox.clone());
        Ok(ListPodSandboxResponse {
            items: all.filter(|sandbox| selected(&sandbox.labels, &wanted)).collect(),
        })
    }

    async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, Error> {
        let config = request.config.unwrap();
        let metadata = config.metadata.clone().unwrap();
        let mut state = self.state();
        state.next += 1;
        let id = format!("{}-{}", metadata.name, state.next);
        let status = ContainerStatus {
            id: id.clone(),
            metadata: Some(metadata.clone()),
            state: ContainerState::ContainerCreated as i32,
            created_at: now(),
            image: config.image.clone(),
            image_ref: "sha256:0".into(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            ..ContainerStatus::default()
        };
        state.containers.push((config, status, request.pod_sandbox_id));
        drop(state);
        self.note(format!("create {}/{}", metadata.name, metadata.attempt));
        Ok(CreateContainerResponse { container_id: id })
    }

    async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse, Error> {
        for (_, status, _) in
            self.state().containers.iter_mut().filter(|(_, s, _)| s.id == request.container_id)
        {
            status.state = ContainerState::ContainerRunning as i32;
            status.started_at = now();
        }
        self.note(format!("start {}", request.container_id));
        Ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse, Error> {
        for (_, status, _) in
            self.state().containers.iter_mut().filter(|(_, s, _)| s.id == request.container_id)
        {
            end(status, 143);
        }
        self.note(format!("stop {} in {}s", request.container_id, request.timeout));
        Ok(StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse, Error> {
        self.state().containers.retain(|(_, status, _)| status.id != request.container_id);
        self.note(format!("remove {}", request.container_id));
        Ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: ListContainersRequest) -> Result<ListContainersResponse, Error> {
        let wanted = request.filter.unwrap_or_default().label_selector;
        let state = self.state();
        let all = state.containers.iter().filter(|(config, ..)| selected(&config.labels, &wanted));
        let listed = all.map(|(_, status, sandbox)| Container {
            id: status.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            metadata: status.metadata.clone(),
            ..Container::default()
        });
        Ok(ListContainersResponse { containers: listed.collect() })
    }

    async fn container_status(
        &self,
        request: ContainerStatusRequest,
    ) -> Result<ContainerStatusResponse, Error> {
        let state = self.state();
        let found = state.containers.iter().find(|(_, status, _)| status.id == request.container_id);
        let status = found.ok_or_else(|| Error::not_found("no such container"))?.1.clone();
        Ok(ContainerStatusResponse { status: Some(status), ..ContainerStatusResponse::default() })
    }

    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, Error> {
        let shares = request.linux.unwrap().cpu_shares;
        self.note(format!("update {} to {shares} shares", request.container_id));
        Ok(UpdateContainerResourcesResponse {})
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Error> {
        let code = request.cmd.first().and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(ExecSyncResponse { exit_code: code, stdout: b"probed".to_vec(), ..ExecSyncResponse::default() })
    }

    async fn get_container_events(&self, _: GetEventsRequest) -> Result<EventStream, Error> {
        Ok(from_broadcast(self.events.subscribe()).map(Ok).boxed())
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse, Error> {
        let name = request.image.unwrap().image;
        let is_there = self.state().images.contains(&name);
        let image =
            is_there.then(|| Image { id: "sha256:0".into(), repo_tags: vec![name], ..Image::default() });
        Ok(ImageStatusResponse { image, ..ImageStatusResponse::default() })
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse, Error> {
        self.note(format!("pull {}", request.image.unwrap().image));
        Err(Error::unknown("there is no registry"))
    }
}

/// An API server that keeps a few objects and lists, watches and patches them.
pub(crate) struct FakeApi {
    objects: Mutex<HashMap<String, Value>>,
    changes: broadcast::Sender<(String, Value)>,
    seen: watch::Sender<u64>,
}

impl FakeApi {
    pub(crate) fn new() -> Arc<FakeApi> {
        Arc::new(FakeApi {
            objects: Mutex::default(),
            changes: broadcast::channel(256).0,
            seen: watch::Sender::new(1),
        })
    }

    pub(crate) fn client(self: &Arc<FakeApi>) -> kube::Client {
        let api = self.clone();
        client::connect::in_process(tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }.boxed()
        }))
    }

    /// Writes an object at its path and tells those who watch.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let is_new = self.get(path).is_none();
        self.seen.send_modify(|revision| {
            *revision += 1;
            object["metadata"]["resourceVersion"] = json!(revision.to_string());
        });
        self.objects.lock().unwrap().insert(path.to_string(), object.clone());
        let kind = if is_new { "ADDED" } else { "MODIFIED" };
        self.changes.send((path.to_string(), json!({ "type": kind, "object": object }))).ok();
        self.seen.send_modify(|_| {});
    }

    pub(crate) fn delete(&self, path: &str) {
        let object = self.objects.lock().unwrap().remove(path);
        if let Some(object) = object {
            self.changes.send((path.to_string(), json!({ "type": "DELETED", "object": object }))).ok();
            self.seen.send_modify(|_| {});
        }
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    /// Returns the object once it is as the test wants it.
    pub(crate) async fn wait(&self, path: &str, what: impl Fn(&Value) -> bool) -> Value {
        let mut seen = self.seen.subscribe();
        seen.wait_for(|_| self.get(path).is_some_and(|object| what(&object))).await.unwrap();
        self.get(path).unwrap()
    }

    pub(crate) async fn wait_gone(&self, path: &str) {
        let mut seen = self.seen.subscribe();
        seen.wait_for(|_| self.get(path).is_none()).await.unwrap();
    }

    /// `reason: message` of all events, in order.
    pub(crate) fn events(&self) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        let mut events: Vec<&Value> =
            objects.iter().filter(|(path, _)| path.contains("/events/")).map(|(_, event)| event).collect();
        events.sort_by_key(|event| {
            event["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap()
        });
        let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_string();
        events.iter().map(|event| format!("{}: {}", text(event, "reason"), text(event, "message"))).collect()
    }

    pub(crate) async fn wait_event(&self, start: &str) {
        let mut seen = self.seen.subscribe();
        seen.wait_for(|_| self.events().iter().any(|event| event.starts_with(start))).await.unwrap();
    }

    async fn answer(&self, request: Request<Body>) -> Response<AnswerBody> {
        let path = request.uri().path().to_string();
        let query = request.uri().query().unwrap_or_default().to_string();
        let method = request.method().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        match method {
            Method::GET if query.contains("watch=") => self.watch(path, &query),
            Method::GET => match self.get(&path) {
                Some(object) => json_answer(StatusCode::OK, &object),
                None if path.rsplit('/').next().is_some_and(|last| last.ends_with('s')) => {
                    self.list(&path, &query)
                }
                None => not_found(),
            },
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_string();
                self.put(&format!("{path}/{name}"), body);
                json_answer(StatusCode::CREATED, &self.get(&format!("{path}/{name}")).unwrap())
            }
            Method::PATCH => {
                let path = path.trim_end_matches("/status").to_string();
                let Some(mut object) = self.get(&path) else { return not_found() };
                merge(&mut object, &body);
                self.put(&path, object.clone());
                json_answer(StatusCode::OK, &self.get(&path).unwrap())
            }
            Method::DELETE => {
                self.delete(&path);
                json_answer(
                    StatusCode::OK,
                    &json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }),
                )
            }
            _ => not_found(),
        }
    }

    fn list(&self, path: &str, query: &str) -> Response<AnswerBody> {
        let objects = self.objects.lock().unwrap();
        let items: Vec<_> = objects
            .iter()
            .filter(|(key, object)| is_wanted(path, query, key, object))
            .map(|(_, object)| object)
            .collect();
        let revision = self.seen.borrow().to_string();
        json_answer(
            StatusCode::OK,
            &json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": revision }, "items": items }),
        )
    }

    fn watch(&self, path: String, query: &str) -> Response<AnswerBody> {
        let query = query.to_string();
        let changes = from_broadcast(self.changes.subscribe());
        let lines = changes.filter_map(move |(key, change)| {
            let wanted = is_wanted(&path, &query, &key, &change["object"]);
            std::future::ready(wanted.then(|| format!("{change}\n")))
        });
        let frames = lines.map(|line| Ok::<_, Infallible>(hyper::body::Frame::data(line.into())));
        Response::new(http_body_util::StreamBody::new(frames.boxed()).boxed_unsync())
    }
}

type AnswerBody = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, Infallible>;

fn is_wanted(path: &str, query: &str, key: &str, object: &Value) -> bool {
    let plural = path.rsplit('/').next().unwrap();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let is_kind = key.ends_with(&format!("/{plural}/{name}"));
    let by_name = query.split("metadata.name%3D").nth(1).and_then(|rest| rest.split('&').next());
    is_kind && by_name.is_none_or(|wanted| wanted == name)
}

fn json_answer(status: StatusCode, value: &Value) -> Response<AnswerBody> {
    let body = Full::new(bytes::Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn not_found() -> Response<AnswerBody> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found" });
    json_answer(StatusCode::NOT_FOUND, &status)
}

/// As much of a strategic merge as the kubelet's patches need.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else { return *target = patch.clone() };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        match (key.as_str(), value) {
            (_, Value::Null) => {
                target.as_object_mut().unwrap().remove(key);
            }
            ("conditions", Value::Array(conditions)) => {
                let known = target.as_object_mut().unwrap().entry("conditions").or_insert(json!([]));
                for condition in conditions {
                    let list = known.as_array_mut().unwrap();
                    list.retain(|old| old["type"] != condition["type"]);
                    if condition["$patch"] != "delete" {
                        list.push(condition.clone());
                    }
                }
            }
            (_, Value::Array(items)) => {
                let kept = items.iter().filter(|item| item.get("$patch").is_none());
                target[key] = kept.cloned().collect();
            }
            _ => merge(&mut target[key], value),
        }
    }
}

mod tokio_stream_free {
    //! A broadcast channel as a stream; what a slow reader misses, it misses.

    use futures::{Stream, stream};
    use tokio::sync::broadcast::{Receiver, error::RecvError};

    pub(crate) fn from_broadcast<T: Clone + Send + 'static>(
        receiver: Receiver<T>,
    ) -> impl Stream<Item = T> + Send {
        stream::unfold(receiver, |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(item) => return Some((item, receiver)),
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return None,
                }
            }
        })
    }
}
