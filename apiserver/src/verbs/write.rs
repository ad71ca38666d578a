//! create, update, patch, delete and deletecollection.

use api::{FieldError, FieldErrorKind, Kind, Object, Scope, Status, Verbs, decode, kinds, patch, schema};
use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Call,
    apply::{self, Configuration},
    body, options,
    page::Listing,
};
use crate::{
    answer, authz,
    hooks::Operation,
    registry::selection::Selection,
    request::{DeleteOptions, FieldValidation, ListOptions, RequestInfo, WriteOptions},
    write::{self as store_write, Deleted, Write, Written},
};

/// How many objects of a collection are deleted at once.
const DELETIONS_AT_ONCE: usize = 16;

/// POST to a collection.
pub(super) async fn create(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(call.query, call.info.verb)?;
    call.view()?;
    let (object, warnings) = call.object_of(call.kind, body, options.validation).await?;
    if call.kind.plural == "bindings" && call.kind.group.is_empty() {
        return crate::subresources::binding::bind(call, &object, options.dry_run).await;
    }
    if call.kind.verbs == Verbs::Create {
        return answered(call, object, options.dry_run, warnings).await;
    }
    let written = store_write::create(&call.write(options.dry_run), object).await?;
    respond(call, StatusCode::CREATED, written, warnings).await
}

/// POST to a service account's `token`, which is answered and not stored.
pub(super) async fn review(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(call.query, call.info.verb)?;
    let (object, warnings) = call.object_of(&kinds::TOKEN_REQUEST, body, options.validation).await?;
    answered(call, object, options.dry_run, warnings).await
}

/// The answer to what is not stored, once admission has seen it, as it sees everything that is created.
async fn answered(
    call: &Call<'_>,
    mut object: Object,
    dry_run: bool,
    mut warnings: Vec<String>,
) -> Result<Response<Body>, Status> {
    let write = call.write(dry_run);
    warnings.extend(write.mutate_admission(Operation::Create, &mut object).await?);
    // What travels through a subresource need not have the name of what it is about.
    let name = call.info.name.as_str();
    warnings.extend(write.validate_admission_of(name, Operation::Create, Some(&object), None).await?);
    let answer = call.hooks().answers.review(call.registry(), call.user, call.info, &object).await;
    let answer = answer.ok_or_else(Status::method_not_allowed)??;
    let mut response = answer::made(StatusCode::CREATED, &call.view()?, answer)?;
    answer::warn(response.headers_mut(), &warnings);
    Ok(response)
}

/// PUT.
pub(super) async fn update(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(call.query, call.info.verb)?;
    call.view()?;
    let (object, warnings) = call.object_of(call.kind, body, options.validation).await?;
    check_name(call, &object)?;
    let write = call.write(options.dry_run);
    let updated = store_write::update(&write, |old| {
        store_write::check_uid(call.kind, call.kind.plural, &object, &old)?;
        check_version(call.kind, &object)?;
        Ok(object.clone())
    });
    let updated = updated.await;
    let creates = call.info.subresource.is_empty() && call.kind.created_by_put;
    match updated {
        Err(status) if status.code == 404 && creates && object.name() == call.info.name => {
            store_write::check_uid(call.kind, call.kind.plural, &object, &Object::default())?;
            may_create(call).await?;
            // Whatever version it was based on is gone.
            let mut object = object;
            object.remove(&["metadata", "resourceVersion"]);
            let written = store_write::create(&write, object).await?;
            respond(call, StatusCode::CREATED, written, warnings).await
        }
        updated => respond(call, StatusCode::OK, updated?, warnings).await,
    }
}

/// Whether a PUT may leave out which version it is based on. Kinds that came late, and custom ones, want it named.
fn check_version(kind: &Kind, object: &Object) -> Result<(), Status> {
    if !kind.needs_version || !matches!(object.resource_version(), "" | "0") {
        return Ok(());
    }
    let error = FieldError::invalid("metadata.resourceVersion", &0.into(), "must be specified for an update");
    // Upstream has the resource in place of the kind here.
    Err(Status::invalid(kind.group, kind.plural, object.name(), &[error]))
}

/// What a PUT brings must be named as the URL says, whether there is such an object or not.
pub(crate) fn check_name(call: &Call<'_>, object: &Object) -> Result<(), Status> {
    let (name, namespace) = (&call.info.name, &call.info.namespace);
    let why = match (object.name(), object.namespace()) {
        ("", _) => {
            format!("the name of the object ({name} based on URL) was undeterminable: name must be provided")
        }
        (other, _) if other != name => {
            format!("the name of the object ({other}) does not match the name on the URL ({name})")
        }
        (_, other) if !namespace.is_empty() && !other.is_empty() && other != namespace => {
            format!(
                "the namespace of the object ({other}) does not match the namespace on the request ({namespace})"
            )
        }
        _ => return Ok(()),
    };
    Err(Status::bad_request(why))
}

/// PATCH.
pub(super) async fn patch(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(call.query, call.info.verb)?;
    call.view()?;
    let patch = match call.patch_of(body).await? {
        AnyPatch::Configuration(config) => {
            options.check_patch(true)?;
            return apply::serve(call, &options, &config).await;
        }
        AnyPatch::Plain(patch) => patch,
    };
    options.check_patch(false)?;
    let mut warnings = Vec::new();
    let write = call.write(options.dry_run);
    let written = store_write::update(&write, |old| {
        let (object, faults) = patched(call.kind, &patch, old, options.validation)?;
        check_name(call, &object)?;
        warnings = faults;
        Ok(object)
    });
    let written = written.await?;
    respond(call, StatusCode::OK, written, warnings).await
}

/// Whether the client may create what a PUT or an apply patch finds absent.
pub(super) async fn may_create(call: &Call<'_>) -> Result<(), Status> {
    let info = RequestInfo { verb: "create", ..call.info.clone() };
    let decision = call.hooks().authorizer.authorize(call.user, &info).await;
    match decision.allowed {
        true => Ok(()),
        false => Err(authz::forbidden(call.user, &authz::Question::from(&info), &decision.reason)),
    }
}

/// DELETE of one object.
pub(super) async fn delete(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let (options, object) = delete_options(call, body).await?;
    let write = Write { options: &object, ..call.write(options.dry_run) };
    let deleted = store_write::delete(&write, &options).await?;
    let Deleted { entry, is_gone, warnings } = deleted;
    // Upstream says so only to those who ask in the old way.
    let code = match object["orphanDependents"] == false && !is_gone {
        true => StatusCode::ACCEPTED,
        false => StatusCode::OK,
    };
    let view = call.view()?;
    let entry = call.registry().shown_one(call.kind, entry).await?;
    if !is_gone || call.kind.returned_when_deleted {
        let mut response = answer::object(code, &view, &entry)?;
        answer::warn(response.headers_mut(), &warnings);
        return Ok(response);
    }
    let object = entry.decode_as(call.kind)?;
    let mut details = json!({"name": object.name(), "kind": call.kind.plural, "uid": object.uid()});
    if !call.kind.group.is_empty() {
        details["group"] = call.kind.group.into();
    }
    let mut response = answer::value(StatusCode::OK, &success(details), &view.wanted)?;
    answer::warn(response.headers_mut(), &warnings);
    Ok(response)
}

/// DELETE of everything that is meant.
pub(super) async fn delete_collection(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let (options, object) = delete_options(call, body).await?;
    let view = call.view()?;
    let list = ListOptions::read(call.query, false)?;
    let selection = Selection::new(call.kind, list.labels.clone(), list.fields.clone())?;
    let listing = Listing {
        registry: call.registry(),
        kind: call.kind,
        namespace: call.namespace(),
        selection: &selection,
        options: &list,
    };
    let page = listing.page().await?;
    let delete_one = |entry: std::sync::Arc<crate::registry::entry::Entry>| {
        let (options, write) = (&options, Write { options: &object, ..call.write(options.dry_run) });
        async move {
            let namespace = if call.kind.scope == Scope::Cluster { "" } else { entry.namespace() };
            let write = Write { namespace, name: entry.name(), ..write };
            match store_write::delete(&write, options).await {
                // Somebody else was faster: gone is gone.
                Err(status) if status.code == 404 => Ok(()),
                deleted => deleted.map(drop),
            }
        }
    };
    let deletions = stream::iter(page.entries.clone()).map(delete_one).buffered(DELETIONS_AT_ONCE);
    deletions.try_collect::<()>().await?;
    // The answer is what was found, as it was.
    let found = call.registry().shown(call.kind, page.entries).await?;
    answer::list(&view, found, &page.meta).await
}

/// What the client asks for, and the same as an object.
async fn delete_options(call: &Call<'_>, body: Body) -> Result<(DeleteOptions, Value), Status> {
    let bytes = body::read(body).await?;
    let asked = options::of_deletion(call.query);
    if bytes.is_empty() {
        let asked = asked?;
        return Ok((DeleteOptions::from_object(&asked)?, asked.into_value()));
    }
    let schema = schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
    let mut object = body::decoded(&call.headers, &bytes, schema)?.object;
    if !matches!(object.kind(), "" | "DeleteOptions") {
        return Err(Status::bad_request("decoded object cannot be converted to DeleteOptions"));
    }
    let from_query = DeleteOptions::from_object(&asked?)?;
    let from_body = DeleteOptions::from_object(&object)?;
    let dry_run = from_body.dry_run || from_query.dry_run;
    object.set(&["apiVersion"], options::API_VERSION);
    object.set(&["kind"], "DeleteOptions");
    Ok((DeleteOptions { dry_run, ..from_body }, object.into_value()))
}

/// `v1.Status` of something that went well.
pub(crate) fn success(details: Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

pub(super) async fn respond(
    call: &Call<'_>,
    code: StatusCode,
    written: Written,
    mut warnings: Vec<String>,
) -> Result<Response<Body>, Status> {
    let view = call.view()?;
    let entry = call.registry().shown_one(call.kind, written.entry).await?;
    let mut response = answer::object(code, &view, &entry)?;
    warnings.extend(written.warnings);
    answer::warn(response.headers_mut(), &warnings);
    Ok(response)
}

/// An object with a patch applied to it, without what its kind does not know.
pub(crate) fn patched(
    kind: &Kind,
    patch: &Patch,
    old: Object,
    validation: FieldValidation,
) -> Result<(Object, Vec<String>), Status> {
    let original = old.into_value();
    let patched = patch.apply(kind, &original)?;
    let unfit = |why: String| {
        let value = format!("{:?}", patch.shown(kind, &original));
        Status::invalid("", "", "", &[FieldError::new(FieldErrorKind::Invalid, "patch", value, why)])
    };
    if !is_known(&patched, kind) {
        let (name, version) = (patched.kind(), patched.api_version());
        return Err(unfit(format!(
            "no kind {name:?} is registered for version {version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        )));
    }
    let decoded = decode::check(patched.into_value(), schema::of(kind)).map_err(unfit)?;
    let warnings = match validation {
        FieldValidation::Ignore => Vec::new(),
        _ => patch.faults.iter().cloned().chain(decoded.faults.warnings()).collect(),
    };
    if validation == FieldValidation::Strict && !warnings.is_empty() {
        return Err(unfit(format!("strict decoding error: {}", warnings.join(", "))));
    }
    Ok((decoded.object, warnings))
}

/// Whether a patch has left an object of a kind that there is.
fn is_known(patched: &Object, kind: &Kind) -> bool {
    let is_same = (patched.kind(), patched.api_version()) == (kind.kind, kind.api_version().as_str());
    if is_same
        || kind.custom.is_some()
        || matches!((patched.kind(), patched.api_version()), ("", _) | (_, ""))
    {
        return true;
    }
    let (group, version) = patched.api_version().rsplit_once('/').unwrap_or(("", patched.api_version()));
    kinds::find_kind(group, version, patched.kind()).is_some()
}

/// A patch of any sort.
pub(crate) enum AnyPatch {
    /// That needs nobody's memory.
    Plain(Patch),
    /// For server-side apply.
    Configuration(Configuration),
}

/// The content types of patches.
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

impl AnyPatch {
    /// Reads a patch by its content type; 415 for others.
    pub(crate) fn read(headers: &HeaderMap, body: &Bytes) -> Result<AnyPatch, Status> {
        let sort = match body::content_type(headers).as_str() {
            APPLY_PATCH => return Configuration::read(body).map(AnyPatch::Configuration),
            JSON_PATCH => Sort::Json,
            MERGE_PATCH => Sort::Merge,
            STRATEGIC_PATCH => Sort::Strategic,
            _ => {
                let known = [JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH];
                return Err(decode::unsupported_media_type(&known));
            }
        };
        let (value, mut faults) = decode::patch(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        if matches!(sort, Sort::Json) {
            faults.extend(unknown_fields(&value));
            faults.iter_mut().for_each(|fault| fault.insert_str(0, "json patch "));
        }
        // To Go, nothing is an empty list or map; only a merge patch is asked whether it is something.
        let value = match (sort, value) {
            (Sort::Json, Value::Null) => json!([]),
            (Sort::Strategic, Value::Null) => json!({}),
            (_, value) => value,
        };
        Ok(AnyPatch::Plain(Patch { sort, value, faults }))
    }
}

/// What the operations of a JSON patch have that operations do not have.
fn unknown_fields(patch: &Value) -> impl Iterator<Item = String> {
    let operations = patch.as_array().into_iter().flatten().enumerate();
    let fields = operations.flat_map(|(index, operation)| {
        operation.as_object().into_iter().flat_map(Map::keys).map(move |key| (index, key))
    });
    fields
        .filter(|(_, key)| !matches!(key.as_str(), "op" | "path" | "from" | "value"))
        .map(|(index, key)| format!("unknown field {:?}", format!("[{index}].{key}")))
}

/// A patch of one of the three sorts that need nobody's memory.
pub(crate) struct Patch {
    sort: Sort,
    value: Value,
    /// What a strict client wants to hear of the patch itself.
    faults: Vec<String>,
}

#[derive(Clone, Copy)]
enum Sort {
    Json,
    Merge,
    Strategic,
}

impl Patch {
    /// The patched object.
    fn apply(&self, kind: &Kind, original: &Value) -> Result<Object, Status> {
        // A custom resource has no merge keys that a strategic merge could go by.
        let typed = schema::of(kind).filter(|schema| schema.custom.is_none());
        let patched = match (self.sort, typed) {
            (Sort::Json, _) => patch::json_patch(original, &self.value)?,
            (Sort::Strategic, Some(schema)) => patch::strategic_merge(schema, original, &self.value)?,
            (Sort::Strategic, None) => {
                return Err(decode::unsupported_media_type(&[JSON_PATCH, MERGE_PATCH, APPLY_PATCH]));
            }
            (Sort::Merge, _) => patch::merge_patch(original, &self.value)?,
        };
        Object::from_value(patched).ok_or_else(not_an_object)
    }

    /// What is shown of a patch that leaves no good object: a strategic merge itself, as it never was text; of the
    /// others what came of them.
    fn shown(&self, kind: &Kind, original: &Value) -> String {
        match self.sort {
            Sort::Strategic => self.value.to_string(),
            Sort::Json | Sort::Merge => {
                self.apply(kind, original).map(|patched| patched.into_value().to_string()).unwrap_or_default()
            }
        }
    }
}

fn not_an_object() -> Status {
    Status::bad_request("the patched object is not a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_came_late_are_replaced_only_by_who_knows_their_version() {
        let needs_version = |group, plural| {
            let kind = kinds::built_in(group, plural);
            check_version(kind, &Object::default()).is_err()
        };
        assert!(needs_version("certificates.k8s.io", "clustertrustbundles"));
        assert!(needs_version("certificates.k8s.io", "podcertificaterequests"));
        assert!(needs_version("storagemigration.k8s.io", "storageversionmigrations"));
        assert!(!needs_version("", "configmaps"));
    }
}
