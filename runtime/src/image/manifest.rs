//! The documents between a name and its layers: indexes, manifests, descriptors and platforms.
//!
//! OCI and docker's second schema have the same shape under different media types, so one set of types
//! reads both. Everything here is pure.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ImageError;
use super::store::checked_digest;

/// OCI's list of manifests by platform.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's description of one image.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's list of manifests by platform.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's description of one image.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// What we can read, as registries are told.
pub const ACCEPTED: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, */*";

/// A piece of content elsewhere: what it is, how it is called and how large it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// `sha256:...` of the content.
    pub digest: String,
    /// Its length in bytes.
    #[serde(default)]
    pub size: u64,
    /// For manifests in an index: where the image runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Words about it, such as its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where an image runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// By Go's name, such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
    /// The revision of the architecture, such as `v8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// Reads `os/architecture` or `os/architecture/variant`.
    pub fn parse(text: &str) -> Option<Platform> {
        let mut parts = text.split('/');
        let (os, architecture) = (parts.next()?, parts.next()?);
        let variant = parts.next().unwrap_or_default();
        if os.is_empty() || architecture.is_empty() || parts.next().is_some() {
            return None;
        }
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64", variant) => ("amd64", variant),
            ("aarch64", "") | ("arm64", "") => ("arm64", "v8"),
            ("arm", "") => ("arm", "v7"),
            other => other,
        };
        let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
        Some(Platform { architecture, os: os.to_owned(), variant })
    }

    /// How well an image for this platform runs on `machine`: 0 is best, none is not at all.
    fn distance(&self, machine: &Platform) -> Option<u32> {
        if self.os != machine.os || self.architecture != machine.architecture {
            return None;
        }
        let level = |variant: &str| variant.trim_start_matches('v').parse::<u32>().unwrap_or(0);
        let baseline = match machine.architecture.as_str() {
            "arm64" => 8,
            "amd64" => 1,
            _ => 0,
        };
        let (needed, had) = (level(&self.variant).max(baseline), level(&machine.variant).max(baseline));
        had.checked_sub(needed)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// One image: its configuration and its layers, lowest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    #[serde(default)]
    pub schema_version: u32,
    /// What kind of manifest it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The configuration, whose digest is the image's id.
    pub config: Descriptor,
    /// Lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// One for content that came without.
    pub fn of(config: &str, config_size: u64, layers: Vec<Descriptor>) -> Manifest {
        let config = Descriptor {
            media_type: OCI_CONFIG.to_owned(),
            digest: config.to_owned(),
            size: config_size,
            ..Descriptor::default()
        };
        Manifest { schema_version: 2, media_type: OCI_MANIFEST.to_owned(), config, layers }
    }

    /// As it is stored and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is always serialisable")
    }
}

/// What a name leads to.
#[derive(Clone, Debug)]
pub enum Document {
    /// Images by platform.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

impl Document {
    /// Reads an index or a manifest; `what` names it in the error.
    pub fn parse(content: &[u8], what: &str) -> Result<Document, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Either {
            #[serde(default)]
            schema_version: u32,
            #[serde(default)]
            media_type: String,
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            #[serde(default)]
            layers: Vec<Descriptor>,
        }
        let invalid = |reason: String| ImageError::InvalidManifest { what: what.to_owned(), reason };
        let either: Either = serde_json::from_slice(content).map_err(|error| invalid(error.to_string()))?;
        match (either.manifests, either.config) {
            (Some(manifests), None) => {
                manifests.iter().try_for_each(|manifest| checked_digest(&manifest.digest).map(drop))?;
                Ok(Document::Index(manifests))
            }
            (None, Some(config)) => {
                for content in either.layers.iter().chain([&config]) {
                    checked_digest(&content.digest)?;
                }
                let (schema_version, media_type) = (either.schema_version, either.media_type);
                Ok(Document::Manifest(Manifest { schema_version, media_type, config, layers: either.layers }))
            }
            (Some(_), Some(_)) => Err(invalid("it is an index and a manifest at once".to_owned())),
            (None, None) if either.schema_version == 1 => {
                Err(invalid("it is of docker's first schema, which is no longer supported".to_owned()))
            }
            (None, None) => Err(invalid("it is neither an index nor a manifest".to_owned())),
        }
    }
}

/// The manifest in an index that runs best on `machine`; one that does not say where it runs comes last.
pub fn choose<'a>(manifests: &'a [Descriptor], machine: &Platform) -> Option<&'a Descriptor> {
    let distance = |descriptor: &Descriptor| match &descriptor.platform {
        Some(platform) => platform.distance(machine),
        None => Some(u32::MAX),
    };
    manifests
        .iter()
        .filter_map(|descriptor| Some((distance(descriptor)?, descriptor)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, descriptor)| descriptor)
}

/// Refuses an image that says it runs elsewhere.
pub fn check_platform(config: &super::ImageConfig, machine: &Platform, what: &str) -> Result<(), ImageError> {
    let (os, architecture) = (&config.os, &config.architecture);
    let fits = |given: &str, wanted: &str| given.is_empty() || given == wanted;
    if fits(os, &machine.os) && fits(architecture, &machine.architecture) {
        return Ok(());
    }
    Err(ImageError::WrongPlatform {
        what: what.to_owned(),
        machine: machine.to_string(),
        available: format!("{os}/{architecture}"),
    })
}

/// The platforms of an index, for people.
pub fn platforms(manifests: &[Descriptor]) -> String {
    let known = manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
    let names: Vec<String> =
        known.filter(|platform| platform.os != "unknown").map(Platform::to_string).collect();
    names.join(", ")
}

/// The media type of a layer, told by its first bytes.
pub fn layer_type(beginning: &[u8]) -> String {
    match beginning {
        [0x1f, 0x8b, ..] => format!("{OCI_LAYER}+gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => format!("{OCI_LAYER}+zstd"),
        _ => OCI_LAYER.to_owned(),
    }
}

/// A layer as OCI's manifests name it, where docker's have described it.
pub fn oci_layer(layer: Descriptor) -> Descriptor {
    let packed = layer.media_type.strip_prefix(DOCKER_LAYER).map(|packed| packed.replacen('.', "+", 1));
    match packed {
        Some(packed) => Descriptor { media_type: format!("{OCI_LAYER}{packed}"), ..layer },
        None => layer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_layers_have_a_name_in_oci() {
        let named = |media_type: &str| {
            oci_layer(Descriptor { media_type: media_type.to_owned(), ..Descriptor::default() }).media_type
        };
        assert_eq!(named(&format!("{DOCKER_LAYER}.gzip")), layer_type(&[0x1f, 0x8b]));
        assert_eq!(named(DOCKER_LAYER), OCI_LAYER);
        assert_eq!(named("application/vnd.oci.image.layer.v1.tar+zstd"), format!("{OCI_LAYER}+zstd"));
    }

    fn entry(platform: Option<&str>, digit: char) -> Descriptor {
        let digest = format!("sha256:{}", digit.to_string().repeat(64));
        Descriptor { digest, platform: platform.and_then(Platform::parse), ..Default::default() }
    }

    fn chosen(entries: &[Descriptor], machine: &str) -> Option<char> {
        let machine = Platform::parse(machine).unwrap();
        choose(entries, &machine).and_then(|descriptor| descriptor.digest.chars().last())
    }

    #[test]
    fn the_image_for_this_machine_is_chosen() {
        let entries = [
            entry(Some("linux/arm64"), '1'),
            entry(Some("windows/amd64"), '2'),
            entry(Some("linux/amd64"), '3'),
        ];
        assert_eq!(chosen(&entries, "linux/amd64"), Some('3'));
        assert_eq!(chosen(&entries, "linux/arm64"), Some('1'));
        assert_eq!(chosen(&entries, "linux/s390x"), None);
    }

    #[test]
    fn the_best_variant_that_the_machine_can_run_is_chosen() {
        let arm = [
            entry(Some("linux/arm/v5"), '5'),
            entry(Some("linux/arm/v7"), '7'),
            entry(Some("linux/arm/v6"), '6'),
        ];
        assert_eq!(chosen(&arm, "linux/arm"), Some('7'));
        assert_eq!(chosen(&arm, "linux/arm/v6"), Some('6'));
        let amd = [entry(Some("linux/amd64/v3"), '3'), entry(Some("linux/amd64"), '1')];
        assert_eq!(chosen(&amd, "linux/amd64"), Some('1'), "a newer processor's image may not run here");
    }

    #[test]
    fn what_says_nothing_of_its_platform_comes_last() {
        let entries = [entry(None, '1'), entry(Some("linux/amd64"), '2')];
        assert_eq!(chosen(&entries, "linux/amd64"), Some('2'));
        assert_eq!(chosen(&entries[..1], "linux/amd64"), Some('1'));
    }

    #[test]
    fn documents_are_told_apart_by_their_shape() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":1}}]}}"#);
        assert!(
            matches!(Document::parse(index.as_bytes(), "x"), Ok(Document::Index(list)) if list.len() == 1)
        );
        let manifest = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}"}},"layers":[]}}"#);
        assert!(matches!(Document::parse(manifest.as_bytes(), "x"), Ok(Document::Manifest(_))));
        for (bad, reason) in [
            ("{", "EOF"),
            ("{}", "neither"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "first schema"),
            (r#"{"config":{"digest":"sha256:../../etc"}}"#, "no sha256 digest"),
        ] {
            let error = Document::parse(bad.as_bytes(), "x").unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }
}
