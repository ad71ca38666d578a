//! Deletes bootstrap tokens when their time is over.

use std::{sync::Arc, time::Duration};

use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Writer, turn};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;

use crate::Context;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
const EXPIRATION: &str = "expiration";

/// Starts the controller.
pub fn start(context: &mut Context) {
    let secrets = context.cache::<Secret>();
    let controller = TokenCleaner { secrets: secrets.clone(), writer: context.writer("token-cleaner") };
    let runner = Runner::new("tokencleaner", controller).watch_map(&secrets, |change| {
        let is_token = change.after().is_some_and(|secret| secret.type_.as_deref() == Some(TYPE));
        if is_token && &*change.key().namespace == NAMESPACE { vec![change.key()] } else { Vec::new() }
    });
    context.run(runner);
}

struct TokenCleaner {
    secrets: Arc<Cache<Secret>>,
    writer: Writer,
}

impl Reconcile for TokenCleaner {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(secret) = self.secrets.get_key(key) else { return Ok(Next::OnChange) };
        match left(&secret, Timestamp::now()) {
            None => Ok(Next::OnChange),
            Some(left) if left.is_positive() => Ok(Next::After(left.try_into().unwrap_or(Duration::ZERO))),
            Some(_) => {
                turn::describe("gone", "expired");
                self.writer.delete(&*secret).await?;
                Ok(Next::OnChange)
            }
        }
    }
}

/// How long a token may still be used; `None` for as long as it is there. A time that cannot be read is over.
fn left(secret: &Secret, now: Timestamp) -> Option<SignedDuration> {
    let text = secret.data.as_ref()?.get(EXPIRATION)?;
    let end = std::str::from_utf8(&text.0).ok().and_then(|text| api::time::parse(text).ok());
    Some(end.map_or(SignedDuration::ZERO, |end| end.duration_since(now)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_token_lives_until_its_end() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let left = |text: &str| {
            let data = [(EXPIRATION.to_string(), ByteString(text.as_bytes().to_vec()))];
            left(&Secret { data: Some(data.into()), ..Secret::default() }, now)
        };
        assert_eq!(left("2026-01-01T00:01:00Z"), Some(SignedDuration::from_mins(1)));
        assert!(left("2025-12-31T23:59:59Z").is_some_and(|left| left.is_negative()));
        assert_eq!(left("soon"), Some(SignedDuration::ZERO));
        assert_eq!(super::left(&Secret::default(), now), None);
    }
}
