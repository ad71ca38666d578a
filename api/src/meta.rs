//! The rules of `metadata`, the same for every kind, with upstream's messages
//! (`k8s.io/apimachinery/pkg/api/validation`).

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{FieldError, FieldErrorKind, Kind, Object, Scope, name, time};

/// All annotations of an object together, keys and values, may have this many bytes.
pub const ANNOTATIONS_LIMIT: usize = 256 << 10;

/// From what the random part of a generated name is made: no vowels, so no words.
pub const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The annotation of a pod that mirrors one which its node runs from a file: the hash of the file's content.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// With a container's name behind it, the annotation that once confined the container by a profile.
pub(crate) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: &[&str] = &["foregroundDeletion", "kubernetes", "orphan"];

const SUFFIX_LENGTH: usize = 5;
const GENERATED_NAME_LENGTH: usize = 63;

/// Every fault of an object's metadata; with `old`, also forbidden changes.
pub fn validate(object: &Object, kind: &Kind, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = validate_names(object, kind);
    let generation = object.generation();
    if generation < 0 {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("metadata.generation", &generation.into(), detail));
    }
    if let Some(labels) = object.labels() {
        errors.extend(validate_labels(labels, "metadata.labels"));
    }
    if let Some(annotations) = object.at(&["metadata", "annotations"]).and_then(Value::as_object) {
        errors.extend(validate_annotations(annotations, "metadata.annotations"));
    }
    errors.extend(validate_owner_references(object.owner_references()));
    errors.extend(validate_finalizers(object, kind));
    if let Some(old) = old {
        errors.extend(validate_update(object, old));
    }
    errors
}

/// Faults of labels at `path`.
pub fn validate_labels(labels: &Map<String, Value>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels {
        errors.extend(validate_label_name(key, path));
        if let Err(message) = name::label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(path, value, message));
        }
    }
    errors
}

/// The fault, if any, of a label's key.
pub fn validate_label_name(key: &str, path: &str) -> Option<FieldError> {
    let message = name::qualified_name(key).err()?;
    Some(FieldError::invalid(path, &key.into(), message))
}

/// Faults of annotations at `path`.
pub fn validate_annotations(annotations: &Map<String, Value>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in annotations.keys() {
        // Upper case has always been accepted in the prefix, unlike in those of labels.
        if let Err(message) = name::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(path, &key.as_str().into(), message));
        }
    }
    let length = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(length).sum::<usize>() > ANNOTATIONS_LIMIT {
        errors.push(FieldError::too_long(path, ANNOTATIONS_LIMIT));
    }
    errors
}

/// Makes a new object the server's own: what only the server sets is set or taken away.
pub fn stamp_new(object: &mut Object, uid: &str, now: Timestamp) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        object.remove(&["metadata", field]);
    }
    object.set(&["metadata", "uid"], uid);
    object.set(&["metadata", "creationTimestamp"], time::format(now));
}

/// Carries over from `old` what a client may leave out of an update and cannot change.
pub fn carry_over(object: &mut Object, old: &Object) {
    if object.uid().is_empty() {
        object.take_over(&["metadata", "uid"], old);
    }
    object.take_over(&["metadata", "creationTimestamp"], old);
    object.take_over(&["metadata", "generation"], old);
    if old.deletion_timestamp().is_some() {
        object.take_over(&["metadata", "deletionTimestamp"], old);
    }
    if object.at(&["metadata", "deletionGracePeriodSeconds"]).is_none() {
        object.take_over(&["metadata", "deletionGracePeriodSeconds"], old);
    }
    object.remove(&["metadata", "selfLink"]);
}

/// A name for an object that was created with `generateName`; `pick(n)` draws a number below `n`.
pub fn generate_name(prefix: &str, mut pick: impl FnMut(usize) -> usize) -> String {
    let mut length = prefix.len().min(GENERATED_NAME_LENGTH - SUFFIX_LENGTH);
    while !prefix.is_char_boundary(length) {
        length -= 1;
    }
    let random = || char::from(SUFFIX_ALPHABET[pick(SUFFIX_ALPHABET.len()) % SUFFIX_ALPHABET.len()]);
    let suffix: String = std::iter::repeat_with(random).take(SUFFIX_LENGTH).collect();
    format!("{}{suffix}", &prefix[..length])
}

fn validate_names(object: &Object, kind: &Kind) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let prefix = object.text(&["metadata", "generateName"]);
    if !prefix.is_empty()
        && let Err(message) = kind.strategy.validate_name(&name::without_trailing_dash(prefix))
    {
        errors.push(FieldError::invalid("metadata.generateName", &prefix.into(), message));
    }
    if object.name().is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Err(message) = kind.strategy.validate_name(object.name()) {
        errors.push(FieldError::invalid("metadata.name", &object.name().into(), message));
    }
    let namespace = object.namespace();
    match kind.scope {
        Scope::Cluster if !namespace.is_empty() => {
            errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
        }
        Scope::Cluster => {}
        Scope::Namespaced if namespace.is_empty() => {
            errors.push(FieldError::required("metadata.namespace", ""));
        }
        Scope::Namespaced => {
            if let Err(message) = name::dns_label(namespace) {
                errors.push(FieldError::invalid("metadata.namespace", &namespace.into(), message));
            }
        }
    }
    errors
}

fn validate_owner_references(references: &[Value]) -> Vec<FieldError> {
    const PATH: &str = "metadata.ownerReferences";
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    for (index, reference) in references.iter().enumerate() {
        let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
        let path = format!("{PATH}[{index}]");
        for field in ["apiVersion", "kind", "name", "uid"].into_iter().filter(|field| text(field).is_empty())
        {
            errors.push(FieldError::required(format!("{path}.{field}"), "must not be empty"));
        }
        let version = text("apiVersion");
        if !version.is_empty() && (version.ends_with('/') || version.matches('/').count() > 1) {
            let detail = "must be <group>/<version> or <version>";
            errors.push(FieldError::invalid(format!("{path}.apiVersion"), &version.into(), detail));
        }
        if version == "v1" && text("kind") == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, reference, detail));
        }
        if reference.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(FieldError::invalid(PATH, &Value::Array(references.to_vec()), detail));
                }
            }
        }
    }
    errors
}

fn validate_finalizers(object: &Object, kind: &Kind) -> Vec<FieldError> {
    const PATH: &str = "metadata.finalizers";
    let faulty = |finalizer: &str| {
        let message = name::qualified_name(finalizer).err()?;
        Some(FieldError::invalid(PATH, &finalizer.into(), message))
    };
    let mut errors: Vec<FieldError> = object.finalizers().filter_map(faulty).collect();
    let has = |name| object.finalizers().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let all = object.at(&["metadata", "finalizers"]).cloned().unwrap_or_default();
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(PATH, &all, detail));
    }
    if !kind.strategy.has_free_finalizers() {
        for (index, finalizer) in object.finalizers().enumerate() {
            if let Err(message) = standard_or_qualified(finalizer) {
                errors.push(FieldError::invalid(format!("{PATH}[{index}]"), &finalizer.into(), message));
            }
        }
    }
    errors
}

/// A finalizer is one that Kubernetes knows, or says by its domain whose it is.
pub(crate) fn standard_or_qualified(finalizer: &str) -> Result<(), String> {
    match finalizer.contains('/') || STANDARD_FINALIZERS.contains(&finalizer) {
        true => Ok(()),
        false => Err("name is neither a standard finalizer name nor is it fully qualified".into()),
    }
}

fn validate_update(object: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old.deletion_timestamp().is_some() {
        let is_new = |name: &&str| !old.finalizers().any(|finalizer| finalizer == *name);
        let mut added: Vec<&str> = object.finalizers().filter(is_new).collect();
        added.sort_unstable();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", detail));
        }
    }
    if object.resource_version().is_empty() {
        let detail = "must be specified for an update";
        errors.push(FieldError::invalid("metadata.resourceVersion", &"".into(), detail));
    }
    if object.generation() < old.generation() {
        let generation = object.generation().into();
        errors.push(FieldError::invalid("metadata.generation", &generation, "must not be decremented"));
    }
    let immutable =
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    errors.extend(immutable.into_iter().filter_map(|field| {
        unchanged(&format!("metadata.{field}"), object.at(&["metadata", field]), old.at(&["metadata", field]))
    }));
    errors
}

/// The fault of a changed field that cannot change. Absent, null and empty text are the same.
pub fn unchanged(path: &str, new: Option<&Value>, old: Option<&Value>) -> Option<FieldError> {
    let given = |value: Option<&Value>| value.filter(|value| !value.is_null() && **value != "").cloned();
    let (new, old) = (given(new), given(old));
    if new == old {
        return None;
    }
    let value = new.map_or_else(|| "null".to_string(), |value| value.to_string());
    Some(FieldError::new(FieldErrorKind::Invalid, path, value, "field is immutable"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    fn object(metadata: Value) -> Object {
        Object::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn pods() -> &'static Kind {
        kinds::find("", "v1", "pods").unwrap()
    }

    fn faults(metadata: Value) -> Vec<String> {
        validate(&object(metadata), pods(), None).iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn good_metadata_has_no_faults() {
        let metadata = json!({
            "name": "web-1", "generateName": "web-", "namespace": "default",
            "labels": {"app": "web", "example.com/Tier": ""},
            "annotations": {"Example.com/note": "any text\n"},
            "finalizers": ["example.com/wait"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "1", "controller": true}],
        });
        assert_eq!(faults(metadata), Vec::<String>::new());
    }

    #[test]
    fn every_fault_is_found_at_its_place() {
        let reference =
            json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "controller": true});
        let metadata = json!({
            "name": "Web", "labels": {"-": "ok", "b": "not ok"}, "annotations": {"a b": ""},
            "finalizers": ["orphan", "foregroundDeletion", "/"], "generation": -1,
            "ownerReferences": [reference, reference, {}],
        });
        let fields: Vec<String> =
            validate(&object(metadata), pods(), None).into_iter().map(|error| error.field).collect();
        let expected = [
            "metadata.name",
            "metadata.namespace",
            "metadata.generation",
            "metadata.labels",
            "metadata.labels",
            "metadata.annotations",
            "metadata.ownerReferences",
            "metadata.ownerReferences[2].apiVersion",
            "metadata.ownerReferences[2].kind",
            "metadata.ownerReferences[2].name",
            "metadata.ownerReferences[2].uid",
            "metadata.finalizers",
            "metadata.finalizers",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn some_kinds_take_finalizers_of_nobody() {
        let faults = |group: &str, plural: &str| {
            let kind = kinds::find(group, "v1", plural).unwrap();
            let mut object = object(json!({"name": "a", "finalizers": ["wait"]}));
            if kind.is_namespaced() {
                object.set(&["metadata", "namespace"], "b");
            }
            validate(&object, kind, None).iter().map(FieldError::to_string).collect::<Vec<_>>()
        };
        for (group, plural) in [
            ("", "events"),
            ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
            ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
            ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
            ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
            ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
            ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
            ("apiextensions.k8s.io", "customresourcedefinitions"),
            ("coordination.k8s.io", "leases"),
            ("policy", "poddisruptionbudgets"),
        ] {
            assert_eq!(faults(group, plural), [""; 0], "{plural}");
        }
        assert_eq!(
            faults("", "pods"),
            [
                "metadata.finalizers[0]: Invalid value: \"wait\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
    }

    #[test]
    fn messages_are_those_of_upstream() {
        assert_eq!(
            faults(json!({"namespace": "default"})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        let long = "x".repeat(ANNOTATIONS_LIMIT);
        assert_eq!(
            faults(json!({"name": "a", "namespace": "b", "annotations": {"a": long}})),
            ["metadata.annotations: Too long: may not be more than 262144 bytes"]
        );
        let nodes = kinds::find("", "v1", "nodes").unwrap();
        let in_namespace = object(json!({"name": "a", "namespace": "b"}));
        assert_eq!(
            validate(&in_namespace, nodes, None)[0].to_string(),
            "metadata.namespace: Forbidden: not allowed on this type"
        );
    }

    #[test]
    fn an_update_may_not_change_what_the_server_set() {
        let old = object(json!({
            "name": "a", "namespace": "b", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "5", "generation": 2,
        }));
        let mut new = object(json!({"name": "a", "namespace": "b", "uid": "2", "finalizers": ["x.y/z"]}));
        carry_over(&mut new, &old);
        assert_eq!(new.text(&["metadata", "creationTimestamp"]), "2026-01-01T00:00:00Z");
        let faults: Vec<String> =
            validate(&new, pods(), Some(&old)).iter().map(FieldError::to_string).collect();
        assert_eq!(
            faults,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.y/z\"}",
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }

    #[test]
    fn a_generated_name_fits_a_label() {
        assert_eq!(generate_name("web-", |_| 0), "web-bbbbb");
        assert_eq!(generate_name(&"a".repeat(100), |n| n - 1).len(), 63);
        assert!(generate_name(&"é".repeat(40), |_| 1).starts_with('é'));
    }

    #[test]
    fn a_new_object_is_stamped() {
        let mut new =
            object(json!({"name": "a", "uid": "mine", "resourceVersion": "1", "deletionTimestamp": "x"}));
        stamp_new(&mut new, "u-1", Timestamp::UNIX_EPOCH);
        assert_eq!(
            new,
            object(json!({"name": "a", "uid": "u-1", "creationTimestamp": "1970-01-01T00:00:00Z"}))
        );
    }
}
