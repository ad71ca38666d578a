//! The key that signs service-account tokens: ES256, known to verifiers by a hash of its public half.

use std::path::Path;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PublicKeyData};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{PkiError, files};

/// Signs and verifies JSON Web Tokens.
pub struct TokenKey {
    key: EcdsaKeyPair,
    random: SystemRandom,
    /// The curve point, uncompressed: `04`, x, y.
    public: Vec<u8>,
    id: String,
    header: String,
}

impl TokenKey {
    /// The key in `sa.key` (its public half in `sa.pub`), made at first start.
    pub(super) fn load_or_create(dir: &Path) -> Result<TokenKey, PkiError> {
        let path = dir.join("sa.key");
        let issue = |source| PkiError::Issue { subject: "service account tokens".to_string(), source };
        let pem = match files::read(&path)? {
            Some(pem) => pem,
            None => {
                let key = KeyPair::generate().map_err(issue)?;
                files::write(&dir.join("sa.pub"), &key.public_key_pem())?;
                files::write(&path, &key.serialize_pem())?;
                key.serialize_pem()
            }
        };
        TokenKey::from_pem(&pem)
            .ok_or(PkiError::Content { path, expected: "an ECDSA P-256 key in PKCS#8 PEM" })
    }

    /// A key that lives in memory alone, for tests.
    #[cfg(test)]
    pub(crate) fn generate() -> TokenKey {
        TokenKey::from_pem(&KeyPair::generate().unwrap().serialize_pem()).unwrap()
    }

    fn from_pem(pem: &str) -> Option<TokenKey> {
        let pair = KeyPair::from_pem(pem).ok()?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &random)
            .ok()?;
        let id = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info()));
        let header = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "kid": id}).to_string());
        Some(TokenKey { key, random, public: pair.public_key_raw().to_vec(), id, header })
    }

    /// A compact JWT with these claims; `None` only when the system has no randomness.
    pub fn sign(&self, claims: &Value) -> Option<String> {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        let mut token = format!("{}.{payload}", self.header);
        let signature = self.key.sign(&self.random, token.as_bytes()).ok()?;
        token.push('.');
        token.push_str(&BASE64_URL_SAFE_NO_PAD.encode(signature));
        Some(token)
    }

    /// The claims of a token that this key signed. Says nothing about their being still valid.
    pub fn verify(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if header != self.header {
            let header: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
            if header["alg"] != "ES256" || header.get("kid").is_some_and(|id| *id != self.id.as_str()) {
                return None;
            }
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public);
        public.verify(signed.as_bytes(), &signature).ok()?;
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    /// The public half as a JSON Web Key Set.
    pub fn key_set(&self) -> Value {
        let (x, y) = self.public[1..].split_at(32);
        let [x, y] = [x, y].map(|coordinate| BASE64_URL_SAFE_NO_PAD.encode(coordinate));
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": x, "y": y,
        }]})
    }
}
