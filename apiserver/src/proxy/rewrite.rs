//! What a pod or Service says of its own addresses, as it reads through the proxy: links in HTML, `Location`, and the
//! `X-Forwarded-Uri` by which it can tell. Pure but for the stream around it.

use std::mem;

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// A tag longer than this is passed on as it is.
const LONGEST_TAG: usize = 64 << 10;

/// Where the attributes that hold addresses are, as in upstream's table.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where an answer comes from, and under which path the client sees it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Host and port behind the proxy.
    backend: String,
    /// The host that the client asked.
    asked: String,
    /// The path up to and with `proxy`.
    prefix: String,
}

impl Place {
    /// `rest` is what follows `proxy` in the path.
    pub(super) fn new(uri: &Uri, rest: &str, asked: &HeaderMap, backend: String) -> Place {
        let rest = rest.split('?').next().unwrap_or_default();
        let path = uri.path();
        let prefix = path.strip_suffix(rest).unwrap_or(path).to_string();
        let host = asked.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or(uri.authority().map(|authority| authority.as_str()));
        Place { backend, asked: host.unwrap_or_default().to_string(), prefix }
    }

    /// Tells the other side how it is seen.
    pub(super) fn announce(&self, rest: &str, headers: &mut HeaderMap) {
        let path = format!("{}{}", self.prefix, rest.split('?').next().unwrap_or_default());
        if let Ok(path) = HeaderValue::from_str(&path) {
            headers.insert("x-forwarded-uri", path);
        }
    }

    /// An answer whose addresses lead back through the proxy.
    pub(super) fn seen_through(self, response: Response<Incoming>) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        if let Some(location) = location.map(|address| self.address(address))
            && let Ok(location) = HeaderValue::from_str(&location)
        {
            parts.headers.insert(header::LOCATION, location);
        }
        let is_html = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/html"));
        // What is packed stays as it is: whoever wants its links changed does not ask for it packed.
        if !is_html || parts.headers.contains_key(header::CONTENT_ENCODING) {
            return Response::from_parts(parts, Body::new(body));
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        let state = Some((body.into_data_stream(), Links::new(self)));
        let pieces = stream::unfold(state, |state| async move {
            let (mut body, mut links) = state?;
            Some(match body.next().await {
                Some(Ok(piece)) => (Ok(Bytes::from(links.push(&piece))), Some((body, links))),
                Some(Err(error)) => (Err(error), None),
                None => (Ok(Bytes::from(links.finish())), None),
            })
        });
        Response::from_parts(parts, Body::from_stream(pieces))
    }

    /// One address: those of the server behind are found below the proxy's path, all others stay.
    fn address(&self, address: &str) -> String {
        let (scheme, rest) = match address.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?', '#']) => (Some(scheme), rest),
            _ => match address.strip_prefix("//") {
                Some(rest) => (Some(""), rest),
                None => (None, address),
            },
        };
        let (host, path) = match scheme {
            Some(_) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        let is_elsewhere = !host.is_empty() && host != self.backend && host != self.asked;
        if is_elsewhere || !path.starts_with('/') {
            return address.to_string();
        }
        let shown = match scheme {
            Some(scheme) if host == self.asked => {
                format!("{scheme}{}//{host}", if scheme.is_empty() { "" } else { ":" })
            }
            _ => String::new(),
        };
        match path.starts_with(&self.prefix) {
            true => format!("{shown}{path}"),
            false => format!("{shown}{}{path}", self.prefix),
        }
    }
}

/// The answer to a request for a proxy without a path: where it is with one.
pub(super) fn to_its_root(uri: &Uri) -> Option<Response<Body>> {
    let path = uri.path().strip_suffix("/proxy")?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(&format!("{path}/proxy/{query}")).ok()?;
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

/// HTML on its way through, piece by piece. A piece may end anywhere: what may be the start of a tag waits.
struct Links {
    place: Place,
    waiting: Vec<u8>,
    /// Inside an element whose text is no HTML: the tag that ends it.
    until: Option<&'static [u8]>,
}

impl Links {
    fn new(place: Place) -> Links {
        Links { place, waiting: Vec::new(), until: None }
    }

    fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = mem::take(&mut self.waiting);
        text.extend_from_slice(piece);
        let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_slice());
        while let Some(start) = self.next_tag(rest) {
            out.extend_from_slice(&rest[..start]);
            rest = &rest[start..];
            let Some(end) = end_of_tag(rest) else { break };
            let (tag, after) = rest.split_at(end);
            out.extend_from_slice(&self.tag(tag));
            rest = after;
        }
        // What is left has no tag in it, begins with one that is not all here, or may.
        let keeps = match rest.first() {
            Some(b'<') => rest.len() <= LONGEST_TAG,
            _ => false,
        };
        match (keeps, self.until) {
            (true, _) => self.waiting = rest.to_vec(),
            (false, Some(end)) => {
                let kept = rest.len().min(end.len() - 1);
                let (gone, kept) = rest.split_at(rest.len() - kept);
                out.extend_from_slice(gone);
                self.waiting = kept.to_vec();
            }
            (false, None) => out.extend_from_slice(rest),
        }
        out
    }

    fn finish(mut self) -> Vec<u8> {
        mem::take(&mut self.waiting)
    }

    /// Where the next tag that means something begins.
    fn next_tag(&self, text: &[u8]) -> Option<usize> {
        match self.until {
            Some(end) => text.windows(end.len()).position(|window| window.eq_ignore_ascii_case(end)),
            None => text.iter().position(|byte| *byte == b'<'),
        }
    }

    /// One whole tag or comment.
    fn tag(&mut self, tag: &[u8]) -> Vec<u8> {
        self.until = None;
        let Ok(text) = str::from_utf8(tag) else { return tag.to_vec() };
        let inner = text.trim_start_matches('<');
        let length = inner.find(|next: char| !next.is_ascii_alphanumeric()).unwrap_or(inner.len());
        let name = inner[..length].to_ascii_lowercase();
        self.until = match name.as_str() {
            "script" => Some(b"</script"),
            "style" => Some(b"</style"),
            _ => None,
        };
        match LINKS.binary_search_by(|(listed, _)| (*listed).cmp(&name)) {
            Ok(found) => self.with_links(text, 1 + length, LINKS[found].1).into_bytes(),
            Err(_) => tag.to_vec(),
        }
    }

    /// A tag whose attributes begin at `start`.
    fn with_links(&self, tag: &str, start: usize, links: &[&str]) -> String {
        let mut out = tag[..start].to_string();
        let mut rest = &tag[start..];
        while let Some(equals) = rest.find('=') {
            let before = &rest[..equals];
            let name = before.trim_end().rsplit(|next: char| next.is_whitespace() || next == '/').next();
            let is_link = name.is_some_and(|name| links.iter().any(|link| link.eq_ignore_ascii_case(name)));
            let value = rest[equals + 1..].trim_start();
            out.push_str(&rest[..rest.len() - value.len()]);
            let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
            let (value, after) = match quote {
                Some(quote) => {
                    out.push(quote);
                    let value = &value[1..];
                    value.split_at(value.find(quote).unwrap_or(value.len()))
                }
                None => {
                    let is_end = |next: char| next.is_whitespace() || next == '>';
                    value.split_at(value.find(is_end).unwrap_or(value.len()))
                }
            };
            out.push_str(&if is_link { self.place.address(value) } else { value.to_string() });
            rest = after;
            if let Some(quote) = quote
                && let Some(after) = rest.strip_prefix(quote)
            {
                out.push(quote);
                rest = after;
            }
        }
        out.push_str(rest);
        out
    }
}

/// Where a tag that begins here ends, behind its `>`: one in quotes ends nothing.
fn end_of_tag(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"<!--") {
        return text.windows(3).position(|window| window == b"-->").map(|found| found + 3);
    }
    let mut quote = None;
    for (index, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(index + 1),
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { backend: "10.244.0.2:80".into(), asked: "api:6443".into(), prefix: "/api/v1/x/proxy".into() }
    }

    #[test]
    fn addresses_of_the_server_behind_lead_through_the_proxy() {
        for (address, expected) in [
            ("/a/b?c", "/api/v1/x/proxy/a/b?c"),
            ("http://10.244.0.2:80/a/", "/api/v1/x/proxy/a/"),
            ("https://api:6443/a", "https://api:6443/api/v1/x/proxy/a"),
            ("//10.244.0.2:80/a", "/api/v1/x/proxy/a"),
            ("/api/v1/x/proxy/a", "/api/v1/x/proxy/a"),
            ("http://elsewhere/a", "http://elsewhere/a"),
            ("a/b", "a/b"),
            ("#part", "#part"),
            ("mailto:ann@example.com", "mailto:ann@example.com"),
        ] {
            assert_eq!(place().address(address), expected);
        }
    }

    const PAGE: &str = concat!(
        "<!doctype html><html><!-- <a href=\"/no\"> --><head><link rel=x href='/style.css'/></head>",
        "<body title=\"a > b\"><a class=\"/b\" href = \"/c\">1 < 2</a><a href=/d>d</a>",
        "<script>if (a < b) { '<a href=\"/no\">' }</script><img src=\"/e\"></body>"
    );
    const SEEN: &str = concat!(
        "<!doctype html><html><!-- <a href=\"/no\"> --><head><link rel=x href='/api/v1/x/proxy/style.css'/></head>",
        "<body title=\"a > b\"><a class=\"/b\" href = \"/api/v1/x/proxy/c\">1 < 2</a><a href=/api/v1/x/proxy/d>d</a>",
        "<script>if (a < b) { '<a href=\"/no\">' }</script><img src=\"/api/v1/x/proxy/e\"></body>"
    );

    #[test]
    fn links_are_rewritten_wherever_the_pieces_end() {
        for size in [1, 2, 7, 64, PAGE.len()] {
            let mut links = Links::new(place());
            let mut seen: Vec<u8> =
                PAGE.as_bytes().chunks(size).flat_map(|piece| links.push(piece)).collect();
            seen.extend(links.finish());
            assert_eq!(String::from_utf8(seen).unwrap(), SEEN, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_html_passes_as_it_is() {
        let mut links = Links::new(place());
        let long = vec![b'<'; LONGEST_TAG + 1];
        assert_eq!(links.push(&long), long);
        assert_eq!(links.push(b"\xff<\xfe>"), b"\xff<\xfe>");
    }

    #[test]
    fn the_prefix_is_what_stands_before_the_rest() {
        let uri: Uri = "/api/v1/namespaces/a/pods/b:80/proxy/c/d?e=f".parse().unwrap();
        let place = Place::new(&uri, "/c/d?e=f", &HeaderMap::new(), "1.2.3.4:80".into());
        assert_eq!(place.prefix, "/api/v1/namespaces/a/pods/b:80/proxy");
        let mut headers = HeaderMap::new();
        place.announce("/c/d?e=f", &mut headers);
        assert_eq!(headers["x-forwarded-uri"], "/api/v1/namespaces/a/pods/b:80/proxy/c/d");
        let root = to_its_root(&"/api/v1/nodes/a/proxy?x=y".parse().unwrap()).unwrap();
        assert_eq!(root.headers()[header::LOCATION], "/api/v1/nodes/a/proxy/?x=y");
        assert!(to_its_root(&uri).is_none());
    }
}
