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

/// Docker's own registry in images' names, and what `docker login` calls it.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_INDEX: &str = "index.docker.io";

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

/// The entries for the image in the order of upstream's keyring: places from the alphabet's end to its beginning, so
/// that a longer path comes before a shorter one. What `docker login` has written for its own registry counts where
/// nothing else does.
fn choose(secrets: &[&Data], image: &str) -> Vec<AuthConfig> {
    let image = full_name(image);
    let entries = secrets.iter().flat_map(|data| entries(data));
    let known: Vec<(String, AuthConfig)> =
        entries.map(|(server, entry)| (place(&server), auth(entry))).collect();
    let pick = |is_wanted: &dyn Fn(&str) -> bool| {
        let mut picked: Vec<_> = known.iter().filter(|(place, _)| is_wanted(place)).collect();
        picked.sort_by_key(|(place, _)| Reverse(place));
        picked.into_iter().map(|(_, auth)| auth.clone()).collect::<Vec<_>>()
    };
    let fitting = pick(&|place| covers(place, &image));
    let is_of_docker = image.split('/').next() == Some(DOCKER_HUB);
    if fitting.is_empty() && is_of_docker { pick(&|place| place == DOCKER_INDEX) } else { fitting }
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

/// What the runtime is told. Whose it is was decided here; the place may be a pattern, which is no address.
fn auth(entry: DockerAuth) -> AuthConfig {
    let mut auth = AuthConfig {
        username: entry.username,
        password: entry.password,
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

/// An image's name with its registry, without tag and digest.
fn full_name(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some((DOCKER_INDEX, path)) => format!("{DOCKER_HUB}/{path}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_string(),
        Some(_) => format!("{DOCKER_HUB}/{name}"),
        None => format!("{DOCKER_HUB}/library/{name}"),
    }
}

/// Host and path of an entry, without its scheme and the API's version.
fn place(server: &str) -> String {
    let bare = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let (host, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { &path[3..] } else { path };
    if path == "/" { host.to_string() } else { format!("{host}{path}") }
}

/// Whether the image is below the place: of the same port, and with a host that its pattern fits part by part.
fn covers(place: &str, image: &str) -> bool {
    let (host, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let (image_host, image_path) = image.split_at(image.find('/').unwrap_or(image.len()));
    let ((host, port), (image_host, image_port)) = (split_port(host), split_port(image_host));
    let (wanted, has): (Vec<_>, Vec<_>) = (host.split('.').collect(), image_host.split('.').collect());
    let mut parts = wanted.iter().zip(&has);
    port == image_port
        && wanted.len() == has.len()
        && image_path.starts_with(path)
        && parts.all(|(wanted, has)| fits(wanted.as_bytes(), has.as_bytes()))
}

fn split_port(host: &str) -> (&str, &str) {
    host.rsplit_once(':').unwrap_or((host, ""))
}

/// Whether a shell's pattern fits a text: `*`, `?` and `[a-z]`. A broken pattern fits nothing.
///
/// The pattern is a tenant's: where something does not fit, only the last star takes more. What an earlier one would
/// take beyond the first that fits, the last one can take as well.
fn fits(mut pattern: &[u8], mut text: &[u8]) -> bool {
    // What follows the last star, and the text that it was tried on.
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            (pattern, last_star) = (rest, Some((rest, text)));
        } else if pattern.is_empty() && text.is_empty() {
            return true;
        } else if let Some((byte, after)) = text.split_first()
            && let Some(rest) = after_one(pattern, *byte)
        {
            (pattern, text) = (rest, after);
        } else if let Some((rest, [_, after @ ..])) = last_star {
            (pattern, text, last_star) = (rest, after, Some((rest, after)));
        } else {
            return false;
        }
    }
}

/// What is left of a pattern after that part of it which stands for one byte, if it stands for this one.
fn after_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'[' => class(rest).filter(|(class, _)| class.holds(byte)).map(|(_, rest)| rest),
        b'\\' => rest.strip_prefix(&[byte]),
        literal => (*literal == byte).then_some(rest),
    }
}

/// The bytes between brackets.
struct Class<'a> {
    members: &'a [u8],
    is_negated: bool,
}

fn class(pattern: &[u8]) -> Option<(Class<'_>, &[u8])> {
    let is_negated = pattern.first() == Some(&b'^');
    let pattern = if is_negated { &pattern[1..] } else { pattern };
    let end = pattern.iter().position(|byte| *byte == b']').filter(|end| *end > 0)?;
    Some((Class { members: &pattern[..end], is_negated }, &pattern[end + 1..]))
}

impl Class<'_> {
    fn holds(&self, byte: u8) -> bool {
        let mut members = self.members;
        let mut is_member = false;
        loop {
            members = match members {
                [] => return is_member != self.is_negated,
                [low, b'-', high, rest @ ..] => {
                    is_member |= (*low..=*high).contains(&byte);
                    rest
                }
                [one, rest @ ..] => {
                    is_member |= *one == byte;
                    rest
                }
            };
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
        assert_eq!(users(&data, "registry.example:5000/a"), ["you"]);
        assert_eq!(users(&data, "other.example/a:1"), Vec::<String>::new());
    }

    #[test]
    fn longer_paths_come_first_and_stars_stand_for_parts_of_the_host() {
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
    fn a_pattern_is_not_told_as_an_address() {
        let data = secret(json!({ "*.example.com": { "username": "all", "password": "pw" } }));
        let found = &choose(&[&data], "eu.example.com/app:1")[0];
        // The runtime would hold the address against the registry's and drop the password.
        assert_eq!((found.server_address.as_str(), found.username.as_str()), ("", "all"));
    }

    #[test]
    fn ports_and_paths_count() {
        let data = secret(json!({
            "https://*.example.com:5000/v2/": { "username": "port" },
            "r?.example.com/team/": { "username": "team" },
            "r[0-4].example.com": { "username": "low" },
        }));
        assert_eq!(users(&data, "eu.example.com:5000/app:1"), ["port"]);
        assert_eq!(users(&data, "eu.example.com/app:1"), Vec::<String>::new());
        assert_eq!(users(&data, "r1.example.com/team/app@sha256:00"), ["low", "team"]);
        assert_eq!(users(&data, "r7.example.com/team/app"), ["team"]);
        assert_eq!(users(&data, "r7.example.com/teams"), Vec::<String>::new());
    }

    #[test]
    fn dockers_own_name_counts_last() {
        let data = secret(json!({
            "https://index.docker.io/v1/": { "username": "login" },
            "docker.io/team": { "username": "team" },
        }));
        assert_eq!(users(&data, "team/app:1"), ["team"]);
        assert_eq!(users(&data, "busybox:1"), ["login"]);
        assert_eq!(users(&data, "index.docker.io/library/busybox"), ["login"]);
        assert_eq!(users(&data, "registry.example/busybox"), Vec::<String>::new());
    }

    #[test]
    fn broken_patterns_fit_nothing() {
        for (pattern, text, expected) in [
            ("[", "a", false),
            ("[]", "a", false),
            ("[^a]b", "cb", true),
            ("a\\*", "a*", true),
            ("a\\", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern}");
        }
    }

    #[test]
    fn stars_take_as_much_as_it_needs() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*", "a", true),
            ("*a", "banana", true),
            ("*an*a", "banana", true),
            ("*a?a", "banana", true),
            ("b*[x-z]*a", "banana", false),
            ("*b[^n]n", "bonban", true),
            ("**\\**", "a*b", true),
            ("*\\*", "a*b", false),
            ("*[", "a[", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_answered_at_once() {
        let pattern = "*a".repeat(12) + "*b";
        let begin = std::time::Instant::now();
        assert!(!fits(pattern.as_bytes(), "a".repeat(200).as_bytes()));
        assert!(begin.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn a_secret_that_is_none_is_passed_over() {
        let data = [(".dockerconfigjson".to_string(), k8s_openapi::ByteString(b"{".to_vec()))].into();
        let data = Data::from(&Secret { data: Some(data), ..Secret::default() });
        assert!(choose(&[&data], "busybox").is_empty());
    }
}
