//! The table of routes: method and path to verb and resource, as upstream's `RequestInfoFactory` has it.

use http::{Method, Uri};

use super::Query;
use crate::path::decoded;

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource; otherwise `verb` and `path` say all there is to say.
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other
    /// paths the method in lower case.
    pub verb: &'static str,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    /// Empty for cluster-scoped resources and for requests across all namespaces. For `namespaces`
    /// themselves, as upstream, the name.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// What follows the subresource, without a leading slash (`proxy` has a path of its own).
    pub rest: String,
    /// The path as it was sent.
    pub path: String,
    /// The field selector of a request about a collection; empty for none.
    pub fields: String,
}

impl RequestInfo {
    /// Reads method and URL.
    pub fn read(method: &Method, uri: &Uri, query: &Query) -> RequestInfo {
        let path = uri.path();
        let mut info = RequestInfo { path: path.to_string(), verb: plain_verb(method), ..Default::default() };
        let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let parts = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_string();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_string();
                info.version = (*version).to_string();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = resource_verb(method);
        let (parts, watch_path) = match parts {
            ["watch", rest @ ..] if !rest.is_empty() && *method == Method::GET => (rest, true),
            parts => (parts, false),
        };
        info.read_resource(parts);
        info.refine_verb(query, watch_path);
        info
    }

    fn read_resource(&mut self, parts: &[&str]) {
        let parts = match parts {
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = (*namespace).to_string();
                match rest {
                    // A namespace itself, or one of its own subresources.
                    [] | ["status" | "finalize", ..] => parts,
                    rest => rest,
                }
            }
            parts => parts,
        };
        let mut parts = parts.iter();
        let mut next = || parts.next().map(ToString::to_string).unwrap_or_default();
        self.resource = next();
        self.name = next();
        self.subresource = next();
        self.rest = parts.copied().collect::<Vec<_>>().join("/");
    }

    fn refine_verb(&mut self, query: &Query, watch_path: bool) {
        let is_collection = self.name.is_empty();
        match self.verb {
            "get" if watch_path || (is_collection && query.is_true("watch")) => self.verb = "watch",
            "get" if is_collection => self.verb = "list",
            // A single object may be watched by its own URL, too.
            "get" if query.is_true("watch") && self.subresource.is_empty() => self.verb = "watch",
            "delete" if is_collection => self.verb = "deletecollection",
            _ => {}
        }
        if is_collection && matches!(self.verb, "list" | "watch" | "deletecollection") {
            self.fields = query.get("fieldSelector").unwrap_or_default().to_string();
        }
        if is_collection
            && matches!(self.verb, "list" | "watch" | "deletecollection")
            && let Some(name) = query.get("fieldSelector").and_then(only_name)
        {
            self.name = name;
        }
    }

    /// Whether the request is meant to last: it has no time limit and takes no share of the server.
    pub fn is_long_running(&self) -> bool {
        let lasts = ["exec", "attach", "portforward", "proxy", "log"];
        self.verb == "watch" || lasts.contains(&self.subresource.as_str())
    }

    /// `pods.apps`-like name of the resource with its group, for messages.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
}

fn resource_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn plain_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// The name in a field selector that requires `metadata.name=NAME` and nothing that undoes it.
fn only_name(selector: &str) -> Option<String> {
    let name = selector.split(',').find_map(|term| {
        let (field, value) = term.split_once('=')?;
        (field == "metadata.name").then(|| value.trim_start_matches('=').to_string())
    })?;
    crate::path::is_segment(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, uri: &str) -> RequestInfo {
        let uri: Uri = uri.parse().unwrap();
        RequestInfo::read(&method, &uri, &Query::of(&uri).unwrap())
    }

    /// method, URL, verb, group, version, namespace, resource, subresource, name
    const ROUTES: &[(Method, &str, [&str; 7])] = &[
        (Method::GET, "/api/v1/pods", ["list", "", "v1", "", "pods", "", ""]),
        (Method::GET, "/api/v1/pods?watch=true", ["watch", "", "v1", "", "pods", "", ""]),
        (Method::GET, "/api/v1/pods?watch=1", ["watch", "", "v1", "", "pods", "", ""]),
        (Method::GET, "/api/v1/pods?watch=0", ["list", "", "v1", "", "pods", "", ""]),
        (Method::GET, "/api/v1/watch/pods", ["watch", "", "v1", "", "pods", "", ""]),
        (Method::GET, "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]),
        (Method::GET, "/api/v1/namespaces/a", ["get", "", "v1", "a", "namespaces", "", "a"]),
        (
            Method::PUT,
            "/api/v1/namespaces/a/finalize",
            ["update", "", "v1", "a", "namespaces", "finalize", "a"],
        ),
        (Method::PUT, "/api/v1/namespaces/a/status", ["update", "", "v1", "a", "namespaces", "status", "a"]),
        (Method::POST, "/api/v1/namespaces/a/pods", ["create", "", "v1", "a", "pods", "", ""]),
        (Method::GET, "/api/v1/namespaces/a/pods/b", ["get", "", "v1", "a", "pods", "", "b"]),
        (Method::HEAD, "/api/v1/namespaces/a/pods/b", ["get", "", "v1", "a", "pods", "", "b"]),
        (Method::GET, "/api/v1/namespaces/a/pods/b/log", ["get", "", "v1", "a", "pods", "log", "b"]),
        (Method::DELETE, "/api/v1/namespaces/a/pods/b", ["delete", "", "v1", "a", "pods", "", "b"]),
        (Method::DELETE, "/api/v1/namespaces/a/pods", ["deletecollection", "", "v1", "a", "pods", "", ""]),
        (
            Method::PATCH,
            "/apis/apps/v1/namespaces/a/deployments/b/scale",
            ["patch", "apps", "v1", "a", "deployments", "scale", "b"],
        ),
        (Method::GET, "/apis/apps/v1/deployments", ["list", "apps", "v1", "", "deployments", "", ""]),
        (Method::GET, "/api/v1/nodes/n", ["get", "", "v1", "", "nodes", "", "n"]),
        (Method::PUT, "/api/v1/nodes/n/status", ["update", "", "v1", "", "nodes", "status", "n"]),
        (
            Method::GET,
            "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db",
            ["list", "", "v1", "a", "pods", "", "b"],
        ),
        (
            Method::GET,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            ["get", "rbac.authorization.k8s.io", "v1", "", "clusterroles", "", "system:node"],
        ),
    ];

    #[test]
    fn every_route_has_its_verb() {
        for (method, uri, expected) in ROUTES {
            let info = read(method.clone(), uri);
            let actual = [
                info.verb,
                &info.group,
                &info.version,
                &info.namespace,
                &info.resource,
                &info.subresource,
                &info.name,
            ];
            assert!(info.is_resource, "{method} {uri}");
            assert_eq!(actual, *expected, "{method} {uri}");
        }
    }

    #[test]
    fn paths_without_a_resource_keep_the_method() {
        for uri in ["/", "/api", "/apis", "/api/v1", "/apis/apps/v1", "/healthz", "/openapi/v3/apis/apps/v1"]
        {
            let info = read(Method::GET, uri);
            assert!(!info.is_resource, "{uri}");
            assert_eq!((info.verb, info.path.as_str()), ("get", uri));
        }
        assert_eq!(read(Method::POST, "/healthz").verb, "post");
    }

    #[test]
    fn a_proxied_path_is_kept_behind_the_subresource() {
        let info = read(Method::GET, "/api/v1/namespaces/a/services/b:http/proxy/x/y");
        assert_eq!(
            (info.name.as_str(), info.subresource.as_str(), info.rest.as_str()),
            ("b:http", "proxy", "x/y")
        );
    }
}
