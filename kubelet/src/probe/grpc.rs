//! The gRPC health protocol, `grpc.health.v1.Health/Check`: one call with one short message each way, so the
//! messages are written and read by hand.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::Answer;
use super::check::dial_error;

const SERVING: u64 = 1;
/// What a container may make the kubelet hold in memory; the message itself has two bytes.
const LONGEST_ANSWER: usize = 10 << 10;

/// Asks for the health of a service; the empty name asks for the whole server.
pub(super) async fn check(address: SocketAddr, service: &str, timeout: Duration) -> Answer {
    match tokio::time::timeout(timeout, status(address, service)).await {
        Ok(Ok(SERVING)) => Answer::Success,
        Ok(Ok(status)) => {
            let name = if status == 2 { "NOT_SERVING" } else { "UNKNOWN" };
            Answer::Failure(format!("service unhealthy (responded with \"{name}\")"))
        }
        Ok(Err(error)) => Answer::Failure(error),
        Err(_) => {
            Answer::Failure(format!("timeout: failed to connect service \"{address}\" within {timeout:?}"))
        }
    }
}

async fn status(address: SocketAddr, service: &str) -> Result<u64, String> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| dial_error(&address.ip().to_string(), address.port(), &error))?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.37")
        .body(Full::new(Bytes::from(framed(&request_message(service)))))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let in_headers = answer.headers().get("grpc-status").cloned();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| error.to_string())?;
        let code =
            in_headers.or_else(|| body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()));
        match code.as_ref().and_then(|code| code.to_str().ok()) {
            Some("0") | None => Ok(serving_status(&body.to_bytes())),
            Some(code) => Err(format!("error: health rpc failed with code {code}")),
        }
    };
    let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended.map_err(|error| error.to_string())?;
            // The last thing before its end may have been the answer.
            exchange.await
        }
    }
}

/// Field 1, length-delimited: the name of the service.
fn request_message(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        put_varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    message
}

/// gRPC's frame: not compressed, length, message.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// Field 1, varint, of the message in the frame: the status; 0 where it is absent.
fn serving_status(frame: &[u8]) -> u64 {
    match frame.get(5..) {
        Some([0x08, value @ ..]) => value
            .iter()
            .enumerate()
            .take(9)
            .scan(true, |goes_on, (index, byte)| {
                let counts = std::mem::replace(goes_on, byte & 0x80 != 0);
                counts.then(|| u64::from(byte & 0x7f) << (7 * index))
            })
            .sum(),
        _ => 0,
    }
}

fn put_varint(mut value: u64, message: &mut Vec<u8>) {
    while value >= 0x80 {
        message.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_as_grpc_wants_them() {
        assert_eq!(framed(&request_message("")), [0, 0, 0, 0, 0]);
        assert_eq!(framed(&request_message("db")), [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        assert_eq!(request_message(&"x".repeat(200))[..3], [0x0a, 0xc8, 0x01]);
        assert_eq!(serving_status(&framed(&[0x08, 1])), SERVING);
        assert_eq!(serving_status(&framed(&[0x08, 0x82, 0x01])), 130);
        assert_eq!(serving_status(&framed(&[])), 0);
    }
}
