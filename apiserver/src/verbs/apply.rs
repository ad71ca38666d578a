//! Server-side apply: a PATCH with a configuration that says what its manager wants, and no more.

use api::{
    Kind, Object, Status,
    decode::{self, Faults},
    fields::ApplyError,
    schema,
};
use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};

use super::{Call, write::may_create};
use crate::{
    request::{FieldValidation, WriteOptions},
    write::{self, Manager, Write, Written},
};

/// A configuration as a client sent it.
pub(crate) struct Configuration {
    pub(crate) object: Object,
    /// What a strict client wants to hear.
    faults: Faults,
}

impl Configuration {
    /// Reads YAML, and so JSON.
    pub(crate) fn read(body: &Bytes) -> Result<Configuration, Status> {
        let decoded =
            decode::yaml(body).map_err(|why| Status::bad_request(format!("error decoding YAML: {why}")))?;
        Ok(Configuration { object: decoded.object, faults: decoded.faults })
    }

    /// 400 when a strict client repeats a field. Upstream says so only where the configuration can be applied.
    pub(crate) fn expect_faultless(&self, validation: FieldValidation) -> Result<(), Status> {
        match validation {
            FieldValidation::Strict if !self.faults.is_empty() => Err(Status::bad_request(format!(
                "error strict decoding YAML: error converting YAML to JSON: {}",
                self.faults
            ))),
            _ => Ok(()),
        }
    }

    /// What the client is told of repeated fields.
    pub(crate) fn warnings(&self, validation: FieldValidation) -> Vec<String> {
        match validation {
            FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn | FieldValidation::Strict => self.faults.clone().warnings(),
        }
    }

    /// 400 for a configuration of something else.
    pub(crate) fn expect(&self, api_version: &str, kind: &str) -> Result<(), Status> {
        if self.object.api_version() == api_version && self.object.kind() == kind {
            return Ok(());
        }
        let (group, version) =
            self.object.api_version().split_once('/').unwrap_or(("", self.object.api_version()));
        let found = format!("{group}/{version}, Kind={}", self.object.kind());
        Err(Status::bad_request(format!("invalid object type: {found}")))
    }
}

/// Applies a configuration to the object that the URL names, which is made when it is not there.
pub(super) async fn serve(
    call: &Call<'_>,
    options: &WriteOptions,
    config: &Configuration,
) -> Result<Response<Body>, Status> {
    config.expect(&call.kind.api_version(), call.kind.kind)?;
    let object = &canonical(call.kind, &config.object);
    let force = options.force.unwrap_or_default();
    let write = Write { manager: Manager::Settled, ..call.write(options.dry_run) };
    let finish = |applied: Result<Object, ApplyError>| {
        let applied = applied.map_err(write::refusal)?;
        config.expect_faultless(options.validation)?;
        let checked = decode::check(applied.into_value(), schema::of(call.kind));
        checked.map(|decoded| decoded.object).map_err(|why| Status::new(500, "", why))
    };
    let updated = write::apply(&write, &call.manager, object, force, finish).await;
    let (code, written): (StatusCode, Written) = match updated {
        Err(status) if is_absent(&status) && call.info.subresource.is_empty() => {
            check_new(call, object)?;
            may_create(call).await?;
            let mut new = finish(write::applied_to_nothing(&write, &call.manager, object))?;
            // Upstream does not ask which version of nothing is meant.
            new.remove(&["metadata", "resourceVersion"]);
            (StatusCode::CREATED, write::create(&write, new).await?)
        }
        updated => (StatusCode::OK, updated?),
    };
    super::write::respond(call, code, written, config.warnings(options.validation)).await
}

/// Quantities and times in the form in which they are kept, so that the same amount is no conflict. What
/// does not fit its type stays as it is, for the error to name.
fn canonical(kind: &'static Kind, config: &Object) -> Object {
    let schema = schema::of(kind);
    match decode::configuration(config.clone().into_value(), schema) {
        Ok(decoded) if decoded.faults.is_empty() => decoded.object,
        _ => config.clone(),
    }
}

fn is_absent(status: &Status) -> bool {
    status.code == 404 && status.reason == "NotFound"
}

/// A configuration that can only be meant for an object that was there makes none.
fn check_new(call: &Call<'_>, config: &Object) -> Result<(), Status> {
    if !config.uid().is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            config.uid()
        );
        return Err(Status::conflict(call.kind.group, call.kind.plural, &call.info.name, &why));
    }
    match config.name() {
        name if name.is_empty() || name == call.info.name => Ok(()),
        name => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        ))),
    }
}
