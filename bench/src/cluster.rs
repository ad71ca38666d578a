//! The cluster that is measured: raw requests, so that the client costs as little as it can.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, StreamExt, stream::BoxStream};
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::{
    Client, Config,
    client::Body,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::connection;

/// How often something is looked at that cannot be watched.
const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection to a cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    config: Config,
    /// Whether the API server has no controllers: what these would do is done here.
    is_bare: bool,
}

impl Cluster {
    /// Connects as a kubeconfig says.
    pub async fn connect(kubeconfig: &Path, is_bare: bool) -> Result<Cluster> {
        let file = Kubeconfig::read_from(kubeconfig)
            .with_context(|| format!("cannot read the kubeconfig {}", kubeconfig.display()))?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("the kubeconfig {} says no cluster", kubeconfig.display()))?;
        config.read_timeout = None;
        let client = Client::try_from(config.clone()).context("cannot set up the connection")?;
        Ok(Cluster { client, config, is_bare })
    }

    /// The same cluster through one more connection of its own, which speaks HTTP/2.
    pub async fn over_http2(&self) -> Result<Cluster> {
        Ok(Cluster { client: connection::open(&self.config).await?, ..self.clone() })
    }

    /// The same cluster as somebody who has this token and nothing else.
    pub async fn with_token(&self, token: String) -> Result<Cluster> {
        let mut config = self.config.clone();
        config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
        Ok(Cluster { client: connection::open(&config).await?, config, is_bare: self.is_bare })
    }

    /// The body of a GET.
    pub async fn get_text(&self, path: &str) -> Result<String> {
        let request = Request::get(path).body(Vec::new())?;
        self.client.request_text(request).await.with_context(|| format!("GET {path} failed"))
    }

    /// How long the body of a GET is that comes in the form `accept`. Of the body nothing is kept.
    pub async fn get_length(&self, path: &str, accept: &str) -> Result<usize> {
        let mut body = self.response(path, accept).await?.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.with_context(|| format!("GET {path} ended early"))?;
            length += frame.data_ref().map_or(0, |data| data.len());
        }
        Ok(length)
    }

    /// The response to a GET once its head is here.
    pub async fn response(&self, path: &str, accept: &str) -> Result<Response<Body>> {
        let request = Request::get(path).header("accept", accept).body(Body::empty())?;
        let response = self.client.send(request).await.with_context(|| format!("GET {path} failed"))?;
        ensure!(response.status().is_success(), "GET {path} as {accept}: {}", response.status());
        Ok(response)
    }

    /// The object of a GET.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get_text(path).await?)?)
    }

    /// Sends an object by POST.
    pub async fn post(&self, path: &str, object: &Value) -> Result<()> {
        self.post_text(path, object).await.map(drop)
    }

    /// The same with the object that is answered.
    pub async fn post_for(&self, path: &str, object: &Value) -> Result<Value> {
        Ok(serde_json::from_str(&self.post_text(path, object).await?)?)
    }

    async fn post_text(&self, path: &str, object: &Value) -> Result<String> {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(object)?)?;
        self.client.request_text(request).await.with_context(|| format!("POST {path} failed"))
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
        let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
        if self.is_bare {
            let account =
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
            self.post(&accounts, &account).await?;
        }
        self.until("the namespace to have a service account", || async {
            Ok(self.get_text(&format!("{accounts}/default")).await.is_ok())
        })
        .await
    }

    /// Deletes a namespace with all that is in it and waits until it is gone.
    pub async fn remove_namespace(&self, name: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{name}");
        self.delete_now(&path).await?;
        if self.is_bare {
            for kind in ["pods", "configmaps", "serviceaccounts"] {
                self.delete_now(&format!("{path}/{kind}")).await?;
            }
            let finalized = json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": []},
            });
            let request = Request::put(format!("{path}/finalize"))
                .header("content-type", "application/json")
                .body(serde_json::to_vec(&finalized)?)?;
            self.client.request_text(request).await.with_context(|| format!("cannot finalize {name}"))?;
        }
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
