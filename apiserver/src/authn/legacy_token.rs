//! Tokens in Secrets of type `kubernetes.io/service-account-token`: they have no end, and are good as long as their Secret
//! holds them.

use api::{Kind, Object, Status, kinds};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::{audit, registry::Registry, request::User};

const ISSUER: &str = "kubernetes/serviceaccount";
const PREFIX: &str = "kubernetes.io/serviceaccount/";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// How long after its deletion something still counts.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// The claims in such a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LegacyClaims {
    namespace: String,
    secret: String,
    account: String,
    uid: String,
}

impl LegacyClaims {
    /// Reads claims; `None` when they are not such.
    pub(super) fn from_json(claims: &Value) -> Option<LegacyClaims> {
        let text = |key: &str| {
            claims[format!("{PREFIX}{key}")].as_str().filter(|text| !text.is_empty()).map(str::to_string)
        };
        let (namespace, account) = (text("namespace")?, text("service-account.name")?);
        let is_ours = claims["iss"] == ISSUER
            && claims["sub"] == format!("system:serviceaccount:{namespace}:{account}").as_str();
        let (secret, uid) = (text("secret.name")?, text("service-account.uid")?);
        is_ours.then_some(LegacyClaims { namespace, secret, account, uid })
    }

    fn user(&self) -> User {
        let LegacyClaims { namespace, account, uid, .. } = self;
        let groups = [
            "system:serviceaccounts",
            &format!("system:serviceaccounts:{namespace}"),
            "system:authenticated",
        ];
        let user = User::new(format!("system:serviceaccount:{namespace}:{account}"), &groups);
        User { uid: uid.clone(), ..user }
    }

    /// Whether the Secret holds this token and has not been set aside.
    fn is_held_by(&self, secret: &Object, token: &str) -> bool {
        let held = BASE64_STANDARD.decode(secret.text(&["data", "token"])).unwrap_or_default();
        let (held, shown) = (digest(&SHA256, &held), digest(&SHA256, token.as_bytes()));
        let is_set_aside = secret.labels().is_some_and(|labels| labels.contains_key(INVALID_SINCE));
        !token.is_empty() && held.as_ref() == shown.as_ref() && !is_set_aside
    }
}

/// The user behind claims whose signature is good.
pub(super) async fn user_of(
    registry: &Registry,
    claims: &LegacyClaims,
    token: &str,
    now: Timestamp,
) -> Result<Option<User>, Status> {
    let LegacyClaims { namespace, secret, account, uid } = claims;
    let Some(secret) = living(registry, "secrets", namespace, secret, now).await? else { return Ok(None) };
    if !claims.is_held_by(&secret, token) {
        return Ok(None);
    }
    let account = living(registry, "serviceaccounts", namespace, account, now).await?;
    if account.is_none_or(|account| account.uid() != uid) {
        return Ok(None);
    }
    audit::annotate("authentication.k8s.io/legacy-token", format!("{namespace}/{}", secret.name()));
    note_use(registry, &secret, now).await;
    Ok(Some(claims.user()))
}

async fn living(
    registry: &Registry,
    plural: &str,
    namespace: &str,
    name: &str,
    now: Timestamp,
) -> Result<Option<Object>, Status> {
    let found = registry.find(kind(plural), namespace, name).await?;
    let gone_at = |object: &Object| object.deletion_timestamp().and_then(|text| api::time::parse(text).ok());
    Ok(found.filter(|object| gone_at(object).is_none_or(|at| now <= at + GRACE)))
}

/// Once a day, so that who looks after old Secrets knows which of them somebody needs.
async fn note_use(registry: &Registry, secret: &Object, now: Timestamp) {
    let today = now.strftime("%Y-%m-%d").to_string();
    let label = |secret: &Object| secret.text(&["metadata", "labels", LAST_USED]).to_string();
    if label(secret) == today {
        return;
    }
    let noted = registry.update(kind("secrets"), secret.namespace(), secret.name(), |mut secret| {
        secret.set(&["metadata", "labels", LAST_USED], today.as_str());
        Ok(secret)
    });
    if let Err(status) = noted.await {
        tracing::debug!(%status, secret = secret.name(), "the use of a token is not noted");
    }
}

fn kind(plural: &str) -> &'static Kind {
    kinds::built_in("", plural)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Value {
        json!({
            "iss": ISSUER,
            "sub": "system:serviceaccount:a:web",
            "kubernetes.io/serviceaccount/namespace": "a",
            "kubernetes.io/serviceaccount/secret.name": "web-token",
            "kubernetes.io/serviceaccount/service-account.name": "web",
            "kubernetes.io/serviceaccount/service-account.uid": "u1",
        })
    }

    #[test]
    fn the_claims_must_be_of_one_piece() {
        let user = LegacyClaims::from_json(&claims()).unwrap().user();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:a:web", "u1"));
        let mut other = claims();
        other["sub"] = "system:serviceaccount:a:other".into();
        assert_eq!(LegacyClaims::from_json(&other), None);
        let mut other = claims();
        other["iss"] = "https://somebody".into();
        assert_eq!(LegacyClaims::from_json(&other), None);
    }

    #[test]
    fn the_secret_must_hold_the_very_token() {
        let claims = LegacyClaims::from_json(&claims()).unwrap();
        let secret = |labels: Value| {
            let data = json!({"token": BASE64_STANDARD.encode("t1")});
            Object::from_value(json!({"metadata": {"labels": labels}, "data": data})).unwrap()
        };
        assert!(claims.is_held_by(&secret(json!({})), "t1"));
        assert!(!claims.is_held_by(&secret(json!({})), "t2"));
        assert!(!claims.is_held_by(&secret(json!({INVALID_SINCE: "2026-01-01"})), "t1"));
        assert!(!claims.is_held_by(&Object::default(), ""));
    }
}
