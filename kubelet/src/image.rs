//! Images: whether to pull, how to name them, with whose password.

use std::collections::HashMap;
use std::time::Instant;

use base64::Engine;
use client::events::EventType;
use cri::v1::{AuthConfig, Image, ImageSpec, ImageStatusRequest, PodSandboxConfig, PullImageRequest};
use k8s_openapi::api::core::v1::{Container, Pod};
use serde::Deserialize;

use crate::container::config::ImageUser;
use crate::context::Context;
use crate::events::container_reference;
use crate::pod::view::PodView;
use crate::source::{Data, Reference};

/// An image that is there.
pub struct LocalImage {
    /// What the runtime calls it.
    pub id: String,
    /// Whom it runs as.
    pub user: ImageUser,
}

/// Why an image is not there, with upstream's reason.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFailure {
    /// `InvalidImageName`, `ErrImageNeverPull`, `ErrImagePull`, `ImageInspectError`.
    pub reason: &'static str,
    /// The words for people.
    pub message: String,
}

/// What an imagePullPolicy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Pull, whatever is there.
    Always,
    /// Pull when it is not there.
    IfNotPresent,
    /// Use what is there.
    Never,
}

impl PullPolicy {
    /// The policy of a container: its own, or by the tag of its image.
    pub fn of(container: &Container) -> PullPolicy {
        match container.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            _ if is_latest(container.image.as_deref().unwrap_or_default()) => PullPolicy::Always,
            _ => PullPolicy::IfNotPresent,
        }
    }
}

fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// The image's name with a tag, or why it is none.
pub fn normalize(image: &str) -> Result<String, ImageFailure> {
    let invalid = || {
        let cause = format!("couldn't parse image name \"{image}\": invalid reference format");
        let message = format!("Failed to apply default image tag \"{image}\": {cause}");
        ImageFailure { reason: "InvalidImageName", message }
    };
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let is_hex = |text: &str| text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digest.is_some_and(|digest| !digest.split_once(':').is_some_and(|(_, hex)| is_hex(hex))) {
        return Err(invalid());
    }
    let (path, last) = name.rsplit_once('/').map_or(("", name), |(path, last)| (path, last));
    let (last, tag) = last.split_once(':').map_or((last, None), |(last, tag)| (last, Some(tag)));
    let parts: Vec<&str> = path.split('/').filter(|_| !path.is_empty()).chain([last]).collect();
    let is_valid = parts.iter().enumerate().all(|(index, part)| {
        // A registry comes first and may have a port and capitals.
        let may_be_registry =
            index == 0 && parts.len() > 1 && part.contains(['.', ':']) || *part == "localhost";
        may_be_registry || is_path_component(part)
    });
    let is_tag = |tag: &str| {
        let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        !tag.is_empty() && tag.len() <= 128 && !tag.starts_with(['.', '-']) && tag.bytes().all(rest)
    };
    match (is_valid, tag, digest) {
        (false, ..) => Err(invalid()),
        (true, Some(tag), _) if !is_tag(tag) => Err(invalid()),
        (true, None, None) => Ok(format!("{image}:latest")),
        (true, ..) => Ok(image.to_string()),
    }
}

fn is_path_component(part: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_edge =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = part.as_bytes();
    is_edge(bytes.first()) && is_edge(bytes.last()) && part.bytes().all(is_inner)
}

/// Makes sure that the container's image is there, as its pull policy asks.
pub async fn ensure(
    context: &Context,
    pod: &Pod,
    container: &Container,
    sandbox: &PodSandboxConfig,
) -> Result<LocalImage, ImageFailure> {
    let asked = container.image.as_deref().unwrap_or_default();
    let name = normalize(asked)
        .inspect_err(|failure| warn(context, pod, container, "InspectFailed", &failure.message))?;
    let policy = PullPolicy::of(container);
    let present = find(context, &name).await?;
    match (policy, present) {
        (PullPolicy::IfNotPresent | PullPolicy::Never, Some(image)) => {
            let message = format!("Container image \"{asked}\" already present on machine");
            tell(context, pod, container, EventType::Normal, "Pulled", &message);
            Ok(local(image))
        }
        (PullPolicy::Never, None) => {
            let message = format!("Container image \"{asked}\" is not present with pull policy of Never");
            warn(context, pod, container, "ErrImageNeverPull", &message);
            Err(ImageFailure { reason: "ErrImageNeverPull", message })
        }
        (PullPolicy::Always | PullPolicy::IfNotPresent, _) => {
            pull(context, pod, container, sandbox, asked, &name).await
        }
    }
}

async fn pull(
    context: &Context,
    pod: &Pod,
    container: &Container,
    sandbox: &PodSandboxConfig,
    asked: &str,
    name: &str,
) -> Result<LocalImage, ImageFailure> {
    tell(context, pod, container, EventType::Normal, "Pulling", &format!("Pulling image \"{asked}\""));
    let started = Instant::now();
    let mut last = String::new();
    let credentials = credentials(context, pod, name).await;
    let tries: Vec<_> =
        if credentials.is_empty() { vec![None] } else { credentials.into_iter().map(Some).collect() };
    for auth in tries {
        let image = Some(ImageSpec { image: name.to_string(), ..ImageSpec::default() });
        let request = PullImageRequest { image, auth, sandbox_config: Some(sandbox.clone()) };
        match context.images.pull_image(request).await {
            Ok(_) => {
                let image = find(context, name).await?;
                let image = image
                    .ok_or_else(|| pull_failure("the image is gone right after it was pulled".into()))?;
                let (took, size) = (started.elapsed().as_millis(), image.size);
                let message = format!(
                    "Successfully pulled image \"{asked}\" in {took}ms ({took}ms including waiting). \
                     Image size: {size} bytes."
                );
                tell(context, pod, container, EventType::Normal, "Pulled", &message);
                return Ok(local(image));
            }
            Err(error) => last = error.message,
        }
    }
    warn(context, pod, container, "Failed", &format!("Failed to pull image \"{asked}\": {last}"));
    Err(pull_failure(last))
}

fn pull_failure(message: String) -> ImageFailure {
    ImageFailure { reason: "ErrImagePull", message }
}

async fn find(context: &Context, name: &str) -> Result<Option<Image>, ImageFailure> {
    let image = Some(ImageSpec { image: name.to_string(), ..ImageSpec::default() });
    match context.images.image_status(ImageStatusRequest { image, verbose: false }).await {
        Ok(response) => Ok(response.image),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => {
            let message = format!("Failed to inspect image \"{name}\": {error}");
            Err(ImageFailure { reason: "ImageInspectError", message })
        }
    }
}

fn local(image: Image) -> LocalImage {
    let user = ImageUser { uid: image.uid.map(|uid| uid.value), name: image.username };
    LocalImage { id: image.id, user }
}

fn tell(context: &Context, pod: &Pod, container: &Container, kind: EventType, reason: &str, message: &str) {
    context.events.event(container_reference(pod, &container.name), kind, reason, message);
}

fn warn(context: &Context, pod: &Pod, container: &Container, reason: &str, message: &str) {
    tell(context, pod, container, EventType::Warning, reason, message);
}

/// What the pod's imagePullSecrets say about the image's registry.
async fn credentials(context: &Context, pod: &Pod, image: &str) -> Vec<AuthConfig> {
    let named = pod.spec().image_pull_secrets.iter().flatten();
    let references: Vec<Reference> = named.map(|secret| Reference::secret(&secret.name)).collect();
    if references.is_empty() {
        return Vec::new();
    }
    match context.sources.read(pod.namespace(), &references).await {
        Ok(fetched) => references
            .iter()
            .filter_map(|reference| fetched.get(reference))
            .filter_map(|data| auth_for(data, image))
            .collect(),
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

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct DockerAuth {
    username: String,
    password: String,
    auth: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
}

/// The entry for the image's registry in a `.dockerconfigjson` or `.dockercfg`.
fn auth_for(data: &Data, image: &str) -> Option<AuthConfig> {
    let auths = match data.get(".dockerconfigjson") {
        Some(json) => serde_json::from_slice::<DockerConfig>(json).ok()?.auths,
        None => serde_json::from_slice(data.get(".dockercfg")?).ok()?,
    };
    let registry = registry(image);
    let (server, entry) = auths.into_iter().find(|(server, _)| host_of(server) == registry)?;
    let mut auth = AuthConfig {
        username: entry.username,
        password: entry.password,
        server_address: server,
        identity_token: entry.identity_token,
        ..AuthConfig::default()
    };
    if let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(&entry.auth)
        && let Some((username, password)) = String::from_utf8_lossy(&bytes).split_once(':')
    {
        auth.username = username.to_string();
        auth.password = password.to_string();
    }
    Some(auth)
}

fn registry(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_string(),
        _ => "docker.io".to_string(),
    }
}

fn host_of(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_string(),
        host => host.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_get_a_tag_or_are_refused() {
        let name = |image: &str| normalize(image).map_err(|failure| failure.reason);
        assert_eq!(name("busybox").unwrap(), "busybox:latest");
        assert_eq!(name("localhost:5000/team/app:1.0").unwrap(), "localhost:5000/team/app:1.0");
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        assert_eq!(name(&digest).unwrap(), digest);
        for wrong in ["", "Busy Box", "a//b", "busybox:", "UPPER", "a:b:c", "a@sha256:xyz", ":tag"] {
            assert_eq!(name(wrong), Err("InvalidImageName"), "{wrong}");
        }
        let message = normalize("A!").unwrap_err().message;
        assert!(message.starts_with("Failed to apply default image tag \"A!\": couldn't parse image name"));
    }

    #[test]
    fn the_tag_decides_where_there_is_no_policy() {
        let policy = |image: &str, policy: Option<&str>| {
            PullPolicy::of(&Container {
                image: Some(image.into()),
                image_pull_policy: policy.map(str::to_string),
                ..Container::default()
            })
        };
        assert_eq!(policy("busybox", None), PullPolicy::Always);
        assert_eq!(policy("host:5000/busybox", None), PullPolicy::Always);
        assert_eq!(policy("busybox:1.36", None), PullPolicy::IfNotPresent);
        assert_eq!(policy("busybox", Some("Never")), PullPolicy::Never);
    }

    #[test]
    fn the_registrys_password_is_found() {
        let config = json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": "bWU6c2VjcmV0" },
            "registry.example:5000": { "username": "you", "password": "pw" },
        } });
        let text = serde_json::to_vec(&config).unwrap();
        let data = [(".dockerconfigjson".to_string(), k8s_openapi::ByteString(text))].into();
        let secret = Secret { data: Some(data), ..Secret::default() };
        let data = Data::from(&secret);
        let found = auth_for(&data, "busybox:1").unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("me", "secret"));
        assert_eq!(auth_for(&data, "registry.example:5000/a:1").unwrap().username, "you");
        assert!(auth_for(&data, "other.example/a:1").is_none());
    }
}
