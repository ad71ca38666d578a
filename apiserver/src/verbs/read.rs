//! get, list and watch, from the cache.

use api::{Object, Status, Verbs};
use axum::body::Body;
use http::{Response, StatusCode};
use store::Revision;

use super::{
    Call,
    page::Listing,
    watch::{self, Target},
};
use crate::{
    answer::{self, View},
    registry::{key, selection::Selection},
    request::ListOptions,
};

/// One object.
pub(super) async fn get(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let view = call.view()?;
    let (kind, name) = (call.kind, call.info.name.as_str());
    if kind.verbs == Verbs::Read {
        let objects = observe(call, Some(name)).await?;
        let object = objects.into_iter().next();
        let object = object.ok_or_else(|| Status::not_found(kind.group, kind.plural, name))?;
        return answer::made(StatusCode::OK, &view, object);
    }
    let entry = match call.query.resource_version()? {
        None | Some(0) => call.registry().entry(kind, call.namespace(), name).await?,
        Some(version) => {
            call.registry().fresh_cache(kind).await?.reach(Revision(version)).await?;
            call.registry().entry(kind, call.namespace(), name).await?
        }
    };
    let entry = call.registry().shown_one(kind, entry).await?;
    answer::object(StatusCode::OK, &view, &entry)
}

/// All objects that are meant, or a page of them.
pub(super) async fn list(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let view = call.view()?;
    let options = ListOptions::read(call.query, false)?;
    if call.kind.verbs == Verbs::Read {
        return observed(call, &view, &options).await;
    }
    let selection = Selection::new(call.kind, options.labels.clone(), options.fields.clone())?;
    let listing = Listing {
        registry: call.registry(),
        kind: call.kind,
        namespace: call.namespace(),
        selection: &selection,
        options: &options,
    };
    let page = listing.page().await?;
    let entries = call.registry().shown(call.kind, page.entries).await?;
    answer::list(&view, entries, &page.meta).await
}

/// Objects that are in no store, as they are now.
async fn observed(call: &Call<'_>, view: &View, options: &ListOptions) -> Result<Response<Body>, Status> {
    options.fields.check(call.kind).map_err(Status::bad_request)?;
    let mut objects = observe(call, None).await?;
    objects.retain(|object| options.labels.matches_object(object) && options.fields.matches(object));
    answer::made_list(view, objects)
}

async fn observe(call: &Call<'_>, name: Option<&str>) -> Result<Vec<Object>, Status> {
    call.hooks().answers.observe(call.registry(), call.kind, call.namespace(), name).await
}

/// Changes of all objects that are meant.
pub(super) async fn watch(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let view = call.view()?;
    let options = ListOptions::read(call.query, true)?;
    let mut selection = Selection::new(call.kind, options.labels.clone(), options.fields.clone())?;
    if !call.info.name.is_empty() {
        selection = selection.named(&call.info.name);
    }
    let cache = match options.resource_version {
        Some(0) => call.registry().cache(call.kind).await?,
        _ => call.registry().fresh_cache(call.kind).await?,
    };
    if let Some(version) = options.resource_version.filter(|_| options.has_initial_events()) {
        cache.reach(Revision(version)).await?;
    }
    let prefix = key::prefix(call.kind, call.namespace());
    let stop = cache.closed();
    let registry = call.state.registry.clone();
    let target = Target { registry, cache, view, prefix, selection };
    Ok(watch::respond(target, &options, stop))
}
