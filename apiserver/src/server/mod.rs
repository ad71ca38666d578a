//! The server: from a request to its answer, whether it came over the network or from inside the process.

mod corked;
mod deadline;
mod in_process;
mod listen;
mod metrics;
mod paths;
mod prompt;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use api::Status;
use axum::{Router, body::Body};
use daemon::health::Health;
use futures::FutureExt;
use http::{Request, Response};
use store::Store;
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    admission,
    aggregation::{self, Aggregation},
    answer::{self, Wanted},
    audit::{Audit, Trail},
    authz, crd,
    fairness::{Class, Fairness, Turn},
    hooks::Hooks,
    pki::CertifiedPair,
    registry::Registry,
    request::{PeerCertificate, Query, RequestInfo, User},
    verbs,
};

pub use in_process::InProcess;

/// What a server needs to know; who may do what is in [`Hooks`].
pub struct Config {
    /// Certificate and key, and the CA that client certificates are checked against. `None`: plain HTTP, for tests.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Further routes, for paths that are no resources.
    pub extra: Option<Router>,
    /// The audit log, if there is one.
    pub audit: Option<Arc<Audit>>,
    /// What has to be true before `/readyz` says so.
    pub health: Health,
    /// The front-proxy client certificate, which is shown to extension API servers; `None`: there are none.
    pub front_proxy: Option<CertifiedPair>,
    /// Ends watches and connections.
    pub stop: CancellationToken,
    /// How much is done at once.
    pub limits: Limits,
    /// The commit that the program was built from, as `/version` tells it; empty when nobody knows.
    pub commit: &'static str,
}

/// How much the server does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many requests are answered at once; priority levels share them. Watches that have begun do not count.
    pub requests: u32,
}

/// Upstream's defaults for `--max-requests-inflight` and `--max-mutating-requests-inflight`, added up.
impl Default for Limits {
    fn default() -> Limits {
        Limits { requests: 600 }
    }
}

/// The API server. Cheap to clone; all clones are one server.
#[derive(Clone)]
pub struct ApiServer {
    state: Arc<State>,
}

/// What every request can reach.
pub(crate) struct State {
    pub(crate) registry: Arc<Registry>,
    pub(crate) hooks: Hooks,
    pub(crate) aggregation: Arc<Aggregation>,
    pub(crate) stop: CancellationToken,
    fairness: Arc<Fairness>,
    extra: Option<Router>,
    audit: Option<Arc<Audit>>,
    health: Health,
    tls: Option<TlsAcceptor>,
    connections: TaskTracker,
    commit: &'static str,
}

impl ApiServer {
    /// The objects of `store`, for [`ApiServer::new`] and for the hooks. `is_shared` says whether other
    /// servers write to it, too.
    pub fn registry(store: Arc<dyn Store>, is_shared: bool, stop: &CancellationToken) -> Arc<Registry> {
        Registry::new(store, is_shared, stop.clone())
    }

    /// A server in front of `registry`. It answers in-process clients from now on, the network with
    /// [`ApiServer::serve`].
    pub fn new(registry: Arc<Registry>, hooks: Hooks, config: Config) -> ApiServer {
        let Config { tls, extra, audit, health, front_proxy, stop, limits, commit } = config;
        let connections = TaskTracker::new();
        crd::start(&registry);
        admission::start_type_checks(&registry);
        let fairness = Fairness::start(&registry, limits.requests);
        let is_aggregating = front_proxy.is_some();
        let aggregation = Arc::new(Aggregation::new(front_proxy));
        if is_aggregating {
            aggregation.start(&registry);
        }
        let tls = tls.map(listen::acceptor);
        let state = State {
            registry,
            hooks,
            aggregation,
            stop,
            fairness,
            extra,
            audit,
            health,
            tls,
            connections,
            commit,
        };
        ApiServer { state: Arc::new(state) }
    }

    /// The server's objects.
    pub fn objects(&self) -> &Arc<Registry> {
        &self.state.registry
    }

    /// A way to send requests as `user` without a socket: a tower service, as `kube::Client` takes it.
    pub fn in_process(&self, user: User) -> InProcess {
        InProcess::new(self.state.clone(), user)
    }

    /// Waits until every connection and every cache has ended, after the stop.
    pub async fn stopped(&self) {
        self.state.connections.close();
        self.state.connections.wait().await;
        self.state.registry.stopped().await;
        if let Some(audit) = &self.state.audit {
            audit.flushed().await;
        }
    }
}

impl State {
    /// Answers a request, whatever happens: a panic is this request's 500 and nobody else's.
    pub(crate) async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let query = match Query::of(request.uri()) {
            Ok(query) => query,
            Err(status) => return answer::failure(&status, &Wanted::default()),
        };
        let wanted = Wanted::of_failures(request.headers(), &query);
        let info = RequestInfo::read(request.method(), request.uri(), &query);
        let span = tracing::debug_span!("request", verb = info.verb, path = info.path);
        let _in_flight = metrics::InFlight::begin(&info);
        let trail = Trail::begin(self.audit.as_ref(), &info, &request);
        let mut class = None;
        let answer = trail.follow(self.in_time(&info, &query, request, &trail, &mut class));
        let answered = AssertUnwindSafe(answer).catch_unwind().instrument(span);
        let mut response = match answered.await {
            Ok(Ok(response)) => trail.answered(&info, response, None).await,
            Ok(Err(status)) => {
                tracing::debug!(verb = info.verb, path = info.path, %status, "request failed");
                trail.answered(&info, answer::failure(&status, &wanted), Some(&status)).await
            }
            Err(panic) => {
                let message = panic_message(&*panic);
                let (verb, path) = (info.verb, &info.path);
                tracing::error!(request_id = trail.id(), verb, path, message, "request panicked");
                trail.panicked(message).await;
                let why = "This request caused apiserver to panic. Look in the logs for details.";
                let mut response = answer::failure(&Status::internal(why), &wanted);
                trail.mark(&mut response);
                response
            }
        };
        if let Some(class) = class {
            class.mark(&mut response);
        }
        metrics::record(&info, response.status(), started.elapsed());
        response
    }

    /// The answer, or what a client is told that has waited long enough for one.
    async fn in_time(
        &self,
        info: &RequestInfo,
        query: &Query,
        request: Request<Body>,
        trail: &Trail,
        class: &mut Option<Class>,
    ) -> Result<Response<Body>, Status> {
        // Boxed: everything around it moves it before it runs, and it is as large as the largest answer's making.
        let answer = Box::pin(self.answer(info, query, request, trail, class));
        match deadline::of(info, query)? {
            Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| deadline::exceeded())?,
            None => answer.await,
        }
    }

    async fn answer(
        &self,
        info: &RequestInfo,
        query: &Query,
        request: Request<Body>,
        trail: &Trail,
        class: &mut Option<Class>,
    ) -> Result<Response<Body>, Status> {
        let (mut parts, body) = request.into_parts();
        let user = match parts.extensions.get::<Arc<User>>() {
            Some(user) => user.clone(),
            None => {
                let peer = parts.extensions.get::<PeerCertificate>();
                Arc::new(self.hooks.authenticator.authenticate(&parts, peer).await?)
            }
        };
        trail.authenticated(&user, info).await;
        // Groups without a user are a mistake that must not pass for the caller's own request.
        let user = match parts.headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            true => {
                let wanted = self.hooks.authorizer.impersonated((*user).clone(), &parts).await?;
                trail.impersonated(&wanted);
                Arc::new(wanted)
            }
            false => user,
        };
        self.hooks.authenticator.strip(&mut parts.headers);
        let request = Request::from_parts(parts, body);
        let turn = self.fairness.turn(&self.registry, &user, info, query, class).await;
        let seat = match turn {
            Turn::Now(seat) => seat,
            Turn::Never(refusal) => return Ok(refusal),
        };
        let decision = self.hooks.authorizer.authorize(&user, info).await;
        trail.decided(&decision);
        if !decision.allowed {
            return Err(authz::forbidden(&user, &authz::Question::from(info), &decision.reason));
        }
        if let Some((group, version)) = aggregation::addressed(&info.path)
            && let Some(service) = self.aggregation.find(&self.registry, group, version).await?
        {
            // Its answer may begin only with its first event; until then it is the other server that counts it.
            let _seat = (info.verb != "watch").then_some(seat);
            return self.aggregation.carry_on(&self.registry, &service, &user, request).await;
        }
        let _seat = seat;
        match info.is_resource {
            true => verbs::serve(self, info, query, &user, request).await,
            false => paths::serve(self, info, query, &user, request).await,
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
