//! A controller written with kube-rs as any Rust program outside would write it: the cluster's kubeconfig, typed
//! objects, a kind of its own derived from a struct, shared caches from streaming lists, WebSockets.

use std::{sync::Arc, time::Duration};

use e2e::Cluster;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, CustomResource, CustomResourceExt, Resource, ResourceExt,
    api::{AttachParams, DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        Controller, WatchStreamExt,
        controller::Action,
        events, finalizer, reflector,
        wait::{Condition, await_condition, conditions},
        watcher,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A greeting that becomes a config map.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(group = "kube-rs.example.com", version = "v1", kind = "Greeting", namespaced)]
#[kube(status = "GreetingStatus", shortname = "greet")]
#[kube(printcolumn = r#"{"name":"To", "jsonPath":".spec.to", "type":"string"}"#)]
#[kube(validation = "self.spec.to != 'nobody'")]
struct GreetingSpec {
    /// Whom to greet.
    to: String,
    /// How often.
    #[serde(default = "once")]
    times: u8,
}

fn once() -> u8 {
    1
}

/// What came of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct GreetingStatus {
    said: String,
}

const MANAGER: &str = "greeter.example.com";

/// Runs an async program on the cluster's machine with a client from its kubeconfig.
fn told<F: Future<Output = anyhow::Result<()>>>(cluster: &Cluster, program: impl FnOnce(Client) -> F + Send) {
    let path = cluster.data_dir().join("kubeconfig");
    cluster.machine.on_its_network(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(path).unwrap();
            let context = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &context).await.unwrap();
            let client = Client::try_from(config).unwrap();
            let told = tokio::time::timeout(Duration::from_secs(60), program(client)).await;
            told.expect("the program ends in time").unwrap();
        });
    });
}

async fn wait<K>(api: &Api<K>, name: &str, condition: impl Condition<K>) -> anyhow::Result<Option<K>>
where
    K: Resource + Clone + std::fmt::Debug + Send + for<'de> Deserialize<'de> + 'static,
{
    Ok(await_condition(api.clone(), name, condition).await?)
}

/// One turn of the controller: the config map is there, and the status says so.
async fn reconcile(greeting: Arc<Greeting>, client: Arc<Client>) -> Result<Action, Refused> {
    let namespace = greeting.namespace().unwrap_or_default();
    let greetings: Api<Greeting> = Api::namespaced((*client).clone(), &namespace);
    let handled = finalizer::finalizer(&greetings, "example.com/greeter", greeting, |event| async {
        let finalizer::Event::Apply(greeting) = event else { return Ok(Action::await_change()) };
        let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &namespace);
        let said = vec![format!("hello {}", greeting.spec.to); greeting.spec.times.into()].join(" ");
        let map = ConfigMap {
            metadata: kube::core::ObjectMeta {
                name: Some(greeting.name_any()),
                owner_references: Some(greeting.controller_owner_ref(&()).into_iter().collect()),
                ..Default::default()
            },
            data: Some([("said".to_string(), said.clone())].into()),
            ..Default::default()
        };
        let apply = PatchParams::apply(MANAGER).force();
        maps.patch(&greeting.name_any(), &apply, &Patch::Apply(&map)).await?;
        let status = json!({
            "apiVersion": Greeting::api_version(&()), "kind": Greeting::kind(&()), "status": {"said": said},
        });
        greetings.patch_status(&greeting.name_any(), &apply, &Patch::Apply(&status)).await?;
        let recorder = events::Recorder::new((*client).clone(), MANAGER.into());
        let event = events::Event {
            type_: events::EventType::Normal,
            reason: "Greeted".into(),
            note: None,
            action: "Greeting".into(),
            secondary: None,
        };
        recorder.publish(&event, &greeting.object_ref(&())).await?;
        Ok::<_, kube::Error>(Action::await_change())
    });
    handled.await.map_err(|error| Refused(error.to_string()))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

#[test]
fn a_controller_of_ones_own_kind_runs_with_kube_rs() {
    let cluster = Cluster::start();
    told(&cluster, async |client| {
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let apply = PatchParams::apply(MANAGER);
        definitions.patch(Greeting::crd_name(), &apply, &Patch::Apply(Greeting::crd())).await?;
        wait(&definitions, Greeting::crd_name(), conditions::is_crd_established()).await?;

        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let (store, writer) = reflector::store();
        let streaming = watcher::Config::default().streaming_lists();
        let cached = reflector(writer, watcher(maps.clone(), streaming.clone()));
        let cached = tokio::spawn(cached.default_backoff().applied_objects().for_each(|_| async {}));
        store.wait_until_ready().await?;

        let greetings: Api<Greeting> = Api::default_namespaced(client.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let turns = Controller::new(greetings.clone(), streaming.clone())
            .owns(maps.clone(), streaming)
            .graceful_shutdown_on(async move { drop(stopped.await) })
            .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client.clone()));
        let turns = tokio::spawn(turns.for_each(|_| async {}));

        let world = Greeting::new("world", GreetingSpec { to: "world".into(), times: 2 });
        let created = greetings.create(&PostParams::default(), &world).await?;
        let said = |wanted: &'static str| {
            move |greeting: Option<&Greeting>| {
                greeting
                    .and_then(|greeting| greeting.status.as_ref())
                    .is_some_and(|status| status.said == wanted)
            }
        };
        wait(&greetings, "world", said("hello world hello world")).await?;
        greetings
            .patch("world", &PatchParams::default(), &Patch::Merge(json!({"spec": {"times": 1}})))
            .await?;
        let last = wait(&greetings, "world", said("hello world")).await?;
        assert_eq!(last.and_then(|last| last.meta().generation), Some(2));
        // What the controller owns comes back when somebody takes it away.
        let first = maps.get("world").await?.uid().unwrap_or_default();
        maps.delete("world", &DeleteParams::default()).await?;
        let other = |map: Option<&ConfigMap>| map.is_some_and(|map| map.uid().as_ref() != Some(&first));
        wait(&maps, "world", other).await?;
        let is_cached = || {
            let found = store.find(|map| map.name_any() == "world")?;
            found.data.as_ref()?.get("said").cloned()
        };
        while is_cached().as_deref() != Some("hello world") {
            tokio::task::yield_now().await;
            let some = ListParams::default().match_any();
            assert!(!maps.list_metadata(&some).await?.items.is_empty());
        }

        let nobody = Greeting::new("nobody", GreetingSpec { to: "nobody".into(), times: 1 });
        let refused = greetings.create(&PostParams::default(), &nobody).await.unwrap_err();
        assert!(
            matches!(&refused, kube::Error::Api(status) if status.is_invalid()
                && status.message.contains("failed rule: self.spec.to != 'nobody'")),
            "{refused}"
        );
        // Its finalizer holds it until the controller has let go; what it owned goes with it.
        greetings.delete("world", &DeleteParams::foreground()).await?;
        let uid = created.uid().unwrap_or_default();
        wait(&greetings, "world", conditions::is_deleted(&uid)).await?;
        let gone = |map: Option<&ConfigMap>| map.is_none();
        wait(&maps, "world", gone).await?;

        stop.send(()).expect("the controller runs");
        turns.await?;
        cached.abort();
        Ok(())
    });
    let events = cluster.kubectl("get events --field-selector reason=Greeted -o name").ok();
    assert!(!events.is_empty());
}

#[test]
fn pods_are_entered_through_websockets_with_kube_rs() {
    let cluster = Cluster::start();
    told(&cluster, async |client| {
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "echo"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "echo", "image": e2e::cluster::IMAGE, "stdin": true,
                "command": ["sh", "-c", "nc -ll -p 8080 -e cat & while read line; do echo got $line; done"],
            }]},
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
        wait(&pods, "echo", conditions::is_pod_running()).await?;

        let both = AttachParams::default().stdin(true).stderr(true);
        let mut shell = pods.exec("echo", ["sh", "-c", "cat; echo faint >&2; exit 3"], &both).await?;
        let mut stdin = shell.stdin().expect("it was asked for");
        stdin.write_all(b"to and fro").await?;
        stdin.shutdown().await?;
        drop(stdin);
        let (mut out, mut err) = (String::new(), String::new());
        shell.stdout().expect("it was asked for").read_to_string(&mut out).await?;
        shell.stderr().expect("it was asked for").read_to_string(&mut err).await?;
        assert_eq!((out.as_str(), err.as_str()), ("to and fro", "faint\n"));
        let status = shell.take_status().expect("nobody has taken it").await.expect("it has ended");
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
        let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
        assert_eq!(causes.first().and_then(|cause| cause.message.as_deref()), Some("3"));
        shell.join().await?;

        let mut attached = pods.attach("echo", &AttachParams::default().stdin(true).stderr(false)).await?;
        let mut stdin = attached.stdin().expect("it was asked for");
        stdin.write_all(b"a word\n").await?;
        let mut heard = [0; 11];
        attached.stdout().expect("it was asked for").read_exact(&mut heard).await?;
        assert_eq!(&heard, b"got a word\n");
        attached.abort();
        let follow = LogParams { follow: true, ..LogParams::default() };
        let line = pods.log_stream("echo", &follow).await?.lines().try_next().await?;
        assert_eq!(line.as_deref(), Some("got a word"));

        let mut forwarded = pods.portforward("echo", &[8080]).await?;
        let mut stream = forwarded.take_stream(8080).expect("it was asked for");
        stream.write_all(b"there and back").await?;
        let mut back = [0; 14];
        stream.read_exact(&mut back).await?;
        assert_eq!(&back, b"there and back");
        drop(stream);
        forwarded.abort();

        pods.evict("echo", &EvictParams::default()).await?;
        let gone = |pod: Option<&Pod>| pod.is_none();
        wait(&pods, "echo", gone).await?;
        Ok(())
    });
}
