//! A client of each protocol against a backend that does what the command says.

mod kubectl;

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    spdy::{self, Compressor, Decompressor, Frame},
    websocket::{self, Encoding, Opcode, decode_any, encode_masked},
    *,
};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the commands of these tests.
struct Fake {
    /// Told when a command that would run forever has been ended.
    ended: mpsc::Sender<()>,
}

#[async_trait]
impl Backend for Fake {
    async fn exec(
        &self,
        container_id: &str,
        command: &[String],
        tty: bool,
        streams: Streams,
    ) -> Result<i32, BackendError> {
        let Streams { stdin, stdout, stderr, mut resize } = streams;
        match command[0].as_str() {
            "cat" => {
                tokio::io::copy(&mut stdin.unwrap(), &mut stdout.unwrap()).await.unwrap();
                Ok(0)
            }
            "line" => {
                let mut typed = [0; 5];
                stdin.unwrap().read_exact(&mut typed).await.unwrap();
                stdout.unwrap().write_all(&typed).await.unwrap();
                Ok(0)
            }
            "complain" => {
                stdout.unwrap().write_all(b"fine").await.unwrap();
                stderr.unwrap().write_all(b"not fine").await.unwrap();
                Ok(3)
            }
            "flood" => {
                stdout.unwrap().write_all(&flood()).await.unwrap();
                Ok(0)
            }
            "size" => {
                assert!(tty && stderr.is_none());
                let size = resize.recv().await.unwrap();
                let text = format!("{}x{}", size.width, size.height);
                stdout.unwrap().write_all(text.as_bytes()).await.unwrap();
                Ok(0)
            }
            "forever" => {
                struct Told(mpsc::Sender<()>);
                impl Drop for Told {
                    fn drop(&mut self) {
                        self.0.try_send(()).unwrap();
                    }
                }
                let _told = Told(self.ended.clone());
                stdout.unwrap().write_all(b"started").await.unwrap();
                std::future::pending().await
            }
            _ => Err(BackendError::NotRunning { what: format!("container {container_id}") }),
        }
    }

    async fn attach(&self, _: &str, _: bool, streams: Streams) -> Result<(), BackendError> {
        streams.stdout.unwrap().write_all(b"attached").await.unwrap();
        Ok(())
    }

    async fn port_forward(&self, _: &str, port: u16) -> Result<Box<dyn Connection>, BackendError> {
        if port == 9 {
            // Never reads; the other end is kept for ever.
            let (ours, theirs) = tokio::io::duplex(1);
            std::mem::forget(ours);
            return Ok(Box::new(theirs));
        }
        if port != 7 {
            let source = io::Error::from(io::ErrorKind::ConnectionRefused).into();
            return Err(BackendError::Failed { what: format!("connect to port {port}"), source });
        }
        let (ours, theirs) = tokio::io::duplex(1000);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(ours);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.write_all(b" and goodbye").await.unwrap();
            write.shutdown().await.unwrap();
        });
        Ok(Box::new(theirs))
    }
}

/// More than fits in all the buffers on the way.
fn flood() -> Vec<u8> {
    (0..3_000_000u32).map(|number| number as u8).collect()
}

async fn server() -> (Server, mpsc::Receiver<()>, CancellationToken) {
    let (sender, ended) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let address = ([127, 0, 0, 1], 0).into();
    let server = Server::start(address, Arc::new(Fake { ended: sender }), stop.clone()).await.unwrap();
    (server, ended, stop)
}

fn exec(command: &str, tty: bool) -> ExecRequest {
    ExecRequest {
        container_id: "42".into(),
        command: vec![command.into()],
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    }
}

/// Upgrades a connection and returns it with the head of the answer.
async fn connect(url: &str, headers: &str) -> (TcpStream, String) {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("POST /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

const SPDY_V4: &str = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: channel.k8s.io\r\n";
const SPDY_V1: &str = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: channel.k8s.io\r\n";
const SPDY_PORTS: &str = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n";

fn websocket_headers(protocol: &str) -> String {
    format!(
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n"
    )
}

/// What a client has received by the time that the server has hung up, by stream.
type Received = HashMap<String, Vec<u8>>;

/// A client with named streams.
enum Client<IO> {
    Spdy(Box<SpdyClient<IO>>),
    WebSocket(WebSocketClient<IO>),
}

struct SpdyClient<IO> {
    io: IO,
    buffer: BytesMut,
    compressor: Compressor,
    decompressor: Decompressor,
    names: HashMap<u32, String>,
    next: u32,
}

struct WebSocketClient<IO> {
    io: IO,
    buffer: BytesMut,
}

const CHANNELS: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];

impl<IO: AsyncRead + AsyncWrite + Unpin> SpdyClient<IO> {
    fn new(io: IO) -> SpdyClient<IO> {
        let (compressor, decompressor) = (Compressor::new(), Decompressor::new());
        SpdyClient { io, buffer: BytesMut::new(), compressor, decompressor, names: HashMap::new(), next: 1 }
    }

    async fn send(&mut self, frame: Frame) {
        self.io.write_all(&frame.encode()).await.unwrap();
    }

    async fn open(&mut self, name: &str, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.names.insert(stream, name.to_owned());
        let headers = headers.iter().map(|(name, value)| (name.to_lowercase(), value.to_string())).collect();
        let headers = self.compressor.compress(&headers);
        self.send(Frame::SynStream { stream, associated: 0, priority: 0, fin: false, headers }).await;
        stream
    }

    fn id(&self, name: &str) -> u32 {
        *self.names.iter().find(|(_, found)| *found == name).unwrap().0
    }

    async fn receive_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = spdy::decode(&mut self.buffer).unwrap() {
                if let Frame::SynReply { headers, .. } = &frame {
                    self.decompressor.decompress(headers).unwrap();
                }
                return Some(frame);
            }
            if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// Everything up to the end of these streams.
    async fn receive_until_ended(&mut self, streams: &[u32]) -> Received {
        let mut received = Received::new();
        let mut open = streams.to_vec();
        while !open.is_empty() {
            if let Frame::Data { stream, fin, data } = self.receive_frame().await.unwrap() {
                received.entry(self.names[&stream].clone()).or_default().extend(data);
                open.retain(|open| !(fin && *open == stream));
            }
        }
        received
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> WebSocketClient<IO> {
    async fn send(&mut self, payload: Bytes) {
        let frame = websocket::Frame { last: true, opcode: Opcode::Binary, payload };
        self.io.write_all(&encode_masked(&frame, [1, 2, 3, 4])).await.unwrap();
    }

    /// Everything up to the close message, split by channel.
    async fn receive(&mut self) -> Received {
        let mut received = Received::new();
        loop {
            while let Some(frame) = decode_any(&mut self.buffer).unwrap() {
                match frame.opcode {
                    Opcode::Close => return received,
                    _ => received
                        .entry(CHANNELS[usize::from(frame.payload[0])].to_owned())
                        .or_default()
                        .extend(&frame.payload[1..]),
                }
            }
            assert_ne!(self.io.read_buf(&mut self.buffer).await.unwrap(), 0, "no close message");
        }
    }
}

impl Client<TcpStream> {
    async fn spdy(url: &str, tty: bool) -> Client<TcpStream> {
        let (stream, head) = connect(url, SPDY_V4).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.to_lowercase().contains("x-stream-protocol-version: v4.channel.k8s.io\r\n"), "{head}");
        let mut client = SpdyClient::new(stream);
        let last = if tty { "resize" } else { "stderr" };
        for name in ["error", "stdin", "stdout", last] {
            client.open(name, &[("streamType", name)]).await;
        }
        Client::Spdy(Box::new(client))
    }

    async fn websocket(url: &str) -> Client<TcpStream> {
        let (io, head) = connect(url, &websocket_headers("v5.channel.k8s.io")).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Client::WebSocket(WebSocketClient { io, buffer: BytesMut::new() })
    }

    async fn send(&mut self, name: &str, data: &[u8]) {
        match self {
            Client::Spdy(client) => {
                let stream = client.id(name);
                client.send(Frame::Data { stream, fin: false, data: Bytes::copy_from_slice(data) }).await;
            }
            Client::WebSocket(client) => {
                let channel = CHANNELS.iter().position(|found| *found == name).unwrap() as u8;
                client.send([&[channel], data].concat().into()).await;
            }
        }
    }

    async fn end(&mut self, name: &str) {
        match self {
            Client::Spdy(client) => {
                let stream = client.id(name);
                client.send(Frame::Data { stream, fin: true, data: Bytes::new() }).await;
            }
            Client::WebSocket(client) => {
                let channel = CHANNELS.iter().position(|found| *found == name).unwrap() as u8;
                client.send(vec![255, channel].into()).await;
            }
        }
    }

    async fn receive(&mut self) -> Received {
        let receiving = async {
            match self {
                Client::Spdy(client) => {
                    let streams: Vec<u32> = client.names.keys().copied().collect();
                    client.receive_until_ended(&streams).await
                }
                Client::WebSocket(client) => client.receive().await,
            }
        };
        timeout(PATIENCE, receiving).await.unwrap()
    }
}

fn status(received: &Received) -> Value {
    serde_json::from_slice(&received["error"]).unwrap()
}

/// Runs a test with a client of each protocol.
macro_rules! with_each_client {
    ($name:ident, $request:expr, |$client:ident| $body:expr) => {
        #[tokio::test]
        async fn $name() {
            let (server, _ended, _stop) = server().await;
            for spdy in [true, false] {
                let request: ExecRequest = $request;
                let tty = request.tty;
                let url = server.exec(request).unwrap();
                let mut $client =
                    if spdy { Client::spdy(&url, tty).await } else { Client::websocket(&url).await };
                $body
            }
        }
    };
}

with_each_client!(input_ends_where_the_client_ends_it, exec("cat", false), |client| {
    client.send("stdin", b"hello ").await;
    client.send("stdin", b"world").await;
    client.end("stdin").await;
    let received = client.receive().await;
    assert_eq!(received["stdout"], b"hello world");
    assert_eq!(status(&received), json!({"metadata": {}, "status": "Success"}));
});

with_each_client!(exit_codes_and_both_outputs_arrive, exec("complain", false), |client| {
    let received = client.receive().await;
    assert_eq!((&received["stdout"][..], &received["stderr"][..]), (&b"fine"[..], &b"not fine"[..]));
    assert_eq!(status(&received)["reason"], "NonZeroExitCode");
    assert_eq!(status(&received)["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
});

with_each_client!(nothing_is_lost_at_the_end, exec("flood", false), |client| {
    // Input that nobody reads must not cut off the output.
    client.send("stdin", b"unread").await;
    let received = client.receive().await;
    assert!(received["stdout"] == flood());
    assert_eq!(status(&received)["status"], "Success");
});

with_each_client!(a_terminal_is_told_its_size, exec("size", true), |client| {
    client.send("resize", br#"{"Width":120,"Height":40}"#).await;
    let received = client.receive().await;
    assert_eq!(received["stdout"], b"120x40");
});

with_each_client!(a_failure_is_told, exec("missing", false), |client| {
    let received = client.receive().await;
    assert_eq!(status(&received)["reason"], "InternalError");
    assert_eq!(
        status(&received)["message"],
        "Internal error occurred: error executing command in container: container 42 is not running"
    );
});

#[tokio::test]
async fn a_command_ends_when_its_client_leaves() {
    let (server, mut ended, _stop) = server().await;
    for spdy in [true, false] {
        let url = server.exec(exec("forever", false)).unwrap();
        let mut client = if spdy { Client::spdy(&url, false).await } else { Client::websocket(&url).await };
        client.send("stdin", b"x").await;
        let started = async {
            let (io, buffer) = match &mut client {
                Client::Spdy(client) => (&mut client.io, &mut client.buffer),
                Client::WebSocket(client) => (&mut client.io, &mut client.buffer),
            };
            while !buffer.ends_with(b"started") {
                io.read_buf(buffer).await.unwrap();
            }
        };
        timeout(PATIENCE, started).await.unwrap();
        drop(client);
        timeout(PATIENCE, ended.recv()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn attach_ends_in_success() {
    let (server, _ended, _stop) = server().await;
    let request =
        AttachRequest { container_id: "42".into(), tty: false, stdin: true, stdout: true, stderr: true };
    let mut client = Client::websocket(&server.attach(request).unwrap()).await;
    let received = client.receive().await;
    assert_eq!(received["stdout"], b"attached");
    assert_eq!(status(&received)["status"], "Success");
}

#[tokio::test]
async fn the_oldest_protocol_gets_text() {
    let (server, _ended, _stop) = server().await;
    let (stream, _) = connect(&server.exec(exec("complain", false)).unwrap(), SPDY_V1).await;
    let mut client = SpdyClient::new(stream);
    let mut streams = Vec::new();
    for name in ["error", "stdin", "stdout", "stderr"] {
        streams.push(client.open(name, &[("streamType", name)]).await);
    }
    let received = timeout(PATIENCE, client.receive_until_ended(&streams)).await.unwrap();
    assert_eq!(received["error"], b"command terminated with non-zero exit code: exit status 3");
}

#[tokio::test]
async fn a_ping_is_answered_and_the_unknown_ignored() {
    let (server, _ended, _stop) = server().await;
    let Client::Spdy(mut client) = Client::spdy(&server.exec(exec("cat", false)).unwrap(), false).await
    else {
        unreachable!()
    };
    client.send(Frame::Settings { entries: vec![(4, 65536)] }).await;
    client.send(Frame::WindowUpdate { stream: 1, delta: 5 }).await;
    client.send(Frame::Data { stream: 99, fin: false, data: Bytes::from_static(b"lost") }).await;
    client.send(Frame::Ping { id: 5 }).await;
    let answered = async { while client.receive_frame().await.unwrap() != (Frame::Ping { id: 5 }) {} };
    timeout(PATIENCE, answered).await.unwrap();
}

#[tokio::test]
async fn a_url_is_good_once() {
    let (server, _ended, _stop) = server().await;
    let url = server.exec(exec("complain", false)).unwrap();
    let (_, head) = connect(&url, "Upgrade: h2c\r\n").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    Client::spdy(&url, false).await;
    let (_, head) = connect(&url, SPDY_V4).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let (_, head) = connect(&url.replace("exec", "elephant"), SPDY_V4).await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

async fn forward_ports(mut client: SpdyClient<impl AsyncRead + AsyncWrite + Unpin>) {
    // Two pairs at once, their streams mixed.
    let mut streams = Vec::new();
    for kind in ["error", "data"] {
        for (request, port) in [("0", "7"), ("1", "8")] {
            let headers = [("streamType", kind), ("port", port), ("requestID", request)];
            streams.push(client.open(&format!("{kind} {port}"), &headers).await);
        }
    }
    let stream = client.id("data 7");
    client.send(Frame::Data { stream, fin: false, data: Bytes::from_static(b"hello") }).await;
    client.send(Frame::Data { stream, fin: true, data: Bytes::new() }).await;
    let received = timeout(PATIENCE, client.receive_until_ended(&streams)).await.unwrap();
    assert_eq!(received["data 7"], b"hello and goodbye");
    assert!(received["error 7"].is_empty() && received["data 8"].is_empty());
    assert_eq!(
        String::from_utf8(received["error 8"].clone()).unwrap(),
        "error forwarding port 8 to pod box: failed to connect to port 8: connection refused"
    );
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy() {
    let (server, _ended, _stop) = server().await;
    let url =
        server.port_forward(PortForwardRequest { sandbox_id: "box".into(), ports: Vec::new() }).unwrap();
    let (stream, head) = connect(&url, SPDY_PORTS).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    forward_ports(SpdyClient::new(stream)).await;
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_in_websocket() {
    let (server, _ended, _stop) = server().await;
    let url =
        server.port_forward(PortForwardRequest { sandbox_id: "box".into(), ports: Vec::new() }).unwrap();
    let (stream, head) = connect(&url, &websocket_headers("SPDY/3.1+portforward.k8s.io")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // The client's end of the tunnel.
    let (inside, outside) = tokio::io::duplex(1000);
    let (mut read, mut write) = stream.into_split();
    let (mut from_client, mut to_client) = tokio::io::split(outside);
    let sending = tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        while from_client.read_buf(&mut buffer).await.unwrap() > 0 {
            let frame =
                websocket::Frame { last: true, opcode: Opcode::Binary, payload: buffer.split().freeze() };
            write.write_all(&encode_masked(&frame, [9, 8, 7, 6])).await.unwrap();
        }
        write
    });
    let receiving = tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        while read.read_buf(&mut buffer).await.unwrap() > 0 {
            while let Some(frame) = decode_any(&mut buffer).unwrap() {
                match frame.opcode {
                    Opcode::Binary => to_client.write_all(&frame.payload).await.unwrap(),
                    Opcode::Close => return,
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("no close message");
    });
    forward_ports(SpdyClient::new(inside)).await;
    let mut write = timeout(PATIENCE, sending).await.unwrap().unwrap();
    let close = websocket::Frame { last: true, opcode: Opcode::Close, payload: Bytes::new() };
    write.write_all(&encode_masked(&close, [0; 4])).await.unwrap();
    timeout(PATIENCE, receiving).await.unwrap().unwrap();
}

/// All messages of a channel, each with its first byte, up to the close message.
async fn messages(client: &mut WebSocketClient<TcpStream>) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let receiving = async {
        loop {
            while let Some(frame) = decode_any(&mut client.buffer).unwrap() {
                match frame.opcode {
                    Opcode::Close => return,
                    _ => messages.push(frame.payload),
                }
            }
            assert_ne!(client.io.read_buf(&mut client.buffer).await.unwrap(), 0, "no close message");
        }
    };
    timeout(PATIENCE, receiving).await.unwrap();
    messages
}

#[tokio::test]
async fn old_clients_forward_the_ports_that_they_asked_for() {
    let (server, _ended, _stop) = server().await;
    let request = PortForwardRequest { sandbox_id: "box".into(), ports: vec![7, 8] };
    let (io, head) =
        connect(&server.port_forward(request).unwrap(), &websocket_headers("v4.channel.k8s.io")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut client = WebSocketClient { io, buffer: BytesMut::new() };
    client.send(Bytes::from_static(b"\0hello")).await;
    client.send(Bytes::from_static(&[255, 0])).await;
    let mut received: HashMap<u8, Vec<u8>> = HashMap::new();
    for message in messages(&mut client).await {
        received.entry(message[0]).or_default().extend(&message[1..]);
    }
    assert_eq!(received[&0], b"\x07\0hello and goodbye");
    assert_eq!(received[&1], b"\x07\0");
    assert_eq!(received[&2], b"\x08\0");
    let fault = "error forwarding port 8 to pod box: failed to connect to port 8: connection refused";
    assert_eq!(received[&3], [b"\x08\0", fault.as_bytes()].concat());
}

#[tokio::test]
async fn clients_of_text_are_answered_in_base64() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let (server, _ended, _stop) = server().await;
    for protocol in ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"] {
        // Its stdin has no end in these versions: what reads one line is what they are for.
        let url = server.exec(exec("line", false)).unwrap();
        let (io, head) = connect(&url, &websocket_headers(protocol)).await;
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(protocol), "{head}");
        let mut client = WebSocketClient { io, buffer: BytesMut::new() };
        // One message in two frames.
        let text = format!("0{}", STANDARD.encode("typed"));
        let (first, second) = text.split_at(4);
        let frame = |last, opcode, payload: &str| websocket::Frame {
            last,
            opcode,
            payload: payload.to_owned().into(),
        };
        for frame in [frame(false, Opcode::Text, first), frame(true, Opcode::Continuation, second)] {
            client.io.write_all(&encode_masked(&frame, [1, 2, 3, 4])).await.unwrap();
        }
        let received = messages(&mut client).await;
        let of = |channel: u8| {
            let of_channel = received.iter().filter(|message| message[0] == channel);
            of_channel.flat_map(|message| STANDARD.decode(&message[1..]).unwrap()).collect::<Vec<u8>>()
        };
        assert_eq!(of(b'1'), b"typed");
        let told = String::from_utf8(of(b'3')).unwrap();
        assert_eq!(told.contains("Success"), protocol.starts_with("v4"), "{told}");
    }
}

#[tokio::test]
async fn who_does_not_read_stops_nobody_else() {
    let (server, _ended, _stop) = server().await;
    let slow = Client::spdy(&server.exec(exec("flood", false)).unwrap(), false).await;
    let mut quick = Client::websocket(&server.exec(exec("complain", false)).unwrap()).await;
    assert_eq!(quick.receive().await["stdout"], b"fine");

    // One connection: a port whose other side does not read, and one that goes on.
    let request = PortForwardRequest { sandbox_id: "box".into(), ports: Vec::new() };
    let (stream, _) = connect(&server.port_forward(request).unwrap(), SPDY_PORTS).await;
    let mut client = SpdyClient::new(stream);
    for kind in ["error", "data"] {
        for port in ["9", "7"] {
            let headers = [("streamType", kind), ("port", port), ("requestID", port)];
            client.open(&format!("{kind} {port}"), &headers).await;
        }
    }
    let (stuck, going) = (client.id("data 9"), client.id("data 7"));
    for _ in 0..16 {
        client.send(Frame::Data { stream: stuck, fin: false, data: vec![0; 32 << 10].into() }).await;
    }
    client.send(Frame::Data { stream: going, fin: true, data: Bytes::from_static(b"hello") }).await;
    let received = timeout(PATIENCE, client.receive_until_ended(&[going])).await.unwrap();
    assert_eq!(received["data 7"], b"hello and goodbye");
    drop(slow);
}

#[tokio::test]
async fn everything_ends_with_the_server() {
    let (server, mut ended, stop) = server().await;
    let mut client = Client::websocket(&server.exec(exec("forever", false)).unwrap()).await;
    client.send("stdin", b"x").await;
    stop.cancel();
    timeout(PATIENCE, server.stopped()).await.unwrap();
    // It may or may not have been started.
    ended.try_recv().ok();
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// A client that says anything at all is served or refused, and never makes anybody wait.
    #[test]
    fn nonsense_ends_a_connection(bytes: Vec<u8>, opens: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let opening = Frame::SynStream {
                stream: 1,
                associated: 0,
                priority: 0,
                fin: false,
                headers: Compressor::new().compress(&HashMap::from([("streamtype".into(), "error".into())])),
            };
            let nonsense = if opens { [&opening.encode()[..], &bytes].concat() } else { bytes };
            for spdy in [true, false] {
                let (mut client, server) = tokio::io::duplex(1 << 20);
                client.write_all(&nonsense).await.unwrap();
                client.shutdown().await.unwrap();
                let gone = async {
                    if spdy {
                        let mut connection = spdy::Connection::start(server);
                        while connection.accept().await.is_some() {}
                        connection.gone().await;
                    } else {
                        let encoding = if opens { Encoding::Binary } else { Encoding::Base64 };
                        websocket::Connection::start(server, &[0, 4], encoding).gone().await;
                    }
                };
                timeout(PATIENCE, gone).await.unwrap();
            }
        });
    }
}
