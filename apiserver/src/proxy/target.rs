//! How a request for a pod reads at its kubelet: the container meant, path and query. Pure.

use api::{FieldError, Object, Status};
use http::Uri;
use jiff::Timestamp;
use serde_json::json;

use crate::request::{Query, RequestInfo, not_a_number};

/// `name`, `name:port` or `scheme:name:port`, as the proxy subresources have it in place of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamedTarget<'a> {
    pub(super) scheme: &'a str,
    pub(super) name: &'a str,
    pub(super) port: &'a str,
}

impl NamedTarget<'_> {
    /// `what` is meant: a node, a pod or a service.
    pub(super) fn parse<'a>(text: &'a str, what: &str) -> Result<NamedTarget<'a>, Status> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme @ ("" | "http" | "https"), name, port] => (*scheme, *name, *port),
            _ => ("", "", ""),
        };
        match name {
            "" => Err(Status::bad_request(format!("invalid {what} request {text:?}"))),
            name => Ok(NamedTarget { scheme, name, port }),
        }
    }
}

/// The container meant: the one that was named, or the only one there is.
pub(super) fn container_of<'a>(pod: &'a Object, asked: Option<&'a str>) -> Result<&'a str, Status> {
    let names = |list: &str| -> Vec<&'a str> {
        pod.list(&["spec", list]).iter().filter_map(|container| container["name"].as_str()).collect()
    };
    let [containers, init, ephemeral] = ["containers", "initContainers", "ephemeralContainers"].map(names);
    match asked {
        Some(name) if containers.iter().chain(&init).chain(&ephemeral).any(|one| *one == name) => Ok(name),
        Some(name) => {
            Err(Status::bad_request(format!("container {name} is not valid for pod {}", pod.name())))
        }
        None => match containers.as_slice() {
            [only] => Ok(only),
            [] => {
                Err(Status::bad_request(format!("a container name must be specified for pod {}", pod.name())))
            }
            several => {
                let all: Vec<&str> = init.iter().chain(several).chain(&ephemeral).copied().collect();
                let message = format!(
                    "a container name must be specified for pod {}, choose one of: [{}]",
                    pod.name(),
                    all.join(" ")
                );
                Err(Status::bad_request(message))
            }
        },
    }
}

/// The path at the kubelet.
pub(super) fn kubelet_path(
    verb: &str,
    info: &RequestInfo,
    container: Option<&str>,
    query: &[(&str, String)],
) -> String {
    let mut path = format!("/{verb}/{}/{}", info.namespace, info.name);
    if let Some(container) = container {
        path.push('/');
        path.push_str(container);
    }
    let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
    if !query.is_empty() {
        path.push('?');
        path.push_str(&query.join("&"));
    }
    path
}

/// Refuses log options that make no sense, in upstream's words.
pub(super) fn check_log_options(query: &Query, pod: &str) -> Result<(), Status> {
    let mut errors = Vec::new();
    for (key, least, why) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        let Some(text) = query.all(key).next() else { continue };
        let refused = |error| Status::bad_request(not_a_number("ParseInt", text, &error));
        let number: i64 = text.parse().map_err(refused)?;
        if number < least {
            errors.push(FieldError::invalid(key, &json!(number), why));
        }
    }
    if let Some(time) = query.get("sinceTime").filter(|time| !matches!(*time, "" | "null")) {
        check_time(time)?;
        if query.get("sinceSeconds").is_some() {
            let fault = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            // An empty path, as upstream prints it.
            errors.push(FieldError::forbidden("[]", fault));
        }
    }
    match errors.as_slice() {
        [] => Ok(()),
        errors => Err(Status::invalid("", "PodLogOptions", pod, errors)),
    }
}

/// The options of `pods/log`, as the kubelet takes them.
pub(super) fn log_query<'a>(query: &Query) -> Vec<(&'a str, String)> {
    let mut options = Vec::new();
    for flag in ["follow", "previous", "timestamps"] {
        if query.is_true(flag) {
            options.push((flag, "true".to_string()));
        }
    }
    for key in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
        if let Some(value) = query.get(key) {
            options.push((key, value.to_string()));
        }
    }
    options
}

/// The options of `pods/exec` and `pods/attach`; the kubelet has its own names for the streams.
pub(super) fn stream_query<'a>(query: &Query, with_command: bool) -> Vec<(&'a str, String)> {
    let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let wanted = streams.into_iter().filter(|(ours, _)| query.is_true(ours));
    let mut options: Vec<(&str, String)> = wanted.map(|(_, theirs)| (theirs, "1".to_string())).collect();
    if with_command {
        options.extend(query.all("command").map(|word| ("command", word.to_string())));
    }
    options
}

/// The ports of `pods/portforward`: WebSocket clients name them in the URL.
pub(super) fn forward_query<'a>(query: &Query) -> Result<Vec<(&'a str, String)>, Status> {
    let mut ports = Vec::new();
    for port in query.all("ports").chain(query.all("port")).flat_map(|ports| ports.split(',')) {
        let refused = |error| {
            let why = not_a_number("ParseUint", port, &error);
            Status::bad_request(format!("cannot convert to []int32: {why}"))
        };
        port.parse::<u16>().map_err(refused)?;
        ports.push(("port", port.to_string()));
    }
    Ok(ports)
}

/// Refuses what is no time, as Go's reader of times does.
fn check_time(text: &str) -> Result<(), Status> {
    if text.parse::<Timestamp>().is_ok() {
        return Ok(());
    }
    let layout = "2006-01-02T15:04:05Z07:00";
    Err(Status::bad_request(format!(
        "parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""
    )))
}

/// What follows `proxy` in the path, as it was sent, with the query.
pub(super) fn rest_of(uri: &Uri, info: &RequestInfo) -> String {
    // "", "api", "v1", resource, name, "proxy"; two more with a namespace.
    let before = if info.namespace.is_empty() || info.resource == "nodes" { 6 } else { 8 };
    let rest = uri.path().splitn(before + 1, '/').nth(before).unwrap_or_default();
    match uri.query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    }
}

/// A port's number.
pub(super) fn number(text: &str) -> Result<u16, Status> {
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Status::bad_request(format!("invalid port {text:?}")))
}

/// The number of a port that a pod gives by name.
pub(super) fn container_port(pod: &Object, name: &str) -> Option<u16> {
    let containers = pod.list(&["spec", "containers"]).iter();
    let ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
    let found = ports.into_iter().find(|port| name.is_empty() || port["name"] == name)?;
    found["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok())
}

/// Percent-encoding for a query's value.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::Value;

    use super::*;

    fn read(uri: &str) -> (Uri, Query, RequestInfo) {
        let uri: Uri = uri.parse().unwrap();
        let query = Query::of(&uri).unwrap();
        let info = RequestInfo::read(&Method::GET, &uri, &query);
        (uri, query, info)
    }

    fn pod(containers: &[&str]) -> Object {
        let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
        Object::from_value(json!({"metadata": {"name": "web"}, "spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn the_only_container_need_not_be_named() {
        assert_eq!(container_of(&pod(&["a"]), None), Ok("a"));
        let message = |pod: &Object, asked| container_of(pod, asked).unwrap_err().message;
        assert_eq!(
            message(&pod(&["a", "b"]), None),
            "a container name must be specified for pod web, choose one of: [a b]"
        );
        assert_eq!(message(&pod(&["a"]), Some("x")), "container x is not valid for pod web");
    }

    #[test]
    fn exec_reads_as_the_kubelet_wants_it() {
        let (_, query, info) = read(
            "/api/v1/namespaces/a/pods/web/exec?command=sh&command=-c&command=echo+%26&stdin=true&stdout=true&tty=false&container=c",
        );
        let path = kubelet_path("exec", &info, Some("c"), &stream_query(&query, true));
        assert_eq!(path, "/exec/a/web/c?input=1&output=1&command=sh&command=-c&command=echo%20%26");
    }

    #[test]
    fn logs_keep_their_options() {
        let (_, query, info) =
            read("/api/v1/namespaces/a/pods/web/log?follow=true&tailLines=5&sinceTime=2026-01-01T00:00:00Z");
        let path = kubelet_path("containerLogs", &info, Some("c"), &log_query(&query));
        assert_eq!(path, "/containerLogs/a/web/c?follow=true&sinceTime=2026-01-01T00%3A00%3A00Z&tailLines=5");
        let (_, wrong, _) = read("/api/v1/namespaces/a/pods/web/log?tailLines=-1");
        assert_eq!(check_log_options(&wrong, "web").unwrap_err().code, 422);
        for (options, code, told) in [
            ("tailLines=", 400, r#"strconv.ParseInt: parsing "": invalid syntax"#),
            (
                "limitBytes=99999999999999999999",
                400,
                r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#,
            ),
            (
                "sinceTime=x",
                400,
                r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#,
            ),
            (
                "sinceTime=2026-01-01T00:00:00Z&sinceSeconds=1",
                422,
                "PodLogOptions \"web\" is invalid: []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
            ),
        ] {
            let (_, query, _) = read(&format!("/api/v1/namespaces/a/pods/web/log?{options}"));
            let refused = check_log_options(&query, "web").unwrap_err();
            assert_eq!((refused.code, refused.message.as_str()), (code, told), "{options}");
        }
        let ports =
            |text: &str| forward_query(&read(&format!("/api/v1/namespaces/a/pods/web/portforward?{text}")).1);
        assert_eq!(ports("ports=80,81&port=82").unwrap().len(), 3);
        let refused = ports("ports=70000").unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (400, r#"cannot convert to []int32: strconv.ParseUint: parsing "70000": value out of range"#)
        );
    }

    #[test]
    fn the_rest_of_a_proxied_path_is_kept_as_sent() {
        let rest = |uri: &str| {
            let (uri, _, info) = read(uri);
            rest_of(&uri, &info)
        };
        assert_eq!(rest("/api/v1/namespaces/a/services/http:web:80/proxy/x%2Fy/z?q=1"), "/x%2Fy/z?q=1");
        assert_eq!(rest("/api/v1/namespaces/a/pods/web/proxy"), "/");
        assert_eq!(rest("/api/v1/nodes/n/proxy/metrics"), "/metrics");
    }

    #[test]
    fn a_target_may_carry_scheme_and_port() {
        assert_eq!(
            NamedTarget::parse("https:web:443", "pod"),
            Ok(NamedTarget { scheme: "https", name: "web", port: "443" })
        );
        assert_eq!(
            NamedTarget::parse("web:http", "pod"),
            Ok(NamedTarget { scheme: "", name: "web", port: "http" })
        );
        for text in ["ftp:web:21", "a:b:c:d", "::", ":http", ""] {
            let refused = NamedTarget::parse(text, "service").unwrap_err();
            assert_eq!((refused.code, refused.message), (400, format!("invalid service request {text:?}")));
        }
    }
}
