//! Which protocol a client and this server have in common, from the client's request alone.

use http::{HeaderMap, Request, Response, StatusCode, header};

use super::{
    session::Version,
    websocket::{Encoding, accept_key},
};

/// What a URL is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Exec or attach.
    Session,
    PortForward,
}

/// How the two will talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    pub transport: Transport,
    pub version: Version,
    /// How the messages of a WebSocket are to be read.
    pub encoding: Encoding,
    /// What the client calls the protocol; empty if it has not named any.
    name: String,
    /// The proof for a WebSocket client.
    accept: Option<String>,
}

/// What carries the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Spdy,
    WebSocket,
    /// SPDY in the messages of a WebSocket.
    SpdyInWebSocket,
}

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const ACCEPTED_STREAM_PROTOCOLS: &str = "x-accepted-stream-protocol-versions";

/// The protocols for each kind over SPDY, with their versions.
fn spdy_protocols(kind: Kind) -> &'static [(&'static str, u8)] {
    match kind {
        Kind::Session => &[
            ("v4.channel.k8s.io", 4),
            ("v3.channel.k8s.io", 3),
            ("v2.channel.k8s.io", 2),
            // Upstream's name for version 1; it has none.
            ("channel.k8s.io", 1),
            ("", 1),
        ],
        Kind::PortForward => &[("portforward.k8s.io", 1)],
    }
}

fn websocket_protocols(kind: Kind) -> &'static [(&'static str, u8, Transport)] {
    match kind {
        Kind::Session => &[
            ("v5.channel.k8s.io", 5, Transport::WebSocket),
            ("v4.channel.k8s.io", 4, Transport::WebSocket),
            ("v4.base64.channel.k8s.io", 4, Transport::WebSocket),
            ("channel.k8s.io", 1, Transport::WebSocket),
            ("base64.channel.k8s.io", 1, Transport::WebSocket),
            ("", 1, Transport::WebSocket),
        ],
        Kind::PortForward => &[
            ("SPDY/3.1+portforward.k8s.io", 1, Transport::SpdyInWebSocket),
            // Before SPDY was carried in messages: two channels for each port that was asked for.
            ("v4.channel.k8s.io", 4, Transport::WebSocket),
            ("v4.base64.channel.k8s.io", 4, Transport::WebSocket),
            ("", 4, Transport::WebSocket),
        ],
    }
}

/// Finds what both speak, or the answer for a client with which there is nothing.
pub(super) fn agree<B>(request: &Request<B>, kind: Kind) -> Result<Agreement, Box<Response<String>>> {
    let headers = request.headers();
    let upgrades = values(headers, "connection").any(|value| value.eq_ignore_ascii_case("upgrade"));
    let asks_for =
        |protocol: &str| values(headers, "upgrade").any(|value| value.eq_ignore_ascii_case(protocol));
    if upgrades && asks_for("websocket") {
        agree_on_websocket(headers, kind)
    } else if upgrades && asks_for(SPDY) {
        agree_on_spdy(headers, kind)
    } else {
        Err(refusal(
            StatusCode::BAD_REQUEST,
            format!("unable to upgrade: ask for {SPDY} or websocket in the headers Connection and Upgrade"),
        ))
    }
}

fn agree_on_spdy(headers: &HeaderMap, kind: Kind) -> Result<Agreement, Box<Response<String>>> {
    let known = spdy_protocols(kind);
    let mut offered = values(headers, STREAM_PROTOCOL).peekable();
    if offered.peek().is_none() {
        let message = format!("unable to upgrade: {STREAM_PROTOCOL} is required");
        return Err(refusal(StatusCode::BAD_REQUEST, message));
    }
    let chosen = offered.find_map(|offered| known.iter().find(|(name, _)| *name == offered));
    let Some((name, version)) = chosen else {
        let message = "unable to upgrade: unable to negotiate protocol: no common protocol version";
        let mut refusal = refusal(StatusCode::FORBIDDEN, message.to_owned());
        for (name, _) in known.iter().filter(|(name, _)| !name.is_empty()) {
            refusal.headers_mut().append(ACCEPTED_STREAM_PROTOCOLS, header::HeaderValue::from_static(name));
        }
        return Err(refusal);
    };
    let (transport, name) = (Transport::Spdy, name.to_string());
    Ok(Agreement { transport, version: Version(*version), encoding: Encoding::Binary, name, accept: None })
}

fn agree_on_websocket(headers: &HeaderMap, kind: Kind) -> Result<Agreement, Box<Response<String>>> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let is_current = headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let Some(key) = key.filter(|_| is_current) else {
        let message = "unable to upgrade: this is not a WebSocket handshake of version 13".to_owned();
        return Err(refusal(StatusCode::BAD_REQUEST, message));
    };
    let known = websocket_protocols(kind);
    let mut offered = values(headers, "sec-websocket-protocol").peekable();
    let chosen = if offered.peek().is_none() {
        known.iter().find(|(name, ..)| name.is_empty())
    } else {
        offered.find_map(|offered| known.iter().find(|(name, ..)| *name == offered))
    };
    let Some((name, version, transport)) = chosen else {
        let names: Vec<_> = known.iter().map(|(name, ..)| *name).filter(|name| !name.is_empty()).collect();
        let message =
            format!("unable to upgrade: no common protocol, this server speaks {}", names.join(", "));
        return Err(refusal(StatusCode::BAD_REQUEST, message));
    };
    let (transport, version, name) = (*transport, Version(*version), name.to_string());
    let encoding = if name.contains("base64") { Encoding::Base64 } else { Encoding::Binary };
    Ok(Agreement { transport, version, encoding, name, accept: Some(accept_key(key)) })
}

impl Agreement {
    /// The answer after which the connection is ours.
    pub fn response(&self) -> Response<String> {
        let response =
            Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(header::CONNECTION, "Upgrade");
        let response = match &self.accept {
            None => response.header(header::UPGRADE, SPDY).header(STREAM_PROTOCOL, &self.name),
            Some(accept) => {
                let response = response
                    .header(header::UPGRADE, "websocket")
                    .header(header::SEC_WEBSOCKET_ACCEPT, accept);
                if self.name.is_empty() {
                    response
                } else {
                    response.header(header::SEC_WEBSOCKET_PROTOCOL, &self.name)
                }
            }
        };
        response.body(String::new()).expect("the parts are valid")
    }
}

/// The values of a header that may be repeated, and may have several in one line.
fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// An answer without an upgrade.
pub(super) fn refusal(status: StatusCode, message: String) -> Box<Response<String>> {
    let mut response = Response::new(message);
    *response.status_mut() = status;
    Box::new(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let builder =
            headers.iter().fold(Request::builder(), |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap()
    }

    fn spdy(protocols: &[&str]) -> Request<()> {
        let mut headers = vec![("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
        headers.extend(protocols.iter().map(|protocol| ("X-Stream-Protocol-Version", *protocol)));
        request(&headers)
    }

    fn websocket(protocols: &str) -> Request<()> {
        request(&[
            ("connection", "keep-alive, upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocols),
        ])
    }

    #[test]
    fn the_first_protocol_that_both_know_is_taken() {
        let agreed =
            agree(&spdy(&["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]), Kind::Session)
                .unwrap();
        assert_eq!((agreed.transport, agreed.version), (Transport::Spdy, Version(4)));
        assert_eq!(agreed.response().headers()[STREAM_PROTOCOL], "v4.channel.k8s.io");
        let agreed = agree(&websocket("v5.channel.k8s.io, v4.channel.k8s.io"), Kind::Session).unwrap();
        assert_eq!((agreed.transport, agreed.version), (Transport::WebSocket, Version(5)));
        assert_eq!(agreed.response().headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let agreed = agree(&websocket("SPDY/3.1+portforward.k8s.io"), Kind::PortForward).unwrap();
        assert_eq!(agreed.transport, Transport::SpdyInWebSocket);
        agree(&spdy(&["portforward.k8s.io"]), Kind::PortForward).unwrap();
    }

    #[test]
    fn without_a_common_protocol_the_answer_says_what_there_is() {
        let refused = agree(&spdy(&["v9.channel.k8s.io"]), Kind::Session).unwrap_err();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(refused.headers()[ACCEPTED_STREAM_PROTOCOLS], "v4.channel.k8s.io");
        for request in [spdy(&[]), request(&[]), request(&[("Connection", "Upgrade"), ("Upgrade", "h2c")])] {
            assert_eq!(agree(&request, Kind::Session).unwrap_err().status(), StatusCode::BAD_REQUEST);
        }
        assert_eq!(agree(&websocket("v9"), Kind::Session).unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
