//! The cluster that is measured: raw requests, so that the client costs as little as it can.

use std::{io, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream, stream::BoxStream};
use http::{
    Method, Request,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::body::Bytes;
use kube::{
    Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::connection::{Answer, Connections};

/// The media type of objects as everybody reads them.
pub const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
/// How often something is looked at that cannot be watched.
const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection to a cluster.
#[derive(Clone)]
pub struct Cluster {
    connections: Connections,
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
        Ok(Cluster { connections: Connections::http1(&config).await?, config, is_bare })
    }

    /// The same cluster through one more connection of its own, which speaks HTTP/2.
    pub async fn over_http2(&self) -> Result<Cluster> {
        Ok(Cluster { connections: Connections::http2(&self.config).await?, ..self.clone() })
    }

    /// The same cluster as somebody who has this token and nothing else.
    pub async fn with_token(&self, token: String) -> Result<Cluster> {
        let mut config = self.config.clone();
        config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
        Ok(Cluster { connections: Connections::http2(&config).await?, config, is_bare: self.is_bare })
    }

    /// The body of a GET.
    pub async fn get_text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8(self.response(path, JSON).await?.whole().await?)?)
    }

    /// How long the body of a GET is that comes in the form `accept`. Of the body nothing is kept.
    pub async fn get_length(&self, path: &str, accept: &'static str) -> Result<usize> {
        let mut answer = self.response(path, accept).await?;
        let mut length = 0;
        while let Some(piece) = answer.piece().await.with_context(|| format!("GET {path} ended early"))? {
            length += piece.len();
        }
        Ok(length)
    }

    /// The answer to a GET once its head is here.
    pub async fn response(&self, path: &str, accept: &'static str) -> Result<Answer> {
        let request = Request::get(path).header(ACCEPT, accept).body(Full::default())?;
        self.send(request).await
    }

    /// The object of a GET.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.response(path, JSON).await?.whole().await?)?)
    }

    /// Sends an object by POST.
    pub async fn post(&self, path: &str, object: &Value) -> Result<()> {
        self.post_bytes(path, bytes(object)).await
    }

    /// The same with an object that is encoded already.
    pub async fn post_bytes(&self, path: &str, object: Bytes) -> Result<()> {
        self.change(Method::POST, path, JSON, object).await.map(drop)
    }

    /// Sends an object by POST and returns what is answered.
    pub async fn post_for(&self, path: &str, object: &Value) -> Result<Value> {
        Ok(serde_json::from_slice(&self.change(Method::POST, path, JSON, bytes(object)).await?)?)
    }

    /// Sends a merge patch.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<()> {
        self.change(Method::PATCH, path, MERGE_PATCH, bytes(patch)).await.map(drop)
    }

    /// Deletes without waiting for anybody.
    pub async fn delete_now(&self, path: &str) -> Result<()> {
        let options = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
        self.change(Method::DELETE, path, JSON, bytes(&options)).await.map(drop)
    }

    async fn change(
        &self,
        method: Method,
        path: &str,
        content: &'static str,
        body: Bytes,
    ) -> Result<Vec<u8>> {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content);
        self.send(request.body(Full::new(body))?).await?.whole().await
    }

    /// The answer once its head is here; what the server refuses is an error.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        // Named only where it fails: this runs within what is measured.
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let named = || format!("{method} {uri}");
        let answer = self.connections.send(request).await.with_context(|| format!("{} failed", named()))?;
        let status = answer.response.status();
        if !status.is_success() {
            let why = answer.whole().await?;
            bail!("{}: {status}: {}", named(), String::from_utf8_lossy(&why));
        }
        Ok(answer)
    }

    /// The lines of a watch as they arrive, unread: reading them is the caller's, after the clock.
    pub async fn watch(&self, path: &str) -> Result<BoxStream<'static, io::Result<String>>> {
        let answer = self.response(path, JSON).await?;
        let pieces = stream::try_unfold(answer, |mut answer| async move {
            let piece = answer.piece().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(piece.map(|piece| (piece, answer)))
        });
        Ok(pieces.boxed().into_async_read().lines().boxed())
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
            self.change(Method::PUT, &format!("{path}/finalize"), JSON, bytes(&finalized)).await?;
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

/// An object as it is sent.
pub fn bytes(object: &Value) -> Bytes {
    object.to_string().into()
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
