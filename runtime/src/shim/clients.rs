//! Those who are attached to a container: what they type, and what they have not read yet.

use std::os::fd::OwnedFd;

use super::containers::Container;
use crate::sys::socket;

/// Takes what a client has typed.
pub(super) fn read_typed(container: &mut Container, number: usize) {
    let Some(client) = container.output.clients.get_mut(number) else { return };
    let Some(stdin) = &client.stdin else { return };
    let mut buffer = [0; 4096];
    match nix::unistd::read(stdin, &mut buffer) {
        Err(nix::Error::EAGAIN) => {}
        Ok(length) if length > 0 => {
            if container.input.sink.is_some() {
                container.input.pending.extend_from_slice(&buffer[..length]);
                container.input.flush();
            }
        }
        Ok(_) | Err(_) => {
            client.stdin = None;
            end_input(container);
            if container.output.clients[number].outputs.is_empty() {
                container.output.clients.remove(number);
            }
        }
    }
}

/// A client is gone.
pub(super) fn leave(container: &mut Container, number: usize) {
    let client = container.output.clients.remove(number);
    if client.stdin.is_some() {
        end_input(container);
    }
}

/// A terminal is told the end of input by its user's Ctrl-D, and never closed.
fn end_input(container: &mut Container) {
    let is_pipe = |sink: &OwnedFd| !nix::unistd::isatty(sink).unwrap_or(true);
    if container.input.ends_with_client && container.input.sink.as_ref().is_some_and(is_pipe) {
        container.input.flush();
        container.input.sink = None;
    }
}

/// What clients have not taken yet they still get: the kernel keeps what fits into their sockets.
pub(super) fn finish(container: Container) {
    for client in container.output.clients {
        for mut reader in client.outputs {
            // The last bytes may wait for a slow client, but not for one that does not read at all.
            if socket::set_nonblocking(&reader.socket, false).is_ok()
                && socket::limit_sending(&reader.socket, 1).is_ok()
            {
                reader.flush();
            }
        }
    }
}
