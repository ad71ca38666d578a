//! Where a registry's content is asked for: the registry itself, and mirrors that are tried before it.
//!
//! A folder has one directory a registry host (`docker.io`, `registry.local:5000`, `_default`), with a
//! `hosts.toml` in containerd's format, or with certificates in docker's (`*.crt`, `*.cert`, `*.key`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Credentials, Proxies, RegistryError};

/// Folders with a directory for each registry host, unless told otherwise: our own, and containerd's for machines
/// that have it.
pub const HOSTS_FOLDERS: [&str; 2] = ["/etc/coracle/certs.d", "/etc/containerd/certs.d"];

/// What all pulls have in common.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Folders with a directory for each registry host; the first that has one for a host counts.
    pub hosts_directories: Vec<PathBuf>,
    /// Docker's `config.json`, for credentials where the caller gives none.
    pub docker_config: Option<PathBuf>,
    /// What leads to registries.
    pub proxies: Proxies,
}

impl Settings {
    /// The usual folders, the proxies of the environment, and the credentials of whoever has it.
    pub fn of(environment: &dyn Fn(&str) -> Option<OsString>) -> Settings {
        let own = environment("DOCKER_CONFIG").map(PathBuf::from);
        let folder = own.or_else(|| Some(PathBuf::from(environment("HOME")?).join(".docker")));
        Settings {
            hosts_directories: HOSTS_FOLDERS.map(PathBuf::from).to_vec(),
            docker_config: folder.map(|folder| folder.join("config.json")),
            proxies: Proxies::from_environment(environment),
        }
    }
}

/// What one caller wants otherwise.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For the registry; without them those of docker's configuration count.
    pub credentials: Option<Credentials>,
    /// Use HTTP without TLS.
    pub plain_http: bool,
    /// Do not verify the registry's certificate.
    pub skip_verify: bool,
    /// Trust this CA as well (PEM file).
    pub ca: Option<PathBuf>,
}

/// How a server is met by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct TlsSettings {
    /// CAs beside the system's, PEM files.
    pub ca: Vec<PathBuf>,
    /// A certificate to show, and its key; they may be in one file.
    pub client: Option<(PathBuf, PathBuf)>,
    pub skip_verify: bool,
}

/// A place where content may be asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    /// `https` or `http`.
    pub scheme: String,
    /// Host, and port if it is not the usual one.
    pub authority: String,
    /// `/v2` unless the configuration says otherwise.
    pub path: String,
    pub tls: TlsSettings,
    pub headers: Vec<(String, String)>,
    /// Names may be resolved here.
    pub resolve: bool,
    /// Content may be pushed here.
    pub push: bool,
    /// The registry that it stands for, if it is another.
    pub mirror_of: Option<String>,
}

impl Endpoint {
    /// Where something of a repository is, such as `manifests/latest`.
    pub(super) fn url(&self, repository: &str, what: &str) -> String {
        let base = format!("{}://{}{}/{repository}/{what}", self.scheme, self.authority, self.path);
        match &self.mirror_of {
            Some(registry) => {
                let separator = if what.contains('?') { '&' } else { '?' };
                format!("{base}{separator}ns={registry}")
            }
            None => base,
        }
    }
}

/// The places for a registry, in the order in which they are tried.
pub(super) fn endpoints(
    registry: &str,
    settings: &Settings,
    options: &Options,
) -> Result<Vec<Endpoint>, RegistryError> {
    let mut endpoints = configured(registry, settings)?;
    let own = endpoints.last_mut().into_iter().filter(|endpoint| endpoint.mirror_of.is_none());
    for endpoint in own {
        if options.plain_http {
            endpoint.scheme = "http".to_owned();
        }
        endpoint.tls.skip_verify |= options.skip_verify;
        endpoint.tls.ca.extend(options.ca.clone());
    }
    Ok(endpoints)
}

fn configured(registry: &str, settings: &Settings) -> Result<Vec<Endpoint>, RegistryError> {
    for folder in &settings.hosts_directories {
        // containerd also takes a name without a colon, for file systems that know none.
        let without_colon = registry.split_once(':').map(|(host, port)| format!("{host}_{port}_"));
        let names = [Some(registry.to_owned()), without_colon, Some("_default".to_owned())];
        let Some(directory) =
            names.into_iter().flatten().map(|name| folder.join(name)).find(|path| path.is_dir())
        else {
            continue;
        };
        let file = directory.join("hosts.toml");
        let failed = |reason: String| RegistryError::Hosts { path: file.display().to_string(), reason };
        return match std::fs::read_to_string(&file) {
            Ok(text) => parse(&text, &directory, registry).map_err(failed),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let tls = certificates(&directory).map_err(|error| failed(error.to_string()))?;
                Ok(vec![Endpoint { tls, ..own_endpoint(registry) }])
            }
            Err(error) => Err(failed(error.to_string())),
        };
    }
    Ok(vec![own_endpoint(registry)])
}

/// The registry itself, as it is met when nothing is configured.
pub(super) fn own_endpoint(registry: &str) -> Endpoint {
    let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let scheme = if is_loopback(host) { "http" } else { "https" };
    Endpoint {
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        path: "/v2".to_owned(),
        tls: TlsSettings::default(),
        headers: Vec::new(),
        resolve: true,
        push: true,
        mirror_of: None,
    }
}

/// Nobody has certificates for this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let address: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    host == "localhost" || address.is_some_and(|address| address.is_loopback())
}

/// One server in `hosts.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HostConfig {
    capabilities: Option<Vec<String>>,
    ca: OneOrMore,
    client: Option<toml::Value>,
    skip_verify: bool,
    override_path: bool,
    header: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

impl Default for OneOrMore {
    fn default() -> OneOrMore {
        OneOrMore::More(Vec::new())
    }
}

/// The mirrors of a `hosts.toml` in its order, then the registry itself.
fn parse(text: &str, directory: &Path, registry: &str) -> Result<Vec<Endpoint>, String> {
    let mut table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let hosts = match table.remove("host") {
        None => toml::Table::new(),
        Some(toml::Value::Table(hosts)) => hosts,
        Some(_) => return Err("host has to be a table".to_owned()),
    };
    let server = match table.remove("server") {
        None => None,
        Some(toml::Value::String(server)) => Some(server),
        Some(_) => return Err("server has to be a string".to_owned()),
    };
    let mut endpoints = Vec::new();
    for (name, value) in hosts {
        let config: HostConfig = value.try_into().map_err(|error| format!("host {name:?}: {error}"))?;
        endpoints.push(endpoint(&name, config, directory, registry)?);
    }
    let config: HostConfig = table.try_into().map_err(|error: toml::de::Error| error.to_string())?;
    let fallback = own_endpoint(registry);
    let server = server.unwrap_or_else(|| format!("{}://{}", fallback.scheme, fallback.authority));
    endpoints.push(Endpoint { mirror_of: None, ..endpoint(&server, config, directory, registry)? });
    Ok(endpoints)
}

fn endpoint(name: &str, config: HostConfig, directory: &Path, registry: &str) -> Result<Endpoint, String> {
    let with_scheme = if name.contains("://") { name.to_owned() } else { format!("https://{name}") };
    let (scheme, rest) = with_scheme.split_once("://").unwrap_or(("https", name));
    if !matches!(scheme, "http" | "https") {
        return Err(format!("{name:?} is neither an http nor an https URL"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() {
        return Err(format!("{name:?} names no host"));
    }
    let path = path.trim_end_matches('/');
    let path = match (config.override_path, path) {
        (true, "") => String::new(),
        (true, path) => format!("/{path}"),
        (false, "" | "v2") => "/v2".to_owned(),
        (false, path) if path.ends_with("/v2") => format!("/{path}"),
        (false, path) => format!("/{path}/v2"),
    };
    let may = |what: &str| {
        config.capabilities.as_ref().is_none_or(|all| all.iter().any(|capability| capability == what))
    };
    let own = own_endpoint(registry);
    let ca = match config.ca {
        OneOrMore::One(path) => vec![path],
        OneOrMore::More(paths) => paths,
    };
    Ok(Endpoint {
        scheme: scheme.to_owned(),
        authority: authority.to_owned(),
        path,
        tls: TlsSettings {
            ca: ca.into_iter().map(|path| directory.join(path)).collect(),
            client: config.client.map(|value| client(&value, directory)).transpose()?.flatten(),
            skip_verify: config.skip_verify,
        },
        headers: headers(&config.header)?,
        resolve: may("resolve"),
        push: may("push"),
        mirror_of: (authority != own.authority).then(|| registry.to_owned()),
    })
}

/// `"both.pem"`, `["both.pem"]` or `[["certificate", "key"]]`.
fn client(value: &toml::Value, directory: &Path) -> Result<Option<(PathBuf, PathBuf)>, String> {
    let refused = || "client has to be a file or a pair of certificate and key".to_owned();
    let pair = match value {
        toml::Value::Array(entries) => match entries.first() {
            None => return Ok(None),
            Some(first) => first,
        },
        other => other,
    };
    let files: Vec<&str> = match pair {
        toml::Value::String(both) => vec![both, both],
        toml::Value::Array(files) => {
            files.iter().map(|file| file.as_str().ok_or_else(refused)).collect::<Result<_, _>>()?
        }
        _ => return Err(refused()),
    };
    match files.as_slice() {
        [certificate, key] if !certificate.is_empty() => {
            let key = if key.is_empty() { certificate } else { key };
            Ok(Some((directory.join(certificate), directory.join(key))))
        }
        [both] => Ok(Some((directory.join(both), directory.join(both)))),
        _ => Err(refused()),
    }
}

fn headers(table: &toml::Table) -> Result<Vec<(String, String)>, String> {
    let mut headers = Vec::new();
    for (name, value) in table {
        let values = match value {
            toml::Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let value = value.as_str().ok_or_else(|| format!("header {name:?} has to be a string"))?;
            headers.push((name.clone(), value.to_owned()));
        }
    }
    Ok(headers)
}

/// Docker's way: every `.crt` is a CA, a `.cert` with the `.key` of the same name is shown.
fn certificates(directory: &Path) -> std::io::Result<TlsSettings> {
    let mut tls = TlsSettings::default();
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.ca.push(path),
            Some("cert") => tls.client = Some((path.clone(), path.with_extension("key"))),
            _ => {}
        }
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_configuration_a_registry_is_met_by_tls_and_this_machine_is_not() {
        let url = |registry: &str| own_endpoint(registry).url("library/web", "manifests/1");
        assert_eq!(url("docker.io"), "https://registry-1.docker.io/v2/library/web/manifests/1");
        assert_eq!(url("example.com"), "https://example.com/v2/library/web/manifests/1");
        assert_eq!(url("localhost:5000"), "http://localhost:5000/v2/library/web/manifests/1");
        assert_eq!(url("127.0.0.1:5000"), "http://127.0.0.1:5000/v2/library/web/manifests/1");
    }

    #[test]
    fn mirrors_come_in_the_files_order_and_the_registry_last() {
        let text = r#"
            server = "https://registry-1.docker.io"
            [host."http://zebra.local:5000"]
              capabilities = ["pull", "resolve"]
            [host."https://ant.local/docker"]
              capabilities = ["pull"]
              ca = "ant.crt"
              client = [["ant.cert", "ant.key"]]
              [host."https://ant.local/docker".header]
                x-node = ["one"]
            [host."https://path.local/hub"]
              override_path = true
              skip_verify = true
        "#;
        let endpoints = parse(text, Path::new("/certs.d/docker.io"), "docker.io").unwrap();
        let urls: Vec<String> = endpoints.iter().map(|place| place.url("a/b", "blobs/x")).collect();
        assert_eq!(
            urls,
            [
                "http://zebra.local:5000/v2/a/b/blobs/x?ns=docker.io",
                "https://ant.local/docker/v2/a/b/blobs/x?ns=docker.io",
                "https://path.local/hub/a/b/blobs/x?ns=docker.io",
                "https://registry-1.docker.io/v2/a/b/blobs/x",
            ]
        );
        let may: Vec<_> = endpoints.iter().map(|place| (place.resolve, place.push)).collect();
        assert_eq!(may, [(true, false), (false, false), (true, true), (true, true)]);
        assert_eq!(endpoints[1].tls.ca, [Path::new("/certs.d/docker.io/ant.crt")]);
        assert_eq!(endpoints[1].tls.client.as_ref().unwrap().1, Path::new("/certs.d/docker.io/ant.key"));
        assert_eq!(endpoints[1].headers, [("x-node".to_owned(), "one".to_owned())]);
        assert!(endpoints[2].tls.skip_verify);
    }

    #[test]
    fn a_broken_file_is_named() {
        for (text, reason) in [
            ("server = 1", "server has to be a string"),
            ("[host.\"ftp://a\"]", "neither an http nor an https"),
            ("[host.\"https://a\"]\nca = 1", "host \"https://a\""),
            ("server", "TOML parse error"),
        ] {
            let error = parse(text, Path::new("/x"), "a.b").unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn dockers_folder_of_certificates_counts_too() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("registry.local:5000");
        std::fs::create_dir(&directory).unwrap();
        for name in ["ca.crt", "node.cert", "node.key"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        let settings = Settings { hosts_directories: vec![folder.path().to_owned()], ..Settings::default() };
        let places = endpoints("registry.local:5000", &settings, &Options::default()).unwrap();
        assert_eq!(places[0].tls.ca, [directory.join("ca.crt")]);
        assert_eq!(places[0].tls.client, Some((directory.join("node.cert"), directory.join("node.key"))));
    }
}
