//! ConfigMaps and Secrets: named values, which may be locked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::check::{Faults, Field, same};
use super::warnings;
use crate::{FieldError, FieldErrorKind, Object, name};

const LARGEST: usize = 1024 * 1024;

/// Rules of ConfigMaps.
pub struct ConfigMap;

impl crate::Strategy for ConfigMap {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let (data, binary) = (Field::at(object, &["data"]), Field::at(object, &["binaryData"]));
        for (key, value) in data.entries() {
            validate_key(key, &value, &mut faults);
            if binary.entry(key).is_set() {
                let text = "duplicate of key present in binaryData";
                faults.invalid(&Field { path: value.path.clone(), value: &Value::from(key) }, text);
            }
        }
        for (key, value) in binary.entries() {
            validate_key(key, &value, &mut faults);
        }
        let size: usize = data.entries().map(|(_, value)| value.text().len()).sum();
        let binary_size: usize = binary.entries().map(|(_, value)| decoded_size(value.text())).sum();
        if size + binary_size > LARGEST {
            // Upstream says it of the path without a name, which prints so.
            faults.0.push(FieldError::too_long("[]", LARGEST));
        }
        if let Some(old) = old {
            validate_lock(object, old, &["data", "binaryData"], &mut faults);
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Rules of Secrets.
pub struct Secret;

impl crate::Strategy for Secret {
    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        if object.text(&["type"]) == "kubernetes.io/tls" {
            let decoded = |key: &str| STANDARD.decode(object.text(&["data", key])).unwrap_or_default();
            found.extend(warnings::key_pair(&decoded("tls.crt"), &decoded("tls.key")));
        }
        found
    }

    fn set_defaults(&self, object: &mut Object) {
        if object.text(&["type"]).is_empty() {
            object.set(&["type"], "Opaque");
        }
        // What was written as text is kept as bytes; it wins over bytes of the same key.
        if let Some(Value::Object(texts)) = object.remove(&["stringData"]) {
            let data = object.map_mut(&["data"]);
            for (key, text) in texts {
                data.insert(key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
            }
        }
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let data = Field::at(object, &["data"]);
        for (key, value) in data.entries() {
            validate_key(key, &value, &mut faults);
            if STANDARD.decode(value.text()).is_err() {
                faults.invalid(
                    &Field { path: value.path.clone(), value: &Value::from("<redacted>") },
                    "illegal base64 data",
                );
            }
        }
        let size: usize = data.entries().map(|(_, value)| decoded_size(value.text())).sum();
        if size > LARGEST {
            faults.0.push(FieldError::too_long("data", LARGEST));
        }
        validate_type(object, &data, &mut faults);
        if let Some(old) = old {
            faults.immutable(&Field::at(object, &["type"]), &Field::at(old, &["type"]));
            validate_lock(object, old, &["data"], &mut faults);
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn validate_key(key: &str, value: &Field, faults: &mut Faults) {
    if let Err(message) = name::config_key(key) {
        faults.invalid(&Field { path: value.path.clone(), value: &Value::from(key) }, message);
    }
}

/// Some types of Secrets promise certain keys.
fn validate_type(object: &Object, data: &Field, faults: &mut Faults) {
    let mut must_have = |key: &str| {
        if !data.entry(key).is_set() {
            faults.required(&data.entry(key), "");
        }
    };
    match object.text(&["type"]) {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if object.annotation(key).is_none_or(str::is_empty) {
                faults.required(&Field::at(object, &["metadata", "annotations"]).entry(key), "");
            }
        }
        "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().for_each(must_have),
        "kubernetes.io/ssh-auth" => must_have("ssh-privatekey"),
        "kubernetes.io/basic-auth"
            if !data.entry("username").is_set() && !data.entry("password").is_set() =>
        {
            must_have("username");
            must_have("password");
        }
        "kubernetes.io/dockerconfigjson" => validate_docker(data, ".dockerconfigjson", faults),
        "kubernetes.io/dockercfg" => validate_docker(data, ".dockercfg", faults),
        _ => {}
    }
}

fn validate_docker(data: &Field, key: &str, faults: &mut Faults) {
    let config = data.entry(key);
    let bytes = STANDARD.decode(config.text()).unwrap_or_default();
    if !config.is_set() {
        faults.required(&config, "");
    } else if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
        let hidden = "<secret contents redacted>";
        faults.0.push(FieldError::new(
            FieldErrorKind::Invalid,
            config.path,
            hidden.into(),
            error.to_string(),
        ));
    }
}

/// Once `immutable` is set, neither it nor the contents change.
fn validate_lock(object: &Object, old: &Object, contents: &[&str], faults: &mut Faults) {
    const TEXT: &str = "field is immutable when `immutable` is set";
    if old.at(&["immutable"]) != Some(&Value::Bool(true)) {
        return;
    }
    let lock = Field::at(object, &["immutable"]);
    if !lock.is_true() {
        faults.forbidden(&lock, TEXT);
    }
    for name in contents {
        let (new, old) = (Field::at(object, &[name]), Field::at(old, &[name]));
        if !same(new.value, old.value) {
            faults.forbidden(&new, TEXT);
        }
    }
}

/// How many bytes a base64 text stands for.
fn decoded_size(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Strategy as _;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn text_in_a_secret_becomes_bytes() {
        let mut secret = object(
            json!({"stringData": {"password": "hunter2"}, "data": {"password": "eA==", "user": "eA=="}}),
        );
        Secret.set_defaults(&mut secret);
        assert_eq!(
            secret,
            object(json!({"type": "Opaque", "data": {"password": "aHVudGVyMg==", "user": "eA=="}}))
        );
    }

    #[test]
    fn a_locked_config_map_stays_as_it_is() {
        let old = object(json!({"immutable": true, "data": {"a": "1"}}));
        let new = object(json!({"immutable": false, "data": {"a": "2"}}));
        let faults: Vec<String> =
            ConfigMap.validate(&new, Some(&old)).iter().map(FieldError::to_string).collect();
        assert_eq!(
            faults,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }

    #[test]
    fn keys_are_file_names() {
        let faults = ConfigMap.validate(&object(json!({"data": {"a/b": "1"}})), None);
        assert!(
            faults[0]
                .to_string()
                .starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must consist of")
        );
    }

    #[test]
    fn a_tls_secret_has_a_certificate_and_a_key() {
        let faults =
            Secret.validate(&object(json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})), None);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].to_string(), "data[tls.key]: Required value");
    }
}
