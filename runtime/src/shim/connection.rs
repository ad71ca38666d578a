//! The shim's end of a connection: nothing here ever waits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::protocol::{Inbox, Message, Reply, Request, encode};
use crate::sys::socket;

/// A client of the shim.
pub struct Connection {
    socket: OwnedFd,
    inbox: Inbox,
    outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// Whether it wants to hear of every container that ends.
    pub subscribed: bool,
    /// The version of the protocol that both ends speak.
    pub version: u32,
}

impl Connection {
    /// A client that has just connected.
    pub fn new(socket: OwnedFd) -> io::Result<Connection> {
        socket::set_nonblocking(&socket, true)?;
        Ok(Connection {
            socket,
            inbox: Inbox::default(),
            outbox: VecDeque::new(),
            subscribed: false,
            version: 1,
        })
    }

    /// Takes what has arrived; `false` at the end of the connection.
    pub fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            match socket::receive(&self.socket, &mut buffer, &mut self.inbox.descriptors) {
                Ok(0) => return Ok(false),
                Ok(length) => self.inbox.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next request, with the descriptors that came along.
    pub fn take(&mut self) -> io::Result<Option<(Message<Request>, Vec<OwnedFd>)>> {
        let request = self.inbox.take()?;
        Ok(request.map(|request| (request, std::mem::take(&mut self.inbox.descriptors))))
    }

    /// Answers, now or as soon as the client reads.
    pub fn send(&mut self, reply: &Reply, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.outbox.push_back((encode(reply)?, descriptors));
        self.flush()
    }

    /// Sends what still waits.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, descriptors)) = self.outbox.front_mut() {
            match socket::send(&self.socket, bytes, descriptors) {
                Ok(sent) => {
                    bytes.drain(..sent);
                    descriptors.clear();
                    if bytes.is_empty() {
                        self.outbox.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether something waits to be sent.
    pub fn is_flushing(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
