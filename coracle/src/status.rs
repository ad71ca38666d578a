//! `coracle status`: how the cluster is, in a few lines.

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::ListParams};

use crate::{
    cli::PlaceArgs,
    down::{Role, Running},
    settings::Place,
};

/// Prints how the cluster is; fails where it is not well.
pub(crate) fn status(args: &PlaceArgs) -> Result<()> {
    let place = Place::new(args)?;
    let Some(running) = Running::find(&place)? else {
        bail!("no cluster runs in {}: start one with `coracle up`", place.data_dir.display());
    };
    if running.role == Role::Runtime {
        println!("runtime  running alone (pid {})", running.pid);
        return Ok(());
    }
    println!("server   running (pid {})", running.pid);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(report(&place))
}

async fn report(place: &Place) -> Result<()> {
    let client = client::connect::kubeconfig(place.kubeconfig()).await?;
    let ready = client.request_text(http::Request::get("/readyz").body(Vec::new())?).await;
    println!("api      {}", if ready.is_ok() { "ready" } else { "not ready" });
    ready?;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let mut all_ready = !nodes.items.is_empty();
    for node in &nodes {
        let is_ready = is_ready(node);
        all_ready &= is_ready;
        let name = node.metadata.name.as_deref().unwrap_or_default();
        println!("node     {name} {}", if is_ready { "Ready" } else { "NotReady" });
    }
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await?;
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let running = pods.iter().filter(|pod| phase(pod) == "Running").count();
    println!("pods     {running} of {} Running", pods.items.len());
    if all_ready { Ok(()) } else { bail!("not every node is Ready: see `kubectl describe nodes`") }
}

/// Whether a node says of itself that it is Ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|each| each.type_ == "Ready" && each.status == "True")
}
