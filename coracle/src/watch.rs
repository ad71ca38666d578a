//! `coracle watch`: the control loops' turns as they happen, from the server's flight recorder.

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, TryStreamExt};
use serde::Deserialize;

use crate::{cli::WatchArgs, server, settings::Place};

/// One turn, as the server sends it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Turn {
    at: String,
    controller: String,
    object: String,
    woken_by: String,
    #[serde(default)]
    desired: String,
    #[serde(default)]
    observed: String,
    #[serde(default)]
    actions: Vec<String>,
    duration_micros: u64,
    error: Option<String>,
}

/// Prints turns until interrupted.
pub(crate) fn watch(args: &WatchArgs) -> Result<()> {
    let place = Place::new(&args.place)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(follow(args, &place))
}

async fn follow(args: &WatchArgs, place: &Place) -> Result<()> {
    let file = place.kubeconfig();
    let client = client::connect::kubeconfig(&file)
        .await
        .with_context(|| format!("cannot reach the cluster of {}: is it up?", file.display()))?;
    let request = http::Request::get(server::TURNS_PATH).body(Vec::new())?;
    let lines = client.request_stream(request).await.context("cannot follow the control loops")?.lines();
    futures::pin_mut!(lines);
    while let Some(line) = lines.try_next().await? {
        let turn: Turn = serde_json::from_str(&line).context("the server sent something that is no turn")?;
        if is_wanted(args, &turn) {
            print(&turn);
        }
    }
    Ok(())
}

fn is_wanted(args: &WatchArgs, turn: &Turn) -> bool {
    let is_eventful = !turn.actions.is_empty() || turn.error.is_some();
    (args.all || is_eventful)
        && args.controller.as_ref().is_none_or(|name| turn.controller.contains(name.as_str()))
        && args.object.as_ref().is_none_or(|object| turn.object.contains(object.as_str()))
}

fn print(turn: &Turn) {
    let time = turn.at.split_once('T').map_or(turn.at.as_str(), |(_, time)| time);
    let time: String = time.chars().take(12).collect();
    let millis = turn.duration_micros as f64 / 1000.0;
    println!("{time} {:<24} {}  (woken by {}, {millis:.1} ms)", turn.controller, turn.object, turn.woken_by);
    let sides = [("wants", &turn.desired), ("sees", &turn.observed)];
    let said: Vec<String> = sides
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(verb, text)| format!("{verb} {text}"))
        .collect();
    if !said.is_empty() {
        println!("             {}", said.join(" | "));
    }
    for action in &turn.actions {
        println!("             -> {action}");
    }
    if let Some(error) = &turn.error {
        println!("             failed: {error}");
    }
}
