//! Users whom a proxy in front of the server has authenticated: it shows a certificate of its own and names the user
//! in headers. From anybody else these headers mean nothing.

use std::collections::BTreeMap;

use http::HeaderMap;

use crate::{path, pki::ClientAuthority, request::User};

/// The `--requestheader-*` settings.
#[derive(Clone, Debug)]
pub struct FrontProxies {
    /// Who vouches for proxies.
    pub authority: ClientAuthority,
    /// The common names that proxies may have; empty for any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first that is there counts.
    pub username_headers: Vec<String>,
    /// Headers with the user's uid; the first that is there counts.
    pub uid_headers: Vec<String>,
    /// Headers with the user's groups; all of them count.
    pub group_headers: Vec<String>,
    /// What headers with further facts begin with.
    pub extra_prefixes: Vec<String>,
}

impl FrontProxies {
    /// As kubeadm sets them: the front-proxy CA's `front-proxy-client` and the `X-Remote-` headers.
    pub fn new(authority: ClientAuthority) -> FrontProxies {
        let list = |text: &str| vec![text.to_string()];
        FrontProxies {
            authority,
            allowed_names: list("front-proxy-client"),
            username_headers: list("X-Remote-User"),
            uid_headers: list("X-Remote-Uid"),
            group_headers: list("X-Remote-Group"),
            extra_prefixes: list("X-Remote-Extra-"),
        }
    }

    /// The user whom the proxy with this common name speaks for.
    pub(super) fn user_of(&self, proxy: &str, headers: &HeaderMap) -> Option<User> {
        if !self.allowed_names.is_empty() && !self.allowed_names.iter().any(|name| name == proxy) {
            return None;
        }
        let name = first(headers, &self.username_headers)?;
        let values = self.group_headers.iter().flat_map(|header| headers.get_all(header.as_str()));
        let mut groups: Vec<String> =
            values.filter_map(|value| value.to_str().ok()).map(str::to_string).collect();
        if !groups.iter().any(|group| group == "system:authenticated" || group == "system:unauthenticated") {
            groups.push("system:authenticated".into());
        }
        let uid = first(headers, &self.uid_headers).unwrap_or_default();
        Some(User { name, uid, groups, extra: self.extra(headers) })
    }

    /// Takes the headers away: what is behind this server must not believe them.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        for header in self.username_headers.iter().chain(&self.uid_headers).chain(&self.group_headers) {
            headers.remove(header.as_str());
        }
        let extra: Vec<_> =
            headers.keys().filter(|name| self.extra_key(name.as_str()).is_some()).cloned().collect();
        for name in extra {
            headers.remove(name);
        }
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            if let (Some(key), Ok(value)) = (self.extra_key(name.as_str()), value.to_str()) {
                extra.entry(path::decoded(key)).or_default().push(value.to_string());
            }
        }
        extra
    }

    fn extra_key<'a>(&self, header: &'a str) -> Option<&'a str> {
        // Names of headers are in lower case here.
        self.extra_prefixes.iter().find_map(|prefix| header.strip_prefix(&prefix.to_ascii_lowercase()))
    }
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    let values = names.iter().filter_map(|name| headers.get(name.as_str())?.to_str().ok());
    values.map(str::to_string).find(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::pki::{Names, Pki};

    fn proxies() -> FrontProxies {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::load_or_create(dir.path(), &Names::default()).unwrap();
        FrontProxies::new(ClientAuthority::from_pem(pki.front_proxy_ca_certificate()).unwrap())
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let pairs = [
            ("x-remote-user", "ann"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-example.com%2fteam", "red"),
            ("accept", "application/json"),
        ];
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn an_allowed_proxy_names_the_user() {
        let user = proxies().user_of("front-proxy-client", &headers()).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "7"));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(user.extra, [("example.com/team".to_string(), vec!["red".to_string()])].into());
    }

    #[test]
    fn other_proxies_and_requests_without_a_user_are_nobodys() {
        assert_eq!(proxies().user_of("another", &headers()), None);
        assert_eq!(proxies().user_of("front-proxy-client", &HeaderMap::new()), None);
        let any = FrontProxies { allowed_names: Vec::new(), ..proxies() };
        assert!(any.user_of("another", &headers()).is_some());
    }

    #[test]
    fn the_headers_go_no_further() {
        let mut headers = headers();
        proxies().strip(&mut headers);
        assert_eq!(headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["accept"]);
    }
}
