//! Names of images, normalised as Docker and containerd do.

use std::fmt;

use super::ImageError;

const DEFAULT_REGISTRY: &str = "docker.io";

/// A full image name: `busybox` is `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Version {
    Tag(String),
    Digest(String),
}

impl Reference {
    /// Reads a name as people write it.
    pub fn parse(name: &str) -> Result<Reference, ImageError> {
        let invalid = |reason| ImageError::InvalidReference { name: name.to_owned(), reason };
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest)),
            Some(_) => return Err(invalid("invalid reference format")),
            None => (name, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("invalid reference format"));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest.to_owned()),
            Some(_) => (DEFAULT_REGISTRY, path.to_owned()),
            None => (DEFAULT_REGISTRY, format!("library/{path}")),
        };
        // index.docker.io is the old name of the same registry.
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        if repository.chars().any(|letter| letter.is_ascii_uppercase()) {
            return Err(invalid("invalid reference format: repository name must be lowercase"));
        }
        if repository.is_empty() || !repository.split('/').all(is_path_component) {
            return Err(invalid("invalid reference format"));
        }
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest.to_owned()),
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Reference { registry: registry.to_owned(), repository, version })
    }

    /// Registry and repository, without tag or digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The registry's host, with its port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag or the digest.
    pub fn version(&self) -> &str {
        match &self.version {
            Version::Tag(version) | Version::Digest(version) => version,
        }
    }

    /// The digest, for a name that pins one.
    pub fn digest(&self) -> Option<&str> {
        match &self.version {
            Version::Digest(digest) => Some(digest),
            Version::Tag(_) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}/{}:{tag}", self.registry, self.repository),
            Version::Digest(digest) => write!(f, "{}/{}@{digest}", self.registry, self.repository),
        }
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex_digest)
}

pub(crate) fn is_hex_digest(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_registry(component: &str) -> bool {
    let (host, port) = component.split_once(':').unwrap_or((component, "0"));
    (component.contains(['.', ':'])
        || component == "localhost"
        || component.bytes().any(|b| b.is_ascii_uppercase()))
        && !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Lower-case letters and digits, separated by one dot, one or two underscores, or any number of hyphens.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes.split(|&byte| alphanumeric(byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_become_full_ones() {
        let normalised = |name: &str| Reference::parse(name).unwrap().to_string();
        assert_eq!(normalised("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normalised("coracle/guestbook:v1"), "docker.io/coracle/guestbook:v1");
        assert_eq!(normalised("localhost/web"), "localhost/web:latest");
        assert_eq!(normalised("localhost:5000/web:1.2"), "localhost:5000/web:1.2");
        assert_eq!(normalised("registry.k8s.io/pause:3.10"), "registry.k8s.io/pause:3.10");
        assert_eq!(normalised("index.docker.io/library/a"), "docker.io/library/a:latest");
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(normalised(&format!("web:1@{digest}")), format!("docker.io/library/web@{digest}"));
    }

    #[test]
    fn bad_names_are_refused_with_the_reason() {
        let refused = |name: &str| Reference::parse(name).unwrap_err().to_string();
        assert_eq!(
            refused("library/BusyBox"),
            r#"couldn't parse image name "library/BusyBox": invalid reference format: repository name must be lowercase"#
        );
        for name in ["", "a b", "web:", "web:-x", "web@sha256:12", "a//b", "-a", "a/", "a..b"] {
            assert!(Reference::parse(name).is_err(), "{name:?} is no image name");
        }
    }
}
