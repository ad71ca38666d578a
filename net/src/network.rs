//! The shell: hands out addresses, plugs pods into the bridge, keeps the rules true.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io,
    net::Ipv4Addr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

use crate::{
    Chains, Cidr, PortMapping, ipam,
    iptables::{self, IptablesError},
    link::{LinkError, Links},
    rules,
};

/// How the pod network of this node is laid out.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// The block of all pods of the cluster; what stays inside is not masqueraded.
    pub cluster_cidr: Cidr,
    /// Where addresses in use are noted, one file each.
    pub state_dir: PathBuf,
}

/// What a pod got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodAddress {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The bridge's address, the pod's way out.
    pub gateway: Ipv4Addr,
}

/// Why a pod could not be plugged in.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The node has no block of addresses yet.
    #[error("the node has no pod CIDR yet (spec.podCIDR is empty)")]
    NoPodCidr,
    /// The block is used up.
    #[error("no free address is left in {cidr}")]
    Full {
        /// The node's block.
        cidr: Cidr,
    },
    /// Another sandbox of a shared network has the port of the node.
    #[error("Bind for {host_ip}:{port} failed: port is already allocated")]
    PortTaken {
        /// The node's address, 0.0.0.0 for all.
        host_ip: Ipv4Addr,
        /// The port.
        port: u16,
    },
    /// A note of an address could not be read or written.
    #[error("cannot {what} {path}")]
    State {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A link could not be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Rules could not be loaded.
    #[error(transparent)]
    Rules(#[from] IptablesError),
    /// A kernel switch could not be set.
    #[error("cannot set the kernel parameter {name}")]
    Sysctl {
        /// Path below /proc/sys.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// The pod network of this node.
pub struct PodNetwork {
    config: Config,
    chains: Chains,
    /// Whether other processes hand out addresses of the same block: the notes then count, not this memory.
    is_shared: bool,
    state: Mutex<State>,
    /// Whether the node's block is set up.
    is_up: watch::Sender<bool>,
}

/// How long a pod waits for the node's block: right after a start pods that are bound already come first.
const UNTIL_UP: Duration = Duration::from_secs(5);

/// How long a link may outlive its pod.
const UNTIL_GONE: Duration = Duration::from_secs(1);

/// What is handed out; the same as the files below `state_dir`.
#[derive(Default)]
struct State {
    block: Option<Block>,
    holders: BTreeMap<Ipv4Addr, Holder>,
    last: Option<Ipv4Addr>,
}

#[derive(Clone, Copy)]
struct Block {
    cidr: Cidr,
    gateway: Ipv4Addr,
    bridge_index: u32,
}

/// The file of one address.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Holder {
    sandbox: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortMapping>,
}

impl PodNetwork {
    /// Reads which addresses are in use. Nothing is set up before [`PodNetwork::set_pod_cidr`].
    pub fn new(config: Config) -> Result<PodNetwork, NetworkError> {
        std::fs::create_dir_all(&config.state_dir)
            .map_err(|source| state_error("create", &config.state_dir, source))?;
        let holders = read_holders(&config.state_dir)?;
        let state = Mutex::new(State { holders, ..State::default() });
        let is_up = watch::Sender::new(false);
        Ok(PodNetwork { config, chains: rules::CLUSTER_CHAINS, is_shared: false, state, is_up })
    }

    /// A network beside the cluster's, with packet filter chains of its own. Many processes may use it at the
    /// same time: each change is made under a lock, on what the notes say then.
    pub fn shared(config: Config, chains: Chains) -> Result<PodNetwork, NetworkError> {
        Ok(PodNetwork { chains, is_shared: true, ..PodNetwork::new(config)? })
    }

    /// How it is laid out.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets up the bridge, its address, the kernel switches and the rules for this node's block. Repeating it
    /// with the same block changes nothing.
    pub async fn set_pod_cidr(&self, cidr: Cidr) -> Result<(), NetworkError> {
        let mut state = self.state.lock().await;
        if state.block.is_some_and(|block| block.cidr == cidr) {
            return Ok(());
        }
        let _turn = self.take_turn(&mut state)?;
        if let Some(block) = self.set_up_before(cidr).await? {
            state.block = Some(block);
            self.is_up.send_replace(true);
            return Ok(());
        }
        set_sysctl("net/ipv4/ip_forward", "1")?;
        let gateway = ipam::gateway(cidr).ok_or(NetworkError::Full { cidr })?;
        let bridge_index = Links::open()?.ensure_bridge(&self.config.bridge, gateway, cidr).await?;
        // The node's loopback reaches pods through their host ports.
        let from_loopback = format!("net/ipv4/conf/{}/route_localnet", self.config.bridge);
        set_sysctl(&from_loopback, "1")?;
        // Traffic between two pods of a node must pass the service proxy's rules on its way back.
        if let Err(error) = set_sysctl("net/bridge/bridge-nf-call-iptables", "1") {
            load_module("br_netfilter").await;
            set_sysctl("net/bridge/bridge-nf-call-iptables", "1").map_err(|_| error)?;
        }
        state.block = Some(Block { cidr, gateway, bridge_index });
        if let Err(error) = self.set_up_rules(&state).await {
            state.block = None; // so that the next attempt does it all again
            return Err(error);
        }
        self.note_set_up(cidr, bridge_index)?;
        self.is_up.send_replace(true);
        Ok(())
    }

    /// Gives a sandbox an address and plugs its network namespace into the bridge. A sandbox that has an
    /// address keeps it.
    pub async fn attach(
        &self,
        sandbox: &str,
        namespace: impl AsFd,
        ports: Vec<PortMapping>,
    ) -> Result<PodAddress, NetworkError> {
        // Without a block in time the attempt fails below, and says so.
        timeout(UNTIL_UP, self.is_up.subscribe().wait_for(|is_up| *is_up))
            .await
            .map(drop)
            .unwrap_or_default();
        let has_ports = !ports.is_empty();
        let (block, ip) = {
            let mut state = self.state.lock().await;
            let block = state.block.ok_or(NetworkError::NoPodCidr)?;
            let _turn = self.take_turn(&mut state)?;
            if self.is_shared {
                refuse_taken(&state, sandbox, &ports)?;
            }
            let ip = self.take_address(&mut state, block, Holder { sandbox: sandbox.to_string(), ports })?;
            if has_ports {
                self.load_rules(&state).await?;
            }
            (block, ip)
        };
        if let Err(error) = self.plug_in(sandbox, namespace, block, ip).await {
            if let Err(also) = self.detach(sandbox).await {
                tracing::warn!(sandbox, error = %also, "cannot undo a failed attachment");
            }
            return Err(error);
        }
        Ok(PodAddress { ip, gateway: block.gateway })
    }

    /// Whether this node's block is set up.
    pub fn is_up(&self) -> bool {
        *self.is_up.borrow()
    }

    /// Unplugs a sandbox and frees its address; one that is not known is no error.
    pub async fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        Links::open()?.remove(&link_name(sandbox)).await?;
        let mut state = self.state.lock().await;
        let _turn = self.take_turn(&mut state)?;
        self.free(&mut state, |holder| holder == sandbox).await
    }

    /// Takes the ports of the node away from a sandbox; it keeps its address.
    pub async fn close_ports(&self, sandbox: &str) -> Result<(), NetworkError> {
        let mut state = self.state.lock().await;
        let _turn = self.take_turn(&mut state)?;
        let has_ports =
            |(_, holder): &(&Ipv4Addr, &mut Holder)| holder.sandbox == sandbox && !holder.ports.is_empty();
        let Some((ip, holder)) = state.holders.iter_mut().find(has_ports) else { return Ok(()) };
        holder.ports.clear();
        write_holder(&self.config.state_dir, *ip, holder)?;
        self.load_rules(&state).await
    }

    /// As [`PodNetwork::detach`], for a sandbox whose network namespace is on its way out: its link goes with that,
    /// and only then is its address free.
    ///
    /// The kernel takes namespaces away in the background, several at a time. To remove a link beside it takes once
    /// more the lock that every pod being started waits for. A link that stays, for somebody else is in the namespace,
    /// is removed after a while.
    pub async fn detach_with_namespace(&self, sandbox: &str) -> Result<(), NetworkError> {
        let name = link_name(sandbox);
        let is_gone = async {
            let mut pause = Duration::from_millis(2);
            while Links::is_there(&name) {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        };
        match timeout(UNTIL_GONE, is_gone).await {
            Ok(()) => {
                let mut state = self.state.lock().await;
                let _turn = self.take_turn(&mut state)?;
                self.free(&mut state, |holder| holder == sandbox).await
            }
            Err(_) => self.detach(sandbox).await,
        }
    }

    /// Frees every address and removes every link whose sandbox is not among `live`.
    pub async fn retain(&self, live: &HashSet<String>) -> Result<(), NetworkError> {
        let links = Links::open()?;
        let live_links: HashSet<String> = live.iter().map(|sandbox| link_name(sandbox)).collect();
        for name in links.ports(&self.config.bridge).await? {
            if is_pod_link(&name) && !live_links.contains(&name) {
                links.remove(&name).await?;
            }
        }
        let mut state = self.state.lock().await;
        let _turn = self.take_turn(&mut state)?;
        self.free(&mut state, |holder| !live.contains(holder)).await
    }

    /// Takes away the bridge, the rules and the notes of addresses.
    pub async fn cleanup(&self) -> Result<(), NetworkError> {
        self.retain(&HashSet::new()).await?;
        Links::open()?.remove(&self.config.bridge).await?;
        let Chains { masquerade, host_ports, forward } = self.chains;
        let is_ours = |chain: &str| [masquerade, host_ports, forward].contains(&chain);
        for table in ["nat", "filter"] {
            if let Some(removal) = iptables::removal(table, &iptables::save(table).await?, is_ours) {
                iptables::restore(&removal).await?;
            }
        }
        self.state.lock().await.block = None;
        match std::fs::remove_dir_all(&self.config.state_dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(state_error("remove", &self.config.state_dir, source))
            }
            _ => Ok(()),
        }
    }

    async fn set_up_rules(&self, state: &State) -> Result<(), NetworkError> {
        self.load_rules(state).await?;
        for (table, chain, rule) in rules::jumps(self.chains, &self.config.bridge) {
            iptables::ensure_first(table, chain, &rule)?;
        }
        Ok(())
    }

    async fn plug_in(
        &self,
        sandbox: &str,
        namespace: impl AsFd,
        block: Block,
        ip: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let host = Links::open()?;
        let name = link_name(sandbox);
        host.remove(&name).await?; // left over from an attempt that was cut off
        host.add_pod_link(&name, block.bridge_index, &namespace, ip).await?;
        let inside = Links::open_in(&namespace)?;
        inside.set_up_pod(ip, block.cidr, block.gateway).await?;
        Ok(())
    }

    fn take_address(
        &self,
        state: &mut State,
        block: Block,
        holder: Holder,
    ) -> Result<Ipv4Addr, NetworkError> {
        let held = state.holders.iter().find(|(_, held)| held.sandbox == holder.sandbox);
        let ip = match held {
            Some((ip, _)) => *ip,
            None => ipam::choose(block.cidr, |ip| state.holders.contains_key(&ip), state.last)
                .ok_or(NetworkError::Full { cidr: block.cidr })?,
        };
        write_holder(&self.config.state_dir, ip, &holder)?;
        state.last = Some(ip);
        state.holders.insert(ip, holder);
        Ok(ip)
    }

    async fn free(&self, state: &mut State, is_gone: impl Fn(&str) -> bool) -> Result<(), NetworkError> {
        let gone: Vec<Ipv4Addr> =
            state.holders.iter().filter(|(_, holder)| is_gone(&holder.sandbox)).map(|(ip, _)| *ip).collect();
        let mut had_ports = false;
        for ip in gone {
            let path = self.config.state_dir.join(ip.to_string());
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(state_error("remove", &path, source));
                }
                _ => {}
            }
            had_ports |= state.holders.remove(&ip).is_some_and(|holder| !holder.ports.is_empty());
        }
        if had_ports { self.load_rules(state).await } else { Ok(()) }
    }

    fn render(&self, block: Block, mappings: &[(Ipv4Addr, PortMapping)]) -> String {
        rules::render(self.chains, block.cidr, self.config.cluster_cidr, &self.config.bridge, mappings)
    }

    /// Among several processes: waits for the others, and learns what they handed out.
    fn take_turn(&self, state: &mut State) -> Result<Option<Flock<File>>, NetworkError> {
        if !self.is_shared {
            return Ok(None);
        }
        let path = self.config.state_dir.join(".lock");
        let open = || {
            let file = File::create(&path)?;
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))
        };
        let turn = open().map_err(|source| state_error("lock", &path, source))?;
        state.holders = read_holders(&self.config.state_dir)?;
        Ok(Some(turn))
    }

    /// What another process has set up before: the note of it holds the bridge's index and the network
    /// namespace, so that it is worth nothing after either has gone.
    async fn set_up_before(&self, cidr: Cidr) -> Result<Option<Block>, NetworkError> {
        if !self.is_shared {
            return Ok(None);
        }
        let Some(bridge_index) = Links::open()?.index(&self.config.bridge).await? else { return Ok(None) };
        let Some(gateway) = ipam::gateway(cidr) else { return Ok(None) };
        let is_noted =
            std::fs::read_to_string(self.set_up_note()).is_ok_and(|note| note == set_up(cidr, bridge_index));
        Ok(is_noted.then_some(Block { cidr, gateway, bridge_index }))
    }

    fn note_set_up(&self, cidr: Cidr, bridge_index: u32) -> Result<(), NetworkError> {
        if !self.is_shared {
            return Ok(());
        }
        let path = self.set_up_note();
        std::fs::write(&path, set_up(cidr, bridge_index))
            .map_err(|source| state_error("write", &path, source))
    }

    fn set_up_note(&self) -> PathBuf {
        self.config.state_dir.join(".set-up")
    }

    async fn load_rules(&self, state: &State) -> Result<(), NetworkError> {
        let Some(block) = state.block else { return Ok(()) };
        let ports = |(ip, holder): (&Ipv4Addr, &Holder)| -> Vec<(Ipv4Addr, PortMapping)> {
            holder.ports.iter().map(|port| (*ip, port.clone())).collect()
        };
        let mappings: Vec<(Ipv4Addr, PortMapping)> = state.holders.iter().flat_map(ports).collect();
        let text = self.render(block, &mappings);
        Ok(iptables::restore(&text).await?)
    }
}

/// Nobody else looks after the ports of a network without a cluster.
fn refuse_taken(state: &State, sandbox: &str, wanted: &[PortMapping]) -> Result<(), NetworkError> {
    let held = state.holders.values().filter(|holder| holder.sandbox != sandbox);
    for (port, held) in
        held.flat_map(|holder| &holder.ports).flat_map(|held| wanted.iter().map(move |port| (port, held)))
    {
        let same_address = port.host_ip.is_none() || held.host_ip.is_none() || port.host_ip == held.host_ip;
        if port.protocol == held.protocol && port.host_port == held.host_port && same_address {
            let host_ip = port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
            return Err(NetworkError::PortTaken { host_ip, port: port.host_port });
        }
    }
    Ok(())
}

/// What is noted of a network that was set up.
fn set_up(cidr: Cidr, bridge_index: u32) -> String {
    let namespace = std::fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
    format!("{cidr} {bridge_index} {}", namespace.display())
}

/// The near end of a pod's link: the same name for the same sandbox, so that it can be found again.
fn link_name(sandbox: &str) -> String {
    let short: String = sandbox.chars().filter(char::is_ascii_alphanumeric).take(11).collect();
    format!("veth{short}")
}

fn is_pod_link(name: &str) -> bool {
    name.starts_with("veth")
}

fn read_holders(dir: &Path) -> Result<BTreeMap<Ipv4Addr, Holder>, NetworkError> {
    let mut holders = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(|source| state_error("read", dir, source))? {
        let path = entry.map_err(|source| state_error("read", dir, source))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(ip) = name.parse::<Ipv4Addr>() else { continue };
        let bytes = std::fs::read(&path).map_err(|source| state_error("read", &path, source))?;
        match serde_json::from_slice(&bytes) {
            Ok(holder) => {
                holders.insert(ip, holder);
            }
            // Cut off while it was written: nobody was told of the address.
            Err(error) => tracing::warn!(path = %path.display(), %error, "dropping a damaged address note"),
        }
    }
    Ok(holders)
}

fn write_holder(dir: &Path, ip: Ipv4Addr, holder: &Holder) -> Result<(), NetworkError> {
    let path = dir.join(ip.to_string());
    let bytes = serde_json::to_vec(holder).expect("a holder is plain data");
    let temporary = dir.join(format!(".{ip}"));
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(|source| state_error("write", &path, source))
}

fn state_error(what: &'static str, path: &Path, source: io::Error) -> NetworkError {
    NetworkError::State { what, path: path.to_path_buf(), source }
}

/// Sets a kernel switch unless it has the value already (a container may be refused the write, not the read).
fn set_sysctl(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys").join(name);
    let is_set = std::fs::read_to_string(&path).is_ok_and(|present| present.trim() == value);
    if is_set {
        return Ok(());
    }
    std::fs::write(path, value).map_err(|source| NetworkError::Sysctl { name: name.to_owned(), source })
}

/// Asks for a kernel module; what needs it reports its absence.
async fn load_module(name: &str) {
    match tokio::process::Command::new("modprobe").arg(name).status().await {
        Ok(status) if status.success() => {}
        outcome => tracing::debug!(name, ?outcome, "modprobe did not load the module"),
    }
}
