//! The flight recorder over HTTP: one JSON object a line, those that are kept first, then as they happen.

use std::{convert::Infallible, sync::Arc};

use axum::{Router, body::Body, response::Response, routing::get};
use client::{FlightRecorder, flight::Turn};
use futures::{StreamExt, stream};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Where the turns are served; a path that no Kubernetes API uses.
pub(crate) const PATH: &str = "/coracle/v1/turns";

/// The route, for the API server's own authentication and authorization to stand before.
pub(super) fn router(flight: FlightRecorder, stop: CancellationToken) -> Router {
    Router::new().route(PATH, get(move || std::future::ready(follow(&flight, stop.clone()))))
}

fn follow(flight: &FlightRecorder, stop: CancellationToken) -> Response {
    let (kept, live) = flight.follow();
    let live = stream::unfold(live, |mut live| async {
        loop {
            match live.recv().await {
                Ok(turn) => return Some((turn, live)),
                // A slow reader misses turns rather than hold up those who make them.
                Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "a follower of turns is too slow"),
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let turns = stream::iter(kept).chain(live).take_until(stop.cancelled_owned());
    let mut response = Response::new(Body::from_stream(turns.map(|turn| Ok::<_, Infallible>(line(&turn)))));
    let kind = http::HeaderValue::from_static("application/json;stream=watch");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn line(turn: &Arc<Turn>) -> Vec<u8> {
    let mut line = serde_json::to_vec(&**turn).expect("a turn is plain data");
    line.push(b'\n');
    line
}
