//! Bootstrap tokens: `ID.SECRET`, kept in Secrets of `kube-system`, for nodes that have no other credentials yet.

use api::{Object, Status, kinds};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::{registry::Registry, request::User};

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
const MAX_GROUP: usize = 256;

/// The user behind a token, if it is one of these.
pub(super) async fn user_of(
    registry: &Registry,
    token: &str,
    now: Timestamp,
) -> Result<Option<User>, Status> {
    let Some((id, secret)) = parts(token) else { return Ok(None) };
    let name = format!("bootstrap-token-{id}");
    let stored = registry.find(kinds::built_in("", "secrets"), NAMESPACE, &name).await?;
    Ok(stored.and_then(|stored| user(&stored, id, secret, now)))
}

/// Id and secret of what looks like a bootstrap token.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_word = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (is_word(id, ID_LENGTH) && is_word(secret, SECRET_LENGTH)).then_some((id, secret))
}

fn user(stored: &Object, id: &str, secret: &str, now: Timestamp) -> Option<User> {
    let data = |key: &str| {
        let bytes = BASE64_STANDARD.decode(stored.text(&["data", key])).unwrap_or_default();
        // What is no text must not pass for nothing: a token whose end cannot be read would have none.
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let is_meant = stored.text(&["type"]) == SECRET_TYPE
        && stored.deletion_timestamp().is_none()
        && data("token-id") == id
        && is_same(&data("token-secret"), secret)
        && !is_expired(&data("expiration"), now)
        && data("usage-bootstrap-authentication") == "true";
    if !is_meant {
        return None;
    }
    let mut groups = vec![GROUP.to_string()];
    for group in data("auth-extra-groups").split(',').filter(|group| !group.is_empty()) {
        if !is_group(group) {
            tracing::warn!(token = id, group, "a bootstrap token names a group that it may not be in");
            return None;
        }
        groups.push(group.to_string());
    }
    groups.push("system:authenticated".into());
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

/// Compares digests: how long that takes says nothing about the secret.
fn is_same(one: &str, other: &str) -> bool {
    digest(&SHA256, one.as_bytes()).as_ref() == digest(&SHA256, other.as_bytes()).as_ref()
}

/// As upstream: who names no time has all of it, and a time that cannot be read is over.
fn is_expired(expiration: &str, now: Timestamp) -> bool {
    !expiration.is_empty() && api::time::parse(expiration).map_or(true, |end| end <= now)
}

/// `system:bootstrappers:` and a name.
fn is_group(group: &str) -> bool {
    let Some(name) = group.strip_prefix("system:bootstrappers:") else { return false };
    let is_character = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_GROUP).contains(&name.len())
        && name.bytes().all(|byte| is_character(byte) || matches!(byte, b':' | b'-'))
        && name.bytes().last().is_some_and(is_character)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(changes: &[(&str, &str)]) -> Object {
        let mut data = json!({
            "token-id": "abcdef",
            "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
        });
        for (key, value) in changes {
            data[*key] = (*value).into();
        }
        let data = data.as_object().unwrap().iter();
        let data: serde_json::Map<_, _> = data
            .map(|(key, value)| (key.clone(), BASE64_STANDARD.encode(value.as_str().unwrap()).into()))
            .collect();
        Object::from_value(json!({"type": SECRET_TYPE, "data": data})).unwrap()
    }

    fn groups(changes: &[(&str, &str)]) -> Option<Vec<String>> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        user(&stored(changes), "abcdef", "0123456789abcdef", now).map(|user| user.groups)
    }

    #[test]
    fn a_token_is_good_for_what_its_secret_says() {
        assert_eq!(groups(&[]).unwrap(), [GROUP, "system:authenticated"]);
        let extra =
            groups(&[("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token")]).unwrap();
        assert_eq!(extra[1], "system:bootstrappers:kubeadm:default-node-token");
        assert!(groups(&[("expiration", "2026-01-01T00:00:01Z")]).is_some());
        assert!(groups(&[("expiration", "")]).is_some());
        for refused in [
            ("expiration", "2026-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("usage-bootstrap-authentication", "false"),
            ("token-secret", "0123456789abcdee"),
            ("token-id", "abcdeg"),
            ("auth-extra-groups", "system:masters"),
        ] {
            assert_eq!(groups(&[refused]), None, "{refused:?}");
        }
    }

    #[test]
    fn an_end_that_is_no_text_is_an_end() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut unreadable = stored(&[]);
        unreadable.set(&["data", "expiration"], BASE64_STANDARD.encode([0xff_u8]));
        assert_eq!(user(&unreadable, "abcdef", "0123456789abcdef", now), None);
    }

    #[test]
    fn only_ids_and_secrets_of_their_lengths_are_tokens() {
        assert_eq!(parts("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for text in [
            "abcde.0123456789abcdef",
            "abcdef.0123456789abcde",
            "ABCDEF.0123456789abcdef",
            "../../.0123456789abcdef",
        ] {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
