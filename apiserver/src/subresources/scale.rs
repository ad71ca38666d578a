//! `scale`: the number of replicas of any kind that has one, as an `autoscaling/v1` Scale.

use api::{Kind, Object, Scale, Status, fields::ApplyError, kinds, selector::LabelSelector};
use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::{
    answer::{self, View},
    request::WriteOptions,
    verbs::{AnyPatch, Call, Configuration, check_name, patched},
    write::{self, Manager, Write},
};

const API_VERSION: &str = "autoscaling/v1";

/// get, update and patch.
pub(crate) async fn serve(
    call: &Call<'_>,
    verb: &str,
    paths: &'static Scale,
    body: Body,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(call.query, call.info.verb)?;
    let mut warnings = Vec::new();
    let scale = match verb {
        "get" => {
            let entry = call.registry().entry(call.kind, call.namespace(), &call.info.name).await?;
            scale_of(&entry.decode_as(call.kind)?, paths)
        }
        "update" => {
            let (wanted, faults) = call.object_of(&kinds::SCALE, body, options.validation).await?;
            check_name(call, &wanted)?;
            warnings = faults;
            set(call, options.dry_run, paths, |_| Ok(wanted.clone())).await?
        }
        "patch" => match call.patch_of(body).await? {
            AnyPatch::Configuration(config) => {
                options.check_patch(true)?;
                apply(call, &options, paths, &config).await?
            }
            AnyPatch::Plain(patch) => {
                options.check_patch(false)?;
                let change = |scale| {
                    let (scale, faults) = patched(&kinds::SCALE, &patch, scale, options.validation)?;
                    check_name(call, &scale)?;
                    warnings = faults;
                    Ok(scale)
                };
                set(call, options.dry_run, paths, change).await?
            }
        },
        _ => return Err(Status::method_not_allowed()),
    };
    let view = View::new(&kinds::SCALE, call.view()?.wanted, call.query)?;
    let mut response = answer::made(StatusCode::OK, &view, scale)?;
    answer::warn(response.headers_mut(), &warnings);
    Ok(response)
}

async fn set(
    call: &Call<'_>,
    dry_run: bool,
    paths: &'static Scale,
    mut wanted: impl FnMut(Object) -> Result<Object, Status> + Send,
) -> Result<Object, Status> {
    let write = call.write(dry_run);
    let resource = format!("{}/scale", call.kind.plural);
    let written = write::update(&write, |mut object| {
        let scale = wanted(scale_of(&object, paths))?;
        check(call, &scale)?;
        // The Scale's own uid and version are preconditions, whatever the verb.
        write::check_uid(call.kind, &resource, &scale, &object)?;
        if !scale.resource_version().is_empty() {
            object.set(&["metadata", "resourceVersion"], scale.resource_version());
        }
        object.set(paths.spec_replicas, scale.number(&["spec", "replicas"]).unwrap_or_default());
        Ok(object)
    });
    Ok(scale_of(&written.await?.entry.decode_as(call.kind)?, paths))
}

/// Server-side apply of a Scale: its number of replicas, applied to the object.
async fn apply(
    call: &Call<'_>,
    options: &WriteOptions,
    paths: &'static Scale,
    config: &Configuration,
) -> Result<Object, Status> {
    config.expect(API_VERSION, "Scale")?;
    check(call, &config.object)?;
    let own = config_of_object(call, paths, &config.object);
    let write = Write { manager: Manager::Settled, ..call.write(options.dry_run) };
    let force = options.force.unwrap_or_default();
    let finish = |applied: Result<Object, ApplyError>| {
        let applied = applied.map_err(|error| in_terms_of_scale(error, call.kind))?;
        config.expect_faultless(options.validation)?;
        Ok(applied)
    };
    let written = write::apply(&write, &call.manager, &own, force, finish).await?;
    Ok(scale_of(&written.entry.decode_as(call.kind)?, paths))
}

/// The part of the object that the Scale stands for.
fn config_of_object(call: &Call<'_>, paths: &Scale, scale: &Object) -> Object {
    let mut own = Object::default();
    own.set(&["apiVersion"], call.kind.api_version());
    own.set(&["kind"], call.kind.kind);
    for field in ["name", "namespace", "resourceVersion", "uid"] {
        if let Some(value) = scale.at(&["metadata", field]) {
            own.set(&["metadata", field], value.clone());
        }
    }
    if let Some(replicas) = scale.at(&["spec", "replicas"]) {
        own.set(paths.spec_replicas, replicas.clone());
    }
    own
}

/// Conflicts are about the Scale that the client sees.
fn in_terms_of_scale(error: ApplyError, kind: &Kind) -> Status {
    match error {
        ApplyError::Conflicts(mut conflicts) => {
            let api_version = kind.api_version();
            for conflict in &mut conflicts.0 {
                if conflict.manager.api_version == api_version {
                    conflict.manager.api_version = API_VERSION.into();
                }
                conflict.field = ".spec.replicas".into();
            }
            conflicts.into_status()
        }
        ApplyError::HasManagers => Status::bad_request(error.to_string()),
        error => Status::new(500, "", error.to_string()),
    }
}

fn check(call: &Call<'_>, scale: &Object) -> Result<(), Status> {
    let replicas = scale.number(&["spec", "replicas"]).unwrap_or_default();
    if replicas < 0 {
        let error =
            api::FieldError::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", &call.info.name, &[error]));
    }
    Ok(())
}

/// What an object says about its size.
pub(crate) fn scale_of(object: &Object, paths: &Scale) -> Object {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&["metadata", field]) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let mut status = json!({"replicas": object.number(paths.status_replicas).unwrap_or_default()});
    if let Some(selector) = object.at(paths.selector).and_then(selector_text) {
        status["selector"] = selector.into();
    }
    // Upstream leaves a wish for none out.
    let replicas = object.number(paths.spec_replicas).filter(|replicas| *replicas != 0);
    let spec = replicas.map_or_else(|| json!({}), |replicas| json!({"replicas": replicas}));
    let scale = json!({
        "kind": "Scale",
        "apiVersion": API_VERSION,
        "metadata": metadata,
        "spec": spec,
        "status": status,
    });
    Object::from_value(scale).unwrap_or_default()
}

/// A selector as text: a label selector's, or that of a plain map of labels (ReplicationController).
fn selector_text(selector: &Value) -> Option<String> {
    // A custom resource has it as text already.
    if let Some(text) = selector.as_str() {
        return Some(text.to_string());
    }
    let map = selector.as_object()?;
    let is_plain = !map.is_empty() && map.values().all(Value::is_string);
    if is_plain {
        return Some(LabelSelector::from_map(map).to_string());
    }
    LabelSelector::from_json(selector).ok().map(|selector| selector.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_view_of_its_object() {
        let paths = Scale {
            spec_replicas: &["spec", "replicas"],
            status_replicas: &["status", "replicas"],
            selector: &["spec", "selector"],
        };
        let object = json!({
            "metadata": {"name": "web", "namespace": "default", "labels": {"a": "b"}, "resourceVersion": "7"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"replicas": 2},
        });
        let scale = scale_of(&Object::from_value(object).unwrap(), &paths);
        assert_eq!(scale.number(&["spec", "replicas"]), Some(3));
        assert_eq!(scale.number(&["status", "replicas"]), Some(2));
        assert_eq!(scale.text(&["status", "selector"]), "app=web");
        assert_eq!(scale.resource_version(), "7");
        assert!(scale.labels().is_none());
    }
}
