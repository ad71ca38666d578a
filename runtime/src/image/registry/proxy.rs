//! Proxies between this machine and registries, told as to curl and to Go's programs: `HTTPS_PROXY`, `HTTP_PROXY`
//! and `NO_PROXY`.

use std::ffi::OsString;
use std::net::IpAddr;

use http::Uri;

use super::hosts::is_loopback;
use super::{Cause, Credentials};

/// Which proxy leads to which host.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Result<Proxy, String>>,
    https: Option<Result<Proxy, String>>,
    exceptions: Vec<Exception>,
}

/// A server that passes requests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    pub host: String,
    pub port: u16,
    /// Whether it is itself met by TLS.
    pub secure: bool,
    credentials: Option<Credentials>,
}

/// Hosts that are met without a proxy.
#[derive(Clone, Debug, PartialEq)]
enum Exception {
    All,
    Network(IpAddr, u32),
    Address(IpAddr, Option<u16>),
    Domain {
        /// With a dot before it.
        suffix: String,
        /// Whether the domain itself is meant as well.
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Those that the environment names, in capitals or not.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<OsString>) -> Proxies {
        let read = |name: &str| {
            let value = environment(name).or_else(|| environment(&name.to_ascii_lowercase()));
            value.map(|value| value.to_string_lossy().trim().to_owned()).filter(|value| !value.is_empty())
        };
        let proxy = |name: &str| {
            // The value may hold a password and is not told.
            read(name).map(|url| Proxy::parse(&url).ok_or_else(|| format!("{name} is no URL of a proxy")))
        };
        let exceptions = read("NO_PROXY").unwrap_or_default();
        Proxies {
            http: proxy("HTTP_PROXY"),
            https: proxy("HTTPS_PROXY"),
            exceptions: exceptions.split(',').filter_map(Exception::parse).collect(),
        }
    }

    /// The proxy before the host of a URL; this machine itself is never behind one.
    pub(super) fn before(&self, uri: &Uri) -> Result<Option<&Proxy>, Cause> {
        let secure = uri.scheme_str() == Some("https");
        let Some(configured) = (if secure { &self.https } else { &self.http }) else { return Ok(None) };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        if is_loopback(&host) || self.exceptions.iter().any(|exception| exception.covers(&host, port)) {
            return Ok(None);
        }
        configured.as_ref().map(Some).map_err(|fault| fault.clone().into())
    }
}

impl Proxy {
    /// Reads `[http[s]://][user:password@]host[:port]`.
    fn parse(text: &str) -> Option<Proxy> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let uri: Uri = format!("http://{}", rest.split('/').next()?).parse().ok()?;
        let authority = uri.authority()?;
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        let credentials = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            Credentials::Basic { username: decoded(name), password: decoded(password) }
        });
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        (!host.is_empty()).then_some(Proxy { host, port, secure, credentials })
    }

    /// The header that it wants to see.
    pub(super) fn authorization(&self) -> Option<String> {
        self.credentials.as_ref().and_then(Credentials::basic_header)
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Exception> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Exception::All);
        }
        if let Some((address, length)) = text.split_once('/') {
            return Some(Exception::Network(address.parse().ok()?, length.parse().ok()?));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Some(Exception::Address(address, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Some(Exception::Address(address, port));
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        Some(match host.starts_with('.') {
            true => Exception::Domain { suffix: host.to_owned(), itself: false, port },
            false => Exception::Domain { suffix: format!(".{host}"), itself: true, port },
        })
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        let is_port = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Exception::All => true,
            Exception::Network(network, length) => {
                address.is_some_and(|address| is_within(address, *network, *length))
            }
            Exception::Address(known, wanted) => address == Some(*known) && is_port(wanted),
            Exception::Domain { suffix, itself, port } => {
                (host.ends_with(suffix) || *itself && host == &suffix[1..]) && is_port(port)
            }
        }
    }
}

/// Whether the first `length` bits of both are the same.
fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let (address, network, bits) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (address.to_bits().into(), network.to_bits().into(), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let differing: u128 = address ^ network;
    length <= bits && differing.checked_shr(bits - length).unwrap_or(0) == 0
}

/// Text with `%40` and the like undone.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        Proxies::from_environment(&|name| {
            pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    fn before(proxies: &Proxies, url: &str) -> Option<String> {
        let proxy = proxies.before(&url.parse().unwrap()).unwrap();
        proxy.map(|proxy| format!("{}:{}", proxy.host, proxy.port))
    }

    #[test]
    fn each_scheme_has_a_proxy_and_this_machine_none() {
        let both = proxies(&[("HTTP_PROXY", "plain.local:3128"), ("https_proxy", "https://tls.local")]);
        assert_eq!(before(&both, "http://a.example/").as_deref(), Some("plain.local:3128"));
        assert_eq!(before(&both, "https://a.example/").as_deref(), Some("tls.local:443"));
        for here in ["http://localhost:5000/", "http://127.0.0.1/", "https://[::1]:5000/"] {
            assert_eq!(before(&both, here), None, "{here}");
        }
        assert_eq!(before(&proxies(&[]), "https://a.example/"), None);
    }

    #[test]
    fn exceptions_are_domains_addresses_networks_and_ports() {
        let none = "a.example, .b.example,*.c.example,10.0.0.0/8,192.0.2.7:5000,port.example:444,fd00::/8";
        let proxies = proxies(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", none)]);
        let is_direct = |host: &str| before(&proxies, &format!("https://{host}/")).is_none();
        let direct = [
            "a.example",
            "x.A.example",
            "x.b.example",
            "x.c.example",
            "10.1.2.3",
            "192.0.2.7:5000",
            "port.example:444",
            "[fd12::1]",
        ];
        for host in direct {
            assert!(is_direct(host), "{host}");
        }
        for host in
            ["aa.example", "b.example", "c.example", "11.1.2.3", "192.0.2.7", "port.example", "[fe80::1]"]
        {
            assert!(!is_direct(host), "{host}");
        }
        let all = super::tests::proxies(&[("HTTPS_PROXY", "p:1"), ("no_proxy", "*")]);
        assert_eq!(before(&all, "https://a.example/"), None);
    }

    #[test]
    fn a_proxys_password_is_sent_and_never_told() {
        let proxies = proxies(&[("HTTP_PROXY", "http://me:p%40ss@p.local:3128/")]);
        let proxy = proxies.before(&"http://a.example/".parse().unwrap()).unwrap().unwrap();
        assert_eq!(proxy.authorization().as_deref(), Some("Basic bWU6cEBzcw=="));
        assert!(!format!("{proxies:?}").contains("p@ss"));
    }

    #[test]
    fn a_proxy_that_is_none_is_told_when_it_is_needed() {
        for text in ["socks5://a:1", "http://", "a b"] {
            let proxies = proxies(&[("HTTPS_PROXY", text)]);
            let fault = proxies.before(&"https://a.example/".parse().unwrap()).unwrap_err().to_string();
            assert_eq!(fault, "HTTPS_PROXY is no URL of a proxy", "{text}");
            assert!(proxies.before(&"http://a.example/".parse().unwrap()).unwrap().is_none());
        }
    }
}
