//! What one request leaves behind.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use api::{Status, protobuf};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Audit,
    event::{Event, without_managed_fields},
    policy::{Level, Stage, Verdict},
};
use crate::{
    hooks::{Decision, PeerAddress},
    request::{RequestInfo, User},
};

/// The header by which clients and logs speak of the same request.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Ids from clients are cut off here, as upstream.
const MAX_ID: usize = 64;
/// So much may be added to an event by everybody together.
const MAX_ANNOTATIONS: usize = 256 << 10;

tokio::task_local! {
    static CURRENT: Arc<Trail>;
}

/// Adds a fact to the audit events of the request that is being answered; the first value of a key stays, as
/// upstream. Does nothing outside of requests, and for those of which nothing is written down.
pub fn annotate(key: impl Into<String>, value: impl Into<String>) {
    let (key, value) = (key.into(), value.into());
    let done = CURRENT.try_with(|trail| trail.annotate(key, value));
    if done.is_err() {
        tracing::trace!("an annotation outside of any request");
    }
}

/// Tells what the client has sent.
pub(crate) fn saw_body(body: &Bytes) {
    let told = CURRENT.try_with(|trail| trail.saw_body(body));
    if told.is_err() {
        tracing::trace!("a body outside of any request");
    }
}

/// The mark of an answer that another server gives, whose body passes through and is nobody's business here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign;

/// The trail of one request. Without an audit log it is only the request's id.
pub(crate) struct Trail {
    id: HeaderValue,
    recorder: Option<Arc<Recorder>>,
}

struct Recorder {
    audit: Arc<Audit>,
    content_type: String,
    is_long: bool,
    record: Mutex<Record>,
}

struct Record {
    event: Event,
    /// Unknown until it is known who asks.
    verdict: Option<Verdict>,
    annotations: usize,
    /// Whether the last event has been written.
    is_complete: bool,
}

impl Trail {
    /// The trail of a request that has just come in.
    pub(crate) fn begin(
        audit: Option<&Arc<Audit>>,
        info: &RequestInfo,
        request: &Request<Body>,
    ) -> Arc<Trail> {
        let id = id_of(request.headers());
        let recorder = audit.map(|audit| {
            Arc::new(Recorder {
                audit: audit.clone(),
                content_type: text(request.headers(), &header::CONTENT_TYPE).to_string(),
                is_long: is_long(info),
                record: Mutex::new(Record {
                    event: received(&id, info, request),
                    verdict: None,
                    annotations: 0,
                    is_complete: false,
                }),
            })
        });
        Arc::new(Trail { id, recorder })
    }

    /// What clients and logs call the request.
    pub(crate) fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// Tells the client.
    pub(crate) fn mark(&self, response: &mut Response<Body>) {
        response.headers_mut().insert(AUDIT_ID, self.id.clone());
    }

    /// Answers the request; what runs meanwhile can annotate.
    pub(crate) async fn follow<T>(self: &Arc<Self>, answer: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), answer).await
    }

    /// It is known who asks: the policy decides.
    pub(crate) async fn authenticated(&self, user: &User, info: &RequestInfo) {
        let Some(recorder) = &self.recorder else { return };
        let event = {
            let mut record = recorder.record();
            record.event.user = user.to_info();
            let verdict = recorder.audit.policy.verdict(user, info);
            record.event.level = verdict.level;
            record.verdict = Some(verdict);
            record.at(Stage::RequestReceived)
        };
        recorder.write(event).await;
    }

    /// The request goes on in another's name.
    pub(crate) fn impersonated(&self, user: &User) {
        if let Some(recorder) = &self.recorder {
            recorder.record().event.impersonated_user = user.to_info();
        }
    }

    /// The request may go on, or not.
    pub(crate) fn decided(&self, decision: &Decision) {
        let word = if decision.allowed { "allow" } else { "forbid" };
        self.annotate("authorization.k8s.io/decision".into(), word.into());
        self.annotate("authorization.k8s.io/reason".into(), decision.reason.clone());
    }

    /// The answer is there: it gets the request's id, and the event is written.
    pub(crate) async fn answered(
        self: &Arc<Self>,
        info: &RequestInfo,
        mut response: Response<Body>,
        failure: Option<&Status>,
    ) -> Response<Body> {
        self.mark(&mut response);
        let Some(recorder) = &self.recorder else { return response };
        if recorder.record().verdict.is_none() {
            return recorder.unauthenticated(info, response, failure).await;
        }
        let verdict = recorder.record().verdict.clone().unwrap_or_default();
        if verdict.level == Level::None {
            return response;
        }
        recorder.record().event.response_status = status(response.status().as_u16(), failure);
        if recorder.is_long && response.status().as_u16() < 300 {
            let event = recorder.record().at(Stage::ResponseStarted);
            recorder.write(event).await;
            return response.map(|body| Body::new(Followed { body, _recorder: recorder.clone() }));
        }
        // Proxies and logs pass on what others say, as long as it is not this server that refuses.
        let is_foreign =
            response.extensions().get::<Foreign>().is_some() || recorder.is_long && failure.is_none();
        if !is_foreign && verdict.level == Level::RequestResponse {
            response = recorder.copy_body(response, &verdict).await;
        }
        let event = recorder.record().at(Stage::ResponseComplete);
        recorder.write_last(event).await;
        response
    }

    /// The server's own fault.
    pub(crate) async fn panicked(&self, message: &str) {
        let Some(recorder) = &self.recorder else { return };
        let event = {
            let mut record = recorder.record();
            let message = format!("APIServer panic'd: {message}");
            record.event.response_status = status(500, Some(&Status::new(500, "InternalError", message)));
            record.at(Stage::Panic)
        };
        recorder.write_last(event).await;
    }

    fn annotate(&self, key: String, value: String) {
        let Some(recorder) = &self.recorder else { return };
        let mut record = recorder.record();
        let size = key.len() + value.len();
        if record.annotations + size > MAX_ANNOTATIONS || record.event.annotations.contains_key(&key) {
            tracing::warn!(key, "an audit annotation is left out: given before, or too much");
            return;
        }
        record.annotations += size;
        record.event.annotations.insert(key, value);
    }

    fn saw_body(&self, body: &Bytes) {
        let Some(recorder) = &self.recorder else { return };
        let mut record = recorder.record();
        let Some(verdict) = record.verdict.clone().filter(|verdict| verdict.level > Level::None) else {
            return;
        };
        let is_unnamed = record.event.object_ref.is_object() && record.event.object_ref["name"].is_null();
        if body.is_empty() || verdict.level < Level::Request && !is_unnamed {
            return;
        }
        let Some(object) = decoded(&recorder.content_type, body) else { return };
        if record.event.verb == "create" {
            complete(&mut record.event.object_ref, &object);
        }
        if verdict.level >= Level::Request {
            record.event.request_object = kept(object, &verdict);
        }
    }
}

impl Recorder {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, event: Option<Event>) {
        if let Some(event) = event {
            self.audit.write(&event).await;
        }
    }

    /// The same for the last event. Whoever hangs up while it waits leaves it to the end of the recorder.
    async fn write_last(&self, event: Option<Event>) {
        self.write(event).await;
        self.record().is_complete = true;
    }

    /// Whoever was not let in is written down as nobody.
    async fn unauthenticated(
        &self,
        info: &RequestInfo,
        response: Response<Body>,
        failure: Option<&Status>,
    ) -> Response<Body> {
        let event = {
            let mut record = self.record();
            let verdict = self.audit.policy.verdict(&User::default(), info);
            record.event.level = verdict.level;
            record.verdict = Some(verdict);
            record.event.response_status = status(response.status().as_u16(), failure);
            record.at(Stage::ResponseStarted)
        };
        self.write_last(event).await;
        response
    }

    /// Writes the answer's body down, where it is JSON in one piece.
    async fn copy_body(&self, response: Response<Body>, verdict: &Verdict) -> Response<Body> {
        let content_type = text(response.headers(), &header::CONTENT_TYPE).to_string();
        let is_plain = !response.headers().contains_key(header::CONTENT_ENCODING);
        if !is_plain || !is_object(&content_type) {
            return response;
        }
        let (parts, body) = response.into_parts();
        let body = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => {
                tracing::debug!(%error, "an answer ended early");
                return Response::from_parts(parts, Body::new(Broken));
            }
        };
        if let Some(object) = decoded(&content_type, &body) {
            self.record().event.response_object = kept(object, verdict);
        }
        Response::from_parts(parts, Body::from(body))
    }
}

/// The end of a long answer, or of a request whose client has hung up.
impl Drop for Recorder {
    fn drop(&mut self) {
        let record = self.record.get_mut().unwrap_or_else(PoisonError::into_inner);
        if record.is_complete {
            return;
        }
        if record.event.response_status.is_null() {
            // In upstream's words.
            let message = "Connection closed early";
            record.event.response_status =
                json!({"metadata": {}, "status": "Success", "message": message, "code": 200});
        }
        if let Some(event) = record.at(Stage::ResponseComplete) {
            self.audit.write_now(&event);
        }
    }
}

impl Record {
    /// The event of a stage, unless the policy leaves it out.
    fn at(&self, stage: Stage) -> Option<Event> {
        let verdict = self.verdict.as_ref()?;
        if verdict.level == Level::None || verdict.omit_stages.contains(&stage) {
            return None;
        }
        Some(Event { stage, stage_timestamp: Timestamp::now(), ..self.event.clone() })
    }
}

/// The body of a long answer; its end is that of the recorder.
struct Followed {
    body: Body,
    _recorder: Arc<Recorder>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that ended before its end.
struct Broken;

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(Some(Err(std::io::ErrorKind::UnexpectedEof.into())))
    }
}

fn received(id: &HeaderValue, info: &RequestInfo, request: &Request<Body>) -> Event {
    let now = Timestamp::now();
    let uri = request.uri().path_and_query().map_or_else(|| info.path.clone(), ToString::to_string);
    Event {
        kind: "Event",
        api_version: "audit.k8s.io/v1",
        level: Level::None,
        audit_id: id.to_str().unwrap_or_default().to_string(),
        stage: Stage::RequestReceived,
        request_uri: uri,
        verb: info.verb,
        user: json!({}),
        impersonated_user: Value::Null,
        source_ips: sources(request),
        user_agent: text(request.headers(), &header::USER_AGENT).to_string(),
        object_ref: object_ref(info),
        response_status: Value::Null,
        request_object: Value::Null,
        response_object: Value::Null,
        request_received_timestamp: now,
        stage_timestamp: now,
        annotations: BTreeMap::new(),
    }
}

fn id_of(headers: &HeaderMap) -> HeaderValue {
    let given = text(headers, &AUDIT_ID);
    let given = given.get(..MAX_ID).unwrap_or(given);
    let own = || uuid::Uuid::new_v4().to_string();
    let id = if given.is_empty() { own() } else { given.to_string() };
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Where a request came from: first what proxies say, last who is connected. What proxies say is anybody's word.
fn sources(request: &Request<Body>) -> Vec<String> {
    let headers = request.headers();
    let forwarded = text_of(headers, "x-forwarded-for").split(',').map(str::trim);
    let real = std::iter::once(text_of(headers, "x-real-ip").trim());
    let peer = request.extensions().get::<PeerAddress>().map(|peer| peer.0.ip().to_canonical().to_string());
    // The cluster's own parts are in the same process.
    let peer = peer.unwrap_or_else(|| "127.0.0.1".to_string());
    let mut sources: Vec<String> = Vec::new();
    let said = forwarded.chain(real).filter(|text| text.parse::<std::net::IpAddr>().is_ok());
    for source in said.map(str::to_string).chain([peer]) {
        if sources.last() != Some(&source) {
            sources.push(source);
        }
    }
    sources
}

fn object_ref(info: &RequestInfo) -> Value {
    if !info.is_resource {
        return Value::Null;
    }
    let parts = [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ];
    let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
    parts.map(|(key, text)| (key.to_string(), Value::from(text.as_str()))).collect()
}

/// What only the body says about the object.
fn complete(reference: &mut Value, object: &Value) {
    for key in ["name", "namespace", "uid", "resourceVersion"] {
        let given = object["metadata"][key].as_str().filter(|text| !text.is_empty());
        if let (Some(given), true) = (given, reference[key].is_null()) {
            reference[key] = given.into();
        }
    }
    // Asking for a missing key has left nothing behind.
    if let Some(reference) = reference.as_object_mut() {
        reference.retain(|_, value| !value.is_null());
    }
}

fn status(code: u16, failure: Option<&Status>) -> Value {
    let mut status = json!({"metadata": {}});
    if let Some(failure) = failure {
        status["status"] = "Failure".into();
        status["message"] = failure.message.as_str().into();
        status["reason"] = failure.reason.into();
    }
    status["code"] = code.into();
    status
}

/// Watches and connections: their answers begin long before they end.
fn is_long(info: &RequestInfo) -> bool {
    info.verb == "watch"
        || info.is_resource
            && matches!(info.subresource.as_str(), "attach" | "exec" | "log" | "portforward" | "proxy")
}

fn is_object(content_type: &str) -> bool {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    name.is_empty() || name.ends_with("json") || name.ends_with("yaml") || name == protobuf::CONTENT_TYPE
}

/// A body as JSON, whatever it came as.
fn decoded(content_type: &str, body: &[u8]) -> Option<Value> {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    if name == protobuf::CONTENT_TYPE {
        return protobuf::decode(body).ok().map(api::Object::into_value);
    }
    let json = serde_json::from_slice(body).ok();
    json.or_else(|| name.ends_with("yaml").then(|| serde_yaml::from_slice(body).ok())?)
}

fn kept(object: Value, verdict: &Verdict) -> Value {
    if verdict.omit_managed_fields { without_managed_fields(object) } else { object }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_heard_before_the_peer() {
        let request = Request::get("/").header("x-forwarded-for", "192.0.2.1, nonsense, 192.0.2.2");
        let mut request = request.header("x-real-ip", "192.0.2.2").body(Body::empty()).unwrap();
        request.extensions_mut().insert(PeerAddress("198.51.100.1:80".parse().unwrap()));
        assert_eq!(sources(&request), ["192.0.2.1", "192.0.2.2", "198.51.100.1"]);
        assert_eq!(sources(&Request::new(Body::empty())), ["127.0.0.1"]);
    }

    /// What a request to `/version` leaves behind when this happens to its trail.
    async fn stages<F: Future<Output = ()>>(
        happens: impl FnOnce(Arc<Trail>, RequestInfo) -> F,
    ) -> Vec<Value> {
        let dir = tempfile::tempdir().unwrap();
        let policy_file = dir.path().join("policy.yaml");
        let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n\
                      omitStages: [RequestReceived]\n";
        std::fs::write(&policy_file, policy).unwrap();
        let log_path = dir.path().join("audit.log");
        let limits = super::super::Limits::default();
        let settings = super::super::Settings { policy_file, log_path: log_path.clone(), limits };
        let audit = Audit::open(&settings).unwrap();
        let request = Request::get("/version").body(Body::empty()).unwrap();
        let query = crate::request::Query::of(request.uri()).unwrap();
        let info = RequestInfo::read(request.method(), request.uri(), &query);
        let trail = Trail::begin(Some(&audit), &info, &request);
        trail.authenticated(&User::new("ann", &[]), &info).await;
        happens(trail, info).await;
        audit.flushed().await;
        let text = std::fs::read_to_string(log_path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_leaves_one_event() {
        let events = stages(|trail, _| async move { drop(trail) }).await;
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0]["stage"], "ResponseComplete");
        assert_eq!(events[0]["responseStatus"]["message"], "Connection closed early");
    }

    #[tokio::test]
    async fn an_answer_leaves_one_event_and_so_does_a_panic() {
        let events = stages(|trail, info| async move {
            drop(trail.answered(&info, Response::new(Body::from(r#"{"a": 1}"#)), None).await);
        });
        let events = events.await;
        assert_eq!((events.len(), &events[0]["stage"]), (1, &json!("ResponseComplete")));
        assert_eq!(events[0]["responseObject"], json!({"a": 1}));
        let events = stages(|trail, _| async move { trail.panicked("ouch").await }).await;
        assert_eq!((events.len(), &events[0]["stage"]), (1, &json!("Panic")));
    }

    #[tokio::test]
    async fn what_another_server_answers_is_not_collected() {
        let events = stages(|trail, info| async move {
            // A body that never ends.
            let endless = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            let mut response = Response::new(Body::from_stream(endless));
            response.extensions_mut().insert(Foreign);
            drop(trail.answered(&info, response, None).await);
        });
        let events = events.await;
        assert_eq!((events.len(), &events[0]["stage"]), (1, &json!("ResponseComplete")));
        assert_eq!(events[0]["responseStatus"]["code"], 200);
    }

    #[test]
    fn the_body_says_what_the_path_does_not() {
        let mut reference = json!({"resource": "pods", "namespace": "a"});
        complete(&mut reference, &json!({"metadata": {"name": "web", "namespace": "b", "uid": ""}}));
        assert_eq!(reference, json!({"resource": "pods", "namespace": "a", "name": "web"}));
    }
}
