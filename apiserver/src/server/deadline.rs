//! How long a request may take: a minute, less where the client says so, or as long as it likes.

use std::time::Duration;

use api::{Status, cel::duration};

use crate::request::{Query, RequestInfo};

/// Upstream's default for `--request-timeout`.
const LONGEST: Duration = Duration::from_secs(60);

/// How long this request may take until its answer begins; `None` for those that are meant to last.
pub(super) fn of(info: &RequestInfo, query: &Query) -> Result<Option<Duration>, Status> {
    if info.is_long_running() {
        return Ok(None);
    }
    let Some(text) = query.get("timeout") else { return Ok(Some(LONGEST)) };
    let wanted = go_duration(text).ok_or_else(|| {
        let why = format!("time: invalid duration {text:?}");
        Status::bad_request(format!("invalid timeout specified in the request URL - {why}"))
    })?;
    // None at all means the server's own, as upstream.
    Ok(Some(if wanted.is_zero() { LONGEST } else { wanted.min(LONGEST) }))
}

/// 504: nobody knows what has become of it.
pub(super) fn exceeded() -> Status {
    let message = "Timeout: request did not complete within the allotted timeout";
    let mut status = Status::new(504, "Timeout", message);
    status.details = Some(serde_json::json!({}));
    status
}

/// A duration as Go writes them; `None` for what is none, negative ones included.
fn go_duration(text: &str) -> Option<Duration> {
    Duration::try_from(duration::parse(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn deadline(uri: &str) -> Result<Option<Duration>, Status> {
        let uri = uri.parse().unwrap();
        let query = Query::of(&uri).unwrap();
        of(&RequestInfo::read(&Method::GET, &uri, &query), &query)
    }

    #[test]
    fn a_request_has_a_minute_or_what_its_client_gives_it() {
        for (text, seconds) in [
            ("", 60.0),
            ("timeout=32s", 32.0),
            ("timeout=1m30s", 60.0),
            ("timeout=0.5m", 30.0),
            ("timeout=250ms", 0.25),
            ("timeout=0s", 60.0),
            ("timeout=0", 60.0),
            ("timeout=1h2m3s", 60.0),
        ] {
            let actual = deadline(&format!("/api/v1/pods?{text}")).unwrap().unwrap();
            assert_eq!(actual.as_secs_f64(), seconds, "{text}");
        }
    }

    #[test]
    fn what_is_meant_to_last_may_last() {
        for uri in [
            "/api/v1/pods?watch=1",
            "/api/v1/namespaces/a/pods/b/log?follow=true",
            "/api/v1/namespaces/a/pods/b/exec?command=sh",
            "/api/v1/namespaces/a/services/b/proxy/x",
        ] {
            assert_eq!(deadline(uri).unwrap(), None, "{uri}");
        }
    }

    #[test]
    fn a_duration_that_is_none_is_refused() {
        for text in ["x", "5", "5x", "-5s", "s", ".", "1e9s", "5s5"] {
            let status = deadline(&format!("/api/v1/pods?timeout={text}")).unwrap_err();
            assert_eq!(status.code, 400, "{text}");
            let message =
                format!("invalid timeout specified in the request URL - time: invalid duration {text:?}");
            assert_eq!(status.message, message);
        }
    }
}
