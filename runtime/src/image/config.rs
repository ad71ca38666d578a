//! What an image says about itself: the OCI image configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ImageError;
use super::reference::is_digest;

/// The configuration blob of an image; its digest is the image's id.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ImageConfig {
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// How containers run, unless they are told otherwise.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub config: Execution,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub rootfs: RootFilesystem,
}

impl ImageConfig {
    /// Reads a configuration; `what` names it in the error.
    pub fn parse(content: &[u8], what: &str) -> Result<ImageConfig, ImageError> {
        let invalid = |reason| ImageError::InvalidConfig { what: what.to_owned(), reason };
        let config: ImageConfig =
            serde_json::from_slice(content).map_err(|error| invalid(error.to_string()))?;
        match config.rootfs.diff_ids.iter().find(|diff_id| !is_digest(diff_id)) {
            Some(diff_id) => Err(invalid(format!("{diff_id:?} is no sha256 digest"))),
            None => Ok(config),
        }
    }
}

/// How containers of an image run, unless they are told otherwise.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Execution {
    /// `user`, `uid`, `user:group` or `uid:gid`.
    #[serde(deserialize_with = "null_is_empty")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// What a container's `command` replaces.
    #[serde(deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// What a container's `args` replace.
    #[serde(deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(deserialize_with = "null_is_empty")]
    pub working_dir: String,
    /// The signal that asks it to stop.
    #[serde(deserialize_with = "null_is_empty")]
    pub stop_signal: String,
    /// `80/tcp`: where its program listens.
    #[serde(deserialize_with = "null_is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Where its program keeps what is to outlive a container.
    #[serde(deserialize_with = "null_is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Words about the image.
    #[serde(deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The layers of an image by the digests of their uncompressed content.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RootFilesystem {
    /// Lowest first.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// Go tools write `null` for what is empty.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
