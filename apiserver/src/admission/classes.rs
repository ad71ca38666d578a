//! DefaultStorageClass, DefaultIngressClass and RuntimeClass: what a class stands for.

use api::{Object, Status};
use serde_json::Value;

use super::{forbidden, kind};
use crate::{hooks::Attributes, registry::Registry};

const DEFAULT_STORAGE: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const DEFAULT_INGRESS: &str = "ingressclass.kubernetes.io/is-default-class";
const LEGACY_STORAGE: &str = "volume.beta.kubernetes.io/storage-class";
const LEGACY_INGRESS: &str = "kubernetes.io/ingress.class";

/// A claim that names no class gets the default one; the newest, should there be several.
pub(super) async fn default_storage_class(registry: &Registry, claim: &mut Object) -> Result<(), Status> {
    let is_named = claim.at(&["spec", "storageClassName"]).is_some_and(|name| !name.is_null());
    if is_named || claim.annotation(LEGACY_STORAGE).is_some() {
        return Ok(());
    }
    let classes = registry.list(kind("storage.k8s.io", "storageclasses"), None).await?;
    let is_default = |class: &Object| DEFAULT_STORAGE.iter().any(|key| class.annotation(key) == Some("true"));
    if let Some(class) = newest(classes, is_default) {
        claim.set(&["spec", "storageClassName"], class.name());
    }
    Ok(())
}

/// An ingress that names no class gets the default one; the newest, should there be several.
pub(super) async fn default_ingress_class(registry: &Registry, ingress: &mut Object) -> Result<(), Status> {
    let is_named = ingress.at(&["spec", "ingressClassName"]).is_some_and(|name| !name.is_null());
    if is_named || ingress.annotation(LEGACY_INGRESS).is_some() {
        return Ok(());
    }
    let classes = registry.list(kind("networking.k8s.io", "ingressclasses"), None).await?;
    if let Some(class) = newest(classes, |class| class.annotation(DEFAULT_INGRESS) == Some("true")) {
        ingress.set(&["spec", "ingressClassName"], class.name());
    }
    Ok(())
}

/// A runtime class brings its overhead and its nodes.
pub(super) async fn runtime_class(
    registry: &Registry,
    attributes: &Attributes<'_>,
    pod: &mut Object,
) -> Result<(), Status> {
    let name = pod.text(&["spec", "runtimeClassName"]).to_string();
    if name.is_empty() {
        return match pod.at(&["spec", "overhead"]).is_some_and(|overhead| !overhead.is_null()) {
            true => Err(forbidden(
                attributes,
                Some(pod),
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            )),
            false => Ok(()),
        };
    }
    let class = registry.find(kind("node.k8s.io", "runtimeclasses"), "", &name).await?;
    let why = format!("pod rejected: RuntimeClass {name:?} not found");
    let class = class.ok_or_else(|| forbidden(attributes, Some(pod), &why))?;
    apply_runtime_class(pod, &class).map_err(|why| forbidden(attributes, Some(pod), &why))
}

fn apply_runtime_class(pod: &mut Object, class: &Object) -> Result<(), String> {
    let fixed = class.at(&["overhead", "podFixed"]).cloned();
    match (pod.at(&["spec", "overhead"]).filter(|given| !given.is_null()), fixed) {
        (Some(given), fixed) if fixed.as_ref() != Some(given) => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        (None, Some(fixed)) => pod.set(&["spec", "overhead"], fixed),
        _ => {}
    }
    let selector = class.at(&["scheduling", "nodeSelector"]).and_then(Value::as_object);
    for (key, value) in selector.into_iter().flatten() {
        match pod.at(&["spec", "nodeSelector", key]) {
            Some(given) if given != value => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
                let (own, wanted) = (text(given), text(value));
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
                ));
            }
            _ => pod.set(&["spec", "nodeSelector", key], value.clone()),
        }
    }
    let mut tolerations = pod.list(&["spec", "tolerations"]).to_vec();
    let added = class.list(&["scheduling", "tolerations"]).iter().filter(|one| !tolerations.contains(one));
    let added: Vec<Value> = added.cloned().collect();
    if !added.is_empty() {
        tolerations.extend(added);
        pod.set(&["spec", "tolerations"], tolerations);
    }
    Ok(())
}

fn newest(classes: Vec<Object>, is_default: impl Fn(&Object) -> bool) -> Option<Object> {
    let created = |class: &Object| class.text(&["metadata", "creationTimestamp"]).to_string();
    let by_age_then_name = |one: &Object, other: &Object| {
        created(other).cmp(&created(one)).then_with(|| one.name().cmp(other.name()))
    };
    classes.into_iter().filter(is_default).min_by(by_age_then_name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn the_newest_default_counts() {
        let class = |name: &str, created: &str| {
            object(json!({"metadata": {"name": name, "creationTimestamp": created}}))
        };
        let classes = vec![class("old", "2025-01-01T00:00:00Z"), class("new", "2026-01-01T00:00:00Z")];
        assert_eq!(newest(classes, |_| true).unwrap().name(), "new");
    }

    #[test]
    fn a_runtime_class_brings_overhead_and_nodes() {
        let class = object(json!({
            "overhead": {"podFixed": {"memory": "64Mi"}},
            "scheduling": {"nodeSelector": {"sandbox": "yes"}},
        }));
        let mut pod = object(json!({"spec": {}}));
        apply_runtime_class(&mut pod, &class).unwrap();
        assert_eq!(pod.at(&["spec", "overhead"]), Some(&json!({"memory": "64Mi"})));
        assert_eq!(pod.at(&["spec", "nodeSelector"]), Some(&json!({"sandbox": "yes"})));
        let mut other = object(json!({"spec": {"nodeSelector": {"sandbox": "no"}}}));
        assert_eq!(
            apply_runtime_class(&mut other, &class).unwrap_err(),
            "conflict: runtimeClass.scheduling.nodeSelector[sandbox] = yes; pod.spec.nodeSelector[sandbox] = no"
        );
    }
}
