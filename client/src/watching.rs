//! The events of a watch, without what only the server needs.
//!
//! Who owns which fields is a third of an object, and a tree of small maps when decoded. No component looks at it, so
//! it is cut out of each line before the line is decoded; `kube`'s own stream of events decodes all of it.

use std::ops::Range;

use futures::{AsyncBufRead, AsyncBufReadExt};
use http::{HeaderValue, Request, header};
use kube::{Client, api::WatchEvent};
use serde::de::DeserializeOwned;

/// A watch that is running.
pub(crate) struct Watching<R> {
    stream: R,
    line: Vec<u8>,
}

/// Begins a watch; `request` says of what.
pub(crate) async fn begin(
    client: &Client,
    mut request: Request<Vec<u8>>,
) -> Result<Watching<impl AsyncBufRead + Unpin + use<>>, kube::Error> {
    // The client can read the first event alone of what is compressed event by event.
    let identity = HeaderValue::from_static("identity");
    request.headers_mut().entry(header::ACCEPT_ENCODING).or_insert(identity);
    let stream = Box::pin(client.request_stream(request).await?);
    Ok(Watching { stream, line: Vec::new() })
}

impl<R: AsyncBufRead + Unpin> Watching<R> {
    /// The next event; `None` when the server has ended the watch, also in the middle of a line.
    pub(crate) async fn next<K: DeserializeOwned>(&mut self) -> Result<Option<WatchEvent<K>>, kube::Error> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line).await.map_err(kube::Error::ReadEvents)?;
        if self.line.last() != Some(&b'\n') {
            return Ok(None);
        }
        cut_owners(&mut self.line);
        serde_json::from_slice(&self.line).map(Some).map_err(kube::Error::SerdeError)
    }
}

/// Takes `object.metadata.managedFields` out of an event. What is not as expected is left for the decoder to judge.
fn cut_owners(line: &mut Vec<u8>) {
    let of = |start, name| member(line, start, name);
    let owners = of(0, b"object").and_then(|object| of(object.value, b"metadata"));
    let owners = owners.and_then(|metadata| of(metadata.value, b"managedFields"));
    if let Some(Member { range, .. }) = owners {
        line.drain(range);
    }
}

/// A member of a JSON object.
struct Member {
    /// From its key to its end, with one of the commas beside it.
    range: Range<usize>,
    /// Where its value starts.
    value: usize,
}

/// The member of a name in the object that starts at `start`.
fn member(json: &[u8], start: usize, name: &[u8]) -> Option<Member> {
    let mut at = after(json, start, b'{')?;
    let mut comma_before = None;
    loop {
        let key = after(json, at, b'"')?;
        let key_end = string_end(json, key)?;
        let value = skip_space(json, after(json, key_end, b':')?);
        let is_wanted = &json[key..key_end - 1] == name;
        if is_wanted && name != b"managedFields" {
            return Some(Member { range: at..at, value });
        }
        let end = skip_space(json, value_end(json, value)?);
        let comma_behind = json.get(end) == Some(&b',');
        if is_wanted {
            let range = match (comma_behind, comma_before) {
                (true, _) => skip_space(json, at)..end + 1,
                (false, Some(before)) => before..end,
                (false, None) => skip_space(json, at)..end,
            };
            return Some(Member { range, value });
        }
        if !comma_behind {
            return None;
        }
        comma_before = Some(end);
        at = end + 1;
    }
}

/// Behind an expected byte, with space before it.
fn after(json: &[u8], at: usize, expected: u8) -> Option<usize> {
    let at = skip_space(json, at);
    (json.get(at) == Some(&expected)).then_some(at + 1)
}

/// Behind the value that starts at `at`.
fn value_end(json: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match json.get(at)? {
            b'"' => at = string_end(json, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' if depth == 0 => return Some(at),
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Behind the closing quote of the string whose text starts at `at`.
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match json.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cut(line: &str) -> String {
        let mut line = line.as_bytes().to_vec();
        cut_owners(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn owners_are_cut_out_wherever_they_stand() {
        let owners = json!([{"manager": "a]}\\\"", "fieldsV1": {"f:x": {".": {}}}}]);
        for metadata in [
            json!({"managedFields": owners, "name": "a"}),
            json!({"labels": {"managedFields": "no"}, "managedFields": owners, "name": "a"}),
            json!({"labels": {"a": "\"managedFields\":["}, "managedFields": owners}),
            json!({"managedFields": owners}),
            json!({"name": "a"}),
        ] {
            let spec = json!({"metadata": {"managedFields": [1, {"kept": true}]}, "numbers": [1, 2.5, -3, null, true]});
            let event = json!({"type": "ADDED", "object": {"kind": "X", "metadata": metadata, "spec": spec}});
            let mut expected = event.clone();
            expected["object"]["metadata"].as_object_mut().unwrap().remove("managedFields");
            for text in [event.to_string(), serde_json::to_string_pretty(&event).unwrap()] {
                let left: Value = serde_json::from_str(&cut(&text)).unwrap();
                assert_eq!(left, expected, "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_event_is_left_as_it_is() {
        for line in [
            "",
            "null",
            "{",
            r#"{"object":[]}"#,
            r#"{"object":{"metadata":{"managedFields":[{"a":"}]"#,
            r#"{"type":"ERROR","object":{"kind":"Status","metadata":{},"code":410}}"#,
        ] {
            assert_eq!(cut(line), line);
        }
    }

    #[tokio::test]
    async fn a_watch_ends_where_its_last_whole_line_ends() {
        let event = |name: &str| json!({"type": "ADDED", "object": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "managedFields": [{}]}}});
        let text = format!("{}\n{}\n{}", event("a"), event("b"), &event("c").to_string()[..40]);
        let stream = futures::io::Cursor::new(text.into_bytes());
        let mut watching = Watching { stream, line: Vec::new() };
        let mut names = Vec::new();
        while let Some(event) = watching.next::<k8s_openapi::api::core::v1::ConfigMap>().await.unwrap() {
            let WatchEvent::Added(object) = event else { panic!("{event:?}") };
            assert!(object.metadata.managed_fields.is_none());
            names.extend(object.metadata.name);
        }
        assert_eq!(names, ["a", "b"]);
    }
}
