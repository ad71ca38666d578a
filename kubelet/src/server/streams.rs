//! `/exec`, `/attach` and `/portForward`: the runtime says where the stream is served, the connection is passed
//! on to there.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use tokio::net::TcpStream;

use super::{Api, Refusal};
use crate::pod::view::PodView;

type Named = Path<(String, String, String)>;
type NamedWithUid = Path<(String, String, String, String)>;

pub(super) async fn exec(
    State(api): State<Api>,
    Path((namespace, pod, container)): Named,
    request: Request,
) -> Result<Response, Refusal> {
    let container_id = running(&api, &namespace, &pod, &container).await?;
    let options = StreamOptions::parse(request.uri().query().unwrap_or_default());
    let exec = ExecRequest {
        container_id,
        cmd: options.command,
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr && !options.tty,
    };
    let response = api.context.runtime.exec(exec).await.map_err(refused)?;
    pass_on(request, &response.url).await
}

pub(super) async fn exec_by_uid(
    api: State<Api>,
    Path((namespace, pod, _, container)): NamedWithUid,
    request: Request,
) -> Result<Response, Refusal> {
    exec(api, Path((namespace, pod, container)), request).await
}

pub(super) async fn attach(
    State(api): State<Api>,
    Path((namespace, pod, container)): Named,
    request: Request,
) -> Result<Response, Refusal> {
    let container_id = running(&api, &namespace, &pod, &container).await?;
    let options = StreamOptions::parse(request.uri().query().unwrap_or_default());
    let spec = api.pod(&namespace, &pod)?;
    let tty = spec.container(&container).is_some_and(|container| container.tty == Some(true));
    let attach = AttachRequest {
        container_id,
        stdin: options.stdin,
        tty,
        stdout: options.stdout,
        stderr: options.stderr && !tty,
    };
    let response = api.context.runtime.attach(attach).await.map_err(refused)?;
    pass_on(request, &response.url).await
}

pub(super) async fn attach_by_uid(
    api: State<Api>,
    Path((namespace, pod, _, container)): NamedWithUid,
    request: Request,
) -> Result<Response, Refusal> {
    attach(api, Path((namespace, pod, container)), request).await
}

pub(super) async fn port_forward(
    State(api): State<Api>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let pod = api.pod(&namespace, &name)?;
    let observed = api.observe(&pod).await?;
    let sandbox = observed
        .sandbox()
        .filter(|sandbox| sandbox.ready)
        .ok_or_else(|| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("pod {name} is not running")))?;
    let options = StreamOptions::parse(request.uri().query().unwrap_or_default());
    let forward = PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port: options.ports };
    let response = api.context.runtime.port_forward(forward).await.map_err(refused)?;
    pass_on(request, &response.url).await
}

pub(super) async fn port_forward_by_uid(
    api: State<Api>,
    Path((namespace, name, _)): Named,
    request: Request,
) -> Result<Response, Refusal> {
    port_forward(api, Path((namespace, name)), request).await
}

async fn running(api: &Api, namespace: &str, name: &str, container: &str) -> Result<String, Refusal> {
    let pod = api.pod(namespace, name)?;
    let observed = api.observe(&pod).await?;
    let running = observed.latest(container).filter(|latest| latest.is_running());
    let found = running.map(|container| container.id.clone());
    found.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")")))
}

fn refused(error: cri::Error) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.message)
}

/// The request goes to the runtime's streaming server as it came, but for its address.
async fn pass_on(mut request: Request, url: &str) -> Result<Response, Refusal> {
    let failed = |error: &dyn std::fmt::Display| {
        Refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot reach the runtime's streaming server: {error}"),
        )
    };
    let target: Uri = url.parse().map_err(|error: axum::http::uri::InvalidUri| failed(&error))?;
    let authority = target.authority().ok_or_else(|| failed(&"its address has no host"))?.clone();
    let host = authority.as_str().parse().map_err(|error: header::InvalidHeaderValue| failed(&error))?;
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = target;
    let connect = async move { TcpStream::connect(authority.as_str()).await };
    let response = daemon::proxy::forward(request, connect).await.map_err(|error| failed(&error))?;
    Ok(response.map(Body::new).into_response())
}

/// What a stream carries, in the API server's words or in `kubectl`'s.
#[derive(Debug, Default, PartialEq)]
struct StreamOptions {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    ports: Vec<i32>,
}

impl StreamOptions {
    fn parse(query: &str) -> StreamOptions {
        let mut options = StreamOptions::default();
        for (name, value) in query_pairs(query) {
            let is_set = matches!(value.as_str(), "1" | "true");
            match name.as_str() {
                "command" => options.command.push(value),
                "input" | "stdin" => options.stdin |= is_set,
                "output" | "stdout" => options.stdout |= is_set,
                "error" | "stderr" => options.stderr |= is_set,
                "tty" => options.tty |= is_set,
                "port" | "ports" => {
                    options.ports.extend(value.split(',').filter_map(|port| port.parse::<i32>().ok()))
                }
                _ => {}
            }
        }
        options
    }
}

/// Names and values of a query, in order: `command` may come many times.
fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

fn decode(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        rest = tail;
        match (code.and_then(|digits| u8::from_str_radix(digits, 16).ok()), first) {
            (Some(byte), _) => {
                plain.push(byte);
                rest = &tail[2..];
            }
            (None, b'+') => plain.push(b' '),
            (None, byte) => plain.push(*byte),
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_says_what_runs_and_what_flows() {
        let options =
            StreamOptions::parse("command=sh&command=-c&command=echo+a%26b%20%C3%A9&input=1&output=1&tty=1");
        let expected = StreamOptions {
            command: vec!["sh".into(), "-c".into(), "echo a&b é".into()],
            stdin: true,
            stdout: true,
            tty: true,
            ..StreamOptions::default()
        };
        assert_eq!(options, expected);
        assert_eq!(StreamOptions::parse("port=80,81&port=82&stdin=false").ports, [80, 81, 82]);
    }
}
