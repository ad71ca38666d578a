//! Bootstrap tokens, by which nodes join: [`cleaner`] deletes those whose time is over, [`signer`] signs with them what
//! whoever joins reads first.

mod cleaner;
mod signer;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;

use crate::Context;

const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
const EXPIRATION: &str = "expiration";

/// Starts both controllers.
pub fn start(context: &mut Context) {
    cleaner::start(context);
    signer::start(context);
}

fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE) && secret.metadata.namespace.as_deref() == Some(NAMESPACE)
}

/// What stands in a Secret under a key, if it is text.
fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()
}

/// How long a token may still be used; `None` for as long as it is there, which is also what an empty end means. A
/// time that cannot be read is over.
fn left(secret: &Secret, now: Timestamp) -> Option<SignedDuration> {
    secret.data.as_ref()?.get(EXPIRATION).filter(|end| !end.0.is_empty())?;
    let end = text(secret, EXPIRATION).and_then(|text| api::time::parse(text).ok());
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
        assert_eq!(left(""), None);
        assert_eq!(super::left(&Secret::default(), now), None);
    }
}
