//! Deletes bootstrap tokens when their time is over.

use std::{sync::Arc, time::Duration};

use client::{Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Writer, turn};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use crate::Context;

use super::{is_token, left};

/// Starts the controller.
pub(super) fn start(context: &mut Context) {
    let secrets = context.cache::<Secret>();
    let controller = TokenCleaner { secrets: secrets.clone(), writer: context.writer("token-cleaner") };
    let runner = Runner::new("tokencleaner", controller).watch_map(&secrets, |change| {
        if change.after().is_some_and(|secret| is_token(secret)) { vec![change.key()] } else { Vec::new() }
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
