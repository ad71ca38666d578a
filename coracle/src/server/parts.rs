//! The parts beside the API server, each with its own identity.

use std::{fmt::Display, future::Future, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, anyhow};
use apiserver::{ApiServer, request::User};
use cri::{ImageService, RuntimeService};
use kubelet::TlsFiles;
use runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Cluster, pod_network, remember_runtime, runtime_config};
use crate::settings::Settings;

/// Tells why the server ends.
pub(super) type Endings = mpsc::Sender<Result<()>>;

/// Starts everything. What cannot go on later says so through `ended`.
pub(super) async fn start(
    cluster: &Cluster,
    settings: &Settings,
    ended: Endings,
    stop: &CancellationToken,
) -> Result<()> {
    let spawn = Spawner { ended, stop: stop.clone() };
    let flight = || cluster.flight.clone();

    let reader = cluster.client("system:kube-controller-manager", &[]);
    let accounts = cluster.server.clone();
    let clients = Box::new(move |name: &str| controller_client(&accounts, name));
    let token_key = cluster.pki.token_key();
    let config = controller_manager::Config {
        root_ca_pem: cluster.pki.ca_certificate().to_string(),
        ca_key_pem: cluster.pki.ca_pair().key,
        token_signer: Some(controller_manager::TokenSigner::new(move |claims| token_key.sign(claims))),
        cluster_cidr: settings.cluster_cidr.to_string(),
        ..controller_manager::Config::default()
    };
    spawn.part("controllers", controller_manager::run(config, reader, clients, flight(), stop.clone()));

    let client = cluster.client("system:kube-scheduler", &[]);
    let scheduling = scheduler::run(scheduler::Config::default(), client, flight(), stop.clone());
    spawn.part("scheduler", async {
        scheduling.await;
        Ok::<(), anyhow::Error>(())
    });

    let client = cluster.client("system:kube-proxy", &[]);
    let config = kube_proxy::Config {
        node_name: settings.node_name.clone(),
        cluster_cidr: settings.cluster_cidr.to_string(),
    };
    let proxying = kube_proxy::run(config, client, stop.clone());
    spawn.part("service proxy", async {
        proxying.await;
        Ok::<(), anyhow::Error>(())
    });

    let client = cluster.client("system:coracle:dns", &[]);
    let config = dns::Config {
        node_name: settings.node_name.clone(),
        domain: settings.cluster_domain.clone(),
        service_ip: settings.cluster_dns,
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
    };
    spawn.part("cluster DNS", dns::run(config, client, stop.clone()));

    let (runtime, images) = container_runtime(settings).await?;
    if let Some(path) = settings.cri_socket.as_ref().filter(|_| settings.runtime_endpoint.is_none()) {
        let socket = cri::Socket::bind(path);
        let socket = socket.with_context(|| format!("cannot serve the CRI at {}", path.display()))?;
        let serving = cri::serve(socket, runtime.clone(), images.clone(), stop.clone().cancelled_owned());
        spawn.part("container runtime interface", serving);
    }
    let node = format!("system:node:{}", settings.node_name);
    let client = cluster.client(&node, &["system:nodes"]);
    let config = kubelet_config(cluster, settings)?;
    spawn.part("kubelet", kubelet::run(config, client, runtime, images, stop.clone()));
    Ok(())
}

/// The embedded runtime, or the one that was asked for.
async fn container_runtime(settings: &Settings) -> Result<(Arc<dyn RuntimeService>, Arc<dyn ImageService>)> {
    let place = &settings.place;
    remember_runtime(place, settings.runtime_endpoint.as_deref())?;
    if let Some(endpoint) = &settings.runtime_endpoint {
        let runtime = Arc::new(cri::Remote::at(endpoint)?);
        return Ok((runtime.clone(), runtime));
    }
    let network = Arc::new(pod_network(place, settings.cluster_cidr)?);
    let archives = Some(settings.images.archives(place));
    let registries = settings.images.registries();
    let config = runtime::Config { archives, registries, ..runtime_config(place, Some(network)) };
    let runtime = Runtime::start(config).await;
    let runtime = runtime.context("cannot start the container runtime")?;
    Ok((runtime.clone(), runtime))
}

/// A client in the name of a controller's service account, as upstream's controllers have one each.
fn controller_client(server: &ApiServer, name: &str) -> kube::Client {
    // This one is, as upstream, the controller manager itself: it makes what accounts prove themselves with.
    if name == "tokens-controller" {
        let user = User::new("system:kube-controller-manager", &["system:authenticated"]);
        return client::connect::in_process(server.in_process(user));
    }
    let user = format!("system:serviceaccount:kube-system:{name}");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
    client::connect::in_process(server.in_process(User::new(&user, &groups)))
}

fn kubelet_config(cluster: &Cluster, settings: &Settings) -> Result<kubelet::Config> {
    let place = &settings.place;
    let addresses = [settings.node_ip.into(), std::net::Ipv4Addr::LOCALHOST.into()];
    cluster.pki.kubelet_serving(&settings.node_name, &addresses)?;
    let file = |name: String| place.data_dir.join("pki").join(name);
    let defaults = kubelet::Config::new(&settings.node_name, settings.node_ip.into());
    Ok(kubelet::Config {
        root: place.kubelet_root(),
        log_dir: place.data_dir.join("logs"),
        cgroup_parent: place.cgroup_parent.clone(),
        cluster_dns: vec![settings.cluster_dns.into()],
        cluster_domain: settings.cluster_domain.clone(),
        listen: std::net::SocketAddr::from(([0, 0, 0, 0], settings.kubelet_port)),
        tls: Some(TlsFiles {
            certificate: file(format!("kubelet-{}.crt", settings.node_name)),
            private_key: file(format!("kubelet-{}.key", settings.node_name)),
            client_ca: file("ca.crt".into()),
        }),
        eviction: settings.eviction.thresholds()?,
        ..defaults
    })
}

struct Spawner {
    ended: Endings,
    stop: CancellationToken,
}

impl Spawner {
    /// Runs a part. Its end is the server's end, unless the server is stopping anyway.
    fn part<E>(&self, name: &'static str, work: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<anyhow::Error> + Display + Send + 'static,
    {
        let (ended, stop) = (self.ended.clone(), self.stop.clone());
        let running = tokio::spawn(work);
        tokio::spawn(async move {
            let ending = match running.await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => Err(anyhow!("the {name} has ended")),
                Ok(Err(error)) => Err(error.into().context(format!("the {name} cannot go on"))),
                Err(panic) => Err(anyhow!(panic).context(format!("the {name} has failed"))),
            };
            // Somebody else's ending may have come first; one is enough.
            ended.send(ending).await.ok();
        });
    }
}
