//! Links, addresses and routes, through rtnetlink.

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
};

use futures::TryStreamExt;
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::link::{InfoData, InfoVeth, LinkAttribute},
};

use crate::Cidr;

/// Why a link could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The netlink socket could not be opened, or the network namespace not entered.
    #[error("cannot open a netlink socket in the network namespace")]
    Open(#[source] std::io::Error),
    /// The kernel refused.
    #[error("cannot {what}")]
    Refused {
        /// What was tried.
        what: String,
        /// The kernel's reason.
        source: rtnetlink::Error,
    },
    /// The link is not there.
    #[error("there is no link {name}")]
    Missing {
        /// Its name.
        name: String,
    },
}

/// A netlink connection to one network namespace.
pub struct Links {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// A connection to the caller's own network namespace.
    pub fn open() -> Result<Links, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Open)?;
        Ok(Links { handle, connection: tokio::spawn(connection) })
    }

    /// A connection to another network namespace, given a descriptor of it.
    ///
    /// A socket stays in the namespace where it was opened, so a thread of its own enters, opens and ends:
    /// no thread of the runtime ever leaves its namespace.
    pub fn open_in(namespace: impl AsFd) -> Result<Links, LinkError> {
        let runtime = tokio::runtime::Handle::current();
        let namespace = namespace.as_fd();
        let opened = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)
                    .map_err(std::io::Error::from)?;
                let _context = runtime.enter();
                rtnetlink::new_connection()
            });
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the netlink thread panicked")))
        });
        let (connection, handle, _) = opened.map_err(LinkError::Open)?;
        Ok(Links { handle, connection: tokio::spawn(connection) })
    }

    /// The index of a link, `None` when there is no such link.
    pub async fn index(&self, name: &str) -> Result<Option<u32>, LinkError> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        match found {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is(&error, libc::ENODEV) => Ok(None),
            Err(source) => Err(refused(format!("look for link {name}"), source)),
        }
    }

    /// Whether the caller's network namespace has a link of this name; one that cannot be asked for may be there. Takes
    /// no lock of the kernel's that others wait for.
    pub fn is_there(name: &str) -> bool {
        !matches!(nix::net::if_::if_nametoindex(name), Err(nix::errno::Errno::ENODEV))
    }

    /// Makes sure that a bridge is there, up, and has `address`; returns its index.
    pub async fn ensure_bridge(&self, name: &str, address: Ipv4Addr, cidr: Cidr) -> Result<u32, LinkError> {
        if self.index(name).await?.is_none() {
            let made = self.handle.link().add(LinkBridge::new(name).build()).execute().await;
            tolerate(made, libc::EEXIST).map_err(|source| refused(format!("add bridge {name}"), source))?;
        }
        let index = self.index(name).await?.ok_or_else(|| LinkError::Missing { name: name.to_string() })?;
        // A bridge that takes over a new member's hardware address would change its own under open connections.
        let up = LinkUnspec::new_with_index(index).address(hardware_address(address)).up().build();
        self.handle
            .link()
            .set(up)
            .execute()
            .await
            .map_err(|source| refused(format!("set up {name}"), source))?;
        self.add_address(index, name, address, cidr.prefix()).await?;
        Ok(index)
    }

    /// Makes a veth pair whose far end, `eth0`, is born in `namespace` and whose near end is a port of the
    /// bridge. Nothing is moved between namespaces afterwards, which would take the kernel's global lock again.
    pub async fn add_pod_link(
        &self,
        name: &str,
        bridge_index: u32,
        namespace: impl AsFd,
        address: Ipv4Addr,
    ) -> Result<(), LinkError> {
        let mut far = LinkUnspec::new_with_name("eth0").address(hardware_address(address)).build();
        far.attributes.push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        let near = LinkVeth::new(name, "eth0")
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .controller(bridge_index)
            .up()
            .build();
        let added = self.handle.link().add(near).execute().await;
        added.map_err(|source| refused(format!("add pod link {name}"), source))?;
        let index = self.index(name).await?.ok_or_else(|| LinkError::Missing { name: name.to_string() })?;
        // A pod that reaches itself through its Service comes back in by the port it left.
        let port = LinkBridgePort::new(index).hairpin(true).build();
        let set = self.handle.link().set_port(port).execute().await;
        set.map_err(|source| refused(format!("set hairpin mode of {name}"), source))
    }

    /// Inside a pod: brings up `lo` and `eth0`, sets the address and the default route.
    pub async fn set_up_pod(
        &self,
        address: Ipv4Addr,
        cidr: Cidr,
        gateway: Ipv4Addr,
    ) -> Result<(), LinkError> {
        // Loopback is always the first link of a network namespace.
        self.set_up(1, "lo").await?;
        let index =
            self.index("eth0").await?.ok_or_else(|| LinkError::Missing { name: "eth0".to_string() })?;
        self.add_address(index, "eth0", address, cidr.prefix()).await?;
        self.set_up(index, "eth0").await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build();
        let added = self.handle.route().add(route).execute().await;
        tolerate(added, libc::EEXIST)
            .map_err(|source| refused(format!("add the default route by {gateway}"), source))
    }

    /// Brings up loopback alone, for a pod without a network of its own making.
    pub async fn set_up_loopback(&self) -> Result<(), LinkError> {
        self.set_up(1, "lo").await
    }

    /// Removes a link; one that is not there is no error.
    pub async fn remove(&self, name: &str) -> Result<(), LinkError> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        let removed = self.handle.link().del(index).execute().await;
        tolerate(removed, libc::ENODEV).map_err(|source| refused(format!("remove link {name}"), source))
    }

    /// The names of the links that are ports of a bridge.
    pub async fn ports(&self, bridge: &str) -> Result<Vec<String>, LinkError> {
        let Some(index) = self.index(bridge).await? else { return Ok(Vec::new()) };
        let links: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|source| refused(format!("list the ports of {bridge}"), source))?;
        let is_port = |attributes: &[LinkAttribute]| {
            attributes.iter().any(|each| matches!(each, LinkAttribute::Controller(it) if *it == index))
        };
        let name = |attributes: Vec<LinkAttribute>| {
            attributes.into_iter().find_map(|each| match each {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
        };
        Ok(links
            .into_iter()
            .filter(|link| is_port(&link.attributes))
            .filter_map(|link| name(link.attributes))
            .collect())
    }

    async fn set_up(&self, index: u32, name: &str) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let set = self.handle.link().set(message).execute().await;
        set.map_err(|source| refused(format!("set up {name}"), source))
    }

    async fn add_address(
        &self,
        index: u32,
        name: &str,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), LinkError> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build();
        let mut request = self.handle.address().add(index, address.into(), prefix);
        *request.message_mut() = message;
        let added = request.execute().await;
        tolerate(added, libc::EEXIST)
            .map_err(|source| refused(format!("add address {address} to {name}"), source))
    }
}

fn refused(what: String, source: rtnetlink::Error) -> LinkError {
    LinkError::Refused { what, source }
}

/// An address's own hardware address, always the same: neighbours that remember an earlier pod's stay right
/// when another pod gets the address. Locally administered, with the prefix that CNI's bridge plug-ins use.
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    [&[0x0a, 0x58][..], &address.octets()].concat()
}

fn tolerate(result: Result<(), rtnetlink::Error>, errno: i32) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if is(&error, errno) => Ok(()),
        other => other,
    }
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn only_a_link_that_the_kernel_does_not_know_is_gone() {
        assert!(Links::is_there("lo"));
        assert!(!Links::is_there("no-such-link"));
        // Without a descriptor nobody can be asked.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        let is_there = Links::is_there("no-such-link");
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(is_there);
    }
}
