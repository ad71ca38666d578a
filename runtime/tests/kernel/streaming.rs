//! Sessions as clients have them: by a URL, over WebSocket, to real processes. Again and again, because what gets
//! lost at an end gets lost seldom.

use std::collections::HashMap;

use cri::RuntimeService;
use cri::v1::*;
use futures::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, in_world};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// What the scripts write.
const NUMBERS: u32 = 3000;

fn numbers(end: &str) -> String {
    (1..=NUMBERS).map(|number| format!("{number}{end}")).collect()
}

/// A client of the fifth version of the protocol.
struct Client(TcpStream);

impl Client {
    async fn connect(url: &str) -> Client {
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Client(stream)
    }

    /// One message of less than 125 bytes; a mask of zeros changes nothing.
    async fn send(&mut self, channel: u8, data: &[u8]) {
        let head = [0x82, 0x80 | (data.len() as u8 + 1), 0, 0, 0, 0, channel];
        self.0.write_all(&[&head, data].concat()).await.unwrap();
    }

    /// Everything up to the close message, by channel.
    async fn receive(mut self) -> HashMap<u8, Vec<u8>> {
        let mut received: HashMap<u8, Vec<u8>> = HashMap::new();
        loop {
            let opcode = self.0.read_u8().await.unwrap() & 0x0f;
            let length = match self.0.read_u8().await.unwrap() {
                126 => self.0.read_u16().await.unwrap().into(),
                127 => self.0.read_u64().await.unwrap(),
                length => length.into(),
            };
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            match opcode {
                8 => return received,
                _ => received.entry(payload[0]).or_default().extend(&payload[1..]),
            }
        }
    }
}

fn status(received: &HashMap<u8, Vec<u8>>) -> Value {
    serde_json::from_slice(&received[&STATUS]).unwrap()
}

async fn exec(world: &World, container: &str, script: &str, tty: bool) -> HashMap<u8, Vec<u8>> {
    let request = ExecRequest {
        container_id: container.to_owned(),
        cmd: ["sh", "-c", script].map(str::to_owned).into(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let url = world.runtime.exec(request).await.unwrap().url;
    Client::connect(&url).await.receive().await
}

#[test]
fn nothing_that_a_command_writes_is_lost() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let main = world.run(&sandbox, world.script("main", "sleep 1000")).await;
        let sessions = futures::stream::iter(0..120).map(|turn| {
            let (world, main) = (&world, &main);
            async move {
                let tty = turn % 3 == 0;
                let script = format!("seq {NUMBERS}; echo last >&2; exit 3");
                (tty, exec(world, main, &script, tty).await)
            }
        });
        let mut sessions = sessions.buffer_unordered(8);
        while let Some((tty, received)) = sessions.next().await {
            let told = String::from_utf8_lossy(&received[&STDOUT]);
            if tty {
                assert_eq!(told, numbers("\r\n") + "last\r\n");
            } else {
                assert_eq!(told, numbers("\n"));
                assert_eq!(received[&STDERR], b"last\n");
            }
            assert_eq!(status(&received)["details"]["causes"][0]["message"], "3");
        }
        drop(sessions);
        world
    });
}

#[test]
fn nothing_that_an_attached_process_writes_is_lost() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        for turn in 0..12 {
            let name = format!("attached-{turn}");
            let mut config =
                world.script(&name, &format!("read line; echo $line; seq {NUMBERS}; echo last >&2"));
            (config.stdin, config.stdin_once) = (true, true);
            let container = world.run(&sandbox, config).await;
            let request = AttachRequest {
                container_id: container,
                stdin: true,
                stdout: true,
                stderr: true,
                ..Default::default()
            };
            let url = world.runtime.attach(request).await.unwrap().url;
            let mut client = Client::connect(&url).await;
            client.send(STDIN, b"go\n").await;
            let received = client.receive().await;
            assert_eq!(String::from_utf8_lossy(&received[&STDOUT]), "go\n".to_owned() + &numbers("\n"));
            assert_eq!(received[&STDERR], b"last\n");
            assert_eq!(status(&received)["status"], "Success");
        }
        world
    });
}
