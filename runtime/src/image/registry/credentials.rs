//! Who the caller is at a registry: what the CRI hands over, or what docker's configuration says.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{PATIENCE, RegistryError};

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
pub(super) async fn of_docker(file: &Path, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    let failed = |reason: String| RegistryError::Credentials { host: registry.to_owned(), reason };
    let content = match tokio::fs::read(file).await {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("{}: {error}", file.display()))),
    };
    let config: DockerConfig =
        serde_json::from_slice(&content).map_err(|error| failed(format!("{}: {error}", file.display())))?;
    let helper = config.cred_helpers.iter().find(|(host, _)| host_of(host) == host_of(registry));
    let helper = helper.map(|(_, helper)| helper.as_str());
    if let Some(helper) = helper.or(Some(config.creds_store.as_str()).filter(|store| !store.is_empty())) {
        let server = if host_of(registry) == host_of(DOCKER_HUB) { DOCKER_HUB } else { registry };
        if let Some(found) = ask_helper(helper, server).await.map_err(failed)? {
            return Ok(Some(found));
        }
    }
    let entry = config.auths.iter().find(|(host, _)| host_of(host) == host_of(registry));
    Ok(entry.and_then(|(_, entry)| entry.credentials()))
}

/// Asks `docker-credential-<helper>`.
async fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>, String> {
    if helper.contains('/') {
        return Err(format!("{helper:?} is no name of a credential helper"));
    }
    run_helper(Path::new(&format!("docker-credential-{helper}")), server, PATIENCE).await
}

/// The helpers' protocol: the server goes in, JSON comes out. One that does not answer is killed.
async fn run_helper(program: &Path, server: &str, patience: Duration) -> Result<Option<Credentials>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let name = program.display();
    let failed = |error: io::Error| format!("{name}: {error}");
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let talk = async {
        if let Some(mut stdin) = stdin {
            match stdin.write_all(server.as_bytes()).await {
                // One that knows the answer need not read the question.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                result => result?,
            }
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(patience, talk).await;
    let output = output.map_err(|_| format!("{name}: no answer within {} s", patience.as_secs()))?;
    let output = output.map_err(failed)?;
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
    use super::*;

    fn basic(username: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic { username: username.into(), password: password.into() })
    }

    #[tokio::test]
    async fn dockers_configuration_is_read_in_all_its_forms() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        let auth = STANDARD.encode("me:se:cret");
        let config = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "registry.local:5000": {{"username": "you", "password": "word"}},
                "token.local": {{"identitytoken": "abc"}}, "empty.local": {{}}}}}}"#
        );
        std::fs::write(&file, config).unwrap();
        let of = async |registry| of_docker(&file, registry).await.unwrap();
        assert_eq!(of("docker.io").await, basic("me", "se:cret"));
        assert_eq!(of("registry.local:5000").await, basic("you", "word"));
        assert_eq!(of("token.local").await, Some(Credentials::IdentityToken("abc".into())));
        assert_eq!((of("empty.local").await, of("other.local").await), (None, None));
        assert_eq!(of_docker(&folder.path().join("none"), "docker.io").await.unwrap(), None);
        std::fs::write(&file, "{").unwrap();
        assert!(of_docker(&file, "docker.io").await.unwrap_err().to_string().contains("config.json: EOF"));
    }

    /// A helper that does this after it was told the server. Named by its folder: PATH belongs to all tests.
    ///
    /// Another process writes it: a child that a test beside this one forks meanwhile would hold it open for writing.
    fn helper(folder: &Path, body: &str) -> std::path::PathBuf {
        let path = folder.join("docker-credential-test");
        let script = folder.join("script");
        std::fs::write(&script, format!("#!/bin/sh\nread server\n{body}\n")).unwrap();
        let installed = std::process::Command::new("install").arg("-m755").args([&script, &path]).status();
        assert!(installed.unwrap().success());
        path
    }

    #[tokio::test]
    async fn credential_helpers_are_asked() {
        let folder = tempfile::tempdir().unwrap();
        let ask = async |body: &str| run_helper(&helper(folder.path(), body), "a.local", PATIENCE).await;
        let answer = r#"echo "{\"ServerURL\":\"$server\",\"Username\":\"u\",\"Secret\":\"at $server\"}""#;
        assert_eq!(ask(answer).await.unwrap(), basic("u", "at a.local"));
        let token = r#"echo '{"Username":"<token>","Secret":"s"}'"#;
        assert_eq!(ask(token).await.unwrap(), Some(Credentials::IdentityToken("s".into())));
        assert_eq!(ask("echo credentials not found in native keychain; exit 1").await.unwrap(), None);
        assert!(ask("echo locked; exit 1").await.unwrap_err().ends_with("docker-credential-test: locked"));
        assert!(ask_helper("../evil", "a.local").await.is_err(), "a helper is found by its name only");
        let nobody = ask_helper("that-is-not-there", "a.local").await.unwrap_err();
        assert!(nobody.contains("docker-credential-that"));
    }

    #[tokio::test]
    async fn a_helper_that_does_not_answer_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let asks_somebody = helper(folder.path(), "exec sleep 1000");
        let given_up = run_helper(&asks_somebody, "a.local", Duration::from_millis(100)).await.unwrap_err();
        assert!(given_up.ends_with("docker-credential-test: no answer within 0 s"), "{given_up}");
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
