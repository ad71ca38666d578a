//! `Impersonate-*` headers: who somebody wants to be, and what they need to be allowed for it.

use std::collections::BTreeMap;

use api::Status;
use http::{HeaderMap, HeaderValue};

use crate::{authz::Question, path::decoded, request::User};

const EXTRA_PREFIX: &str = "impersonate-extra-";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const ANONYMOUS: &str = "system:anonymous";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Who the headers ask to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// One thing that somebody must be allowed to `impersonate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needed {
    group: &'static str,
    resource: &'static str,
    subresource: String,
    namespace: String,
    name: String,
}

/// What the headers say; `None` without any, 500 in upstream's words when there is everything but a user.
pub(crate) fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>, Status> {
    // What is no text must not pass for nothing: the request would go on with the caller's own rights.
    let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let text = |name: &str| headers.get(name).map(shown).unwrap_or_default();
    let all = |name: &str| headers.get_all(name).iter().map(shown).collect();
    let mut wanted = Wanted {
        name: text("impersonate-user"),
        uid: text("impersonate-uid"),
        groups: all("impersonate-group"),
        extra: BTreeMap::new(),
    };
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            wanted.extra.insert(decoded(key), all(name.as_str()));
        }
    }
    if wanted == Wanted::default() {
        return Ok(None);
    }
    if wanted.name.is_empty() {
        return Err(Status::internal("requested [{UserInfo}] without impersonating a user"));
    }
    Ok(Some(wanted))
}

impl Wanted {
    /// All that must be allowed.
    pub(crate) fn questions(&self) -> Vec<Needed> {
        let user = match service_account(&self.name) {
            Some((namespace, name)) => Needed {
                resource: "serviceaccounts",
                namespace: namespace.into(),
                name: name.into(),
                ..Needed::default()
            },
            None => Needed { resource: "users", name: self.name.clone(), ..Needed::default() },
        };
        let groups = self.groups.iter().map(|group| Needed {
            resource: "groups",
            name: group.clone(),
            ..Needed::default()
        });
        let authentication = "authentication.k8s.io";
        let uid = (!self.uid.is_empty()).then(|| Needed {
            group: authentication,
            resource: "uids",
            name: self.uid.clone(),
            ..Needed::default()
        });
        let extra = self.extra.iter().flat_map(|(key, values)| {
            values.iter().map(|value| Needed {
                group: authentication,
                resource: "userextras",
                subresource: key.clone(),
                name: value.clone(),
                ..Needed::default()
            })
        });
        std::iter::once(user).chain(groups).chain(uid).chain(extra).collect()
    }

    /// The user to go on as. Groups that follow from the name are added when none are asked for.
    pub(crate) fn into_user(self) -> User {
        let mut groups = self.groups;
        if groups.is_empty()
            && let Some((namespace, _)) = service_account(&self.name)
        {
            groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        // As upstream: anybody may ask to be unauthenticated, and anonymous is so whatever else it asks for.
        let (last, excluding): (_, &[&str]) = match self.name.as_str() {
            ANONYMOUS => (UNAUTHENTICATED, &[UNAUTHENTICATED]),
            _ => (AUTHENTICATED, &[AUTHENTICATED, UNAUTHENTICATED]),
        };
        if !groups.iter().any(|group| excluding.contains(&group.as_str())) {
            groups.push(last.into());
        }
        User { name: self.name, uid: self.uid, groups, extra: self.extra }
    }
}

impl Needed {
    pub(crate) fn as_question(&self) -> Question<'_> {
        Question {
            is_resource: true,
            verb: "impersonate",
            group: self.group,
            resource: self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            path: "",
            fields: "",
        }
    }
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    // What cannot be the name of one is anybody's, which takes other permissions.
    let is_one = api::name::dns_label(namespace).is_ok() && api::name::dns_subdomain(name).is_ok();
    is_one.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let wanted =
            wanted(&headers(&[("impersonate-user", "system:serviceaccount:a:web")])).unwrap().unwrap();
        assert_eq!(wanted.questions()[0].resource, "serviceaccounts");
        assert_eq!(
            wanted.into_user().groups,
            ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
        );
    }

    #[test]
    fn what_only_looks_like_a_service_account_is_a_user() {
        for name in ["system:serviceaccount:a:b:c", "system:serviceaccount:A:b", "system:serviceaccount:a:"] {
            let wanted = wanted(&headers(&[("impersonate-user", name)])).unwrap().unwrap();
            assert_eq!(wanted.questions()[0].resource, "users", "{name}");
            assert_eq!(wanted.into_user().groups, ["system:authenticated"], "{name}");
        }
    }

    #[test]
    fn who_asks_to_be_unauthenticated_is_so() {
        let asked = [("impersonate-user", "ann"), ("impersonate-group", "system:unauthenticated")];
        assert_eq!(wanted(&headers(&asked)).unwrap().unwrap().into_user().groups, ["system:unauthenticated"]);
        let nobody = [("impersonate-user", "system:anonymous")];
        assert_eq!(
            wanted(&headers(&nobody)).unwrap().unwrap().into_user().groups,
            ["system:unauthenticated"]
        );
        let pretender =
            [("impersonate-user", "system:anonymous"), ("impersonate-group", "system:authenticated")];
        assert_eq!(
            wanted(&headers(&pretender)).unwrap().unwrap().into_user().groups,
            ["system:authenticated", "system:unauthenticated"]
        );
    }

    #[test]
    fn uid_and_extra_need_permission_by_names_of_their_own() {
        let asked = [
            ("impersonate-user", "ann"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-example.com%2fteam", "red"),
        ];
        let needed = wanted(&headers(&asked)).unwrap().unwrap().questions();
        let shown = |needed: &Needed| {
            let question = needed.as_question();
            [question.verb, question.group, question.resource, question.subresource, question.name].join(" ")
        };
        assert_eq!(
            needed.iter().map(shown).collect::<Vec<_>>(),
            [
                "impersonate  users  ann",
                "impersonate authentication.k8s.io uids  7",
                "impersonate authentication.k8s.io userextras example.com/team red",
            ]
        );
    }

    #[test]
    fn every_group_needs_permission() {
        let pairs = [("impersonate-user", "ann"), ("impersonate-group", "dev"), ("impersonate-group", "ops")];
        let wanted = wanted(&headers(&pairs)).unwrap().unwrap();
        let names: Vec<_> =
            wanted.questions().into_iter().map(|needed| (needed.resource, needed.name)).collect();
        assert_eq!(names, [("users", "ann".into()), ("groups", "dev".into()), ("groups", "ops".to_string())]);
    }

    #[test]
    fn what_is_no_text_is_not_overlooked() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-user", HeaderValue::from_bytes(b"ann\xff").unwrap());
        let wanted = wanted(&headers).unwrap().unwrap();
        assert_eq!(wanted.questions()[0].name, "ann\u{fffd}");
    }

    #[test]
    fn groups_without_a_user_are_refused() {
        assert_eq!(wanted(&headers(&[])), Ok(None));
        assert_eq!(wanted(&headers(&[("impersonate-group", "ops")])).unwrap_err().code, 500);
    }
}
