//! The parameters of a policy: the objects that its bindings name.

use api::{Kind, Object, Scope, selector::LabelSelector};
use serde_json::Value;

use super::definition::{Binding, Definition};
use crate::registry::Registry;

/// The parameters with which a policy is to be asked, one after the other; null where it has none. The error says what
/// is wrong with the binding.
pub(super) async fn of(
    registry: &Registry,
    definition: &Definition,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let reference = &binding.param_ref;
    if !definition.param_kind.is_object() || !reference.is_object() {
        return Ok(vec![Value::Null]);
    }
    let place = Place::of(registry, &definition.param_kind, reference, namespace)?;
    let found = match reference["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => place.named(registry, name).await?,
        None if reference["selector"].is_object() => place.selected(registry, &reference["selector"]).await?,
        None => return Err("one of name or selector must be provided".into()),
    };
    if found.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found.into_iter().map(Object::into_value).collect())
}

/// Where parameters are looked for.
struct Place<'a> {
    kind: &'static Kind,
    namespace: &'a str,
}

impl<'a> Place<'a> {
    fn of(
        registry: &Registry,
        param_kind: &Value,
        reference: &'a Value,
        namespace: &'a str,
    ) -> Result<Place<'a>, String> {
        let text = |field: &str| param_kind[field].as_str().unwrap_or_default();
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let kind = registry.kinds().find_kind(group, version, text("kind"));
        let kind = kind
            .ok_or_else(|| format!("paramKind kind `{group}/{version}, Kind={}` not known", text("kind")))?;
        let given = reference["namespace"].as_str().unwrap_or_default();
        match (kind.scope, given) {
            (Scope::Cluster, "") => Ok(Place { kind, namespace: "" }),
            (Scope::Cluster, _) => {
                Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into())
            }
            (Scope::Namespaced, "") if namespace.is_empty() => {
                Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .into())
            }
            (Scope::Namespaced, "") => Ok(Place { kind, namespace }),
            (Scope::Namespaced, given) => Ok(Place { kind, namespace: given }),
        }
    }

    async fn named(&self, registry: &Registry, name: &str) -> Result<Vec<Object>, String> {
        match registry.get(self.kind, self.namespace, name).await {
            Ok(object) => Ok(vec![object]),
            Err(status) if status.code == 404 => Ok(Vec::new()),
            Err(status) => Err(status.message),
        }
    }

    async fn selected(&self, registry: &Registry, selector: &Value) -> Result<Vec<Object>, String> {
        let selector = LabelSelector::from_json(selector)?;
        let namespace = Some(self.namespace).filter(|namespace| !namespace.is_empty());
        let mut found = registry.list(self.kind, namespace).await.map_err(|status| status.message)?;
        found.retain(|object| selector.matches_object(object));
        Ok(found)
    }
}
