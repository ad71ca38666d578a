//! Secrets of type `kubernetes.io/service-account-token`: fills in the token of the account that they name, and removes
//! those whose account is gone.

use std::{fmt, sync::Arc, time::Duration};

use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, turn};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
};
use kube::Api;
use serde_json::{Value, json};

use crate::Context;

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
const CLAIM: &str = "kubernetes.io/serviceaccount";
/// When to look again while the news of an account is still under way.
const LAG: Duration = Duration::from_secs(1);

/// Signs claims with the key that the API server trusts. Whoever starts the controllers holds the key.
#[derive(Clone)]
pub struct TokenSigner(Arc<dyn Fn(&Value) -> Option<String> + Send + Sync>);

impl TokenSigner {
    /// A signer that calls `sign`, which gives `None` where it cannot.
    pub fn new(sign: impl Fn(&Value) -> Option<String> + Send + Sync + 'static) -> TokenSigner {
        TokenSigner(Arc::new(sign))
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSigner")
    }
}

/// Starts the controller.
pub(super) fn start(context: &mut Context, signer: TokenSigner, root_ca_pem: String) {
    let (secrets, accounts) = (context.cache::<Secret>(), context.cache::<ServiceAccount>());
    let controller = Tokens {
        secrets: secrets.clone(),
        accounts: accounts.clone(),
        writer: context.writer("tokens-controller"),
        signer,
        root_ca_pem,
    };
    let of_account = secrets.clone();
    let runner = Runner::new("serviceaccount-token", controller)
        .watch_map(&secrets, |change| match change.after() {
            Some(secret) if secret.type_.as_deref() == Some(TYPE) => vec![change.key()],
            _ => Vec::new(),
        })
        .watch_map(&accounts, move |change| {
            let account = change.key();
            let names = |secret: &Secret| account_of(secret) == Some(&*account.name);
            let secrets = of_account.in_namespace_where(&account.namespace, names);
            secrets.iter().map(|secret| ObjectKey::of(&**secret)).collect()
        });
    context.run(runner);
}

struct Tokens {
    secrets: Arc<Cache<Secret>>,
    accounts: Arc<Cache<ServiceAccount>>,
    writer: Writer,
    signer: TokenSigner,
    root_ca_pem: String,
}

impl Reconcile for Tokens {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(secret) = self.secrets.get_key(key) else { return Ok(Next::OnChange) };
        if secret.metadata.deletion_timestamp.is_some() {
            return Ok(Next::OnChange);
        }
        let Some(name) = account_of(&secret) else { return Ok(Next::OnChange) };
        let account = self.accounts.get(&key.namespace, name);
        match plan(&secret, account.as_deref(), &self.root_ca_pem) {
            Action::Nothing => turn::describe("a token", "there"),
            Action::Delete => {
                turn::describe("no Secret without its account", "the account is gone");
                // The account may be newer than what is known of it here.
                let account = self.account(&key.namespace, name).await?;
                if plan(&secret, account.as_ref(), &self.root_ca_pem) != Action::Delete {
                    return Ok(Next::After(LAG));
                }
                self.writer.delete(&*secret).await?;
            }
            Action::Fill { with_token } => {
                turn::describe("a token", "missing");
                let Some(filled) = account.and_then(|account| self.filled(&secret, &account, with_token))
                else {
                    tracing::error!(%key, "a token cannot be signed");
                    return Ok(Next::OnChange);
                };
                self.writer.replace(&filled).await.or_not_found().map(drop).or_conflict()?;
            }
        }
        Ok(Next::OnChange)
    }
}

impl Tokens {
    /// The account as the server has it.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<ServiceAccount>, ClientError> {
        // The name is what somebody wrote into an annotation, and becomes part of a path.
        if api::name::dns_subdomain(name).is_err() {
            return Ok(None);
        }
        Api::namespaced(self.writer.client().clone(), namespace).get_opt(name).await
    }

    fn filled(&self, secret: &Secret, account: &ServiceAccount, with_token: bool) -> Option<Secret> {
        let mut filled = secret.clone();
        let uid = account.metadata.uid.clone().unwrap_or_default();
        filled.metadata.annotations.get_or_insert_default().insert(UID.into(), uid);
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        let data = filled.data.get_or_insert_default();
        if with_token {
            let token = (self.signer.0)(&claims(secret, account))?;
            data.insert("token".into(), ByteString(token.into_bytes()));
        }
        data.insert("namespace".into(), ByteString(namespace.into_bytes()));
        data.insert("ca.crt".into(), ByteString(self.root_ca_pem.clone().into_bytes()));
        Some(filled)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Delete,
    Fill { with_token: bool },
}

/// What a Secret needs, given the account that has the name in it.
fn plan(secret: &Secret, account: Option<&ServiceAccount>, root_ca_pem: &str) -> Action {
    let Some(account) = account else { return Action::Delete };
    let uid = account.metadata.uid.as_deref().unwrap_or_default();
    let annotations = secret.metadata.annotations.as_ref();
    let bound = annotations.and_then(|annotations| annotations.get(UID)).map_or("", String::as_str);
    if !bound.is_empty() && bound != uid {
        // Of an account that had the name before.
        return Action::Delete;
    }
    let data =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |value| &value.0);
    let has_token = !data("token").is_empty();
    let is_filled = has_token
        && bound == uid
        && data("ca.crt") == root_ca_pem.as_bytes()
        && data("namespace") == secret.metadata.namespace.as_deref().unwrap_or_default().as_bytes();
    if is_filled { Action::Nothing } else { Action::Fill { with_token: !has_token } }
}

/// The account that a token Secret is for.
fn account_of(secret: &Secret) -> Option<&str> {
    let annotations =
        secret.metadata.annotations.as_ref().filter(|_| secret.type_.as_deref() == Some(TYPE))?;
    annotations.get(NAME).map(String::as_str).filter(|name| !name.is_empty())
}

fn claims(secret: &Secret, account: &ServiceAccount) -> Value {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&secret.metadata.namespace), text(&account.metadata.name));
    json!({
        "iss": "kubernetes/serviceaccount",
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        format!("{CLAIM}/namespace"): namespace,
        format!("{CLAIM}/secret.name"): text(&secret.metadata.name),
        format!("{CLAIM}/service-account.name"): name,
        format!("{CLAIM}/service-account.uid"): text(&account.metadata.uid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(uid: &str, data: Value) -> Secret {
        let secret = json!({
            "metadata": {"name": "t", "namespace": "a", "annotations": {NAME: "web", UID: uid}},
            "type": TYPE,
            "data": data,
        });
        serde_json::from_value(secret).unwrap()
    }

    fn account() -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "a", "uid": "u1"}})).unwrap()
    }

    #[test]
    fn a_secret_is_filled_once_and_goes_with_its_account() {
        let full = json!({"token": "dA==", "ca.crt": "Y2E=", "namespace": "YQ=="});
        assert_eq!(plan(&secret("", json!({})), Some(&account()), "ca"), Action::Fill { with_token: true });
        assert_eq!(plan(&secret("u1", full.clone()), Some(&account()), "ca"), Action::Nothing);
        assert_eq!(
            plan(&secret("u1", full.clone()), Some(&account()), "new"),
            Action::Fill { with_token: false }
        );
        assert_eq!(plan(&secret("u1", full.clone()), None, "ca"), Action::Delete);
        assert_eq!(plan(&secret("u0", full), Some(&account()), "ca"), Action::Delete);
    }

    #[test]
    fn only_secrets_of_the_type_name_an_account() {
        assert_eq!(account_of(&secret("", json!({}))), Some("web"));
        assert_eq!(account_of(&Secret { type_: Some("Opaque".into()), ..secret("", json!({})) }), None);
    }

    #[test]
    fn the_claims_name_account_and_secret() {
        let claims = claims(&secret("", json!({})), &account());
        assert_eq!(claims["sub"], "system:serviceaccount:a:web");
        assert_eq!(claims["kubernetes.io/serviceaccount/secret.name"], "t");
        assert_eq!(claims["kubernetes.io/serviceaccount/service-account.uid"], "u1");
    }
}
