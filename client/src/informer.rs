//! Keeps caches up to date: list once, then watch, for as long as the process lives.
//!
//! A watch that ends is resumed where it stopped; only when the server no longer has that revision (410) is
//! the kind listed again, and then the cache tells the difference alone. Nothing wakes up while nothing changes.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use kube::{
    Client,
    api::{ListParams, ObjectList, WatchEvent, WatchParams},
    core::Request,
};
use tokio_util::sync::CancellationToken;

use crate::{ApiObject, Cache, watching};

/// Pages of the first list are this long: a bound on what is held twice while it is taken over.
const PAGE: u32 = 500;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

static SHARED: OnceLock<Informers> = OnceLock::new();

/// The caches of a process, one for each kind, filled from when they are first asked for.
#[derive(Clone)]
pub struct Informers {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    stop: CancellationToken,
    caches: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Informers {
    /// The caches of one component. In a process that has called [`Informers::share`] these are the shared
    /// ones, so that a kind is watched and held once however many components look at it.
    pub fn new(client: Client, stop: CancellationToken) -> Informers {
        match SHARED.get() {
            Some(shared) => shared.clone(),
            None => Informers::separate(client, stop),
        }
    }

    /// Caches of one's own, also where the process shares some.
    pub fn separate(client: Client, stop: CancellationToken) -> Informers {
        Informers { inner: Arc::new(Inner { client, stop, caches: Mutex::default() }) }
    }

    /// Makes all components of this process share one set of caches, filled through `client`. For a binary
    /// that runs several components of one cluster; to be called before they start. Later calls change nothing.
    pub fn share(client: Client, stop: CancellationToken) -> Informers {
        SHARED.get_or_init(|| Informers::separate(client, stop)).clone()
    }

    /// The cache of a kind. Its informer starts with the first call.
    pub fn cache<K: ApiObject>(&self) -> Arc<Cache<K>> {
        let mut caches = self.inner.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let held = caches.entry(TypeId::of::<K>()).or_insert_with(|| {
            start::<K>(self.inner.client.clone(), Selection::default(), self.inner.stop.clone())
        });
        held.clone().downcast().expect("the entry under K's type id is K's cache")
    }

    /// The cache of a kind, if somebody in the process has asked for it.
    pub fn peek<K: ApiObject>(&self) -> Option<Arc<Cache<K>>> {
        let caches = self.inner.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.get(&TypeId::of::<K>())?.clone().downcast().ok()
    }
}

/// Which objects of a kind an informer of one's own follows.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// A field selector such as `spec.nodeName=n1`.
    pub fields: Option<String>,
    /// A label selector.
    pub labels: Option<String>,
}

/// Starts an informer for a part of a kind. It runs until `stop`.
pub fn start<K: ApiObject>(client: Client, selection: Selection, stop: CancellationToken) -> Arc<Cache<K>> {
    let cache = Arc::new(Cache::default());
    let informer = Informer { client, selection, cache: cache.clone() };
    tokio::spawn(async move { stop.run_until_cancelled_owned(informer.run()).await });
    cache
}

struct Informer<K> {
    client: Client,
    selection: Selection,
    cache: Arc<Cache<K>>,
}

/// Why a watch stopped.
enum Ended {
    /// The server closed it, as it does from time to time.
    Closed,
    /// The revision is no longer there; only a new list helps.
    Expired,
}

impl<K: ApiObject> Informer<K> {
    async fn run(self) {
        let mut listed = false;
        let mut pause = FIRST_PAUSE;
        loop {
            let revision = self.cache.revision();
            match self.follow(&mut listed).await {
                Ok(Ended::Closed) => {}
                Ok(Ended::Expired) => listed = false,
                Err(error) => {
                    let kind = K::kind(&());
                    tracing::warn!(%kind, error = &error as &dyn std::error::Error, "watch interrupted, will resume");
                }
            }
            let moved = self.cache.revision() > revision;
            pause = if moved { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn follow(&self, listed: &mut bool) -> Result<Ended, kube::Error> {
        if !*listed {
            self.list().await?;
            *listed = true;
        }
        match self.watch().await {
            Err(kube::Error::Api(status)) if status.code == 410 => Ok(Ended::Expired),
            ended => ended,
        }
    }

    async fn list(&self) -> Result<(), kube::Error> {
        let mut page = ListParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let mut objects = Vec::new();
        loop {
            let request = self.resource().list(&page).map_err(kube::Error::BuildRequest)?;
            let list: ObjectList<K> = self.client.request(request).await?;
            objects.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => {
                    let revision = list.metadata.resource_version.and_then(|text| text.parse().ok());
                    self.cache.replace(objects, revision.unwrap_or_default());
                    return Ok(());
                }
            }
        }
    }

    async fn watch(&self) -> Result<Ended, kube::Error> {
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            ..WatchParams::default()
        };
        let from = self.cache.revision().to_string();
        let request = self.resource().watch(&params, &from).map_err(kube::Error::BuildRequest)?;
        let request = without_time_limit(request)?;
        let mut watching = watching::begin(&self.client, request).await?;
        while let Some(event) = watching.next::<K>().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => self.cache.apply(object),
                WatchEvent::Deleted(object) => self.cache.delete(object),
                WatchEvent::Bookmark(mark) => {
                    self.cache.advance(mark.metadata.resource_version.parse().unwrap_or_default());
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
        Ok(Ended::Closed)
    }

    fn resource(&self) -> Request {
        Request::new(K::url_path(&(), self.selection.namespace.as_deref()))
    }
}

/// kube asks the server to end each watch after 290 s. In an idle cluster these would be the only things that
/// happen; how long a watch may last is for the server to say.
pub fn without_time_limit(
    mut request: http::Request<Vec<u8>>,
) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let uri = request.uri().to_string();
    let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("timeoutSeconds=")).collect();
    let uri = http::Uri::try_from(format!("{path}?{}", kept.join("&")));
    *request.uri_mut() = uri.map_err(|error| kube::Error::HttpError(error.into()))?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_asks_for_no_time_limit() {
        let request = Request::new("/api/v1/pods").watch(&WatchParams::default().labels("a=b"), "7").unwrap();
        let uri = without_time_limit(request).unwrap().uri().to_string();
        assert!(!uri.contains("timeoutSeconds"), "{uri}");
        for kept in ["watch=true", "labelSelector=a%3Db", "allowWatchBookmarks=true", "resourceVersion=7"] {
            assert!(uri.contains(kept), "{uri}");
        }
    }
}
