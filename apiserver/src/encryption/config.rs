//! The file behind `--encryption-provider-config`: upstream's EncryptionConfiguration.

use std::{collections::HashSet, path::PathBuf};

use api::kinds::KINDS;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;

use super::cipher::{Cipher, CipherError};

const API_VERSION: &str = "apiserver.config.k8s.io/v1";

/// Which resources are encrypted, and with what.
pub struct Providers {
    rules: Vec<Provider>,
}

/// The keys of some resources. The first one writes.
pub(super) struct Provider {
    resources: Vec<String>,
    ciphers: Vec<Cipher>,
}

/// Why a configuration is none.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read the encryption configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no EncryptionConfiguration.
    #[error("the encryption configuration cannot be parsed")]
    Parse(#[source] serde_yaml::Error),
    /// It is one that cannot be followed.
    #[error("the encryption configuration is invalid: {field}: {reason}")]
    Invalid {
        /// Where.
        field: String,
        /// Why.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Block>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderBlock>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderBlock {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<serde_json::Map<String, serde_json::Value>>,
    kms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

impl Providers {
    /// Checks a configuration.
    pub fn parse(text: &str) -> Result<Providers, ConfigError> {
        let file: File = serde_yaml::from_str(text).map_err(ConfigError::Parse)?;
        if file.api_version != API_VERSION || file.kind != "EncryptionConfiguration" {
            return Err(invalid("apiVersion", format!("want an EncryptionConfiguration of {API_VERSION}")));
        }
        if file.resources.is_empty() {
            return Err(invalid("resources", "at least one resource is required".into()));
        }
        let blocks = file.resources.into_iter().enumerate();
        let rules = blocks.map(|(index, block)| Provider::of(&format!("resources[{index}]"), block));
        Ok(Providers { rules: rules.collect::<Result<_, _>>()? })
    }

    /// What encrypts the value of a key, if anything.
    pub(super) fn of(&self, key: &str) -> Option<&Provider> {
        let (group, resource) = resource_of(key)?;
        self.rules.iter().find(|rule| rule.resources.iter().any(|one| covers(one, group, resource)))
    }
}

impl Provider {
    fn of(field: &str, block: Block) -> Result<Provider, ConfigError> {
        let field = |name: &str| format!("{field}.{name}");
        if block.resources.is_empty() {
            return Err(invalid(&field("resources"), "at least one resource is required".into()));
        }
        if block.providers.is_empty() {
            return Err(invalid(&field("providers"), "at least one provider is required".into()));
        }
        if let Some(mixed) = block.resources.iter().find(|one| one.contains('/')) {
            return Err(invalid(&field("resources"), format!("{mixed:?}: subresources are not stored")));
        }
        let mut ciphers = Vec::new();
        for (index, provider) in block.providers.into_iter().enumerate() {
            provider.add_to(&mut ciphers, &field(&format!("providers[{index}]")))?;
        }
        Ok(Provider { resources: block.resources, ciphers })
    }

    pub(super) fn seal(&self, path: &str, value: &Bytes) -> Result<Bytes, CipherError> {
        self.ciphers.first().ok_or(CipherError::NoMatchingPrefix)?.seal(path, value)
    }

    /// Tries every key whose prefix fits: two keys may have one name.
    pub(super) fn open(&self, path: &str, stored: &Bytes) -> Result<Bytes, CipherError> {
        let mut outcome = match self.ciphers.as_slice() {
            [only] if !only.wrote(stored) && only.wrote(b"") => Err(CipherError::Encrypted),
            _ => Err(CipherError::NoMatchingPrefix),
        };
        for cipher in self.ciphers.iter().filter(|cipher| cipher.wrote(stored)) {
            outcome = cipher.open(path, stored);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Whether the value would be written with the same key today.
    pub(super) fn is_current(&self, stored: &[u8]) -> bool {
        self.ciphers.first().is_some_and(|cipher| cipher.wrote(stored))
    }
}

impl ProviderBlock {
    fn add_to(self, ciphers: &mut Vec<Cipher>, field: &str) -> Result<(), ConfigError> {
        let ProviderBlock { aesgcm, aescbc, secretbox, identity, kms } = self;
        if kms.is_some() {
            return Err(invalid(&format!("{field}.kms"), "key management services are not supported".into()));
        }
        let given = [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some()];
        if given.iter().filter(|is_given| **is_given).count() != 1 {
            return Err(invalid(field, "want exactly one of aesgcm, aescbc, secretbox and identity".into()));
        }
        if identity.is_some() {
            ciphers.push(Cipher::identity());
        }
        let sorts: [(Option<Keys>, &str, Make, &str); 3] = [
            (aesgcm, "aesgcm", Cipher::aes_gcm, "16, 24 or 32"),
            (aescbc, "aescbc", Cipher::aes_cbc, "16, 24 or 32"),
            (secretbox, "secretbox", Cipher::secretbox, "32"),
        ];
        for (keys, sort, make, lengths) in sorts {
            if let Some(keys) = keys {
                keys.add_to(ciphers, &format!("{field}.{sort}"), make, lengths)?;
            }
        }
        Ok(())
    }
}

type Make = fn(&str, &[u8]) -> Option<Cipher>;

impl Keys {
    fn add_to(
        self,
        ciphers: &mut Vec<Cipher>,
        field: &str,
        make: Make,
        lengths: &str,
    ) -> Result<(), ConfigError> {
        if self.keys.is_empty() {
            return Err(invalid(&format!("{field}.keys"), "at least one key is required".into()));
        }
        let mut names = HashSet::new();
        for (index, Key { name, secret }) in self.keys.into_iter().enumerate() {
            let field = |part: &str| format!("{field}.keys[{index}].{part}");
            if name.is_empty() || name.contains(':') || !names.insert(name.clone()) {
                return Err(invalid(
                    &field("name"),
                    "want a name without colons that no other key has".into(),
                ));
            }
            // The secret itself is never told.
            let secret = BASE64_STANDARD.decode(secret.trim());
            let secret = secret.map_err(|_| invalid(&field("secret"), "want base64".into()))?;
            let cipher = make(&name, &secret).ok_or_else(|| {
                let length = secret.len();
                invalid(&field("secret"), format!("want {lengths} bytes, not {length}"))
            })?;
            ciphers.push(cipher);
        }
        Ok(())
    }
}

fn invalid(field: &str, reason: String) -> ConfigError {
    ConfigError::Invalid { field: field.to_string(), reason }
}

/// Group and resource of what is stored under a key.
fn resource_of(key: &str) -> Option<(&str, &str)> {
    let path = key.strip_prefix("/registry/")?;
    let (first, rest) = path.split_once('/')?;
    let second = rest.split_once('/').map_or(rest, |(second, _)| second);
    let is_stored_at = |storage: &str| match storage.split_once('/') {
        Some((one, other)) => one == first && other == second,
        None => storage == first,
    };
    let built_in = KINDS.iter().find(|kind| is_stored_at(kind.storage));
    // Custom resources are stored under group and plural.
    Some(built_in.map_or((first, second), |kind| (kind.group, kind.plural)))
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.` for the core group, `*.*` for everything.
fn covers(pattern: &str, group: &str, resource: &str) -> bool {
    match pattern.split_once('.') {
        None => group.is_empty() && pattern == resource,
        Some(("*", "*")) => true,
        Some((wanted, wanted_group)) => wanted_group == group && (wanted == "*" || wanted == resource),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(blocks: &str) -> String {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: {blocks}"
        );
        match Providers::parse(&text) {
            Ok(_) => String::new(),
            Err(ConfigError::Parse(error)) => error.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn resources_are_found_by_their_keys() {
        assert_eq!(resource_of("/registry/secrets/a/b"), Some(("", "secrets")));
        assert_eq!(resource_of("/registry/services/specs/a/b"), Some(("", "services")));
        assert_eq!(resource_of("/registry/deployments/a/b"), Some(("apps", "deployments")));
        assert_eq!(resource_of("/registry/example.com/widgets/a/b"), Some(("example.com", "widgets")));
        assert!(covers("secrets", "", "secrets") && !covers("secrets", "example.com", "secrets"));
        assert!(covers("*.", "", "pods") && !covers("*.", "apps", "deployments"));
        assert!(covers("*.apps", "apps", "deployments") && covers("*.*", "", "pods"));
        assert!(covers("widgets.example.com", "example.com", "widgets"));
    }

    #[test]
    fn configurations_that_cannot_be_followed_are_refused_without_telling_keys() {
        let with = |provider: &str| fault(&format!("[{{resources: [secrets], providers: [{provider}]}}]"));
        assert_eq!(with("{identity: {}}"), "");
        assert!(fault("[]").contains("at least one resource"));
        assert!(with("").contains("resources[0].providers: at least one provider"));
        let short = with("{aesgcm: {keys: [{name: a, secret: c2VjcmV0}]}}");
        assert!(short.contains("want 16, 24 or 32 bytes, not 6") && !short.contains("c2VjcmV0"), "{short}");
        assert!(with("{aescbc: {keys: [{name: 'a:b', secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}").contains("name"));
        assert!(with("{kms: {name: a}}").contains("not supported"));
        assert!(with("{identity: {}, secretbox: {keys: []}}").contains("exactly one"));
        assert!(with("{rot13: {}}").contains("unknown field"));
    }
}
