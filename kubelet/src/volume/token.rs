//! Service account tokens for pods: requested, bound to the pod, and requested again before they expire.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::pod::view::PodView;

const DEFAULT_LIFETIME: i64 = 3600;
const LONGEST_USE: Duration = Duration::from_secs(24 * 3600);

/// A token and when to replace it.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token itself.
    pub text: String,
    /// When a new one is due: at four fifths of its life, after a day at the latest.
    pub refresh_at: Timestamp,
}

/// Requests a token for a pod's service account.
pub async fn request(
    client: Client,
    pod: &Pod,
    projection: &ServiceAccountTokenProjection,
    now: Timestamp,
) -> Result<Token, kube::Error> {
    let lifetime = projection.expiration_seconds.unwrap_or(DEFAULT_LIFETIME);
    let audience = projection.audience.clone().filter(|audience| !audience.is_empty());
    let spec = TokenRequestSpec {
        audiences: Some(audience.into_iter().collect()),
        expiration_seconds: Some(lifetime),
        bound_object_ref: Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name().to_string()),
            uid: Some(pod.uid().to_string()),
        }),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(client, pod.namespace());
    let account =
        pod.spec().service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let status = answer.status.unwrap_or_default();
    // A server that leaves the time out has granted what was asked for.
    let asked = now + Duration::from_secs(u64::try_from(lifetime).unwrap_or(0));
    let expires_at = status.expiration_timestamp.map_or(asked, |time| time.0);
    Ok(Token { text: status.token.unwrap_or_default(), refresh_at: refresh_time(now, expires_at) })
}

fn refresh_time(now: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires_at.duration_since(now)).unwrap_or_default();
    now + (life * 4 / 5).min(LONGEST_USE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_well_before_it_expires() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(refresh_time(at(0), at(3600)), at(2880));
        assert_eq!(refresh_time(at(0), at(365 * 86400)), at(86400));
        assert_eq!(refresh_time(at(10), at(0)), at(10));
    }
}
