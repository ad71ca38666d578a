//! The command line: what can be said, and who carries it out.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use net::Cidr;

use crate::{
    containers, down, image,
    node_args::{EvictionArgs, ImageArgs},
    runtime_alone, server,
    settings::Settings,
    status, up, watch,
};

/// A whole Kubernetes cluster in one program: API server, store, scheduler, controllers, kubelet with its own
/// container runtime, service proxy and DNS.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the cluster in the background and wait until its node is Ready.
    ///
    /// Writes a kubeconfig to DATA_DIR/kubeconfig and merges it as context `coracle` into ~/.kube/config. On a
    /// cluster that runs already it says so and succeeds. Pods of an earlier run are taken over as they are.
    Up(UpArgs),
    /// Stop the cluster, its pods included; what is stored stays, and `coracle up` brings it back.
    Down(DownArgs),
    /// Remove every trace of the cluster from this machine: processes, mounts, cgroups, links, packet filter
    /// rules and all data.
    Reset(DownArgs),
    /// Say how the cluster is: which parts run, whether the node is Ready, how many pods run.
    Status(PlaceArgs),
    /// Run the cluster in the foreground, logging to standard error. Pods outlive it: `coracle down` stops them.
    Server(ServerArgs),
    /// Run the container runtime alone, without a cluster: it serves the CRI on a socket, for crictl, critest or
    /// another kubelet. Its pods outlive it: `coracle down` stops them.
    Runtime(RuntimeArgs),
    /// Images of the embedded container runtime.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Containers by hand, without a cluster or beside one: run, ps, exec, logs and the rest of docker's words.
    Ctr(CtrArgs),
    /// Show what the control loops decide, as it happens: who was woken by what, saw what, did what.
    Watch(WatchArgs),
    /// Print the version.
    Version,
}

/// Where a cluster keeps what it has.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceArgs {
    /// What must survive a reboot: store, keys, images, volumes.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/coracle", global = true)]
    pub(crate) data_dir: PathBuf,
    /// What need not: sockets, mounts, the state of running pods.
    #[arg(long, value_name = "DIR", default_value = "/run/coracle", global = true)]
    pub(crate) run_dir: PathBuf,
    /// The control group that holds all pods.
    #[arg(long, value_name = "NAME", default_value = "/coracle", global = true)]
    pub(crate) cgroup_parent: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// How many seconds to wait until the node is Ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    /// Leave ~/.kube/config alone.
    #[arg(long)]
    pub(crate) no_merge: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// How many seconds the containers have between SIGTERM and SIGKILL.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) grace: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Only this controller, for example `deployment`.
    #[arg(long, value_name = "NAME")]
    pub(crate) controller: Option<String>,
    /// Only objects whose `namespace/name` contains this.
    #[arg(value_name = "OBJECT")]
    pub(crate) object: Option<String>,
    /// Also show turns in which nothing had to be done.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CtrArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The addresses of containers that have one.
    #[arg(long, value_name = "CIDR", default_value = ctr::DEFAULT_CIDR, global = true)]
    pub(crate) bridge_cidr: Cidr,
    #[command(subcommand)]
    pub(crate) command: ctr::Command,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RuntimeArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Where to serve the CRI [default: RUN_DIR/cri.sock].
    #[arg(long, value_name = "PATH")]
    pub(crate) cri_socket: Option<PathBuf>,
    /// The addresses of pods, until a kubelet says others.
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/24")]
    pub(crate) pod_cidr: Cidr,
    /// Where clients of exec, attach and port-forward are sent to; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value_t = runtime::Config::LOOPBACK)]
    pub(crate) streaming_address: SocketAddr,
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    /// What to log: `error`, `warn`, `info`, `debug`, or a filter such as `info,runtime=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "CORACLE_LOG")]
    pub(crate) log: String,
    /// Log JSON objects instead of lines for people.
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The node's name [default: the host name].
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// The node's address [default: that of the default route].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) node_ip: Option<Ipv4Addr>,
    /// The API server's port.
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub(crate) secure_port: u16,
    /// The kubelet's port.
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    pub(crate) kubelet_port: u16,
    /// The addresses of Services.
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    pub(crate) service_cluster_ip_range: String,
    /// The ports that Services may have on every node.
    #[arg(long, value_name = "FROM-TO", default_value = "30000-32767")]
    pub(crate) service_node_port_range: String,
    /// The addresses of pods; each node gets a part of them.
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub(crate) cluster_cidr: String,
    /// The address of the cluster's DNS Service [default: the tenth of the Services' addresses].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) cluster_dns: Option<Ipv4Addr>,
    /// The cluster's DNS domain.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Where to serve the embedded runtime's CRI, for crictl [default: RUN_DIR/cri.sock]; empty for nowhere.
    #[arg(long, value_name = "PATH")]
    pub(crate) cri_socket: Option<OsString>,
    /// Let this runtime run the containers instead of the embedded one: the CRI socket of containerd or CRI-O,
    /// such as unix:///run/containerd/containerd.sock. It also brings the pod network (CNI) and the images.
    #[arg(long, value_name = "URL", value_parser = runtime_endpoint)]
    pub(crate) container_runtime_endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    #[command(flatten)]
    pub(crate) eviction: EvictionArgs,
    /// Keep everything in this etcd cluster instead of the embedded store (URLs, separated by commas).
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub(crate) etcd_servers: Vec<String>,
    /// The CA that signed etcd's certificates (PEM file).
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// The certificate to show to etcd (PEM file).
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// Its private key (PEM file).
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
    /// What to encrypt in the store, and with which keys: an apiserver.config.k8s.io/v1 EncryptionConfiguration.
    #[arg(long, value_name = "FILE")]
    pub(crate) encryption_provider_config: Option<PathBuf>,
    /// Take changes of that file over without a restart; it is looked at once a minute.
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", requires = "encryption_provider_config")]
    pub(crate) encryption_provider_config_automatic_reload: bool,
    /// Whether requests without credentials are system:anonymous's, who may ask for health and version unless a role
    /// binding says more; otherwise they are refused.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub(crate) anonymous_auth: bool,
    /// Tokens and their users, a line each: token,user,uid,"group1,group2".
    #[arg(long, value_name = "FILE")]
    pub(crate) token_auth_file: Option<PathBuf>,
    /// Believe headers that name users from proxies with a certificate of this CA (PEM file) [default: the
    /// cluster's own front-proxy CA, and of it front-proxy-client].
    #[arg(long, value_name = "FILE")]
    pub(crate) requestheader_client_ca_file: Option<PathBuf>,
    /// The common names that such proxies may have; any when none is given.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    pub(crate) requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name [default: X-Remote-User].
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    pub(crate) requestheader_username_headers: Vec<String>,
    /// Headers with the user's uid [default: X-Remote-Uid].
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    pub(crate) requestheader_uid_headers: Vec<String>,
    /// Headers with the user's groups [default: X-Remote-Group].
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    pub(crate) requestheader_group_headers: Vec<String>,
    /// What headers with further facts about the user begin with [default: X-Remote-Extra-].
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    pub(crate) requestheader_extra_headers_prefix: Vec<String>,
    /// What to write down of which request: an audit.k8s.io/v1 Policy.
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// Where to write the audit log; - is standard output.
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// How many days old files of the audit log are kept; 0 for as long as there is room.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    pub(crate) audit_log_maxage: u32,
    /// How many old files of the audit log are kept; 0 for all.
    #[arg(long, value_name = "FILES", default_value_t = 0)]
    pub(crate) audit_log_maxbackup: usize,
    /// How great a file of the audit log may become, in megabytes; 0 for as great as it gets.
    #[arg(long, value_name = "MEGABYTES", default_value_t = 0)]
    pub(crate) audit_log_maxsize: u64,
    /// How many requests are answered at once, together with --max-mutating-requests-inflight; priority levels
    /// share the sum.
    #[arg(long, value_name = "REQUESTS", default_value_t = 400)]
    pub(crate) max_requests_inflight: u16,
    /// See --max-requests-inflight.
    #[arg(long, value_name = "REQUESTS", default_value_t = 200)]
    pub(crate) max_mutating_requests_inflight: u16,
    /// What to log: `error`, `warn`, `info`, `debug`, or a filter such as `info,kubelet=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "CORACLE_LOG")]
    pub(crate) log: String,
    /// Log JSON objects instead of lines for people.
    #[arg(long)]
    pub(crate) log_json: bool,
    /// A descriptor on which `coracle up` is told how the start goes.
    #[arg(long, value_name = "FD", hide = true)]
    pub(crate) progress_fd: Option<i32>,
}

/// A socket, with its scheme or without.
fn runtime_endpoint(text: &str) -> Result<String, String> {
    match text.strip_prefix("unix://").unwrap_or(text) {
        path if path.starts_with('/') => Ok(format!("unix://{path}")),
        _ => Err("give the path of a socket, such as unix:///run/containerd/containerd.sock".to_string()),
    }
}

impl Cli {
    /// Carries out what was said.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let done = match self.command {
            Command::Ctr(args) => return containers::run(&args),
            Command::Up(args) => up::up(&args),
            Command::Down(args) => down::down(&args),
            Command::Reset(args) => down::reset(&args),
            Command::Status(place) => status::status(&place),
            Command::Server(args) => server::run(&Settings::new(&args)?),
            Command::Runtime(args) => runtime_alone::run(&args),
            Command::Image(command) => image::run(&command),
            Command::Watch(args) => watch::watch(&args),
            Command::Version => {
                println!("coracle {} (Kubernetes {})", env!("CARGO_PKG_VERSION"), server::KUBERNETES_VERSION);
                Ok(())
            }
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_background_server_is_told_everything_that_up_was_told() {
        let said = "coracle up --node-name=n1 --node-ip 192.0.2.1 --secure-port=7443 --timeout 5 \
                    --etcd-servers=https://a:2379,https://b:2379 --etcd-cafile=/ca.pem --log debug --log-json \
                    --container-runtime-endpoint /run/crio.sock --cri-socket= \
                    --registry-config=/etc/hosts.d --image-archives /srv/images \
                    --eviction-hard=memory.available<1Mi,nodefs.available<5% --eviction-max-pod-grace-period=-1 \
                    --eviction-soft=memory.available<10Mi --eviction-soft-grace-period=memory.available=1m30s \
                    --audit-policy-file /p.yaml --audit-log-path=/a.log --audit-log-maxage 1 --audit-log-maxbackup 2 \
                    --audit-log-maxsize 3 --max-requests-inflight 7 --max-mutating-requests-inflight=5 \
                    --encryption-provider-config /e.yaml --encryption-provider-config-automatic-reload \
                    --token-auth-file=/t.csv --anonymous-auth=false \
                    --requestheader-client-ca-file /f.pem --requestheader-allowed-names=a,b \
                    --requestheader-username-headers X-User --requestheader-uid-headers X-Uid \
                    --requestheader-group-headers X-Group --requestheader-extra-headers-prefix X-Extra-";
        let Command::Up(args) = Cli::parse_from(said.split_whitespace()).command else { panic!() };
        let settings = Settings::new(&args.server).unwrap();
        let flags = ["coracle".to_string(), "server".to_string()].into_iter().chain(settings.flags());
        let Command::Server(again) = Cli::parse_from(flags).command else { panic!() };
        assert_eq!(format!("{:?}", Settings::new(&again).unwrap()), format!("{settings:?}"));
    }

    #[test]
    fn the_command_line_is_well_formed_and_every_subcommand_explains_itself() {
        let command = Cli::command();
        command.clone().debug_assert();
        for subcommand in command.get_subcommands() {
            assert!(subcommand.get_about().is_some(), "{}", subcommand.get_name());
        }
    }
}
