//! Questions that are answered and not stored: who am I, who is that token, may they, what may I, give me a token.

mod access;
mod node_token;

use std::sync::Arc;

use api::{Kind, Object, Status};
use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    authn::{Authenticator, token},
    authz::{Authorizer, node_of},
    hooks::Answer,
    pki::TokenKey,
    proxy::Kubelets,
    registry::Registry,
    request::{RequestInfo, User},
    usage::{self, Usage},
};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Answers reviews itself and carries the rest on to kubelets.
pub struct Answers {
    /// Knows tokens.
    pub authenticator: Arc<Authenticator>,
    /// Knows permissions.
    pub authorizer: Arc<Authorizer>,
    /// Signs tokens.
    pub token_key: Arc<TokenKey>,
    /// The way to kubelets, pods and Services.
    pub kubelets: Kubelets,
    usage: Usage,
}

impl Answers {
    /// Answers by these.
    pub fn new(
        authenticator: Arc<Authenticator>,
        authorizer: Arc<Authorizer>,
        token_key: Arc<TokenKey>,
        kubelets: Kubelets,
    ) -> Answers {
        Answers { authenticator, authorizer, token_key, kubelets, usage: Usage::default() }
    }
}

#[async_trait]
impl Answer for Answers {
    async fn review(
        &self,
        registry: &Registry,
        user: &User,
        info: &RequestInfo,
        object: &Object,
    ) -> Option<Result<Object, Status>> {
        let now = Timestamp::now();
        Some(match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
            ("", "serviceaccounts", "token") => {
                if let Err(status) = node_token::check(registry, &self.authorizer, user, info, object).await {
                    return Some(Err(status));
                }
                let account = (info.namespace.as_str(), info.name.as_str());
                let authority = self.authenticator.authority();
                token::answer(registry, &self.token_key, authority, account, object, now).await
            }
            (AUTHENTICATION, "tokenreviews", "") => self.review_token(object, now).await,
            (AUTHENTICATION, "selfsubjectreviews", "") => {
                let mut asked = Object::default();
                asked.set(&["apiVersion"], object.api_version());
                asked.set(&["kind"], object.kind());
                asked.set(&["metadata", "creationTimestamp"], api::time::format(now));
                Ok(with_status(&asked, json!({"userInfo": user.to_info()})))
            }
            (
                AUTHORIZATION,
                "subjectaccessreviews" | "localsubjectaccessreviews" | "selfsubjectaccessreviews",
                "",
            ) => self.review_access(user, info, object).await,
            (AUTHORIZATION, "selfsubjectrulesreviews", "") => self.review_rules(user, object).await,
            _ => return None,
        })
    }

    async fn observe(
        &self,
        registry: &Registry,
        kind: &'static Kind,
        namespace: &str,
        name: Option<&str>,
    ) -> Result<Vec<Object>, Status> {
        match kind.group {
            usage::GROUP => self.usage.measure(registry, &self.kubelets, kind, namespace, name).await,
            _ => Ok(component_statuses(registry.check_store().await.is_ok(), name)),
        }
    }

    async fn connect(
        &self,
        registry: &Registry,
        _user: &User,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Result<Response<Body>, Status>, Request<Body>> {
        self.kubelets.connect(registry, info, request).await
    }
}

impl Answers {
    async fn review_token(&self, review: &Object, now: Timestamp) -> Result<Object, Status> {
        let texts = review.list(&["spec", "audiences"]).iter().filter_map(Value::as_str);
        let audiences: Vec<String> = texts.map(str::to_string).collect();
        let token = review.text(&["spec", "token"]);
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let status = match self.authenticator.user_of_token(token, &audiences, now).await? {
            Some((user, audiences)) => {
                json!({"authenticated": true, "user": user.to_info(), "audiences": audiences})
            }
            None => json!({"user": {}, "error": "invalid bearer token"}),
        };
        Ok(with_status(review, status))
    }

    async fn review_access(
        &self,
        user: &User,
        info: &RequestInfo,
        review: &Object,
    ) -> Result<Object, Status> {
        let is_self = info.resource == "selfsubjectaccessreviews";
        let local = (info.resource == "localsubjectaccessreviews").then_some(info.namespace.as_str());
        access::validate(review, is_self, local)?;
        let subject = if is_self { user.clone() } else { access::subject(review) };
        let fields = access::fields(review);
        let decision = self.authorizer.decide(&subject, &access::question(review, &fields)).await?;
        let mut status = json!({"allowed": decision.allowed});
        if !decision.reason.is_empty() {
            status["reason"] = decision.reason.into();
        }
        Ok(with_status(review, status))
    }

    async fn review_rules(&self, user: &User, review: &Object) -> Result<Object, Status> {
        let namespace = review.text(&["spec", "namespace"]);
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let policy = self.authorizer.policy().await?;
        let rules: Vec<_> = policy.rules_of(user, namespace).collect();
        Ok(with_status(review, access::rules_status(&rules, node_of(user).is_some())))
    }
}

/// The store is the one component that the API server can tell of; the others are its clients.
fn component_statuses(is_store_healthy: bool, name: Option<&str>) -> Vec<Object> {
    const STORE: &str = "etcd-0";
    let condition = match is_store_healthy {
        true => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        false => json!({"type": "Healthy", "status": "False", "error": "the store does not answer"}),
    };
    let status = json!({
        "kind": "ComponentStatus",
        "apiVersion": "v1",
        "metadata": {"name": STORE, "creationTimestamp": null},
        "conditions": [condition],
    });
    let is_meant = name.is_none_or(|name| name == STORE);
    Object::from_value(status).filter(|_| is_meant).into_iter().collect()
}

fn with_status(review: &Object, status: Value) -> Object {
    let mut answer = review.clone();
    answer.set_if_absent(&["metadata", "creationTimestamp"], Value::Null);
    answer.set(&["status"], status);
    answer
}
