//! What can be done with a resource: one function a verb, for all kinds.

mod apply;
mod body;
mod connect;
mod manager;
mod options;
mod page;
mod read;
mod socket;
mod watch;
mod write;

pub(crate) use apply::Configuration;
pub(crate) use write::{AnyPatch, check_name, patched};

use api::{Kind, Scope, Status, Verbs, kinds};
use axum::body::Body;
use http::{HeaderMap, Method, Request, Response};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    answer::{self, Offer, View, Wanted},
    hooks::Hooks,
    registry::Registry,
    request::{Query, RequestInfo, User},
    server::State,
    subresources,
    write::{Manager, Write},
};

/// A request about a resource, with everything that is needed to answer it.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a State,
    pub(crate) kind: &'static Kind,
    pub(crate) info: &'a RequestInfo,
    pub(crate) query: &'a Query,
    pub(crate) user: &'a User,
    pub(crate) headers: HeaderMap,
    /// The options of a write as an object.
    pub(crate) options: Value,
    /// When the client has to have an answer to a write.
    pub(crate) deadline: Instant,
    /// The name under which the client owns what it writes; empty for what is no write.
    pub(crate) manager: String,
}

/// Answers a request about a resource, whatever kind it is.
pub(crate) async fn serve(
    state: &State,
    info: &RequestInfo,
    query: &Query,
    user: &User,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let found = state.registry.kinds().find_patiently(&info.group, &info.version, &info.resource).await;
    let kind = found.ok_or_else(Status::no_such_resource)?;
    check_route(kind, info)?;
    // As upstream: custom resources may be asked for their heads, and what stands behind a proxy.
    if request.method() == Method::HEAD && kind.custom.is_none() && info.subresource != "proxy" {
        return Err(Status::method_not_allowed());
    }
    let mut response = answered(state, kind, info, query, user, request).await?;
    if !kind.deprecation.is_empty() {
        answer::warn(response.headers_mut(), &[kind.deprecation.to_string()]);
    }
    Ok(response)
}

async fn answered(
    state: &State,
    kind: &'static Kind,
    info: &RequestInfo,
    query: &Query,
    user: &User,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let request = if is_connection(info) {
        connect::check_method(info, request.method())?;
        let warnings = connect::admit(state, kind, info, query, user).await?;
        match connect::carry_on(state, user, info, request).await {
            Ok(answer) => {
                let mut answer = answer?;
                answer::warn(answer.headers_mut(), &warnings);
                return Ok(answer);
            }
            Err(request) => request,
        }
    } else {
        request
    };
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let manager = manager::name(info.verb, query, &parts.headers);
    let options = options::of_write(info.verb, query);
    let deadline = options::deadline(query)?;
    let call = Call { state, kind, info, query, user, headers: parts.headers, options, deadline, manager };
    match (info.verb, info.subresource.as_str()) {
        ("list", "") => read::list(&call).await,
        ("watch", "") => {
            let stream = read::watch(&call).await?;
            match upgrade.filter(|_| socket::is_asked_for(&call.headers)) {
                Some(upgrade) => socket::watch(&state.registry, &call.headers, upgrade, stream),
                None => Ok(stream),
            }
        }
        ("create", "") if info.name.is_empty() => write::create(&call, body).await,
        ("deletecollection", "") => write::delete_collection(&call, body).await,
        (_, "") if info.name.is_empty() || kind.verbs == Verbs::Create => Err(Status::method_not_allowed()),
        ("get", "" | "status" | "approval" | "ephemeralcontainers" | "resize") => read::get(&call).await,
        ("update", "" | "status" | "approval" | "finalize" | "ephemeralcontainers" | "resize") => {
            write::update(&call, body).await
        }
        ("patch", "" | "status" | "approval" | "ephemeralcontainers" | "resize") => {
            write::patch(&call, body).await
        }
        ("delete", "") => write::delete(&call, body).await,
        (_, "") => Err(Status::method_not_allowed()),
        (verb, "scale") => {
            let scale = kind.scale.ok_or_else(Status::no_such_resource)?;
            subresources::scale::serve(&call, verb, scale, body).await
        }
        ("create", "binding") => subresources::binding::create(&call, body).await,
        ("create", "eviction") => subresources::eviction::create(&call, body).await,
        ("create", "token") => write::review(&call, body).await,
        _ => Err(Status::method_not_allowed()),
    }
}

impl<'a> Call<'a> {
    pub(crate) fn registry(&self) -> &'a Registry {
        &self.state.registry
    }

    pub(crate) fn hooks(&self) -> &'a Hooks {
        &self.state.hooks
    }

    /// The form in which the client wants objects.
    pub(crate) fn view(&self) -> Result<View, Status> {
        // Custom resources have no messages; what is said of all kinds alike has.
        let is_own = matches!(self.info.subresource.as_str(), "" | "status");
        let offer = Offer {
            objects_in_protobuf: self.kind.custom.is_none() || !is_own,
            metadata: true,
            tables: !self.is_answered(),
            is_stream: self.info.verb == "watch",
        };
        View::new(self.kind, Wanted::read(&self.headers, self.query, offer)?, self.query)
    }

    /// Whether the request is a question or an order that leaves no object of its own: nothing to make a table of.
    fn is_answered(&self) -> bool {
        self.kind.verbs == Verbs::Create
            || matches!(self.info.subresource.as_str(), "binding" | "eviction" | "token")
    }

    /// The namespace that objects are in: none for those of the cluster, `namespaces` included.
    pub(crate) fn namespace(&self) -> &'a str {
        if self.kind.scope == Scope::Cluster { "" } else { &self.info.namespace }
    }

    /// A write to what the URL names.
    pub(crate) fn write(&self, dry_run: bool) -> Write<'_> {
        Write {
            registry: self.registry(),
            hooks: Some(self.hooks()),
            user: self.user,
            kind: self.kind,
            subresource: &self.info.subresource,
            namespace: self.namespace(),
            name: &self.info.name,
            dry_run,
            manager: Manager::Named(&self.manager),
            options: &self.options,
            deadline: Some(self.deadline),
        }
    }

    /// The body as an object of `kind`, which need not be the kind of the URL.
    pub(crate) async fn object_of(
        &self,
        kind: &Kind,
        body: Body,
        validation: crate::request::FieldValidation,
    ) -> Result<(api::Object, Vec<String>), Status> {
        let bytes = body::read(body).await?;
        body::object(kind, &self.headers, &bytes, validation)
    }

    /// The body as an Eviction: clients from before version 1 still name it so.
    pub(crate) async fn eviction(
        &self,
        body: Body,
        validation: crate::request::FieldValidation,
    ) -> Result<(api::Object, Vec<String>), Status> {
        let bytes = body::read(body).await?;
        body::object_of_any(&kinds::EVICTION, &["policy/v1beta1"], &self.headers, &bytes, validation)
    }

    /// The body as a patch.
    pub(crate) async fn patch_of(&self, body: Body) -> Result<AnyPatch, Status> {
        AnyPatch::read(&self.headers, &body::read(body).await?)
    }
}

/// Whether there is such a route for the kind at all; 404 else.
fn check_route(kind: &Kind, info: &RequestInfo) -> Result<(), Status> {
    let is_namespace = kind.group.is_empty() && kind.plural == "namespaces";
    let is_across = info.namespace.is_empty();
    let fits_scope = match kind.scope {
        Scope::Cluster => is_across || is_namespace,
        // Across all namespaces one can only look.
        Scope::Namespaced if is_across => matches!(info.verb, "list" | "watch"),
        Scope::Namespaced => true,
    };
    let subresource = info.subresource.as_str();
    let is_known = subresource.is_empty()
        || (subresource == "status" && kind.status)
        || (subresource == "scale" && kind.scale.is_some())
        || kind.subresources.contains(&subresource);
    // Only what is carried on has a path of its own behind it.
    let is_known = is_known && (info.rest.is_empty() || subresource == "proxy");
    match (fits_scope && is_known, kind.verbs) {
        (_, Verbs::Create) if kind.is_namespaced() && is_across => Err(Status::no_such_resource()),
        (false, _) if is_known && is_across => Err(Status::method_not_allowed()),
        (false, _) => Err(Status::no_such_resource()),
        // What is only created is nowhere to be found afterwards.
        (true, Verbs::Create) if !info.name.is_empty() => Err(Status::no_such_resource()),
        (true, Verbs::Create) if info.verb != "create" => Err(Status::method_not_allowed()),
        (true, Verbs::OneByOne) if info.verb == "deletecollection" => Err(Status::method_not_allowed()),
        (true, Verbs::Read) if !matches!(info.verb, "get" | "list") => Err(Status::method_not_allowed()),
        (true, _) => Ok(()),
    }
}

/// Whether the request is for a kubelet or a pod, not for us.
fn is_connection(info: &RequestInfo) -> bool {
    matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
}
