//! Who may use the kubelet: asks the API server who a token belongs to, and whether somebody may.
//!
//! As upstream's webhook modes: TokenReview and SubjectAccessReview, both remembered for a while. Client
//! certificates tell by themselves who shows them; the API server and administrators need not be asked about.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::Identity;

/// Upstream's figures.
const TOKEN_LIFE: Duration = Duration::from_secs(120);
const ALLOWED_LIFE: Duration = Duration::from_secs(300);
const DENIED_LIFE: Duration = Duration::from_secs(30);
/// More than this is forgotten at once: tokens that nobody knows must not fill the memory.
const MOST_REMEMBERED: usize = 1024;

/// Asks, and remembers the answers.
pub(super) struct Access {
    client: Client,
    node: String,
    tokens: Remembered<String, Option<Identity>>,
    verdicts: Remembered<(Identity, &'static str, &'static str), bool>,
}

impl Access {
    pub(super) fn new(client: Client, node: &str) -> Access {
        Access {
            client,
            node: node.to_string(),
            tokens: Remembered::default(),
            verdicts: Remembered::default(),
        }
    }

    /// Whose token the request carries, if it is one that the API server knows.
    pub(super) async fn of_token(&self, headers: &HeaderMap) -> Result<Option<Identity>, kube::Error> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim) else {
            return Ok(None);
        };
        if let Some(known) = self.tokens.get(&token.to_string()) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_string(), audiences: None },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let identity = user.map(|user| Identity {
            name: user.username.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        });
        self.tokens.put(token.to_string(), identity.clone(), TOKEN_LIFE);
        Ok(identity)
    }

    /// Whether somebody may do this; any of the subresources is enough.
    pub(super) async fn may(
        &self,
        identity: &Identity,
        verb: &'static str,
        subresources: &[&'static str],
    ) -> Result<bool, kube::Error> {
        for subresource in subresources {
            if self.may_one(identity, verb, subresource).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn may_one(
        &self,
        identity: &Identity,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, kube::Error> {
        let key = (identity.clone(), verb, subresource);
        if let Some(known) = self.verdicts.get(&key) {
            return Ok(known);
        }
        let attributes = ResourceAttributes {
            verb: Some(verb.to_string()),
            resource: Some("nodes".to_string()),
            subresource: Some(subresource.to_string()),
            name: Some(self.node.clone()),
            version: Some("v1".to_string()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(identity.name.clone()),
                groups: Some(identity.groups.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let allowed =
            reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default().allowed;
        self.verdicts.put(key, allowed, if allowed { ALLOWED_LIFE } else { DENIED_LIFE });
        Ok(allowed)
    }
}

/// The verb of a request on a node, as upstream has it.
pub(super) fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// What of a node a path stands for: the finest first, what stands for everything last.
pub(super) fn subresources(path: &str) -> &'static [&'static str] {
    let is_below =
        |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    if is_below("/stats") {
        &["stats"]
    } else if is_below("/metrics") {
        &["metrics"]
    } else if is_below("/logs") {
        &["log"]
    } else if is_below("/healthz") {
        &["healthz", "proxy"]
    } else if is_below("/pods") || is_below("/runningpods") {
        &["pods", "proxy"]
    } else {
        &["proxy"]
    }
}

/// Answers that hold for a while.
struct Remembered<Key, Answer> {
    answers: Mutex<HashMap<Key, (Instant, Answer)>>,
}

impl<Key, Answer> Default for Remembered<Key, Answer> {
    fn default() -> Self {
        Remembered { answers: Mutex::default() }
    }
}

impl<Key: Eq + Hash, Answer: Clone> Remembered<Key, Answer> {
    fn get(&self, key: &Key) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, answer)| answer.clone())
    }

    fn put(&self, key: Key, answer: Answer, life: Duration) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST_REMEMBERED {
            answers.clear();
        }
        answers.insert(key, (Instant::now() + life, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_parts_of_the_node() {
        assert_eq!(subresources("/metrics/cadvisor"), ["metrics"]);
        assert_eq!(subresources("/stats/summary"), ["stats"]);
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
        assert_eq!(subresources("/exec/a/b/c"), ["proxy"]);
        assert_eq!(subresources("/metricsandmore"), ["proxy"]);
        assert_eq!((verb(&Method::GET), verb(&Method::POST)), ("get", "create"));
    }

    #[test]
    fn an_answer_holds_for_its_life() {
        let remembered = Remembered::default();
        remembered.put("a", 1, Duration::from_secs(60));
        remembered.put("b", 2, Duration::ZERO);
        assert_eq!((remembered.get(&"a"), remembered.get(&"b"), remembered.get(&"c")), (Some(1), None, None));
    }
}
