//! Sockets at an address that the node may not have yet.
//!
//! The bridge gets its address when the runtime sets it up, which may be a moment after the server starts.

use std::{
    io,
    net::SocketAddrV4,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, listen, setsockopt, socket, sockopt,
};
use tokio::net::{TcpListener, UdpSocket};

pub(crate) fn bind_udp(address: SocketAddrV4) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bind(SockType::Datagram, address)?.into())
}

pub(crate) fn bind_tcp(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = bind(SockType::Stream, address)?;
    listen(&socket, Backlog::new(128)?)?;
    TcpListener::from_std(socket.into())
}

fn bind(kind: SockType, address: SocketAddrV4) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, kind, flags, None)?;
    if kind == SockType::Stream {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    Ok(socket)
}
