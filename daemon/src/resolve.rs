//! Names to addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! The program is static, so libc's plug-ins for names cannot be loaded; this asks for A and AAAA as they would,
//! with search domains, by UDP and again by TCP when an answer is cut off.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server has for one answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often all servers are asked.
const ROUNDS: usize = 2;

/// Larger answers come by TCP.
const UDP_LIMIT: usize = 4096;

/// The addresses of a host, IPv4 first: every network has it.
pub async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let hosts = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
    let listed = in_hosts(&hosts, host);
    if !listed.is_empty() {
        return Ok(listed);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![IpAddr::from([127, 0, 0, 1])]);
    }
    let resolv_conf = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
    Resolver::new(&resolv_conf).lookup(host).await
}

/// What `/etc/hosts` says of a name.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(line));
    let found = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    let mut found: Vec<IpAddr> = found.collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// `/etc/resolv.conf`.
#[derive(Debug, PartialEq)]
struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl Resolver {
    fn new(text: &str) -> Resolver {
        let (mut servers, mut search, mut ndots) = (Vec::new(), Vec::new(), 1);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    servers.extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                Some("search" | "domain") => search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let given =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                    ndots = given.unwrap_or(ndots);
                }
                _ => {}
            }
        }
        Resolver { servers, search, ndots }
    }

    /// The names to ask for, in order: one with enough dots is tried as it is first.
    fn candidates(&self, host: &str) -> Vec<String> {
        if host.ends_with('.') {
            return vec![host.to_owned()];
        }
        let mut names: Vec<String> =
            self.search.iter().map(|domain| format!("{host}.{}.", domain.trim_end_matches('.'))).collect();
        let itself = format!("{host}.");
        if host.matches('.').count() >= self.ndots {
            names.insert(0, itself)
        } else {
            names.push(itself)
        }
        names
    }

    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if self.servers.is_empty() {
            return Err(io::Error::other("/etc/resolv.conf names no server"));
        }
        for name in self.candidates(host) {
            let name = Name::from_str(&name).map_err(io::Error::other)?;
            let (four, six) = tokio::join!(self.ask(&name, RecordType::A), self.ask(&name, RecordType::AAAA));
            // One family is enough; an error counts only when there is nothing at all.
            let mut found = Vec::new();
            let mut failure = None;
            for answer in [four, six] {
                match answer {
                    Ok(addresses) => found.extend(addresses),
                    Err(error) => failure = Some(error),
                }
            }
            match failure {
                Some(error) if found.is_empty() => return Err(error),
                _ if found.is_empty() => {}
                _ => return Ok(found),
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no such host"))
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> io::Result<Vec<IpAddr>> {
        let mut failure = io::Error::other("no server answered");
        for server in std::iter::repeat_n(&self.servers, ROUNDS).flatten() {
            let asked = tokio::time::timeout(PATIENCE, exchange(*server, name, kind)).await;
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(answer) => match answer.metadata.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => return Ok(addresses_in(&answer)),
                    code => failure = io::Error::other(format!("{server}: server misbehaving: {code}")),
                },
                Err(error) => failure = io::Error::new(error.kind(), format!("{server}: {error}")),
            }
        }
        Err(failure)
    }
}

fn addresses_in(answer: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// One question to one server.
async fn exchange(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    // Connected, it hears nobody but this server.
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; UDP_LIMIT];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Ok(answer) = Message::from_vec(&buffer[..length]) else { continue };
        if answer.metadata.id != question.metadata.id || answer.queries != question.queries {
            continue;
        }
        return if answer.metadata.truncation { by_tcp(server, &bytes).await } else { Ok(answer) };
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_first_and_ipv4_before_ipv6() {
        let text = "127.0.0.1 localhost\n::1 registry.local # own\n192.0.2.7\tother registry.local Alias\n#192.0.2.9 alias";
        assert_eq!(
            in_hosts(text, "registry.local"),
            ["192.0.2.7".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]
        );
        assert_eq!(in_hosts(text, "alias"), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(in_hosts(text, "own"), Vec::<IpAddr>::new());
    }

    #[test]
    fn search_domains_are_tried_as_resolv_conf_says() {
        let resolver = Resolver::new(
            "# x\nnameserver 192.0.2.53\nnameserver bad\nsearch a.local b.\noptions ndots:2 rotate\n",
        );
        assert_eq!(resolver.servers, ["192.0.2.53:53".parse::<SocketAddr>().unwrap()]);
        assert_eq!(resolver.candidates("hub.x"), ["hub.x.a.local.", "hub.x.b.", "hub.x."]);
        assert_eq!(resolver.candidates("r.hub.x")[0], "r.hub.x.");
        assert_eq!(resolver.candidates("hub."), ["hub."]);
    }
}
