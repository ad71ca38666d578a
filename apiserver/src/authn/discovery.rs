//! What others need to verify our tokens: OpenID Connect discovery.

use std::sync::Arc;

use axum::{Router, routing::get};
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::TokenAuthority;
use crate::pki::TokenKey;

/// The two documents, each under its path. `server` is where clients reach this server, such as `https://192.0.2.7:6443`.
pub fn router(authority: &TokenAuthority, key: Arc<TokenKey>, server: &str) -> Router {
    let configuration = configuration(authority, server).to_string();
    let key_set = key.key_set().to_string();
    Router::new()
        .route("/.well-known/openid-configuration", serve("application/json", configuration))
        .route("/openid/v1/jwks", serve("application/jwk-set+json", key_set))
}

fn serve(content_type: &'static str, text: String) -> axum::routing::MethodRouter {
    get(move || {
        let text = text.clone();
        async move { ([(CONTENT_TYPE, content_type)], text) }
    })
}

fn configuration(authority: &TokenAuthority, server: &str) -> Value {
    json!({
        "issuer": authority.issuer,
        "jwks_uri": format!("{server}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}
