//! Who the caller is at a registry: what the CRI hands over, or what docker's configuration says.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::RegistryError;

/// How docker calls its own registry in its configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A credential helper's word for: I have nothing for this server.
const NO_CREDENTIALS: &str = "credentials not found";

/// What proves who the caller is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password, or a personal token as its password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// Something that an authorization server gives access tokens for.
    IdentityToken(String),
    /// A token that the registry itself takes.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    /// Secrets do not go into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Basic { username, .. } => write!(f, "Basic({username})"),
            Credentials::IdentityToken(_) => f.write_str("IdentityToken"),
            Credentials::RegistryToken(_) => f.write_str("RegistryToken"),
        }
    }
}

impl Credentials {
    /// Reads `name:password`.
    pub fn parse(text: &str) -> Option<Credentials> {
        let (username, password) = text.split_once(':')?;
        Some(Credentials::Basic { username: username.to_owned(), password: password.to_owned() })
    }

    /// What the CRI's AuthConfig says: none when it is empty or for another server than `registry`.
    pub fn of_cri(auth: &cri::v1::AuthConfig, registry: &str) -> Option<Credentials> {
        if !auth.server_address.is_empty() && host_of(&auth.server_address) != host_of(registry) {
            return None;
        }
        let entry = Entry {
            auth: auth.auth.clone(),
            username: auth.username.clone(),
            password: auth.password.clone(),
            identitytoken: auth.identity_token.clone(),
            registrytoken: auth.registry_token.clone(),
        };
        entry.credentials()
    }

    /// The header that says it, where the registry does not want a token.
    pub(super) fn basic_header(&self) -> Option<String> {
        match self {
            Credentials::Basic { username, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            Credentials::IdentityToken(_) | Credentials::RegistryToken(_) => None,
        }
    }
}

/// Docker's `config.json`, as far as registries are concerned.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Entry {
    fn credentials(&self) -> Option<Credentials> {
        if !self.identitytoken.is_empty() {
            return Some(Credentials::IdentityToken(self.identitytoken.clone()));
        }
        if !self.registrytoken.is_empty() {
            return Some(Credentials::RegistryToken(self.registrytoken.clone()));
        }
        if !self.username.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            return Some(Credentials::Basic { username, password });
        }
        let plain = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
        // Docker fills some passwords up with zeros.
        Credentials::parse(plain.trim_end_matches('\0'))
    }
}

/// What the configuration in `file` has for a registry; that there is no such file is as good as an empty one.
/// May run a credential helper and waits for it.
pub(super) fn of_docker(file: &Path, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    let failed = |reason: String| RegistryError::Credentials { host: registry.to_owned(), reason };
    let content = match std::fs::read(file) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("{}: {error}", file.display()))),
    };
    let config: DockerConfig =
        serde_json::from_slice(&content).map_err(|error| failed(format!("{}: {error}", file.display())))?;
    let helper = config.cred_helpers.iter().find(|(host, _)| host_of(host) == host_of(registry));
    let helper = helper.map(|(_, helper)| helper.as_str());
    if let Some(helper) = helper.or(Some(config.creds_store.as_str()).filter(|store| !store.is_empty())) {
        let server = if host_of(registry) == host_of(DOCKER_HUB) { DOCKER_HUB } else { registry };
        if let Some(found) = ask_helper(helper, server).map_err(failed)? {
            return Ok(Some(found));
        }
    }
    let entry = config.auths.iter().find(|(host, _)| host_of(host) == host_of(registry));
    Ok(entry.and_then(|(_, entry)| entry.credentials()))
}

/// Asks `docker-credential-<helper>`.
fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>, String> {
    if helper.contains('/') {
        return Err(format!("{helper:?} is no name of a credential helper"));
    }
    run_helper(Path::new(&format!("docker-credential-{helper}")), server)
}

/// The helpers' protocol: the server goes in, JSON comes out.
fn run_helper(program: &Path, server: &str) -> Result<Option<Credentials>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let name = program.display();
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        if said.contains(NO_CREDENTIALS) {
            return Ok(None);
        }
        return Err(format!("{name}: {}", said.trim()));
    }
    let answer: Answer = serde_json::from_str(&said).map_err(|error| format!("{name}: {error}"))?;
    Ok(Some(if answer.username == "<token>" {
        Credentials::IdentityToken(answer.secret)
    } else {
        Credentials::Basic { username: answer.username, password: answer.secret }
    }))
}

/// The host of a server as people write it; all of Docker Hub's names are one.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn basic(username: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic { username: username.into(), password: password.into() })
    }

    #[test]
    fn dockers_configuration_is_read_in_all_its_forms() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let auth = STANDARD.encode("me:se:cret");
        let config = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "registry.local:5000": {{"username": "you", "password": "word"}},
                "token.local": {{"identitytoken": "abc"}}, "empty.local": {{}}}}}}"#
        );
        std::fs::write(&file, config).unwrap();
        let of = |registry| of_docker(&file, registry).unwrap();
        assert_eq!(of("docker.io"), basic("me", "se:cret"));
        assert_eq!(of("registry.local:5000"), basic("you", "word"));
        assert_eq!(of("token.local"), Some(Credentials::IdentityToken("abc".into())));
        assert_eq!((of("empty.local"), of("other.local")), (None, None));
        assert_eq!(of_docker(&folder.path().join("none"), "docker.io").unwrap(), None);
        std::fs::write(&file, "{").unwrap();
        assert!(of_docker(&file, "docker.io").unwrap_err().to_string().contains("config.json: EOF"));
    }

    #[test]
    fn credential_helpers_are_asked() {
        let folder = tempfile::tempdir().unwrap();
        let helper = |body: &str| {
            let path = folder.path().join("docker-credential-test");
            std::fs::write(&path, format!("#!/bin/sh\nread server\n{body}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        // Named by its folder here: PATH belongs to all tests of this process.
        let ask = |server: &str| run_helper(&folder.path().join("docker-credential-test"), server);
        helper(r#"echo "{\"ServerURL\":\"$server\",\"Username\":\"u\",\"Secret\":\"at $server\"}""#);
        assert_eq!(ask("a.local").unwrap(), basic("u", "at a.local"));
        helper(r#"echo '{"Username":"<token>","Secret":"s"}'"#);
        assert_eq!(ask("a.local").unwrap(), Some(Credentials::IdentityToken("s".into())));
        helper("echo credentials not found in native keychain; exit 1");
        assert_eq!(ask("a.local").unwrap(), None);
        helper("echo locked; exit 1");
        assert!(ask("a.local").unwrap_err().ends_with("docker-credential-test: locked"));
        assert!(ask_helper("../evil", "a.local").is_err(), "a helper is found by its name only");
        assert!(ask_helper("that-is-not-there", "a.local").unwrap_err().contains("docker-credential-that"));
    }

    #[test]
    fn the_kubelets_credentials_count_for_their_server_only() {
        let auth = |server: &str| cri::v1::AuthConfig {
            username: "u".into(),
            password: "p".into(),
            server_address: server.into(),
            ..Default::default()
        };
        assert_eq!(Credentials::of_cri(&auth(""), "a.local"), basic("u", "p"));
        assert_eq!(Credentials::of_cri(&auth("https://a.local/v1"), "a.local"), basic("u", "p"));
        assert_eq!(Credentials::of_cri(&auth("b.local"), "a.local"), None);
        assert_eq!(Credentials::of_cri(&cri::v1::AuthConfig::default(), "a.local"), None);
    }
}
