//! Watches and logs over WebSocket: each line of a watch is a message, and each piece of a log as it comes.
//!
//! Browsers cannot read a stream as it comes. What such a client sends is not asked for, but for the frames
//! that keep the connection alive and end it.

use std::sync::Arc;
use std::time::Duration;

use api::Status;
use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Mutex,
    time::timeout,
};

use crate::registry::Registry;

/// What the protocol hashes a client's key with.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longer frames nobody has a reason to send.
const LONGEST: u64 = 4096;
/// How long a client may take to read the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// In which form a log can be had.
const LOG_PROTOCOLS: [&str; 2] = ["binary.k8s.io", BASE64_PROTOCOL];
const BASE64_PROTOCOL: &str = "base64.binary.k8s.io";

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Whether the client wants to go on with WebSocket.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let has = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

/// How the pieces of a stream become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Messages {
    Text,
    Binary,
    Base64,
}

/// A watch's stream of lines, carried on as messages of the connection that the request came on.
pub(super) fn watch(
    registry: &Arc<Registry>,
    headers: &HeaderMap,
    upgrade: OnUpgrade,
    stream: Response<Body>,
) -> Result<Response<Body>, Status> {
    let is_text = stream.headers().get(header::CONTENT_TYPE).is_some_and(|sort| sort == "application/json");
    let messages = if is_text { Messages::Text } else { Messages::Binary };
    let sole = |protocol: &&HeaderValue| !protocol.as_bytes().contains(&b',');
    let protocol = headers.get(header::SEC_WEBSOCKET_PROTOCOL).filter(sole).cloned();
    carried(registry, headers, upgrade, messages, protocol, stream.into_body())
}

/// What a container writes, carried on the same way: as bytes or as base64, whichever protocol the client offers first.
/// The first message is empty, as upstream's.
pub(super) fn log(
    registry: &Arc<Registry>,
    headers: &HeaderMap,
    upgrade: OnUpgrade,
    log: Response<Body>,
) -> Result<Response<Body>, Status> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&str> = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let (messages, protocol) = log_protocol(&offered).ok_or_else(|| {
        let message =
            format!("requested protocol(s) are not supported: {offered:?}; supports {LOG_PROTOCOLS:?}");
        Status::new(403, "Forbidden", message)
    })?;
    let greeting = stream::once(future::ready(Ok(Bytes::new())));
    let body = Body::from_stream(greeting.chain(log.into_body().into_data_stream()));
    carried(registry, headers, upgrade, messages, protocol.map(HeaderValue::from_static), body)
}

fn log_protocol(offered: &[&str]) -> Option<(Messages, Option<&'static str>)> {
    if offered.is_empty() {
        return Some((Messages::Binary, None));
    }
    let known = |offer: &&str| LOG_PROTOCOLS.into_iter().find(|protocol| protocol == offer);
    let protocol = offered.iter().find_map(known)?;
    let messages = if protocol == BASE64_PROTOCOL { Messages::Base64 } else { Messages::Binary };
    Some((messages, Some(protocol)))
}

fn carried(
    registry: &Arc<Registry>,
    headers: &HeaderMap,
    upgrade: OnUpgrade,
    messages: Messages,
    protocol: Option<HeaderValue>,
    body: Body,
) -> Result<Response<Body>, Status> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let key = key.ok_or_else(|| Status::bad_request("the request has no Sec-WebSocket-Key"))?;
    let stop = registry.stop().clone();
    registry.tasks().spawn(async move {
        match upgrade.await {
            Ok(connection) => {
                stop.run_until_cancelled(serve(TokioIo::new(connection), messages, body)).await;
            }
            Err(error) => tracing::debug!(%error, "a stream was not carried on over WebSocket"),
        }
    });
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{MAGIC}").as_bytes());
    let accept = HeaderValue::from_str(&BASE64_STANDARD.encode(accept)).map_err(Status::internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answered = response.headers_mut();
    answered.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answered.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answered.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        answered.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

/// Sends what comes and listens for the end, until either side has had enough.
async fn serve(connection: impl AsyncRead + AsyncWrite, messages: Messages, body: Body) {
    let (reader, writer) = io::split(connection);
    let writer = Mutex::new(writer);
    let ended = tokio::select! {
        sent = send(&writer, messages, body) => sent,
        heard = listen(reader, &writer) => heard,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a stream over WebSocket broke");
    }
    let mut writer = writer.into_inner();
    // 1000: everything has been said.
    let farewell = async {
        writer.write_all(&frame(CLOSE, &1000_u16.to_be_bytes())).await?;
        writer.shutdown().await
    };
    // A client that does not read has no claim to it.
    match timeout(FAREWELL, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::trace!(%error, "the client has gone before the end"),
        Err(_) => tracing::trace!("the client did not read to the end"),
    }
}

async fn send(writer: &Mutex<impl AsyncWrite + Unpin>, messages: Messages, body: Body) -> io::Result<()> {
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(io::Error::other)?;
        let (opcode, payload) = match messages {
            Messages::Text => (TEXT, piece),
            Messages::Binary => (BINARY, piece),
            Messages::Base64 => (TEXT, BASE64_STANDARD.encode(&piece).into()),
        };
        let mut writer = writer.lock().await;
        writer.write_all(&header_of(opcode, payload.len())).await?;
        writer.write_all(&payload).await?;
        writer.flush().await?;
    }
    Ok(())
}

/// Answers pings until the client closes.
async fn listen(
    mut reader: impl AsyncRead + Unpin,
    writer: &Mutex<impl AsyncWrite + Unpin>,
) -> io::Result<()> {
    loop {
        let (opcode, payload) = read_frame(&mut reader).await?;
        match opcode {
            CLOSE => return Ok(()),
            PING => {
                let mut writer = writer.lock().await;
                writer.write_all(&frame(PONG, &payload)).await?;
                writer.flush().await?;
            }
            _ => {}
        }
    }
}

async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let opcode = reader.read_u8().await? & 0x0f;
    let length = reader.read_u8().await?;
    let is_masked = length & 0x80 != 0;
    let length = match length & 0x7f {
        126 => u64::from(reader.read_u16().await?),
        127 => reader.read_u64().await?,
        short => u64::from(short),
    };
    if length > LONGEST || !is_masked {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no frame of a client"));
    }
    let mut mask = [0; 4];
    reader.read_exact(&mut mask).await?;
    let mut payload = vec![0; length as usize];
    reader.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((opcode, payload))
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header_of(opcode, payload.len());
    frame.extend_from_slice(payload);
    frame
}

fn header_of(opcode: u8, length: usize) -> Vec<u8> {
    let mut header = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => header.push(short),
        (_, Ok(medium)) => {
            header.push(126);
            header.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_short_as_they_can_be() {
        assert_eq!(header_of(TEXT, 125), [0x81, 125]);
        assert_eq!(header_of(TEXT, 126), [0x81, 126, 0, 126]);
        assert_eq!(header_of(BINARY, 70_000), [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }

    #[test]
    fn a_client_asks_for_it_with_two_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        assert!(!is_asked_for(&headers));
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(is_asked_for(&headers));
    }

    #[test]
    fn a_log_comes_in_the_first_known_form() {
        assert_eq!(log_protocol(&[]), Some((Messages::Binary, None)));
        let base64 = ["v5.channel.k8s.io", "base64.binary.k8s.io", "binary.k8s.io"];
        assert_eq!(log_protocol(&base64), Some((Messages::Base64, Some("base64.binary.k8s.io"))));
        assert_eq!(log_protocol(&["v5.channel.k8s.io"]), None);
    }

    #[tokio::test]
    async fn frames_without_a_mask_or_too_long_end_the_connection() {
        for bytes in [&[0x81, 1, b'x'][..], &[0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0]] {
            assert!(read_frame(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
        let (opcode, payload) = read_frame(&mut &[0x89, 0x81, 1, 2, 3, 4, b'x' ^ 1][..]).await.unwrap();
        assert_eq!((opcode, payload), (PING, vec![b'x']));
    }
}
