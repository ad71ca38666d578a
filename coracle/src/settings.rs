//! What was said on the command line, checked and completed; nothing else asks the machine or the environment.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use net::Cidr;

use crate::{
    cli::{PlaceArgs, ServerArgs},
    node_args::{EvictionArgs, ImageArgs},
};

/// Where a cluster keeps what it has.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) cgroup_parent: String,
}

impl Place {
    /// Makes relative paths absolute: the server has another working directory than its user.
    pub(crate) fn new(args: &PlaceArgs) -> Result<Place> {
        let absolute = |path: &Path| {
            std::path::absolute(path).with_context(|| format!("cannot use the directory {}", path.display()))
        };
        let cgroup_parent = format!("/{}", args.cgroup_parent.trim_matches('/'));
        if cgroup_parent == "/" || cgroup_parent.split('/').any(|part| part == "..") {
            bail!("{:?} is no name for a control group: give one such as /coracle", args.cgroup_parent);
        }
        Ok(Place { data_dir: absolute(&args.data_dir)?, run_dir: absolute(&args.run_dir)?, cgroup_parent })
    }

    /// The flags that name this place.
    pub(crate) fn flags(&self) -> Vec<String> {
        vec![
            format!("--data-dir={}", self.data_dir.display()),
            format!("--run-dir={}", self.run_dir.display()),
            format!("--cgroup-parent={}", self.cgroup_parent),
        ]
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    /// What the background server writes.
    pub(crate) fn log(&self) -> PathBuf {
        self.data_dir.join("server.log")
    }

    /// Where the embedded runtime serves the CRI, unless told otherwise.
    pub(crate) fn cri_socket(&self) -> PathBuf {
        self.run_dir.join("cri.sock")
    }

    /// Held by the running server, with its pid in it.
    pub(crate) fn lock(&self) -> PathBuf {
        self.run_dir.join("server.lock")
    }

    /// Names the runtime that runs the pods, where that is not the embedded one: whoever stops the pods has to
    /// ask it.
    pub(crate) fn runtime_endpoint(&self) -> PathBuf {
        self.data_dir.join("container-runtime-endpoint")
    }

    /// Archives of images that are there from the start, for nodes that reach no registry.
    pub(crate) fn archives(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    /// Where the kubelet keeps pods' volumes; pods in another runtime bear its name.
    pub(crate) fn kubelet_root(&self) -> PathBuf {
        self.data_dir.join("kubelet")
    }

    /// Where the embedded runtime keeps images and containers' files.
    pub(crate) fn runtime_root(&self) -> PathBuf {
        self.data_dir.join("runtime")
    }
}

/// How registries are met unless a command says otherwise.
pub(crate) fn registries() -> runtime::image::registry::Settings {
    runtime::image::registry::Settings::of(&|name| std::env::var_os(name))
}

/// Everything that a server needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) place: Place,
    pub(crate) node_name: String,
    pub(crate) node_ip: Ipv4Addr,
    pub(crate) secure_port: u16,
    pub(crate) kubelet_port: u16,
    pub(crate) service_cidr: Cidr,
    pub(crate) node_ports: std::ops::RangeInclusive<u16>,
    pub(crate) cluster_cidr: Cidr,
    pub(crate) cluster_dns: Ipv4Addr,
    pub(crate) cluster_domain: String,
    /// The socket of the runtime that is to be used instead of the embedded one.
    pub(crate) runtime_endpoint: Option<String>,
    /// Where the embedded runtime serves the CRI, if anywhere.
    pub(crate) cri_socket: Option<PathBuf>,
    /// Where images come from.
    pub(crate) images: ImageArgs,
    /// When pods are evicted.
    pub(crate) eviction: EvictionArgs,
    pub(crate) etcd: Option<Etcd>,
    pub(crate) audit: Option<apiserver::audit::Settings>,
    /// How many requests are answered at once: those of upstream's two flags together.
    pub(crate) requests_in_flight: [u16; 2],
    pub(crate) encryption_config: Option<PathBuf>,
    pub(crate) reloads_encryption_config: bool,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) has_anonymous: bool,
    /// Proxies that name users, where they are not the cluster's own.
    pub(crate) request_headers: Option<RequestHeaders>,
    pub(crate) log: String,
    pub(crate) log_json: bool,
    pub(crate) progress_fd: Option<i32>,
}

/// The `--requestheader-*` flags.
#[derive(Clone, Debug)]
pub(crate) struct RequestHeaders {
    pub(crate) ca_file: PathBuf,
    pub(crate) allowed_names: Vec<String>,
    pub(crate) username_headers: Vec<String>,
    pub(crate) uid_headers: Vec<String>,
    pub(crate) group_headers: Vec<String>,
    pub(crate) extra_prefixes: Vec<String>,
}

impl RequestHeaders {
    fn new(args: &ServerArgs) -> Result<Option<RequestHeaders>> {
        let Some(ca_file) = absolute(&args.requestheader_client_ca_file)? else { return Ok(None) };
        Ok(Some(RequestHeaders {
            ca_file,
            allowed_names: args.requestheader_allowed_names.clone(),
            username_headers: args.requestheader_username_headers.clone(),
            uid_headers: args.requestheader_uid_headers.clone(),
            group_headers: args.requestheader_group_headers.clone(),
            extra_prefixes: args.requestheader_extra_headers_prefix.clone(),
        }))
    }

    fn flags(&self) -> impl Iterator<Item = (&'static str, String)> {
        let lists = [
            ("requestheader-allowed-names", &self.allowed_names),
            ("requestheader-username-headers", &self.username_headers),
            ("requestheader-uid-headers", &self.uid_headers),
            ("requestheader-group-headers", &self.group_headers),
            ("requestheader-extra-headers-prefix", &self.extra_prefixes),
        ];
        let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
        let ca_file = ("requestheader-client-ca-file", self.ca_file.display().to_string());
        std::iter::once(ca_file).chain(lists.map(|(name, list)| (name, list.join(","))))
    }
}

/// The server has another working directory than its user.
fn absolute(path: &Option<PathBuf>) -> Result<Option<PathBuf>> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).with_context(|| format!("cannot use the file {}", path.display()))
    };
    path.as_ref().map(absolute).transpose()
}

/// An etcd cluster to keep everything in.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    pub(crate) servers: Vec<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// Checks what was said and finds out what was not.
    pub(crate) fn new(args: &ServerArgs) -> Result<Settings> {
        let service_cidr: Cidr =
            args.service_cluster_ip_range.parse().context("--service-cluster-ip-range")?;
        let cluster_cidr: Cidr = args.cluster_cidr.parse().context("--cluster-cidr")?;
        if cluster_cidr.contains(service_cidr.network()) || service_cidr.contains(cluster_cidr.network()) {
            bail!("the addresses of pods ({cluster_cidr}) and of Services ({service_cidr}) overlap");
        }
        let tenth = service_cidr.nth(10);
        let cluster_dns = args.cluster_dns.or(tenth).filter(|address| service_cidr.contains(*address));
        let node_name = match &args.node_name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        if let Err(fault) = api::name::dns_subdomain(&node_name) {
            bail!("{node_name:?} cannot be a node's name, give another with --node-name: {fault}");
        }
        let node_ip = match args.node_ip {
            Some(address) => address,
            None => default_address()?,
        };
        let client = args.etcd_certfile.clone().zip(args.etcd_keyfile.clone());
        let etcd = (!args.etcd_servers.is_empty()).then(|| Etcd {
            servers: args.etcd_servers.clone(),
            ca: args.etcd_cafile.clone(),
            client,
        });
        let place = Place::new(&args.place)?;
        let cri_socket = match &args.cri_socket {
            None => Some(place.cri_socket()),
            Some(path) if path.is_empty() => None,
            Some(path) => Some(std::path::absolute(path).context("--cri-socket")?),
        };
        Ok(Settings {
            place,
            node_name,
            node_ip,
            secure_port: args.secure_port,
            kubelet_port: args.kubelet_port,
            service_cidr,
            node_ports: port_range(&args.service_node_port_range)?,
            cluster_cidr,
            cluster_dns: cluster_dns.with_context(|| {
                format!("the cluster's DNS needs an address among the Services' ({service_cidr})")
            })?,
            cluster_domain: args.cluster_domain.clone(),
            runtime_endpoint: args.container_runtime_endpoint.clone(),
            images: args.images.absolute()?,
            eviction: args.eviction.checked()?,
            cri_socket,
            etcd,
            audit: audit_settings(args)?,
            requests_in_flight: [args.max_requests_inflight, args.max_mutating_requests_inflight],
            encryption_config: absolute(&args.encryption_provider_config)?,
            reloads_encryption_config: args.encryption_provider_config_automatic_reload,
            token_file: absolute(&args.token_auth_file)?,
            has_anonymous: args.anonymous_auth,
            request_headers: RequestHeaders::new(args)?,
            log: args.log.clone(),
            log_json: args.log_json,
            progress_fd: args.progress_fd,
        })
    }

    /// Where users reach the API server.
    pub(crate) fn server_url(&self) -> String {
        format!("https://{}:{}", self.node_ip, self.secure_port)
    }
}

impl Settings {
    /// The flags of `coracle server` that say the same again.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = self.place.flags();
        let mut add = |name: &str, value: String| flags.push(format!("--{name}={value}"));
        add("node-name", self.node_name.clone());
        add("node-ip", self.node_ip.to_string());
        add("secure-port", self.secure_port.to_string());
        add("kubelet-port", self.kubelet_port.to_string());
        add("service-cluster-ip-range", self.service_cidr.to_string());
        add("service-node-port-range", format!("{}-{}", self.node_ports.start(), self.node_ports.end()));
        add("cluster-cidr", self.cluster_cidr.to_string());
        add("cluster-dns", self.cluster_dns.to_string());
        add("cluster-domain", self.cluster_domain.clone());
        add("anonymous-auth", self.has_anonymous.to_string());
        add("log", self.log.clone());
        add("max-requests-inflight", self.requests_in_flight[0].to_string());
        add("max-mutating-requests-inflight", self.requests_in_flight[1].to_string());
        if let Some(endpoint) = &self.runtime_endpoint {
            add("container-runtime-endpoint", endpoint.clone());
        }
        let cri_socket = self.cri_socket.as_ref().map(|path| path.display().to_string());
        add("cri-socket", cri_socket.unwrap_or_default());
        if let Some(etcd) = &self.etcd {
            add("etcd-servers", etcd.servers.join(","));
            if let Some(ca) = &etcd.ca {
                add("etcd-cafile", ca.display().to_string());
            }
            if let Some((certificate, key)) = &etcd.client {
                add("etcd-certfile", certificate.display().to_string());
                add("etcd-keyfile", key.display().to_string());
            }
        }
        for (name, value) in self.request_headers.iter().flat_map(RequestHeaders::flags) {
            add(name, value);
        }
        if let Some(path) = &self.encryption_config {
            add("encryption-provider-config", path.display().to_string());
            let reloads = self.reloads_encryption_config.to_string();
            add("encryption-provider-config-automatic-reload", reloads);
        }
        if let Some(path) = &self.token_file {
            add("token-auth-file", path.display().to_string());
        }
        if let Some(audit) = &self.audit {
            add("audit-policy-file", audit.policy_file.display().to_string());
            add("audit-log-path", audit.log_path.display().to_string());
            add("audit-log-maxage", audit.limits.max_age_days.to_string());
            add("audit-log-maxbackup", audit.limits.max_backups.to_string());
            add("audit-log-maxsize", audit.limits.max_megabytes.to_string());
        }
        if self.log_json {
            flags.push("--log-json".into());
        }
        flags.extend(self.images.flags());
        flags.extend(self.eviction.flags());
        flags
    }
}

/// The server has another working directory than its user.
fn audit_settings(args: &ServerArgs) -> Result<Option<apiserver::audit::Settings>> {
    let (Some(policy), Some(log)) = (&args.audit_policy_file, &args.audit_log_path) else { return Ok(None) };
    let is_standard_output = log.as_os_str() == "-";
    Ok(Some(apiserver::audit::Settings {
        policy_file: std::path::absolute(policy).context("--audit-policy-file")?,
        log_path: if is_standard_output {
            log.clone()
        } else {
            std::path::absolute(log).context("--audit-log-path")?
        },
        limits: apiserver::audit::Limits {
            max_age_days: args.audit_log_maxage,
            max_backups: args.audit_log_maxbackup,
            max_megabytes: args.audit_log_maxsize,
        },
    }))
}

fn port_range(text: &str) -> Result<std::ops::RangeInclusive<u16>> {
    let parse = || {
        let (from, to) = text.split_once('-')?;
        let (from, to): (u16, u16) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (from > 0 && from <= to).then_some(from..=to)
    };
    parse().with_context(|| format!("--service-node-port-range: {text:?} is not a range such as 30000-32767"))
}

fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host name, give --node-name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

/// The address that this machine would use towards the outside. Nothing is sent.
fn default_address() -> Result<Ipv4Addr> {
    let find = || -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9))?;
        socket.local_addr()
    };
    match find() {
        Ok(SocketAddr::V4(address)) => Ok(*address.ip()),
        Ok(SocketAddr::V6(_)) | Err(_) => {
            bail!("this machine has no default route that would tell the node's address: give --node-ip")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_are_read_or_refused() {
        assert_eq!(port_range("30000-32767").unwrap(), 30000..=32767);
        for text in ["", "30000", "2-1", "0-5", "1-99999"] {
            assert!(port_range(text).is_err(), "{text}");
        }
    }
}
