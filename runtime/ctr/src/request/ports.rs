//! Ports of the machine that lead to a container.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail};
use net::Protocol;

use crate::definition::Port;

/// `[[ADDRESS:]PORT:]PORT[/PROTOCOL]`, each port perhaps a range of as many.
pub fn parse(given: &str) -> Result<Vec<Port>> {
    let (rest, protocol) = given.rsplit_once('/').unwrap_or((given, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => bail!("invalid proto: {protocol}"),
    };
    let parts: Vec<&str> = rest.split(':').collect();
    let (address, outside, inside) = match parts.as_slice() {
        [inside] => ("", "", *inside),
        [outside, inside] => ("", *outside, *inside),
        [address, outside, inside] => (*address, *outside, *inside),
        _ => bail!("invalid publish opts format (should be name=value but got '{given}')"),
    };
    let host_ip = match address {
        "" | "0.0.0.0" => None,
        text => Some(text.parse::<Ipv4Addr>().ok().with_context(|| format!("invalid IP address: {text}"))?),
    };
    let inside_ports = range(inside).with_context(|| format!("invalid containerPort: {inside}"))?;
    // Zero is any free one, chosen when all are known.
    let outside_ports = match outside {
        "" => 0..=0,
        text => range(text).with_context(|| format!("invalid hostPort: {text}"))?,
    };
    if outside_ports != (0..=0) && outside_ports.len() != inside_ports.len() {
        bail!("invalid ranges specified for container and host Ports: {inside} and {outside}");
    }
    let port = |(index, container_port)| Port {
        host_ip,
        host_port: if outside.is_empty() { 0 } else { outside_ports.start() + index as u16 },
        container_port,
        protocol,
    };
    Ok(inside_ports.enumerate().map(port).collect())
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        Some((from, to)) => Some(port(from)?..=port(to)?).filter(|range| !range.is_empty()),
        None => port(text).map(|port| port..=port),
    }
}

/// Chooses free ports where any will do, and refuses those that a process of the machine listens on.
pub fn choose_free(ports: &mut [Port]) -> Result<()> {
    for port in ports {
        let address = port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let wanted = SocketAddrV4::new(address, port.host_port);
        let free = match port.protocol {
            Protocol::Tcp => TcpListener::bind(wanted).and_then(|socket| socket.local_addr()),
            Protocol::Udp => UdpSocket::bind(wanted).and_then(|socket| socket.local_addr()),
            // Few machines have SCTP sockets to try with.
            Protocol::Sctp => Ok(wanted.into()),
        };
        let free =
            free.with_context(|| format!("failed to bind host port {wanted}/{}", port.protocol.name()))?;
        port.host_port = free.port();
        if port.host_port == 0 {
            bail!("give the host port of {}", port.inside());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(given: &str) -> Vec<String> {
        let ports = parse(given).unwrap();
        ports.iter().map(|port| format!("{}->{}", port.outside(), port.inside())).collect()
    }

    #[test]
    fn ports_are_given_in_many_ways() {
        assert_eq!(shown("8080:80"), ["0.0.0.0:8080->80/tcp"]);
        assert_eq!(shown("127.0.0.1:53:53/udp"), ["127.0.0.1:53->53/udp"]);
        assert_eq!(shown("80"), ["0.0.0.0:0->80/tcp"]);
        assert_eq!(shown("127.0.0.1::80"), ["127.0.0.1:0->80/tcp"]);
        assert_eq!(shown("7000-7001:8000-8001"), ["0.0.0.0:7000->8000/tcp", "0.0.0.0:7001->8001/tcp"]);
    }

    #[test]
    fn bad_ports_are_refused_in_dockers_words() {
        let refused = |given: &str| parse(given).unwrap_err().to_string();
        assert_eq!(refused("80/xyz"), "invalid proto: xyz");
        assert_eq!(refused("8080:x"), "invalid containerPort: x");
        assert_eq!(refused("70000:80"), "invalid hostPort: 70000");
        assert_eq!(refused("nowhere:1:2"), "invalid IP address: nowhere");
        assert_eq!(refused("1-3:1-2"), "invalid ranges specified for container and host Ports: 1-2 and 1-3");
    }
}
