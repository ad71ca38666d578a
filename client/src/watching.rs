//! The events of a watch, without what only the server needs.
//!
//! Who owns which fields is a third of an object, and a tree of small maps when decoded. No component looks at it, so
//! it is cut out of each line before the line is decoded; `kube`'s own stream of events decodes all of it.

use api::scan;
use futures::{AsyncBufRead, AsyncBufReadExt};
use http::{HeaderValue, Request, header};
use kube::{Client, api::WatchEvent};
use serde::de::DeserializeOwned;

/// Where an event has who owns which field.
const OWNERS: [&str; 3] = ["object", "metadata", "managedFields"];

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
        // What is not as expected is left for the decoder to judge.
        scan::cut(&mut self.line, &OWNERS);
        serde_json::from_slice(&self.line).map(Some).map_err(kube::Error::SerdeError)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
