//! Images: whether to pull, how to name them, with whose password, and when they go again.
//!
//! - [`credentials`] finds the passwords for an image's registry;
//! - [`garbage`] decides which images have to go when the disk fills up, [`keeper`] removes them and tells the
//!   node which ones it has; [`shelf`] knows which there are and who uses them.

mod credentials;
pub mod garbage;
pub mod keeper;
mod shelf;

use std::time::{Duration, Instant};

use client::events::EventType;
use cri::v1::{Image, ImageSpec, ImageStatusRequest, PodSandboxConfig, PullImageRequest};
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::config::PullLimit;
use crate::container::config::ImageUser;
use crate::context::Context;
use crate::events::container_reference;
use crate::pod::backoff::go_duration;

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

/// How many images are pulled at the same time, and word of those that have been.
pub struct Pulls {
    turns: Option<Semaphore>,
    pulled: watch::Sender<u64>,
}

impl Pulls {
    /// As many at once as `limit` says.
    pub fn new(limit: PullLimit) -> Pulls {
        let turns = match limit {
            PullLimit::Serialized => Some(Semaphore::new(1)),
            PullLimit::AtMost(count) => Some(Semaphore::new(count.get())),
            PullLimit::None => None,
        };
        Pulls { turns, pulled: watch::Sender::new(0) }
    }

    /// Waits in line. The turn lasts as long as what is returned.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.turns.as_ref()?.acquire().await.ok()
    }

    fn has_pulled(&self) {
        self.pulled.send_modify(|count| *count += 1);
    }

    /// Moves with each image that has been pulled.
    pub fn pulled(&self) -> watch::Receiver<u64> {
        self.pulled.subscribe()
    }
}

/// Whether a waiting reason says that an image could not be had from its registry.
pub fn is_pull_failure(reason: &str) -> bool {
    matches!(reason, "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed")
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
            if !context.image_keeper.lists(&image) {
                context.pulls.has_pulled();
            }
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
    let queued = Instant::now();
    let credentials = credentials::for_image(context, pod, name).await;
    // Without any the registry is asked all the same: it may not want one, or know the node.
    let tries: Vec<_> =
        if credentials.is_empty() { vec![None] } else { credentials.into_iter().map(Some).collect() };
    let _turn = context.pulls.turn().await;
    let started = Instant::now();
    let mut failure = pull_failure(String::new());
    for auth in tries {
        let image = Some(ImageSpec { image: name.to_string(), ..ImageSpec::default() });
        let request = PullImageRequest { image, auth, sandbox_config: Some(sandbox.clone()) };
        match context.images.pull_image(request).await {
            Ok(_) => {
                let image = find(context, name).await?;
                let image = image
                    .ok_or_else(|| pull_failure("the image is gone right after it was pulled".into()))?;
                context.pulls.has_pulled();
                let message = pulled(asked, started.elapsed(), queued.elapsed(), image.size);
                tell(context, pod, container, EventType::Normal, "Pulled", &message);
                return Ok(local(image));
            }
            Err(error) => failure = why(name, error.message),
        }
    }
    let message = format!("Failed to pull image \"{asked}\": {}", failure.message);
    warn(context, pod, container, "Failed", &message);
    Err(failure)
}

fn pulled(image: &str, took: Duration, waited: Duration, size: u64) -> String {
    let in_milliseconds = |time: Duration| {
        go_duration(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    };
    let (took, waited) = (in_milliseconds(took), in_milliseconds(waited));
    format!(
        "Successfully pulled image \"{image}\" in {took} ({waited} including waiting). Image size: {size} bytes."
    )
}

/// Reasons that the runtime gives by the first word of its message; upstream makes its own of them.
fn why(image: &str, message: String) -> ImageFailure {
    const KNOWN: [(&str, &str); 2] = [
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ];
    let known =
        KNOWN.iter().find_map(|(reason, words)| Some((*reason, *words, message.strip_prefix(reason)?)));
    match known {
        Some((reason, words, rest)) => {
            ImageFailure { reason, message: format!("image pull failed for {image} because {words}{rest}") }
        }
        None => pull_failure(message),
    }
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

#[cfg(test)]
mod tests {
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
    fn a_pull_tells_how_long_it_took_and_how_long_it_waited() {
        let told = pulled("a:1", Duration::from_micros(1_234_567), Duration::from_secs(61), 42);
        let expected =
            "Successfully pulled image \"a:1\" in 1.234s (1m1s including waiting). Image size: 42 bytes.";
        assert_eq!(told, expected);
    }

    #[test]
    fn the_runtimes_reason_becomes_the_containers() {
        let failure = why("a:1", "RegistryUnavailable: no route".into());
        assert_eq!(failure.reason, "RegistryUnavailable");
        assert_eq!(
            failure.message,
            "image pull failed for a:1 because the registry is unavailable: no route"
        );
        assert_eq!(why("a:1", "no such tag".into()).reason, "ErrImagePull");
    }

    #[tokio::test]
    async fn pulls_wait_for_their_turn() {
        let pulls = Pulls::new(PullLimit::Serialized);
        let first = pulls.turn().await;
        let mut second = std::pin::pin!(pulls.turn());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(futures::poll!(&mut second).is_ready());
        let free = Pulls::new(PullLimit::None);
        assert!(free.turn().await.is_none());
    }
}
