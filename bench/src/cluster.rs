//! The cluster that is measured: raw requests, so that the client costs as little as it can.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, StreamExt, stream::BoxStream};
use http::Request;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How often something is looked at that cannot be watched.
const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection to a cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    /// Connects as a kubeconfig says.
    pub async fn connect(kubeconfig: &Path) -> Result<Cluster> {
        let file = Kubeconfig::read_from(kubeconfig)
            .with_context(|| format!("cannot read the kubeconfig {}", kubeconfig.display()))?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("the kubeconfig {} says no cluster", kubeconfig.display()))?;
        config.read_timeout = None;
        Ok(Cluster { client: Client::try_from(config).context("cannot set up the connection")? })
    }

    /// The body of a GET.
    pub async fn get_text(&self, path: &str) -> Result<String> {
        let request = Request::get(path).body(Vec::new())?;
        self.client.request_text(request).await.with_context(|| format!("GET {path} failed"))
    }

    /// How long the body of a GET is that comes in the form `accept`.
    pub async fn get_length(&self, path: &str, accept: &str) -> Result<usize> {
        let request = Request::get(path).header("accept", accept).body(Body::empty())?;
        let response = self.client.send(request).await.with_context(|| format!("GET {path} failed"))?;
        ensure!(response.status().is_success(), "GET {path} as {accept}: {}", response.status());
        Ok(response
            .into_body()
            .collect_bytes()
            .await
            .with_context(|| format!("GET {path} ended early"))?
            .len())
    }

    /// The object of a GET.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get_text(path).await?)?)
    }

    /// Sends an object by POST.
    pub async fn post(&self, path: &str, object: &Value) -> Result<()> {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(object)?)?;
        self.client.request_text(request).await.with_context(|| format!("POST {path} failed"))?;
        Ok(())
    }

    /// Sends a merge patch.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<()> {
        let request = Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(patch)?)?;
        self.client.request_text(request).await.with_context(|| format!("PATCH {path} failed"))?;
        Ok(())
    }

    /// Deletes without waiting for anybody.
    pub async fn delete_now(&self, path: &str) -> Result<()> {
        let options = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
        let request = Request::delete(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&options)?)?;
        self.client.request_text(request).await.with_context(|| format!("DELETE {path} failed"))?;
        Ok(())
    }

    /// The lines of a watch as they arrive, unread: reading them is the caller's, after the clock.
    pub async fn watch(&self, path: &str) -> Result<BoxStream<'static, std::io::Result<String>>> {
        let request = Request::get(path).body(Vec::new())?;
        let reader =
            self.client.request_stream(request).await.with_context(|| format!("watching {path} failed"))?;
        Ok(reader.lines().boxed())
    }

    /// Makes a namespace and waits until pods can be made in it.
    pub async fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.post("/api/v1/namespaces", &namespace).await?;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        self.until("the namespace to have a service account", || async {
            Ok(self.get_text(&account).await.is_ok())
        })
        .await
    }

    /// Deletes a namespace with all that is in it and waits until it is gone.
    pub async fn remove_namespace(&self, name: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{name}");
        self.delete_now(&path).await?;
        self.until("the namespace to go away", || async { Ok(self.get_text(&path).await.is_err()) }).await
    }

    /// Looks again and again until something is so.
    pub async fn until<F, Fut>(&self, what: &str, mut is_so: F) -> Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<bool>>,
    {
        let end = Instant::now() + PATIENCE;
        while !is_so().await? {
            anyhow::ensure!(Instant::now() < end, "waited {} s in vain for {what}", PATIENCE.as_secs());
            sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Runs `measure` in a namespace of its own, which is removed also when it fails.
pub async fn in_namespace<T, Fut>(cluster: &Cluster, name: &str, measure: Fut) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    cluster.make_namespace(name).await?;
    let measured = measure.await;
    let removed = cluster.remove_namespace(name).await;
    let measured = measured?;
    removed?;
    Ok(measured)
}
