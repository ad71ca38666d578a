//! Gets one answer from a container.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cri::v1::ExecSyncRequest;
use cri::{Code, RuntimeService};
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::{grpc, http};
use crate::pod::backoff::go_duration;

/// How much of a command's output becomes part of an event.
const LONGEST_OUTPUT: usize = 10 * 1024;

/// What a container answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Yes.
    Success,
    /// Yes, with something to tell.
    Warning(String),
    /// No, and why.
    Failure(String),
    /// It could not be asked.
    Unknown(String),
}

/// Where a container is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// For commands.
    pub container_id: String,
    /// For everything that goes over the network.
    pub pod_ip: Option<IpAddr>,
}

/// Asks once.
pub async fn ask(
    runtime: &dyn RuntimeService,
    probe: &Probe,
    container: &Container,
    target: &Target,
    timeout: Duration,
) -> Answer {
    if let Some(action) = &probe.exec {
        return exec(runtime, action, &target.container_id, timeout).await;
    }
    let Some(pod_ip) = target.pod_ip else { return Answer::Unknown("the pod has no address yet".into()) };
    if let Some(action) = &probe.http_get {
        return http_get(action, container, pod_ip, timeout).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|host| !host.is_empty());
        return match port_number(&action.port, container) {
            Some(port) => tcp(host, pod_ip, port, timeout).await,
            None => unknown_port(&action.port),
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else { return Answer::Unknown("invalid port".into()) };
        return grpc::check((pod_ip, port).into(), action.service.as_deref().unwrap_or_default(), timeout)
            .await;
    }
    Answer::Unknown("missing probe handler".into())
}

/// Runs a command in the container; its exit code is the answer.
pub async fn exec(
    runtime: &dyn RuntimeService,
    action: &ExecAction,
    container_id: &str,
    timeout: Duration,
) -> Answer {
    let command = action.command.clone().unwrap_or_default();
    let request = ExecSyncRequest {
        container_id: container_id.to_string(),
        cmd: command.clone(),
        timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
    };
    match runtime.exec_sync(request).await {
        Ok(response) if response.exit_code == 0 => Answer::Success,
        Ok(response) => {
            let mut output = String::from_utf8_lossy(&response.stdout).into_owned();
            output.push_str(&String::from_utf8_lossy(&response.stderr));
            output.truncate(output.floor_char_boundary(LONGEST_OUTPUT));
            Answer::Failure(output)
        }
        Err(error) if error.code == Code::DeadlineExceeded => {
            let command = command.join(" ");
            Answer::Failure(format!(
                "command timed out: \"{command}\" timed out after {}",
                go_duration(timeout)
            ))
        }
        Err(error) => Answer::Unknown(error.message),
    }
}

/// Makes a GET request and follows where the host leads within itself; any status from 200 to 399 is a yes.
pub async fn http_get(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: IpAddr,
    timeout: Duration,
) -> Answer {
    let Some(port) = port_number(&action.port, container) else { return unknown_port(&action.port) };
    let host = action.host.as_deref().filter(|host| !host.is_empty());
    let request = http::Get {
        host: host.map_or_else(|| pod_ip.to_string(), str::to_string),
        port,
        path: action.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_string()),
        is_https: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("HTTPS")),
        headers: action
            .http_headers
            .iter()
            .flatten()
            .map(|header| (header.name.as_str(), header.value.as_str()))
            .collect(),
    };
    let url = request.url();
    match tokio::time::timeout(timeout, http::follow(request)).await {
        Ok(Ok(http::Reply { leads_away: true, .. })) => {
            Answer::Warning("Probe terminated redirects".to_string())
        }
        Ok(Ok(http::Reply { status, .. })) if (200..400).contains(&status) => Answer::Success,
        Ok(Ok(http::Reply { status, .. })) => {
            Answer::Failure(format!("HTTP probe failed with statuscode: {status}"))
        }
        Ok(Err(error)) => Answer::Failure(format!("Get \"{url}\": {error}")),
        Err(_) => Answer::Failure(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn tcp(host: Option<&str>, pod_ip: IpAddr, port: u16, timeout: Duration) -> Answer {
    let host = host.map_or_else(|| pod_ip.to_string(), str::to_string);
    match tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => Answer::Success,
        Ok(Err(error)) => Answer::Failure(dial_error(&host, port, &error)),
        Err(_) => Answer::Failure(format!("dial tcp {}: i/o timeout", authority(&host, port))),
    }
}

/// A failed connection in Go's words, which upstream's events carry.
pub(super) fn dial_error(host: &str, port: u16, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_string(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_string(),
        io::ErrorKind::TimedOut => "i/o timeout".to_string(),
        _ => error.to_string(),
    };
    format!("dial tcp {}: {cause}", authority(host, port))
}

/// `host:port`, with brackets where the host has colons.
pub(super) fn authority(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

/// A port given as a number or as the name of one of the container's ports.
pub fn port_number(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

fn unknown_port(port: &IntOrString) -> Answer {
    let text = match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    Answer::Unknown(format!("couldn't find port: {text}"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ContainerPort;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn get(port: u16, path: &str) -> HTTPGetAction {
        HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(port.into()),
            ..HTTPGetAction::default()
        }
    }

    /// A server that answers every request with one status line.
    async fn server(status: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                assert!(String::from_utf8_lossy(&request[..length]).contains("user-agent: kube-probe/"));
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    async fn asked(port: u16) -> Answer {
        let local = IpAddr::from([127, 0, 0, 1]);
        http_get(&get(port, "/ready"), &Container::default(), local, Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn the_status_code_is_the_answer() {
        assert_eq!(asked(server("204 No Content").await).await, Answer::Success);
        assert_eq!(asked(server("302 Found").await).await, Answer::Success);
        let failed = asked(server("503 Service Unavailable").await).await;
        assert_eq!(failed, Answer::Failure("HTTP probe failed with statuscode: 503".into()));
    }

    #[tokio::test]
    async fn a_closed_port_is_named_as_go_names_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        let expected = Answer::Failure(format!("Get \"http://127.0.0.1:{port}/ready\": {refused}"));
        assert_eq!(asked(port).await, expected);
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(tcp(None, local, port, Duration::from_secs(5)).await, Answer::Failure(refused));
    }

    #[test]
    fn ports_have_numbers_and_names() {
        let port =
            ContainerPort { name: Some("web".into()), container_port: 8080, ..ContainerPort::default() };
        let container = Container { ports: Some(vec![port]), ..Container::default() };
        let number = |port: IntOrString| port_number(&port, &container);
        assert_eq!(number(IntOrString::Int(80)), Some(80));
        assert_eq!(number(IntOrString::String("web".into())), Some(8080));
        assert_eq!(number(IntOrString::String("81".into())), Some(81));
        assert_eq!(number(IntOrString::String("none".into())), None);
    }

    /// A server that leads from /ready to `location`, and says no to everything else.
    async fn redirecting(location: impl Fn(u16) -> String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let location = location(port);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                let answer = match &request[..length] {
                    request if request.starts_with(b"GET /ready ") => {
                        format!("302 Found\r\nlocation: {location}")
                    }
                    request if request.starts_with(b"GET /there?now ") => "200 OK".to_string(),
                    _ => "500 Internal Server Error".to_string(),
                };
                let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn redirects_are_followed_within_the_host() {
        assert_eq!(asked(redirecting(|_| "/there?now".into()).await).await, Answer::Success);
        let absolute = redirecting(|port| format!("http://127.0.0.1:{port}/there?now")).await;
        assert_eq!(asked(absolute).await, Answer::Success);
        let failed = Answer::Failure("HTTP probe failed with statuscode: 500".into());
        assert_eq!(asked(redirecting(|_| "elsewhere".into()).await).await, failed);
        let away = redirecting(|_| "http://192.0.2.1/there?now".into()).await;
        assert_eq!(asked(away).await, Answer::Warning("Probe terminated redirects".into()));
        let Answer::Failure(endless) = asked(redirecting(|_| "/ready".into()).await).await else { panic!() };
        assert!(endless.ends_with("stopped after 10 redirects"), "{endless}");
    }
}
