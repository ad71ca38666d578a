//! Exec, attach and port-forward, as a streaming server uses them.

use std::time::Duration;

use runtime::streaming::{Streams, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::world::in_world;

/// A client's ends, and what the runtime gets.
struct Client {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    resize: mpsc::Sender<TerminalSize>,
}

fn client() -> (Client, Streams) {
    let ((stdin, their_stdin), (stdout, their_stdout), (stderr, their_stderr)) =
        (duplex(1 << 16), duplex(1 << 16), duplex(1 << 16));
    let (resize, sizes) = mpsc::channel(4);
    let streams = Streams {
        stdin: Some(Box::new(their_stdin)),
        stdout: Some(Box::new(their_stdout)),
        stderr: Some(Box::new(their_stderr)),
        resize: sizes,
    };
    (Client { stdin, stdout, stderr, resize }, streams)
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| word.to_string()).collect()
}

#[test]
fn exec_passes_input_output_and_code() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        let (mut client, streams) = client();
        let sessions = world.runtime.sessions();
        let command = words(&["sh", "-c", "cat; echo bad >&2; exit 4"]);
        let session = sessions.exec(&container, &command, false, streams);
        let talk = async {
            client.stdin.write_all(b"typed\n").await.unwrap();
            client.stdin.shutdown().await.unwrap();
            let (mut out, mut err) = (String::new(), String::new());
            client.stdout.read_to_string(&mut out).await.unwrap();
            client.stderr.read_to_string(&mut err).await.unwrap();
            (out, err)
        };
        let (code, (out, err)) = tokio::join!(session, talk);
        assert_eq!((code.unwrap(), out.as_str(), err.as_str()), (4, "typed\n", "bad\n"));
        world
    });
}

#[test]
fn exec_in_a_terminal_knows_its_size() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        let (mut client, mut streams) = client();
        streams.stderr = None;
        let sessions = world.runtime.sessions();
        let command = words(&[
            "sh",
            "-c",
            "while [ \"$(stty size)\" != '40 100' ]; do sleep 0.01; done; read line; echo got $line",
        ]);
        client.resize.send(TerminalSize { width: 100, height: 40 }).await.unwrap();
        let session = sessions.exec(&container, &command, true, streams);
        let talk = async {
            client.stdin.write_all(b"hello\n").await.unwrap();
            let mut out = String::new();
            client.stdout.read_to_string(&mut out).await.unwrap();
            out
        };
        let (code, out) = tokio::join!(session, talk);
        assert_eq!(code.unwrap(), 0);
        assert!(out.contains("got hello"), "{out:?}");
        world
    });
}

#[test]
fn a_session_that_is_left_ends_its_process() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let container = world.run(&sandbox, world.script("main", "sleep 100")).await;
        let (_client, streams) = client();
        let sessions = world.runtime.sessions();
        let command = words(&["sleep", "88"]);
        let session = sessions.exec(&container, &command, false, streams);
        assert!(tokio::time::timeout(Duration::from_millis(300), session).await.is_err());
        let gone = "for i in $(seq 100); do ps | grep -q '[s]leep 88' || exit 0; sleep 0.05; done; exit 1";
        assert_eq!(world.exec(&container, &["sh", "-c", gone], 20).await.unwrap().exit_code, 0);
        world
    });
}

#[test]
fn attach_talks_to_the_first_process() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let mut config = world.script("main", "while read line; do echo heard $line; done; echo over");
        config.stdin = true;
        config.stdin_once = true;
        let container = world.run(&sandbox, config).await;
        let (mut client, streams) = client();
        let sessions = world.runtime.sessions();
        let session = sessions.attach(&container, false, streams);
        let talk = async {
            client.stdin.write_all(b"one\ntwo\n").await.unwrap();
            client.stdin.shutdown().await.unwrap();
            let mut out = String::new();
            client.stdout.read_to_string(&mut out).await.unwrap();
            out
        };
        let (ended, out) = tokio::join!(session, talk);
        ended.unwrap();
        assert_eq!(out, "heard one\nheard two\nover\n");
        assert_eq!(world.log("main.log"), "stdout F heard one\nstdout F heard two\nstdout F over\n");
        world
    });
}

#[test]
fn port_forward_reaches_the_pods_loopback() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let script = "echo hello | nc -l -p 8080 & while ! grep -q ':1F90 ' /proc/net/tcp /proc/net/tcp6; do sleep 0.01; done; echo ready; wait";
        world.run(&sandbox, world.script("main", script)).await;
        while !world.log("main.log").contains("ready") {
            tokio::task::yield_now().await;
        }
        let sessions = world.runtime.sessions();
        let mut connection = sessions.port_forward(&sandbox, 8080).await.unwrap();
        let mut text = [0; 6];
        connection.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello\n");
        let refused = sessions.port_forward(&sandbox, 81).await.err().unwrap().to_string();
        assert!(refused.contains("Connection refused"), "{refused}");
        let unknown = sessions.port_forward("nobody", 81).await.err().unwrap().to_string();
        assert_eq!(unknown, "sandbox nobody is not running");
        world
    });
}

#[test]
fn a_container_with_a_terminal_can_be_attached() {
    in_world(|world| async move {
        let sandbox = world.sandbox().await;
        let mut config = world.script("main", "read line; echo heard $line");
        (config.stdin, config.tty) = (true, true);
        let container = world.run(&sandbox, config).await;
        let (mut client, mut streams) = client();
        streams.stderr = None;
        let sessions = world.runtime.sessions();
        let session = sessions.attach(&container, true, streams);
        let talk = async {
            client.stdin.write_all(b"typed\n").await.unwrap();
            let mut out = String::new();
            client.stdout.read_to_string(&mut out).await.unwrap();
            out
        };
        let (ended, out) = tokio::join!(session, talk);
        ended.unwrap();
        assert!(out.contains("heard typed"), "{out:?}");
        world
    });
}
