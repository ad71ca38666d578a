//! `/containerLogs`: a container's log as it is, or as it grows.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Api, Refusal};
use crate::logs::{LogOptions, stream};
use crate::pod::view::PodView;
use crate::sandbox::log_directory;

/// Pieces of a log that may wait for a slow reader.
const WAITING: usize = 16;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct LogQuery {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<String>,
    since_seconds: Option<String>,
    since_time: Option<String>,
    limit_bytes: Option<String>,
}

pub(super) async fn container_logs(
    State(api): State<Api>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let pod = api.pod(&namespace, &name)?;
    if pod.container(&container).is_none() {
        let message = format!("container {container} is not valid for pod {name}");
        return Err(Refusal(StatusCode::NOT_FOUND, message));
    }
    let options =
        options(&query, Timestamp::now()).map_err(|message| Refusal(StatusCode::BAD_REQUEST, message))?;
    let observed = api.observe(&pod).await?;
    let wanted = match is_true(&query.previous) {
        true => observed.previous(&container).or_else(|| {
            // Between two runs the last one is the previous one.
            observed
                .latest(&container)
                .filter(|latest| latest.exit_code().is_some() && is_waiting(&pod, &container))
        }),
        false => observed.latest(&container),
    };
    let Some(wanted) = wanted else {
        let message = match is_true(&query.previous) {
            true => format!("previous terminated container \"{container}\" in pod \"{name}\" not found"),
            false => waiting_message(&pod, &container),
        };
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    };

    let directory = api.context.config.log_dir.join(log_directory(&pod)).join(&container);
    let path = directory.join(format!("{}.log", wanted.attempt));
    let (sender, receiver) = mpsc::channel(WAITING);
    let ended = wait_for_end(api.clone(), pod.clone(), wanted.id.clone(), options.follow);
    tokio::spawn(stream(path, options, sender, ended));
    let chunks = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    Ok(([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(chunks)).into_response())
}

/// The API knows when a container has ended: its worker has told it so.
async fn wait_for_end(api: Api, pod: std::sync::Arc<Pod>, id: String, follow: bool) {
    if !follow {
        return std::future::pending().await;
    }
    let mut changed = api.pods.changed();
    loop {
        let current = api.pods.get(pod.namespace(), pod.name()).filter(|current| current.uid() == pod.uid());
        let runs = current.is_some_and(|current| is_running(&current, &id));
        let still_known = api.observe(&pod).await.is_ok_and(|observed| {
            observed.containers.iter().any(|container| container.id == id && container.is_running())
        });
        if !runs && !still_known {
            return;
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn is_running(pod: &Pod, id: &str) -> bool {
    pod.told_statuses().any(|status| {
        let is_it = status.container_id.as_deref().is_some_and(|full| full.ends_with(id));
        is_it && status.state.as_ref().is_some_and(|state| state.running.is_some())
    })
}

fn waiting_reason(pod: &Pod, container: &str) -> Option<String> {
    pod.told(container)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn is_waiting(pod: &Pod, container: &str) -> bool {
    waiting_reason(pod, container).is_some()
}

fn waiting_message(pod: &Pod, container: &str) -> String {
    let reason = waiting_reason(pod, container).unwrap_or_else(|| "ContainerCreating".into());
    let what = match reason.as_str() {
        "ErrImagePull" => "image can't be pulled".to_string(),
        "ImagePullBackOff" => "trying and failing to pull image".to_string(),
        reason => reason.to_string(),
    };
    format!("container \"{container}\" in pod \"{}\" is waiting to start: {what}", pod.name())
}

fn is_true(value: &Option<String>) -> bool {
    matches!(value.as_deref(), Some("true" | "1" | ""))
}

fn options(query: &LogQuery, now: Timestamp) -> Result<LogOptions, String> {
    let number = |name: &str, value: &Option<String>| -> Result<Option<u64>, String> {
        let parse = |text: &String| text.parse().map_err(|_| format!("invalid value for {name}: \"{text}\""));
        value.as_ref().filter(|text| !text.is_empty()).map(parse).transpose()
    };
    let to_usize = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let since_seconds = number("sinceSeconds", &query.since_seconds)?;
    let since_time = match query.since_time.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(text.parse().map_err(|_| format!("invalid value for sinceTime: \"{text}\""))?),
        None => None,
    };
    let ago = since_seconds.and_then(|seconds| now.checked_sub(Duration::from_secs(seconds)).ok());
    Ok(LogOptions {
        follow: is_true(&query.follow),
        tail: number("tailLines", &query.tail_lines)?.map(to_usize),
        since: ago.or(since_time),
        timestamps: is_true(&query.timestamps),
        limit: number("limitBytes", &query.limit_bytes)?.map(to_usize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_query() {
        let now: Timestamp = "2026-11-21T08:00:10Z".parse().unwrap();
        let query = LogQuery {
            follow: Some("true".into()),
            tail_lines: Some("5".into()),
            since_seconds: Some("10".into()),
            ..LogQuery::default()
        };
        let expected = LogOptions {
            follow: true,
            tail: Some(5),
            since: Some("2026-11-21T08:00:00Z".parse().unwrap()),
            ..LogOptions::default()
        };
        assert_eq!(options(&query, now).unwrap(), expected);
        let wrong = LogQuery { tail_lines: Some("many".into()), ..LogQuery::default() };
        assert_eq!(options(&wrong, now).unwrap_err(), "invalid value for tailLines: \"many\"");
    }
}
