//! The passwords for an image's registry, from the pod's imagePullSecrets.
//!
//! The API server has added those of the pod's service account where the pod names none.

use std::cmp::Reverse;
use std::collections::HashMap;

use base64::Engine;
use cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use crate::context::Context;
use crate::pod::view::PodView;
use crate::source::{Data, Reference};

/// What `docker login` has always called its own registry.
const DOCKER_HUB: &str = "docker.io";

/// All that may fit, the most telling first.
pub(super) async fn for_image(context: &Context, pod: &Pod, image: &str) -> Vec<AuthConfig> {
    let named = pod.spec().image_pull_secrets.iter().flatten();
    let references: Vec<Reference> = named.map(|secret| Reference::secret(&secret.name)).collect();
    if references.is_empty() {
        return Vec::new();
    }
    match context.sources.read(pod.namespace(), &references).await {
        Ok(fetched) => {
            let secrets: Vec<&Data> =
                references.iter().filter_map(|reference| fetched.get(reference)).collect();
            choose(&secrets, image)
        }
        Err(error) => {
            tracing::warn!(pod = pod.name(), %error, "cannot read the pod's imagePullSecrets, pulling without");
            Vec::new()
        }
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    username: String,
    password: String,
    auth: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

/// The entries for the image, longer places before shorter ones, as upstream's keyring has them.
fn choose(secrets: &[&Data], image: &str) -> Vec<AuthConfig> {
    let image = full_name(image);
    let entries = secrets.iter().flat_map(|data| entries(data));
    let mut fitting: Vec<(String, AuthConfig)> = entries
        .map(|(server, entry)| (place(&server), auth(server, entry)))
        .filter(|(place, _)| covers(place, &image))
        .collect();
    fitting.sort_by_key(|(place, _)| Reverse(place.len()));
    fitting.into_iter().map(|(_, auth)| auth).collect()
}

/// What a `.dockerconfigjson` or `.dockercfg` holds; nothing where it cannot be read.
fn entries(data: &Data) -> Vec<(String, DockerAuth)> {
    let auths = match data.get(".dockerconfigjson") {
        Some(json) => serde_json::from_slice::<DockerConfig>(json).map(|config| config.auths),
        None => serde_json::from_slice(data.get(".dockercfg").unwrap_or(b"{}")),
    };
    match auths {
        Ok(auths) => auths.into_iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "an imagePullSecret is no docker configuration");
            Vec::new()
        }
    }
}

fn auth(server: String, entry: DockerAuth) -> AuthConfig {
    let mut auth = AuthConfig {
        username: entry.username,
        password: entry.password,
        server_address: server,
        identity_token: entry.identity_token,
        registry_token: entry.registry_token,
        ..AuthConfig::default()
    };
    if let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(&entry.auth)
        && let Some((username, password)) = String::from_utf8_lossy(&bytes).split_once(':')
    {
        auth.username = username.to_string();
        auth.password = password.trim_end_matches('\0').to_string();
    }
    auth
}

/// An image's name with its registry.
fn full_name(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image.to_string(),
        Some(_) => format!("{DOCKER_HUB}/{image}"),
        None => format!("{DOCKER_HUB}/library/{image}"),
    }
}

/// Host and path of an entry: schemes, API versions and docker's old names are left out.
fn place(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    };
    match path {
        "" | "v1" | "v2" => host.to_string(),
        path => format!("{host}/{path}"),
    }
}

/// Whether the image is below the place. A `*` in the place's host stands for anything but a dot.
fn covers(place: &str, image: &str) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (image_host, image_path) = image.split_once('/').unwrap_or((image, ""));
    let (wanted, has): (Vec<_>, Vec<_>) = (host.split('.').collect(), image_host.split('.').collect());
    let is_host = wanted.len() == has.len() && wanted.iter().zip(&has).all(|(wanted, has)| fits(wanted, has));
    is_host && image_path.starts_with(path)
}

fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => {
            let Some(text) = text.strip_prefix(start) else { return false };
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| fits(rest, &text[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::{Value, json};

    use super::*;

    fn secret(auths: Value) -> Data {
        let text = serde_json::to_vec(&json!({ "auths": auths })).unwrap();
        let data = [(".dockerconfigjson".to_string(), k8s_openapi::ByteString(text))].into();
        Data::from(&Secret { data: Some(data), ..Secret::default() })
    }

    fn users(data: &Data, image: &str) -> Vec<String> {
        choose(&[data], image).into_iter().map(|auth| auth.username).collect()
    }

    #[test]
    fn the_registrys_password_is_found() {
        let data = secret(json!({
            "https://index.docker.io/v1/": { "auth": "bWU6c2VjcmV0" },
            "registry.example:5000": { "username": "you", "password": "pw" },
        }));
        let found = &choose(&[&data], "busybox:1")[0];
        assert_eq!((found.username.as_str(), found.password.as_str()), ("me", "secret"));
        assert_eq!(users(&data, "registry.example:5000/a:1"), ["you"]);
        assert_eq!(users(&data, "other.example/a:1"), Vec::<String>::new());
    }

    #[test]
    fn the_longest_place_comes_first_and_stars_stand_for_parts_of_the_host() {
        let data = secret(json!({
            "*.example.com": { "username": "all" },
            "eu.example.com": { "username": "eu" },
            "eu.example.com/team": { "username": "team" },
        }));
        assert_eq!(users(&data, "eu.example.com/team/app:1"), ["team", "eu", "all"]);
        assert_eq!(users(&data, "us.example.com/team/app:1"), ["all"]);
        assert_eq!(users(&data, "a.b.example.com/app:1"), Vec::<String>::new());
    }

    #[test]
    fn a_secret_that_is_none_is_passed_over() {
        let data = [(".dockerconfigjson".to_string(), k8s_openapi::ByteString(b"{".to_vec()))].into();
        let data = Data::from(&Secret { data: Some(data), ..Secret::default() });
        assert!(choose(&[&data], "busybox").is_empty());
    }
}
