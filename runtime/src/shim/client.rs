//! The server's end of a connection to a shim.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};
use tokio::io::unix::AsyncFd;

use super::protocol::{Inbox, Introduction, Message, PodDirectory, Reply, Request, VERSIONS, encode};
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

    /// Says who we are and hears who the shim is; if `subscribe`, it tells of every end from now on. `None` when
    /// the connection ends over it: the shim is of version 1, or gone.
    pub async fn introduce(&mut self, subscribe: bool) -> io::Result<Option<Introduction>> {
        let asked = self.send(&Request::Introduce { versions: VERSIONS, subscribe }, Vec::new()).await;
        match asked {
            Err(error) if is_end(&error) => return Ok(None),
            asked => asked?,
        }
        match self.next().await? {
            Some((Message::Known(Reply::Introduced(introduction)), _)) => Ok(Some(introduction)),
            Some((other, _)) => Err(strange(&other)),
            None => Ok(None),
        }
    }

    /// Asks, and waits for the answer.
    pub async fn call(
        &mut self,
        request: &Request,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<(Reply, Vec<OwnedFd>)> {
        self.send(request, descriptors).await?;
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the pod's shim is gone");
        match self.next().await?.ok_or_else(gone)? {
            (Message::Known(reply), descriptors) => Ok((reply, descriptors)),
            (unknown, _) => Err(strange(&unknown)),
        }
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

    /// The next answer that we understand, with the descriptors that came along; `None` when the shim is gone.
    pub async fn receive(&mut self) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
        loop {
            match self.next().await? {
                None => return Ok(None),
                Some((Message::Known(reply), descriptors)) => return Ok(Some((reply, descriptors))),
                Some((Message::Unknown(name), _)) => tracing::debug!(name, "passed over a shim's message"),
            }
        }
    }

    async fn next(&mut self) -> io::Result<Option<(Message<Reply>, Vec<OwnedFd>)>> {
        loop {
            if let Some(message) = self.inbox.take()? {
                return Ok(Some((message, std::mem::take(&mut self.inbox.descriptors))));
            }
            let mut ready = self.socket.readable().await?;
            let (mut buffer, mut descriptors) = ([0; 4096], Vec::new());
            let received =
                ready.try_io(|socket| socket::receive(socket.get_ref(), &mut buffer, &mut descriptors));
            match received {
                Ok(Ok(0)) => return Ok(None),
                Ok(Err(error)) if is_end(&error) => return Ok(None),
                Ok(length) => {
                    self.inbox.push(&buffer[..length?]);
                    self.inbox.descriptors.append(&mut descriptors);
                }
                Err(_would_block) => {}
            }
        }
    }
}

/// Whether an error says that nobody is at the other end any more.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn strange(message: &Message<Reply>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the pod's shim answered {message:?}"))
}
