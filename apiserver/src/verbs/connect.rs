//! What is not stored but carried on: exec, attach, port-forward, proxy and logs; and the admission of it.

use api::{Kind, Object, Status};
use axum::body::Body;
use http::{Method, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};

use crate::{
    discovery,
    hooks::{Attributes, Operation},
    request::{Query, RequestInfo, User},
    server::State,
    verbs::socket,
};

/// Asks admission about a connection, which it sees as an object made of the connection's options. Returns warnings.
pub(super) async fn admit(
    state: &State,
    kind: &'static Kind,
    info: &RequestInfo,
    query: &Query,
    user: &User,
) -> Result<Vec<String>, Status> {
    if info.subresource == "log" {
        return Ok(Vec::new());
    }
    let attributes = Attributes {
        user,
        operation: Operation::Connect,
        kind,
        subresource: &info.subresource,
        namespace: if kind.is_namespaced() { &info.namespace } else { "" },
        name: &info.name,
        addressed: &info.name,
        dry_run: false,
        options: &Value::Null,
        deadline: None,
    };
    let options = options(kind, info, query);
    state.hooks.admission.validate(&state.registry, &attributes, Some(&options), None).await
}

/// What a proxy passes on.
const PROXIED: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

/// A proxy passes on every method that there is; a log is read, and a stream is begun by one of two.
pub(super) fn check_method(info: &RequestInfo, method: &Method) -> Result<(), Status> {
    let is_allowed = match info.subresource.as_str() {
        "proxy" => PROXIED.contains(&method.as_str()),
        "log" => method == Method::GET,
        _ => matches!(*method, Method::GET | Method::POST),
    };
    if is_allowed { Ok(()) } else { Err(Status::method_not_allowed()) }
}

/// Carries the request on to whom it is for; gives it back if that is nobody. A log is only read: a client that wants
/// it over WebSocket speaks that with us, and not with the kubelet.
pub(super) async fn carry_on(
    state: &State,
    user: &User,
    info: &RequestInfo,
    mut request: Request<Body>,
) -> Result<Result<Response<Body>, Status>, Request<Body>> {
    let is_socket = info.subresource == "log" && socket::is_asked_for(request.headers());
    let upgrade = if is_socket { request.extensions_mut().remove::<OnUpgrade>() } else { None };
    let Some(upgrade) = upgrade else {
        return state.hooks.answers.connect(&state.registry, user, info, request).await;
    };
    let headers = request.headers().clone();
    request.headers_mut().remove(header::CONNECTION);
    request.headers_mut().remove(header::UPGRADE);
    let answer = state.hooks.answers.connect(&state.registry, user, info, request).await?;
    Ok(match answer {
        Ok(log) if log.status() == StatusCode::OK => socket::log(&state.registry, &headers, upgrade, log),
        other => other,
    })
}

/// The options that the URL has, such as `PodExecOptions`.
fn options(kind: &Kind, info: &RequestInfo, query: &Query) -> Object {
    let (_, version, name) = discovery::kind_of(kind, &info.subresource);
    let mut options = Object::default();
    options.set(&["kind"], name);
    options.set(&["apiVersion"], version);
    match info.subresource.as_str() {
        "proxy" => options.set(&["path"], format!("/{}", info.rest)),
        "portforward" => {
            let ports = query.all("ports").flat_map(|ports| ports.split(','));
            let ports: Vec<Value> =
                ports.filter_map(|port| port.parse::<u16>().ok()).map(Value::from).collect();
            if !ports.is_empty() {
                options.set(&["ports"], ports);
            }
        }
        _ => {
            for stream in ["stdin", "stdout", "stderr", "tty"] {
                if query.is_true(stream) {
                    options.set(&[stream], true);
                }
            }
            if let Some(container) = query.get("container") {
                options.set(&["container"], container);
            }
            let command: Vec<&str> = query.all("command").collect();
            if info.subresource == "exec" && !command.is_empty() {
                options.set(&["command"], json!(command));
            }
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use api::kinds;

    use super::*;

    #[test]
    fn an_exec_is_an_object_with_its_command() {
        let uri = "/api/v1/namespaces/n/pods/p/exec?command=ls&command=-l&stdout=true&container=main"
            .parse()
            .unwrap();
        let query = Query::of(&uri).unwrap();
        let info = RequestInfo::read(&http::Method::POST, &uri, &query);
        let options = options(kinds::find("", "v1", "pods").unwrap(), &info, &query);
        assert_eq!(
            options.into_value(),
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["ls", "-l"], "stdout": true, "container": "main"})
        );
    }
}
