//! What is asked of an authorizer, and the refusal in upstream's words.

use api::Status;

use crate::request::{RequestInfo, User};

/// May somebody do this? Borrowed from a request, or from a review that asks on behalf of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Question<'a> {
    /// Whether it is about a resource; otherwise only `verb` and `path` count.
    pub is_resource: bool,
    /// Such as `list`; for paths the HTTP method in lower case.
    pub verb: &'a str,
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for the whole cluster.
    pub namespace: &'a str,
    /// Empty for any.
    pub name: &'a str,
    /// The path, when it is not about a resource.
    pub path: &'a str,
    /// Which objects of a collection are meant, as a field selector's text; empty for all.
    pub fields: &'a str,
}

impl<'a> From<&'a RequestInfo> for Question<'a> {
    fn from(info: &'a RequestInfo) -> Question<'a> {
        Question {
            is_resource: info.is_resource,
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            fields: &info.fields,
        }
    }
}

/// 403, as upstream says it: who, what, where, and why not where there is more to say.
pub fn forbidden(user: &User, question: &Question<'_>, reason: &str) -> Status {
    let mut why = cannot(user, question);
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    if question.is_resource {
        return Status::forbidden(question.group, question.resource, question.name, &why);
    }
    let mut status = Status::new(403, "Forbidden", format!("forbidden: {why}"));
    status.details = Some(serde_json::json!({}));
    status
}

fn cannot(user: &User, question: &Question<'_>) -> String {
    let Question { verb, group, namespace, path, .. } = question;
    if !question.is_resource {
        return format!("User {:?} cannot {verb} path {path:?}", user.name);
    }
    let resource = match question.subresource {
        "" => question.resource.to_string(),
        subresource => format!("{}/{subresource}", question.resource),
    };
    let place = match *namespace {
        "" => "at the cluster scope".to_string(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("User {:?} cannot {verb} resource {resource:?} in API group {group:?} {place}", user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_upstream_words_them() {
        let user = User::new("x", &[]);
        let list = Question {
            is_resource: true,
            verb: "list",
            resource: "pods",
            namespace: "default",
            ..Question::default()
        };
        assert_eq!(
            forbidden(&user, &list, "").message,
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        let patch = Question {
            verb: "patch",
            group: "apps",
            resource: "deployments",
            subresource: "scale",
            name: "web",
            namespace: "",
            ..list
        };
        assert_eq!(
            forbidden(&user, &patch, "because").message,
            r#"deployments.apps "web" is forbidden: User "x" cannot patch resource "deployments/scale" in API group "apps" at the cluster scope: because"#
        );
        let path = Question { verb: "get", path: "/metrics", ..Question::default() };
        assert_eq!(forbidden(&user, &path, "").message, r#"forbidden: User "x" cannot get path "/metrics""#);
    }
}
