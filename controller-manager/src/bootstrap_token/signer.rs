//! Signs `kube-public/cluster-info` with every token that is meant for it: whoever joins knows a token and nothing
//! else, reads the ConfigMap without credentials, and sees by the signature that it is the cluster's.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, turn};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use ring::hmac;
use serde_json::json;

use super::{NAMESPACE, is_token, left, text};
use crate::Context;

const PUBLIC: &str = "kube-public";
const CLUSTER_INFO: &str = "cluster-info";
const SIGNED: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";
const SECRET_NAME: &str = "bootstrap-token-";

/// Starts the controller.
pub(super) fn start(context: &mut Context) {
    let (secrets, maps) = (context.cache::<Secret>(), context.cache::<ConfigMap>());
    let controller = BootstrapSigner {
        secrets: secrets.clone(),
        maps: maps.clone(),
        writer: context.writer("bootstrap-signer"),
    };
    let cluster_info = || ObjectKey::new(PUBLIC, CLUSTER_INFO);
    let runner = Runner::new("bootstrapsigner", controller)
        .watch_map(&maps, move |change| {
            let key = change.key();
            if key == cluster_info() { vec![key] } else { Vec::new() }
        })
        .watch_map(&secrets, move |change| {
            let is_about_token =
                [change.before(), change.after()].into_iter().flatten().any(|it| is_token(it));
            if is_about_token { vec![cluster_info()] } else { Vec::new() }
        });
    context.run(runner);
}

struct BootstrapSigner {
    secrets: Arc<Cache<Secret>>,
    maps: Arc<Cache<ConfigMap>>,
    writer: Writer,
}

impl Reconcile for BootstrapSigner {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(map) = self.maps.get_key(key) else { return Ok(Next::OnChange) };
        let secrets = self.secrets.in_namespace(NAMESPACE);
        let tokens: BTreeMap<&str, &str> =
            secrets.iter().filter_map(|secret| signing_token(secret, Timestamp::now())).collect();
        let Some(data) = signed(map.data.as_ref(), &tokens) else { return Ok(Next::OnChange) };
        turn::describe("signatures", format!("{} tokens", tokens.len()));
        let changed = ConfigMap { data: Some(data), ..(*map).clone() };
        self.writer.replace(&changed).await.or_not_found().map(drop).or_conflict()?;
        Ok(Next::OnChange)
    }
}

/// Id and secret of a token that may sign.
fn signing_token(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let id = text(secret, "token-id")?;
    let token = text(secret, "token-secret").filter(|token| !token.is_empty())?;
    let is_well_named = secret.metadata.name.as_deref()?.strip_prefix(SECRET_NAME)? == id;
    let is_id = id.len() == 6 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_current = left(secret, now).is_none_or(|left| left.is_positive());
    let is_meant = text(secret, "usage-bootstrap-signing") == Some("true");
    (is_token(secret) && is_well_named && is_id && is_current && is_meant).then_some((id, token))
}

/// The ConfigMap's data with the signatures of these tokens and no others; `None` where it has them already, or where
/// there is nothing to sign.
fn signed(
    data: Option<&BTreeMap<String, String>>,
    tokens: &BTreeMap<&str, &str>,
) -> Option<BTreeMap<String, String>> {
    let data = data?;
    let content = data.get(SIGNED)?;
    let others = data.iter().filter(|(key, _)| !key.starts_with(SIGNATURE));
    let mut wanted: BTreeMap<String, String> =
        others.map(|(key, value)| (key.clone(), value.clone())).collect();
    let signatures =
        tokens.iter().map(|(id, token)| (format!("{SIGNATURE}{id}"), signature(content, id, token)));
    wanted.extend(signatures);
    (wanted != *data).then_some(wanted)
}

/// A JSON Web Signature whose content stands elsewhere (RFC 7515, appendix F).
fn signature(content: &str, id: &str, token: &str) -> String {
    let header = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    let input = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(content));
    format!("{header}..{}", BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, input.as_bytes())))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(name: &str, fields: &[(&str, &str)]) -> Secret {
        let data = fields.iter().map(|(key, value)| (key.to_string(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret {
            type_: Some(super::super::TYPE.into()),
            data: Some(data.collect()),
            ..Secret::default()
        };
        secret.metadata.name = Some(name.into());
        secret.metadata.namespace = Some(NAMESPACE.into());
        secret
    }

    #[test]
    fn only_good_tokens_for_signing_sign() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let good = [("token-id", "abcdef"), ("token-secret", "s"), ("usage-bootstrap-signing", "true")];
        let name = "bootstrap-token-abcdef";
        let token = |name: &str, fields: &[(&str, &str)]| {
            signing_token(&secret(name, fields), now).map(|(id, token)| format!("{id}.{token}"))
        };
        assert_eq!(token(name, &good).as_deref(), Some("abcdef.s"));
        assert_eq!(token("bootstrap-token-other1", &good), None);
        assert_eq!(token(name, &good[..2]), None);
        let with_end = |end| [good.as_slice(), &[("expiration", end)]].concat();
        assert_eq!(token(name, &with_end("2025-12-31T23:59:59Z")), None);
        assert!(token(name, &with_end("2026-01-01T00:00:01Z")).is_some());
        let elsewhere = Secret { type_: Some("Opaque".into()), ..secret(name, &good) };
        assert_eq!(signing_token(&elsewhere, now), None);
    }

    #[test]
    fn the_signatures_are_those_of_the_tokens_and_no_others() {
        let data = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let tokens = BTreeMap::from([("abcdef", "0123456789abcdef")]);
        let old = data(&[("kubeconfig", "x"), ("other", "y"), ("jws-kubeconfig-gone01", "z")]);
        let new = signed(Some(&old), &tokens).unwrap();
        assert_eq!(new.keys().collect::<Vec<_>>(), ["jws-kubeconfig-abcdef", "kubeconfig", "other"]);
        assert_eq!(signed(Some(&new), &tokens), None);
        assert_eq!(signed(Some(&data(&[("other", "y")])), &tokens), None);
    }

    /// By Python: base64url(hmac-sha256(b"secret", base64url(header) + "." + base64url("content"))).
    #[test]
    fn a_signature_is_what_others_make_of_it() {
        assert_eq!(
            signature("content", "abcdef", "secret"),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..yAZ_jTjfjZwk8aPJg1b2r49vnOLBio6z30Xol1IOnAQ"
        );
    }
}
