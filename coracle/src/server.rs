//! `coracle server`: every part of the cluster in one process, wired together.
//!
//! The parts know each other only as clients of the API; here they get their identities. The order is that of
//! need: keys, store, API server, and then everything else at once.

mod parts;
mod turns;

use std::{
    fs::File,
    io::{ErrorKind, Write},
    os::fd::FromRawFd,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use apiserver::{
    ApiServer,
    authn::front_proxy::FrontProxies,
    bootstrap, cluster,
    encryption::{
        Encrypted,
        reload::{self, ConfigFile},
    },
    pki::{ClientAuthority, Names, Pki},
    request::User,
};
use client::{FlightRecorder, Informers};
use cri::{RuntimeService, v1};
use daemon::{health::Health, logs};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use net::{Cidr, PodNetwork};
use nix::unistd::dup;
use store::Store;
use tokio::{net::TcpListener, signal::unix::SignalKind, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    checks,
    down::{Lock, Role},
    settings::{Etcd, Place, Settings},
    status::is_ready,
};

pub(crate) use turns::PATH as TURNS_PATH;

/// The version that clients see.
pub(crate) const KUBERNETES_VERSION: &str = "v1.37.0";
/// A block for taking down a network whose real one does not matter any more.
pub(crate) const ANY_CIDR: &str = "10.244.0.0/16";
/// The bridge that pods are plugged into.
const BRIDGE: &str = "coracle0";

/// Runs the cluster until it is told to stop or one of its parts cannot go on.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let mut reporter = Reporter::new(settings.progress_fd)?;
    let outcome = start(settings, &mut reporter);
    if let Err(error) = &outcome {
        reporter.tell(&format!("failed {error:#}"));
    }
    outcome
}

fn start(settings: &Settings, reporter: &mut Reporter) -> Result<()> {
    checks::root("running a cluster")?;
    let format = if settings.log_json { logs::Format::Json } else { logs::Format::Text };
    logs::init(&settings.log, format)?;
    let _lock = Lock::take(&settings.place, Role::Cluster)?;
    checks::machine(settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(settings, reporter));
    // Whatever still runs has been told to stop; what it wrote is durable already.
    runtime.shutdown_background();
    outcome
}

async fn serve(settings: &Settings, reporter: &mut Reporter) -> Result<()> {
    let stop = CancellationToken::new();
    let _stop_on_return = stop.clone().drop_guard();
    reporter.tell("step Starting the API server");
    let cluster = Cluster::open(settings, &stop).await?;
    let (ended, mut endings) = mpsc::channel(16);
    let flight = cluster.flight.clone();
    reporter.tell("step Starting the node");
    parts::start(&cluster, settings, ended, &stop).await?;
    let ready = node_ready(&cluster, &settings.node_name);
    tokio::pin!(ready);
    let mut is_ready = false;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let outcome = loop {
        tokio::select! {
            () = &mut ready, if !is_ready => {
                is_ready = true;
                cluster.health.pass("node");
                tracing::info!(node = settings.node_name, "the cluster is ready");
                reporter.tell("ready");
            }
            Some(ending) = endings.recv() => break ending,
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
        }
    };
    tracing::info!(turns = flight.recent().len(), "stopping; pods go on running");
    stop.cancel();
    cluster.server.stopped().await;
    outcome
}

/// The API server and what the other parts need of it.
struct Cluster {
    server: ApiServer,
    pki: Pki,
    flight: FlightRecorder,
    health: Health,
}

impl Cluster {
    async fn open(settings: &Settings, stop: &CancellationToken) -> Result<Cluster> {
        let place = &settings.place;
        let service_address = settings.service_cidr.nth(1).context("the range of Services is too small")?;
        let names = Names {
            hostname: settings.node_name.clone(),
            addresses: vec![settings.node_ip.into()],
            service_address: Some(service_address.into()),
            cluster_domain: settings.cluster_domain.clone(),
            extra: Vec::new(),
        };
        let pki = Pki::load_or_create(&place.data_dir.join("pki"), &names)?;
        let (store, is_shared) = open_store(settings).await?;
        let store: Arc<dyn Store> = match &settings.encryption_config {
            Some(path) => {
                let (file, providers) = ConfigFile::open(path)?;
                let encrypted = Arc::new(Encrypted::new(store, providers));
                if settings.reloads_encryption_config {
                    tokio::spawn(reload::follow(encrypted.clone(), file, stop.clone()));
                }
                encrypted
            }
            None => store,
        };
        let registry = ApiServer::registry(store, is_shared, stop);
        let clients = ClientAuthority::from_pem(pki.ca_certificate())?;
        let front_proxies = front_proxies(settings, &pki)?;
        let (first, last) = (settings.node_ports.start(), settings.node_ports.end());
        let config = cluster::ClusterConfig {
            tokens: apiserver::authn::TokenAuthority::of_cluster(&settings.cluster_domain),
            node_ports: format!("{first}-{last}").parse()?,
            server_url: settings.server_url(),
            front_proxies: Some(front_proxies.clone()),
            token_file: settings.token_file.clone(),
            has_anonymous: settings.has_anonymous,
        };
        let (hooks, key_routes) = cluster::hooks(&registry, &pki, &config)?;
        let (flight, health) = (FlightRecorder::new(), Health::default());
        health.declare("node");
        let server = ApiServer::new(
            registry.clone(),
            hooks,
            apiserver::Config {
                tls: Some(Arc::new(pki.server_config(&[clients, front_proxies.authority])?)),
                extra: Some(key_routes.merge(turns::router(flight.clone(), stop.clone()))),
                audit: settings.audit.as_ref().map(apiserver::audit::Audit::open).transpose()?,
                health: health.clone(),
                commit: env!("CORACLE_COMMIT"),
                front_proxy: Some(pki.front_proxy_client().clone()),
                stop: stop.clone(),
                limits: apiserver::Limits {
                    requests: settings.requests_in_flight.map(u32::from).iter().sum(),
                },
            },
        );
        let first_objects = bootstrap::Config {
            service_address: service_address.into(),
            service_range: settings.service_cidr.to_string(),
            advertise: settings.node_ip.into(),
            port: settings.secure_port,
            client_ca: pki.ca_certificate().to_string(),
            server_ca: pki.ca_certificate().to_string(),
            front_proxy_ca: pki.front_proxy_ca_certificate().to_string(),
        };
        bootstrap::run(&registry, &first_objects)
            .await
            .context("cannot create what every cluster starts with")?;
        bootstrap::keep_range(&registry, &first_objects.service_range);
        apiserver::alloc::repair::start(&registry)
            .await
            .context("cannot compare the addresses of Services with IPAddresses")?;
        tokio::spawn(apiserver::admission::quota::status::run(registry, stop.clone()));
        let address = ("0.0.0.0", settings.secure_port);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on port {} for the API server", settings.secure_port))?;
        let (serving, until) = (server.clone(), stop.clone());
        tokio::spawn(async move { serving.serve(listener, until).await });
        write_private(&place.kubeconfig(), &pki.admin_kubeconfig(&settings.server_url())?)?;
        let cluster = Cluster { server, pki, flight, health };
        // One cache of each kind for all parts; it may read everything, what the parts write is checked by part.
        Informers::share(cluster.client("system:apiserver", &["system:masters"]), stop.clone());
        Ok(cluster)
    }

    /// A client in the name of a part.
    fn client(&self, name: &str, groups: &[&str]) -> kube::Client {
        let groups: Vec<&str> = groups.iter().copied().chain(["system:authenticated"]).collect();
        client::connect::in_process(self.server.in_process(User::new(name, &groups)))
    }
}

/// Whose headers name users: what the command line says, else the cluster's own front proxies.
fn front_proxies(settings: &Settings, pki: &Pki) -> Result<FrontProxies> {
    let own = FrontProxies::new(ClientAuthority::from_pem(pki.front_proxy_ca_certificate())?);
    let Some(wanted) = &settings.request_headers else { return Ok(own) };
    let path = &wanted.ca_file;
    let bundle = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let or_own = |wanted: &[String], own: Vec<String>| if wanted.is_empty() { own } else { wanted.to_vec() };
    Ok(FrontProxies {
        authority: ClientAuthority::from_pem(&bundle)?,
        allowed_names: wanted.allowed_names.clone(),
        username_headers: or_own(&wanted.username_headers, own.username_headers),
        uid_headers: or_own(&wanted.uid_headers, own.uid_headers),
        group_headers: or_own(&wanted.group_headers, own.group_headers),
        extra_prefixes: or_own(&wanted.extra_prefixes, own.extra_prefixes),
    })
}

/// The store, and whether other servers may write to it as well.
async fn open_store(settings: &Settings) -> Result<(Arc<dyn Store>, bool)> {
    match &settings.etcd {
        None => {
            let dir = settings.place.data_dir.join("store");
            Ok((Arc::new(store::embedded::Embedded::open(dir)?), false))
        }
        Some(etcd) => {
            let store = store::etcd::Etcd::connect(&etcd.servers, etcd_tls(etcd)?).await?;
            Ok((Arc::new(store), true))
        }
    }
}

fn etcd_tls(etcd: &Etcd) -> Result<Option<store::etcd::Tls>> {
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let Some(ca) = &etcd.ca else { return Ok(None) };
    let identity = match &etcd.client {
        Some((certificate, key)) => {
            Some(store::etcd::TlsIdentity { certificate: read(certificate)?, key: read(key)? })
        }
        None => None,
    };
    Ok(Some(store::etcd::Tls { ca: read(ca)?, identity }))
}

/// The pod network of this place.
pub(crate) fn pod_network(place: &Place, cluster_cidr: Cidr) -> Result<PodNetwork> {
    let state_dir = place.run_dir.join("addresses");
    Ok(PodNetwork::new(net::Config { bridge: BRIDGE.to_string(), cluster_cidr, state_dir })?)
}

/// The kubelet's own limits: its look once a minute then finds nothing that is too long.
const LOG_LIMIT: runtime::LogLimit = runtime::LogLimit { bytes: 10 << 20, files: 5 };

/// The embedded runtime's settings at this place.
pub(crate) fn runtime_config(place: &Place, network: Option<Arc<PodNetwork>>) -> runtime::Config {
    runtime::Config {
        root: place.runtime_root(),
        state: place.run_dir.join("runtime"),
        cgroup_parent: place.cgroup_parent.clone(),
        shim: runtime::ShimCommand::default(),
        network,
        streaming_address: runtime::Config::LOOPBACK,
        log_limit: Some(LOG_LIMIT),
        registries: crate::settings::registries(),
        archives: None,
    }
}

/// Writes down which runtime runs the pods of this place, for `coracle down`.
fn remember_runtime(place: &Place, endpoint: Option<&str>) -> Result<()> {
    let path = place.runtime_endpoint();
    match endpoint {
        Some(endpoint) => write_private(&path, endpoint),
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        },
    }
}

/// The runtime that runs the pods of this place.
async fn runtime_of(place: &Place) -> Result<Arc<dyn RuntimeService>> {
    let path = place.runtime_endpoint();
    match std::fs::read_to_string(&path) {
        Ok(endpoint) => Ok(Arc::new(cri::Remote::connect(endpoint.trim()).await?)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let network = Arc::new(pod_network(place, ANY_CIDR.parse()?)?);
            Ok(runtime::Runtime::start(runtime_config(place, Some(network))).await?)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Stops every pod of this place: containers have `grace` to end by themselves. What is known of them stays,
/// so that the next server counts restarts and finds exit codes and logs; images stay too.
pub(crate) async fn stop_pods(place: &Place, grace: Duration) -> Result<()> {
    let runtime = runtime_of(place).await?;
    let seconds = i64::try_from(grace.as_secs())?;
    let sandboxes = pods_of(place, &*runtime).await?;
    let containers = runtime.list_containers(v1::ListContainersRequest::default()).await?.containers;
    let stopping = containers_in(&sandboxes, containers).into_iter().map(|container_id| {
        let request = v1::StopContainerRequest { container_id, timeout: seconds };
        let runtime = &runtime;
        async move { runtime.stop_container(request).await.map(drop) }
    });
    // One that resists must not keep the others alive; it ends with its sandbox.
    let stopped = futures::future::join_all(stopping).await;
    for error in stopped.into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "a container did not stop by itself");
    }
    let stopping = sandboxes.into_iter().map(|pod_sandbox_id| {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id };
        let runtime = &runtime;
        async move { runtime.stop_pod_sandbox(request).await.map(drop) }
    });
    futures::future::join_all(stopping).await.into_iter().collect::<Result<(), _>>()?;
    Ok(())
}

/// Takes away everything of the embedded runtime: pods, images, mounts, control groups.
pub(crate) async fn reset_runtime(place: &Place) -> Result<()> {
    if place.runtime_endpoint().exists() {
        // What another runtime has beside our pods is its own.
        stop_pods(place, Duration::ZERO).await?;
        let runtime = runtime_of(place).await?;
        for pod_sandbox_id in pods_of(place, &*runtime).await? {
            runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id }).await?;
        }
    }
    Ok(runtime::reset(&runtime_config(place, None)).await?)
}

/// The sandboxes of this place's pods. The embedded runtime has no others; another one may serve other kubelets.
async fn pods_of(place: &Place, runtime: &dyn RuntimeService) -> Result<Vec<String>> {
    let sandboxes = runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.items;
    let keeper = place.runtime_endpoint().exists().then(|| place.kubelet_root());
    Ok(kept_by(keeper.as_deref(), sandboxes))
}

/// The ids of the sandboxes that the kubelet with this directory has made; of all, where it is the only one.
fn kept_by(keeper: Option<&Path>, sandboxes: Vec<v1::PodSandbox>) -> Vec<String> {
    let is_kept = |sandbox: &v1::PodSandbox| {
        let name = sandbox.annotations.get(kubelet::container::labels::KUBELET);
        keeper.is_none_or(|keeper| name.is_some_and(|name| *name == keeper.to_string_lossy()))
    };
    sandboxes.into_iter().filter(is_kept).map(|sandbox| sandbox.id).collect()
}

/// The ids of the containers that are in these sandboxes.
fn containers_in(sandboxes: &[String], containers: Vec<v1::Container>) -> Vec<String> {
    let is_there = |container: &v1::Container| sandboxes.contains(&container.pod_sandbox_id);
    containers.into_iter().filter(is_there).map(|container| container.id).collect()
}

/// Waits until the node says that it is Ready, and gives it the role that it has beside.
async fn node_ready(cluster: &Cluster, name: &str) {
    let client = cluster.client("system:apiserver", &["system:masters"]);
    let nodes = Informers::new(client.clone(), CancellationToken::new()).cache::<Node>();
    let mut changed = nodes.changed();
    while !nodes.get("", name).is_some_and(|node| is_ready(&node)) {
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await; // the process is ending
        }
    }
    // A node may not give itself a role (NodeRestriction); the one that runs the server has this one.
    let role = serde_json::json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let nodes = kube::Api::<Node>::all(client);
    if let Err(error) = nodes.patch(name, &PatchParams::default(), &Patch::Merge(role)).await {
        tracing::warn!(node = name, %error, "cannot mark the node as control plane");
    }
}

pub(crate) fn signal(kind: SignalKind) -> Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(kind).context("cannot be told of signals")
}

/// Writes a file that only root may read, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Tells `coracle up` how the start goes, a line each.
struct Reporter {
    pipe: Option<File>,
}

impl Reporter {
    fn new(descriptor: Option<i32>) -> Result<Reporter> {
        let pipe = match descriptor {
            // SAFETY: `up` passes a descriptor that nothing else in this process knows of; it is only borrowed
            // here, to be copied with close-on-exec set.
            Some(number) => {
                let given = unsafe { std::os::fd::OwnedFd::from_raw_fd(number) };
                let own = dup(&given).context("--progress-fd is not an open descriptor")?;
                nix::fcntl::fcntl(&own, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
                Some(File::from(own))
            }
            None => None,
        };
        Ok(Reporter { pipe })
    }

    fn tell(&mut self, line: &str) {
        let Some(pipe) = &mut self.pipe else { return };
        let line = line.replace('\n', " ");
        if let Err(error) = writeln!(pipe, "{line}") {
            tracing::debug!(%error, "nobody follows the start any more");
            self.pipe = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_of_this_place_are_touched_in_a_runtime_that_serves_others() {
        let sandbox = |id: &str, keeper: Option<&str>| {
            let annotation = |keeper: &str| ("io.coracle.kubelet.root".to_owned(), keeper.to_owned());
            let annotations = keeper.map(annotation).into_iter().collect();
            v1::PodSandbox { id: id.to_owned(), annotations, ..Default::default() }
        };
        let all = [
            sandbox("ours", Some("/a/kubelet")),
            sandbox("theirs", Some("/b/kubelet")),
            sandbox("whose", None),
        ];
        let ours = kept_by(Some(Path::new("/a/kubelet")), all.to_vec());
        assert_eq!(ours, ["ours"]);
        assert_eq!(kept_by(None, all.to_vec()).len(), 3, "the embedded runtime has no others");
        let container = |id: &str, sandbox: &str| v1::Container {
            id: id.to_owned(),
            pod_sandbox_id: sandbox.to_owned(),
            ..Default::default()
        };
        assert_eq!(containers_in(&ours, vec![container("1", "ours"), container("2", "theirs")]), ["1"]);
    }
}
