//! The sockets: one task that reads UDP, one for each TCP connection.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use daemon::listen;
use hickory_proto::{op::Message, rr::Name};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    forward,
    message::{self, Step},
    zone::Records,
};

/// How many questions may wait for servers outside at once; more are refused, not queued.
const FORWARDED_AT_ONCE: usize = 256;
/// How long a TCP client may stay silent.
const IDLE: Duration = Duration::from_secs(10);
/// How many TCP clients may be connected at once.
const CONNECTIONS: usize = 128;

/// Answers questions from `records`, forwards those about other names.
pub struct Server<R> {
    records: R,
    domain: Name,
    name_servers: Vec<SocketAddr>,
    forwarding: Semaphore,
}

impl<R: Records + Send + Sync + 'static> Server<R> {
    /// A server for `domain`, with the servers to ask about other names.
    pub fn new(records: R, domain: Name, name_servers: Vec<SocketAddr>) -> Server<R> {
        Server { records, domain, name_servers, forwarding: Semaphore::new(FORWARDED_AT_ONCE) }
    }

    /// Serves until the task is dropped.
    pub async fn serve(self: Arc<Self>, udp: UdpSocket, tcp: TcpListener) {
        tokio::join!(self.clone().serve_udp(Arc::new(udp)), self.serve_tcp(tcp));
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // An earlier reply may have met a closed port; that is the client's affair.
                    tracing::debug!(%error, "cannot read a question");
                    continue;
                }
            };
            let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
            match message::step(&request, &self.records, &self.domain) {
                Step::Reply(reply) => send(&socket, client, &reply, &request).await,
                step => {
                    let (server, socket) = (self.clone(), socket.clone());
                    let Ok(bytes) = request.to_vec() else { continue };
                    tokio::spawn(async move {
                        let reply = server.outside(&request, &bytes, step, false).await;
                        if let Err(error) = socket.send_to(&reply, client).await {
                            tracing::debug!(%client, %error, "cannot send a reply");
                        }
                    });
                }
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (stream, client) = listen::accept(&listener).await;
            let server = self.clone();
            tokio::spawn(async move {
                if let Err(error) = server.converse(stream).await {
                    tracing::debug!(%client, %error, "connection ended early");
                }
                drop(place);
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let length = match timeout(IDLE, stream.read_u16()).await {
                Ok(Ok(length)) => usize::from(length),
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            let mut bytes = vec![0; length];
            timeout(IDLE, stream.read_exact(&mut bytes)).await??;
            let request = Message::from_vec(&bytes).map_err(io::Error::other)?;
            let reply = match message::step(&request, &self.records, &self.domain) {
                Step::Reply(reply) => message::encode(&reply, &request, false).map_err(io::Error::other)?,
                step => self.outside(&request, &bytes, step, true).await,
            };
            let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
            stream.write_u16(length).await?;
            stream.write_all(&reply).await?;
        }
    }

    /// The reply to a question that needs a server outside.
    async fn outside(&self, request: &Message, bytes: &[u8], step: Step, over_tcp: bool) -> Vec<u8> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::debug!(%error, "cannot resolve a name outside the cluster");
            message::failure(request).to_vec().unwrap_or_default()
        };
        let Ok(_place) = self.forwarding.try_acquire() else {
            return failed(&"too many questions wait for servers outside");
        };
        match step {
            Step::Forward => match forward::ask(&self.name_servers, bytes, over_tcp).await {
                Ok(reply) => reply,
                Err(error) => failed(&error),
            },
            Step::Follow { mut reply, query } => {
                let mut question = Message::query();
                question.metadata.recursion_desired = true;
                question.add_query(query);
                // The alias alone is a useful answer: most resolvers follow it themselves.
                match self.follow(&question, over_tcp).await {
                    Ok(found) => _ = reply.add_answers(found.answers),
                    Err(error) => tracing::debug!(%error, "cannot follow an external name"),
                }
                message::encode(&reply, request, !over_tcp).unwrap_or_else(|error| failed(&error))
            }
            Step::Reply(reply) => {
                message::encode(&reply, request, !over_tcp).unwrap_or_else(|error| failed(&error))
            }
        }
    }

    async fn follow(&self, question: &Message, over_tcp: bool) -> io::Result<Message> {
        let bytes = question.to_vec().map_err(io::Error::other)?;
        let reply = forward::ask(&self.name_servers, &bytes, over_tcp).await?;
        Message::from_vec(&reply).map_err(io::Error::other)
    }
}

async fn send(socket: &UdpSocket, client: SocketAddr, reply: &Message, request: &Message) {
    match message::encode(reply, request, true) {
        Ok(bytes) => {
            if let Err(error) = socket.send_to(&bytes, client).await {
                tracing::debug!(%client, %error, "cannot send a reply");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot encode a reply"),
    }
}
