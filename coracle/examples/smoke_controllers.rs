//! Scratch: controllers, scheduler and a pretended kubelet against the real API server in memory.
#![allow(missing_docs, clippy::unwrap_used)]
use std::{sync::Arc, time::{Duration, Instant}};
use apiserver::{ApiServer, Config, authn::TokenAuthority, bootstrap, cluster::{self, ClusterConfig}, pki::{Names, Pki}, request::User};
use client::{FlightRecorder, Informers};
use daemon::health::Health;
use k8s_openapi::api::{apps::v1::*, core::v1::*, discovery::v1::EndpointSlice};
use kube::{Api, ResourceExt, api::*};
use serde_json::json;
use store::{Store, embedded::Embedded};
use tokio_util::sync::CancellationToken;

async fn wait<T>(what: &str, limit: u64, mut check: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(limit) {
        if let Some(found) = check().await { println!("OK   {what}: {:.1} ms", began.elapsed().as_secs_f64() * 1e3); return Some(found) }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("FAIL {what}: not within {limit} s");
    None
}

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::main]
async fn main() {
    let stop = CancellationToken::new();
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory().unwrap());
    let registry = ApiServer::registry(store.clone(), false, &stop);
    let dir = std::env::temp_dir().join(format!("smoke-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let pki = Pki::load_or_create(&dir, &Names::default()).unwrap();
    let config = ClusterConfig {
        tokens: TokenAuthority::of_cluster("cluster.local"),
        ranges: apiserver::alloc::Ranges { addresses: "10.96.0.0/12".parse().unwrap(), ports: "30000-32767".parse().unwrap() },
        server_url: "https://192.0.2.7:6443".into(),
    };
    let (hooks, extra) = cluster::hooks(&registry, &pki, &config).unwrap();
    bootstrap::run(&registry, &bootstrap::Config {
        service_address: "10.96.0.1".parse().unwrap(), service_range: "10.96.0.0/12".into(), advertise: "192.0.2.7".parse().unwrap(), port: 6443,
        client_ca: pki.ca_certificate().into(), front_proxy_ca: pki.front_proxy_ca_certificate().into(),
    }).await.unwrap();
    let server = ApiServer::new(registry.clone(), hooks, Config { tls: None, extra: Some(extra), health: Health::default(), stop: stop.clone() });
    let admin = || client::connect::in_process(server.in_process(User::new("admin", &["system:masters", "system:authenticated"])));
    let client = admin();
    let flight = FlightRecorder::new();
    let informers = Informers::share(admin(), stop.clone());
    let mut live = flight.subscribe();
    if std::env::var("TURNS").is_ok() {
        tokio::spawn(async move { loop { match live.recv().await {
            Ok(t) => println!("  turn {} {} <- {} | {} | {} | {:?} {} us {:?}", t.controller, t.object, t.woken_by, t.desired, t.observed, t.actions, t.duration_micros, t.error),
            Err(e) => { println!("  {e}"); if matches!(e, tokio::sync::broadcast::error::RecvError::Closed) { break } } } } });
    }
    let errors = flight.clone();
    let config = controller_manager::Config { root_ca_pem: "CA".into(), ..Default::default() };
    tokio::spawn(controller_manager::run(config, admin(), flight.clone(), stop.clone()));
    tokio::spawn(scheduler::run(scheduler::Config::default(), admin(), flight.clone(), stop.clone()));

    // the pretended kubelet
    let pods = informers.cache::<Pod>();
    let mut changes = pods.subscribe();
    let kubelet = admin();
    tokio::spawn(async move {
        let mut ip = 1u32;
        while let Some(change) = changes.recv().await {
            let Some(pod) = change.new().cloned() else { continue };
            let api: Api<Pod> = Api::namespaced(kubelet.clone(), &pod.namespace().unwrap());
            let name = pod.name_any();
            if pod.spec.as_ref().unwrap().node_name.is_none() { continue }
            if pod.metadata.deletion_timestamp.is_some() {
                tokio::spawn(async move { api.delete(&name, &DeleteParams::default().grace_period(0)).await.ok(); });
            } else if pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).is_none() {
                ip += 1;
                let now = jiff_now();
                let status = json!({"status": {"phase": "Running", "podIP": format!("10.244.{}.{}", ip / 250, ip % 250 + 1), "podIPs": [{"ip": format!("10.244.{}.{}", ip / 250, ip % 250 + 1)}],
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}]}});
                tokio::spawn(async move { if let Err(e) = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await { println!("kubelet: {e}") } });
            }
        }
    });
    let nodes: Api<Node> = Api::all(client.clone());
    let began = Instant::now();
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let status = json!({"status": {"capacity": {"cpu": "100", "memory": "100Gi", "pods": "1000"}, "allocatable": {"cpu": "100", "memory": "100Gi", "pods": "1000"},
        "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": jiff_now(), "lastTransitionTime": jiff_now()}]}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    wait("node has podCIDR and no taints", 5, async || nodes.get("n1").await.ok().filter(|n| n.spec.as_ref().is_some_and(|s| s.pod_cidr.is_some() && s.taints.as_deref().unwrap_or_default().is_empty()))).await;
    println!("after {:?}", began.elapsed());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    wait("default service account", 5, async || accounts.get_opt("default").await.unwrap()).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    wait("kube-root-ca.crt", 5, async || maps.get_opt("kube-root-ca.crt").await.unwrap()).await;

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let deployment = |name: &str, n: i32, image: &str| -> Deployment { serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"replicas": n, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]}}}})).unwrap() };
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}})).unwrap();
    services.create(&PostParams::default(), &service).await.unwrap();
    let complete = async |name: &str, n: i32| deployments.get(name).await.ok().filter(|d| { let s = d.status.clone().unwrap_or_default();
        s.observed_generation == d.metadata.generation && s.updated_replicas == Some(n) && s.replicas == Some(n) && s.available_replicas == Some(n) });
    deployments.create(&PostParams::default(), &deployment("web", 50, "v1")).await.unwrap();
    if wait("50 pods rolled out", 5, async || complete("web", 50).await).await.is_none() {
        let all: Api<Pod> = Api::namespaced(client.clone(), "default");
        println!("{}", serde_json::to_string(&all.list(&Default::default()).await.unwrap().items[0]).unwrap());
        let events: Api<Event> = Api::namespaced(client.clone(), "default");
        for e in events.list(&Default::default()).await.unwrap().items.iter().take(5) { println!("{:?}", e.message) }
        for t in errors.recent().iter().filter(|t| t.error.is_some()).take(10) { println!("     {} {} {} {:?}", t.controller, t.object, t.woken_by, t.error) }
        std::process::exit(1);
    }
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    wait("endpoint slice has 50", 5, async || slices.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await.unwrap().items.into_iter().find(|s| s.endpoints.as_ref().is_some_and(|e| e.iter().filter(|e| e.conditions.as_ref().unwrap().ready == Some(true)).count() == 50))).await;
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    wait("endpoints has 50", 5, async || endpoints.get_opt("web").await.unwrap().filter(|e| e.subsets.as_ref().is_some_and(|s| s[0].addresses.as_ref().is_some_and(|a| a.len() == 50)))).await;
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}))).await.unwrap();
    wait("rolled to v2", 20, async || complete("web", 50).await).await;
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v1"}]}}}}))).await.unwrap();
    wait("rolled back to v1", 20, async || complete("web", 50).await).await;
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), "default");
    for s in sets.list(&Default::default()).await.unwrap() { println!("     {} {:?} {:?}", s.name_any(), s.spec.replicas, s.annotations()) }
    println!("     {}", serde_json::to_string(&deployments.get("web").await.unwrap().status).unwrap());
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}}))).await.unwrap();
    wait("scaled to 3", 20, async || complete("web", 3).await).await;

    let daemons: Api<DaemonSet> = Api::namespaced(client.clone(), "default");
    let daemon: DaemonSet = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}})).unwrap();
    daemons.create(&PostParams::default(), &daemon).await.unwrap();
    wait("daemon set", 5, async || daemons.get("d").await.ok().filter(|d| d.status.as_ref().is_some_and(|s| s.number_available == Some(1)))).await;
    daemons.patch("d", &PatchParams::default(), &Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}}))).await.unwrap();
    wait("daemon set updated", 5, async || daemons.get("d").await.ok().filter(|d| d.status.as_ref().is_some_and(|s| s.observed_generation == d.metadata.generation && s.number_available == Some(1) && s.updated_number_scheduled == Some(1)))).await;

    let all_pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    deployments.delete("web", &DeleteParams::background()).await.unwrap();
    wait("background deletion leaves nothing", 10, async || (sets.list(&Default::default()).await.unwrap().items.is_empty() && all_pods.list(&ListParams::default().labels("app=web")).await.unwrap().items.is_empty()).then_some(())).await;
    deployments.create(&PostParams::default(), &deployment("fg", 5, "v1")).await.unwrap();
    wait("fg", 10, async || complete("fg", 5).await).await;
    deployments.delete("fg", &DeleteParams::foreground()).await.unwrap();
    wait("foreground deletion", 10, async || { let gone = deployments.get_opt("fg").await.unwrap().is_none();
        if gone { assert!(all_pods.list(&ListParams::default().labels("app=fg")).await.unwrap().items.is_empty()); Some(()) } else { None } }).await;
    deployments.create(&PostParams::default(), &deployment("orphan", 2, "v1")).await.unwrap();
    wait("orphan", 10, async || complete("orphan", 2).await).await;
    deployments.delete("orphan", &DeleteParams::orphan()).await.unwrap();
    wait("orphaning", 10, async || { if deployments.get_opt("orphan").await.unwrap().is_some() { return None }
        let s = sets.list(&Default::default()).await.unwrap().items; (s.len() == 1 && s[0].owner_references().is_empty()).then_some(()) }).await;
    println!("     adopted again:");
    deployments.create(&PostParams::default(), &deployment("orphan", 2, "v1")).await.unwrap();
    wait("adoption", 10, async || { let s = sets.list(&Default::default()).await.unwrap().items; (s.len() == 1 && s[0].owner_references().len() == 1).then_some(()) }).await;
    services.delete("web", &Default::default()).await.unwrap();
    wait("slices and endpoints go with the service", 10, async || (slices.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await.unwrap().items.is_empty() && endpoints.get_opt("web").await.unwrap().is_none()).then_some(())).await;

    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "x"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let in_x: Api<Deployment> = Api::namespaced(client.clone(), "x");
    let xsa: Api<ServiceAccount> = Api::namespaced(client.clone(), "x");
    wait("account in new namespace", 5, async || xsa.get_opt("default").await.unwrap()).await;
    in_x.create(&PostParams::default(), &deployment("web", 10, "v1")).await.unwrap();
    wait("10 in x", 10, async || in_x.get("web").await.ok().filter(|d| d.status.as_ref().is_some_and(|s| s.available_replicas == Some(10)))).await;
    namespaces.delete("x", &Default::default()).await.unwrap();
    wait("namespace is gone", 20, async || namespaces.get_opt("x").await.unwrap().is_none().then_some(())).await;

    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    let mut seen = std::collections::BTreeSet::new();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for e in events.list(&Default::default()).await.unwrap() { seen.insert(format!("{} {} {}", e.source.unwrap_or_default().component.unwrap_or_default(), e.reason.unwrap_or_default(), e.message.unwrap_or_default().chars().take(70).collect::<String>())); }
    for e in seen.iter().filter(|e| e.contains("Scaling") || e.contains("daemon") || e.contains("node")) { println!("     {e}") }
    println!("turns {}, failed:", errors.recent().last().map_or(0, |t| t.number));
    for t in errors.recent().iter().filter(|t| t.error.is_some()) { println!("     {} {} {} {:?}", t.controller, t.object, t.woken_by, t.error) }
    let slow: Vec<_> = { let mut v = errors.recent(); v.sort_by_key(|t| std::cmp::Reverse(t.duration_micros)); v.truncate(12); v };
    for t in slow { println!("     slow {} {} {} us {:?}", t.controller, t.object, t.duration_micros, t.actions.len()) }
    let before = (cpu(), errors.recent().last().map_or(0, |t| t.number));
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("idle 10 s: cpu {:.2} s, turns {}", cpu() - before.0, errors.recent().last().map_or(0, |t| t.number) - before.1);
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmRSS") || l.starts_with("VmHWM")).collect::<Vec<_>>().join(" "));
    std::fs::remove_dir_all(dir).ok();
    std::process::exit(0);
}
fn jiff_now() -> serde_json::Value { serde_json::to_value(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::now())).unwrap() }
