//! What others need to verify our tokens: OpenID Connect discovery.

use serde_json::{Value, json};

use super::TokenAuthority;
use crate::pki::TokenKey;

/// `/.well-known/openid-configuration`. `server` is where clients reach this server, such as `https://192.0.2.7:6443`.
pub fn configuration(authority: &TokenAuthority, server: &str) -> Value {
    json!({
        "issuer": authority.issuer,
        "jwks_uri": format!("{server}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// `/openid/v1/jwks`.
pub fn key_set(key: &TokenKey) -> Value {
    key.key_set()
}
