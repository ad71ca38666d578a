//! The server's end of a connection to a shim.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};
use tokio::io::unix::AsyncFd;

use super::protocol::{Inbox, PodDirectory, Reply, Request, encode};
use crate::sys::{open, poll, socket};

/// A connection to a shim. One request at a time.
pub struct Connection {
    socket: AsyncFd<OwnedFd>,
    inbox: Inbox,
}

/// Connects to the shim of a pod; fails when there is none.
pub fn connect(directory: &PodDirectory) -> io::Result<Connection> {
    let socket = nix::sys::socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    let (_directory, address) = address(directory)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address)?;
    Connection::new(socket)
}

/// The socket on which a pod's shim is to listen.
pub(crate) fn listen(directory: &PodDirectory) -> io::Result<OwnedFd> {
    let socket =
        nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let (_directory, address) = address(directory)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &address)?;
    nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(128)?)?;
    Ok(socket)
}

/// A socket's path has to fit into 108 bytes; one that begins at an open directory always does.
fn address(directory: &PodDirectory) -> io::Result<(OwnedFd, UnixAddr)> {
    let open = open::directory(&directory.0)?;
    let path = format!("/proc/self/fd/{}/{}", open.as_raw_fd(), PodDirectory::SOCKET);
    let address = UnixAddr::new(path.as_str())?;
    Ok((open, address))
}

impl Connection {
    fn new(socket: OwnedFd) -> io::Result<Connection> {
        Ok(Connection { socket: poll::watched(socket)?, inbox: Inbox::default() })
    }

    /// The shim's process.
    pub fn peer_pid(&self) -> io::Result<i32> {
        socket::peer_pid(self.socket.get_ref().as_fd())
    }

    /// Asks, and waits for the answer.
    pub async fn call(
        &mut self,
        request: &Request,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<(Reply, Vec<OwnedFd>)> {
        self.send(request, descriptors).await?;
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the pod's shim is gone");
        self.receive().await?.ok_or_else(gone)
    }

    /// Asks without waiting.
    pub async fn send(&mut self, request: &Request, mut descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut bytes = encode(request)?;
        while !bytes.is_empty() {
            let mut ready = self.socket.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| socket::send(socket.get_ref(), &bytes, &descriptors)) {
                bytes.drain(..sent?);
                descriptors.clear();
            }
        }
        Ok(())
    }

    /// The next answer, with the descriptors that came along; `None` when the shim is gone.
    pub async fn receive(&mut self) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
        loop {
            if let Some(reply) = self.inbox.take()? {
                return Ok(Some((reply, std::mem::take(&mut self.inbox.descriptors))));
            }
            let mut ready = self.socket.readable().await?;
            let (mut buffer, mut descriptors) = ([0; 4096], Vec::new());
            let received =
                ready.try_io(|socket| socket::receive(socket.get_ref(), &mut buffer, &mut descriptors));
            match received {
                Ok(Ok(0)) => return Ok(None),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Ok(length) => {
                    self.inbox.push(&buffer[..length?]);
                    self.inbox.descriptors.append(&mut descriptors);
                }
                Err(_would_block) => {}
            }
        }
    }
}
