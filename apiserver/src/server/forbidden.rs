//! The words for "you may not", as upstream has them.

use api::Status;
use serde_json::json;

use crate::request::{RequestInfo, User};

/// 403.
pub(super) fn status(user: &User, info: &RequestInfo, reason: &str) -> Status {
    let why = match reason {
        "" => sentence(user, info),
        reason => format!("{}: {reason}", sentence(user, info)),
    };
    if info.is_resource {
        return Status::forbidden(&info.group, &info.resource, &info.name, &why);
    }
    let mut status = Status::new(403, "Forbidden", format!("forbidden: {why}"));
    status.details = Some(json!({}));
    status
}

fn sentence(user: &User, info: &RequestInfo) -> String {
    let (name, verb) = (&user.name, info.verb);
    if !info.is_resource {
        return format!("User {name:?} cannot {verb} path {:?}", info.path);
    }
    let resource = match info.subresource.as_str() {
        "" => info.resource.clone(),
        subresource => format!("{}/{subresource}", info.resource),
    };
    let place = match info.namespace.as_str() {
        "" => "at the cluster scope".to_string(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("User {name:?} cannot {verb} resource {resource:?} in API group {:?} {place}", info.group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_who_what_and_where() {
        let info = RequestInfo {
            is_resource: true,
            verb: "get",
            resource: "pods".into(),
            subresource: "log".into(),
            namespace: "default".into(),
            name: "web".into(),
            ..RequestInfo::default()
        };
        let status = status(&User::new("jane", &[]), &info, "");
        assert_eq!(
            status.message,
            "pods \"web\" is forbidden: User \"jane\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\""
        );
    }
}
