//! Which files ConfigMap, Secret, downward API and projected volumes hold. Pure: the sources and tokens are
//! arguments, [`references`] and [`token_requests`] say which.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::atomic::{File, Files};
use crate::container::env::{ConfigError, Place, field_value};
use crate::container::qos::resource_value;
use crate::pod::view::PodView;
use crate::source::{Data, Fetched, Reference, SourceKind};

const DEFAULT_MODE: i32 = 0o644;

/// Why a volume's files cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A ConfigMap or Secret that is not optional does not exist.
    #[error("{kind} \"{name}\" not found")]
    SourceNotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It does not have a key that is asked for.
    #[error("references non-existent {kind} key: {key}")]
    KeyNotFound {
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A field of the pod that cannot be shown.
    #[error(transparent)]
    Field(#[from] ConfigError),
    /// A token that was not requested.
    #[error("no service account token for {path}")]
    NoToken {
        /// The file that should hold it.
        path: String,
    },
    /// A source that this kubelet does not know.
    #[error("unsupported projected volume source")]
    UnsupportedSource,
}

/// What the files are made from.
pub struct Materials<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Where it runs.
    pub place: &'a Place,
    /// The ConfigMaps and Secrets.
    pub fetched: &'a Fetched,
    /// Service account tokens by the path of their file.
    pub tokens: &'a BTreeMap<String, String>,
}

/// One part of a volume of files, whatever its kind: all four kinds are projections.
fn projections(volume: &Volume) -> Option<(Vec<VolumeProjection>, i32)> {
    use k8s_openapi::api::core::v1::{ConfigMapProjection, DownwardAPIProjection, SecretProjection};
    if let Some(source) = &volume.projected {
        return Some((
            source.sources.clone().unwrap_or_default(),
            source.default_mode.unwrap_or(DEFAULT_MODE),
        ));
    }
    let (projection, mode) = if let Some(source) = &volume.config_map {
        let (name, items, optional) = (source.name.clone(), source.items.clone(), source.optional);
        let map = ConfigMapProjection { name, items, optional };
        (VolumeProjection { config_map: Some(map), ..VolumeProjection::default() }, source.default_mode)
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let secret = SecretProjection { name, items: source.items.clone(), optional: source.optional };
        (VolumeProjection { secret: Some(secret), ..VolumeProjection::default() }, source.default_mode)
    } else if let Some(source) = &volume.downward_api {
        let downward = DownwardAPIProjection { items: source.items.clone() };
        (
            VolumeProjection { downward_api: Some(downward), ..VolumeProjection::default() },
            source.default_mode,
        )
    } else {
        return None;
    };
    Some((vec![projection], mode.unwrap_or(DEFAULT_MODE)))
}

/// Whether a volume holds files that come from the API.
pub fn is_made_of_files(volume: &Volume) -> bool {
    volume.projected.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
}

/// The ConfigMaps and Secrets that a volume shows.
pub fn references(volume: &Volume) -> Vec<Reference> {
    let parts = projections(volume).map(|(parts, _)| parts).unwrap_or_default();
    parts
        .iter()
        .filter_map(|part| match (&part.config_map, &part.secret) {
            (Some(map), _) => Some(Reference::config_map(&map.name)),
            (None, Some(secret)) => Some(Reference::secret(&secret.name)),
            (None, None) => None,
        })
        .collect()
}

/// The tokens that a volume shows.
pub fn token_requests(volume: &Volume) -> Vec<ServiceAccountTokenProjection> {
    let parts = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
    parts.into_iter().flatten().filter_map(|part| part.service_account_token.clone()).collect()
}

/// The files of a volume.
pub fn files(volume: &Volume, materials: &Materials<'_>) -> Result<Files, FilesError> {
    let mut files = Files::new();
    let Some((parts, mode)) = projections(volume) else { return Ok(files) };
    for part in &parts {
        files.extend(part_files(part, mode, materials)?);
    }
    Ok(files)
}

fn part_files(part: &VolumeProjection, mode: i32, materials: &Materials<'_>) -> Result<Files, FilesError> {
    if let Some(map) = &part.config_map {
        let reference = Reference::config_map(&map.name);
        source_files(&reference, map.items.as_deref(), map.optional, mode, materials.fetched)
    } else if let Some(secret) = &part.secret {
        let reference = Reference::secret(&secret.name);
        source_files(&reference, secret.items.as_deref(), secret.optional, mode, materials.fetched)
    } else if let Some(downward) = &part.downward_api {
        let items = downward.items.iter().flatten();
        items.map(|item| downward_file(item, mode, materials)).collect()
    } else if let Some(token) = &part.service_account_token {
        let found = materials.tokens.get(&token.path);
        let text = found.ok_or_else(|| FilesError::NoToken { path: token.path.clone() })?;
        Ok(Files::from([(token.path.clone(), file(text.clone().into_bytes(), None, mode))]))
    } else {
        Err(FilesError::UnsupportedSource)
    }
}

fn source_files(
    reference: &Reference,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
    fetched: &Fetched,
) -> Result<Files, FilesError> {
    let (kind, key_kind) = match reference.kind {
        SourceKind::ConfigMap => ("configmap", "config"),
        SourceKind::Secret => ("secret", "secret"),
    };
    let is_optional = optional == Some(true);
    let nothing = Data::default();
    let data = match fetched.get(reference) {
        Some(data) => data,
        None if is_optional => &nothing,
        None => return Err(FilesError::SourceNotFound { kind, name: reference.name.clone() }),
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data
            .entries()
            .map(|(key, value)| (key.to_string(), file(value.to_vec(), None, mode)))
            .collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(value) => {
                files.insert(item.path.clone(), file(value.to_vec(), item.mode, mode));
            }
            None if is_optional => {}
            None => return Err(FilesError::KeyNotFound { kind: key_kind, key: item.key.clone() }),
        }
    }
    Ok(files)
}

fn downward_file(
    item: &DownwardAPIVolumeFile,
    mode: i32,
    materials: &Materials<'_>,
) -> Result<(String, File), FilesError> {
    let pod = materials.pod;
    let text = match (&item.field_ref, &item.resource_field_ref) {
        (Some(field), _) => field_value(pod, &field.field_path, materials.place)?,
        (None, Some(resource)) => {
            let name = resource.container_name.as_deref().unwrap_or_default();
            let container = pod.container(name).ok_or_else(|| ConfigError::Container(name.to_string()))?;
            let allocatable = &materials.place.allocatable;
            let value =
                resource_value(&container, &resource.resource, resource.divisor.as_ref(), allocatable);
            value.ok_or_else(|| ConfigError::Resource(resource.resource.clone()))?.to_string()
        }
        (None, None) => String::new(),
    };
    Ok((item.path.clone(), file(text.into_bytes(), item.mode, mode)))
}

fn file(content: Vec<u8>, own_mode: Option<i32>, mode: i32) -> File {
    File { content, mode: u32::try_from(own_mode.unwrap_or(mode)).unwrap_or(0) & 0o777 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    use super::*;

    fn made(volume: Value) -> Result<Vec<(String, String, u32)>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "shop", "annotations": { "a": "b" } },
            "spec": { "containers": [{ "name": "c", "resources": { "limits": { "memory": "1Mi" } } }] },
        }))
        .unwrap();
        let map: ConfigMap = serde_json::from_value(json!({ "data": { "x": "1", "y": "2" } })).unwrap();
        let mut fetched = Fetched::default();
        fetched.insert(Reference::config_map("settings"), Some(Arc::new(Data::from(&map))));
        let tokens = BTreeMap::from([("token".to_string(), "t0k3n".to_string())]);
        let materials = Materials { pod: &pod, place: &Place::default(), fetched: &fetched, tokens: &tokens };
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let files = files(&volume, &materials).map_err(|error| error.to_string())?;
        let text = |file: &File| String::from_utf8_lossy(&file.content).into_owned();
        Ok(files.iter().map(|(path, file)| (path.clone(), text(file), file.mode)).collect())
    }

    fn expected(files: &[(&str, &str, u32)]) -> Result<Vec<(String, String, u32)>, String> {
        Ok(files.iter().map(|(path, text, mode)| (path.to_string(), text.to_string(), *mode)).collect())
    }

    #[test]
    fn a_config_map_is_a_file_a_key_or_the_items_asked_for() {
        let all = json!({ "name": "v", "configMap": { "name": "settings", "defaultMode": 256 } });
        assert_eq!(made(all), expected(&[("x", "1", 0o400), ("y", "2", 0o400)]));
        let one = json!({ "name": "v", "configMap": { "name": "settings",
            "items": [{ "key": "y", "path": "deep/y.txt", "mode": 384 }] } });
        assert_eq!(made(one), expected(&[("deep/y.txt", "2", 0o600)]));
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        let none = json!({ "name": "v", "configMap": { "name": "none" } });
        assert_eq!(made(none).unwrap_err(), "configmap \"none\" not found");
        let no_key = json!({ "name": "v", "configMap": { "name": "settings", "items": [{ "key": "z", "path": "z" }] } });
        assert_eq!(made(no_key).unwrap_err(), "references non-existent config key: z");
        assert_eq!(
            made(json!({ "name": "v", "secret": { "secretName": "none", "optional": true } })),
            Ok(vec![])
        );
    }

    #[test]
    fn projections_are_merged_into_one_volume() {
        let volume = json!({ "name": "v", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token" } },
            { "configMap": { "name": "settings", "items": [{ "key": "x", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [
                { "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } },
                { "path": "notes", "fieldRef": { "fieldPath": "metadata.annotations" } },
                { "path": "limit", "resourceFieldRef": { "containerName": "c", "resource": "limits.memory" } } ] } },
        ] } });
        let files = [
            ("ca.crt", "1", 0o644),
            ("limit", "1048576", 0o644),
            ("namespace", "shop", 0o644),
            ("notes", "a=\"b\"", 0o644),
            ("token", "t0k3n", 0o644),
        ];
        assert_eq!(made(volume), expected(&files));
    }
}
