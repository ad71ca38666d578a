//! What one client does to the server does not hurt another.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Method, StatusCode};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::{client::*, permissive};

/// A body that comes a byte a second, for ever.
fn trickle() -> Body {
    let seconds = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, io::Error>(Bytes::from_static(b" ")), ()))
    });
    Body::from_stream(seconds)
}

#[tokio::test]
async fn a_client_that_writes_a_byte_a_second_is_given_up_and_holds_nobody_up() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    server.get(CONFIG_MAPS).await.ok();
    // The store writes in a thread of its own, for which a paused clock would not wait: from now on it is only read.
    tokio::time::pause();
    let slow = server.raw(Method::POST, CONFIG_MAPS, JSON, trickle());
    let others = async {
        for _ in 0..20 {
            assert_eq!(server.get(CONFIG_MAPS).await.ok()["items"].as_array().unwrap().len(), 1);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (slow, ()) = tokio::join!(slow, others);
    let message = "Timeout: request did not complete within the allotted timeout";
    assert_eq!(slow.failure(), (504, "Timeout".into(), message.into()));
}

#[tokio::test(start_paused = true)]
async fn a_client_may_have_less_patience() {
    let server = Server::start().await;
    let begin = tokio::time::Instant::now();
    let path = format!("{CONFIG_MAPS}?timeout=2500ms");
    let answer = server.raw(Method::POST, &path, JSON, trickle()).await;
    assert_eq!(answer.code, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(begin.elapsed().as_secs(), 2);
    let (code, _, message) = server.get(&format!("{CONFIG_MAPS}?timeout=soon")).await.failure();
    assert_eq!(code, 400);
    assert_eq!(message, "invalid timeout specified in the request URL - time: invalid duration \"soon\"");
}

#[tokio::test]
async fn depth_and_aliases_have_limits() {
    let server = Server::start().await;
    let nested = format!("{{\"data\":{}", "[".repeat(100_000));
    assert_eq!(server.raw(Method::POST, CONFIG_MAPS, JSON, nested).await.failure().0, 400);
    let nested = "{a: ".repeat(100_000);
    assert_eq!(server.raw(Method::POST, CONFIG_MAPS, "application/yaml", nested).await.failure().0, 400);
    let mut bomb = String::from("data:\n  a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("  a{level}: &a{level} [{aliases}]\n"));
    }
    assert_eq!(server.raw(Method::POST, CONFIG_MAPS, "application/yaml", bomb).await.failure().0, 400);
    assert_eq!(server.config_map("a", json!({})).await["metadata"]["name"], "a");
}

/// Where log lines go in a test.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

#[tokio::test]
async fn a_panic_is_logged_with_the_id_that_the_client_is_told() {
    let server = Server::start().await;
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
    let answer = {
        let _guard = tracing::subscriber::set_default(subscriber);
        server.post(PODS, &pod(permissive::PANICS)).await
    };
    let id = answer.headers["audit-id"].to_str().unwrap().to_string();
    assert_eq!(answer.failure().0, 500);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line =
        text.lines().find(|line| line.contains("request panicked")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains(&id), "{line}");
    assert_eq!(server.post(PODS, &pod("a")).await.code, StatusCode::CREATED);
}
