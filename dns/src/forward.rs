//! Names that are not the cluster's: asked of the name servers that the node uses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long one name server is given before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// The name servers in a resolv.conf, those left out that would lead back to the cluster's own.
pub fn name_servers(resolv_conf: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        address.parse::<IpAddr>().ok()
    };
    let servers = resolv_conf.lines().filter_map(server).filter(|server| !own.contains(server));
    servers.map(|server| SocketAddr::new(server, 53)).collect()
}

/// Sends a question to each server in turn until one replies; the reply's bytes. `request` is a whole
/// message; the reply carries the same id.
///
/// # Errors
/// When none of them replied, with the last one's reason.
pub async fn ask(servers: &[SocketAddr], request: &[u8], over_tcp: bool) -> io::Result<Vec<u8>> {
    let mut last = io::Error::other("this node has no name server (see its /etc/resolv.conf)");
    for server in servers {
        let asked = timeout(PATIENCE, async {
            if over_tcp { ask_tcp(*server, request).await } else { ask_udp(*server, request).await }
        });
        match asked.await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{server} did not reply")),
        }
    }
    Err(last)
}

async fn ask_udp(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    // A socket of its own for each question: its random port is what makes forged replies hard.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let is_reply = length > 2 && request.len() > 2 && buffer[..2] == request[..2];
        if is_reply {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(request.len()).map_err(|_| io::Error::other("the question is too long"))?;
    stream.write_u16(length).await?;
    stream.write_all(request).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_name_servers_are_used_but_never_our_own() {
        let text = "# made by hand\nsearch lan\nnameserver 10.244.0.1\nnameserver 192.0.2.53 \noptions edns0\nnameserver nonsense\n";
        let own = ["10.244.0.1".parse().unwrap()];
        assert_eq!(name_servers(text, &own), ["192.0.2.53:53".parse().unwrap()]);
    }
}
