//! The real kubectl, with a server that knows one pod and leads its sessions to ours.

use std::process::{Output, Stdio};

use tokio::{
    io::copy_bidirectional,
    net::TcpListener,
    process::{Child, Command},
};

use super::*;

/// None where there is no kubectl, which is said aloud.
async fn api_server(server: Arc<Server>) -> Option<SocketAddr> {
    if std::process::Command::new("kubectl").arg("help").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: kubectl is not installed");
        return None;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve_api(stream, server.clone()));
        }
    });
    Some(address)
}

async fn serve_api(mut client: TcpStream, server: Arc<Server>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = client.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let (method_and_path, rest) = head.split_once(" HTTP/1.1").unwrap();
        let (method, path) = method_and_path.split_once(' ').unwrap();
        let query = path.split_once('?').map_or("", |(_, query)| query);
        let url = if path.contains("/exec?") {
            let command: Vec<String> =
                query.split('&').filter_map(|part| part.strip_prefix("command=")).map(Into::into).collect();
            let asked = |name: &str| query.contains(&format!("{name}=true"));
            let (stdin, tty) = (asked("stdin"), asked("tty"));
            let request = ExecRequest { command, stdin, stderr: asked("stderr"), ..exec("", tty) };
            server.exec(request).unwrap()
        } else if path.contains("/portforward") {
            server.port_forward(PortForwardRequest { sandbox_id: "box".into(), ports: Vec::new() }).unwrap()
        } else {
            let body = answer(path).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            client.write_all((head + &body).as_bytes()).await.unwrap();
            continue;
        };
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut upstream = TcpStream::connect(address).await.unwrap();
        upstream.write_all(format!("{method} /{path} HTTP/1.1{rest}").as_bytes()).await.unwrap();
        copy_bidirectional(&mut client, &mut upstream).await.ok();
        return;
    }
}

fn answer(path: &str) -> Value {
    match path.split('?').next().unwrap() {
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        "/version" => json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0"}),
        "/api/v1" => json!({
            "kind": "APIResourceList", "groupVersion": "v1",
            "resources": [{"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get"]}],
        }),
        _ => json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"containers": [{"name": "web", "image": "web"}]}, "status": {"phase": "Running"},
        }),
    }
}

fn kubectl(server: SocketAddr, websocket: bool, arguments: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    for protocol in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
        command.env(protocol, websocket.to_string());
    }
    command
        .arg(format!("--server=http://{server}"))
        .args(["--kubeconfig=/dev/null", "--cache-dir=/nonexistent"]);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn runs_commands() {
    let (server, _ended, _stop) = server().await;
    let Some(api) = api_server(Arc::new(server)).await else { return };
    for websocket in [true, false] {
        let ran = run(kubectl(api, websocket, &["exec", "-i", "web", "--", "cat"]), b"hello").await;
        assert_eq!((ran.status.code(), &ran.stdout[..]), (Some(0), &b"hello"[..]), "{ran:?}");
        let ran = run(kubectl(api, websocket, &["exec", "web", "--", "complain"]), b"").await;
        assert_eq!((ran.status.code(), &ran.stdout[..]), (Some(3), &b"fine"[..]), "{ran:?}");
        assert!(ran.stderr.starts_with(b"not fine"), "{ran:?}");
        let ran = run(kubectl(api, websocket, &["exec", "web", "--", "flood"]), b"").await;
        assert!(ran.status.success() && ran.stdout == flood());
    }
}

#[tokio::test]
async fn forwards_ports() {
    let (server, _ended, _stop) = server().await;
    let Some(api) = api_server(Arc::new(server)).await else { return };
    for websocket in [true, false] {
        let mut child: Child = kubectl(api, websocket, &["port-forward", "pod/web", ":7"]).spawn().unwrap();
        let mut line = Vec::new();
        let stdout = child.stdout.as_mut().unwrap();
        while !line.ends_with(b"\n") {
            line.push(timeout(PATIENCE, stdout.read_u8()).await.unwrap().unwrap());
        }
        let line = String::from_utf8(line).unwrap();
        let address = line.strip_prefix("Forwarding from ").unwrap().split(' ').next().unwrap();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert_eq!(answer, "hello and goodbye");
        }
        child.kill().await.unwrap();
    }
}
