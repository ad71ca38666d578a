//! What becomes of a request for a certificate: pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::request::Request;

pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const CLIENT_AUTH: &str = "client auth";
const SHORTEST: SignedDuration = SignedDuration::from_mins(10);
const LONGEST: SignedDuration = SignedDuration::from_hours(365 * 24);
const KEPT_PENDING: SignedDuration = SignedDuration::from_hours(24);
const KEPT_DECIDED: SignedDuration = SignedDuration::from_hours(1);

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Somebody has to approve or deny it.
    Pending,
    /// It is approved and has no certificate yet.
    Approved,
    /// Nothing is left to do.
    Done,
}

/// Where a request stands.
pub(super) fn stage(request: &CertificateSigningRequest) -> Stage {
    let has_certificate = request
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_ref())
        .is_some_and(|pem| !pem.0.is_empty());
    match () {
        () if has_certificate || has(request, "Denied") || has(request, "Failed") => Stage::Done,
        () if has(request, "Approved") => Stage::Approved,
        () => Stage::Pending,
    }
}

/// Whether a request carries a condition.
pub(super) fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition.type_ == kind))
}

/// A permission that lets a kubelet's request be approved without a person, and the message that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AutoApproval {
    pub(super) subresource: &'static str,
    pub(super) message: &'static str,
}

/// The permissions of which its author needs one, for a request that a kubelet may make.
pub(super) fn auto_approvals(
    author: &str,
    signer: &str,
    request: &Request,
    usages: &[String],
) -> Vec<AutoApproval> {
    if signer != KUBELET_CLIENT || kubelet_client_fault(request, usages).is_some() {
        return Vec::new();
    }
    let own = AutoApproval {
        subresource: "selfnodeclient",
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
    };
    let any = AutoApproval {
        subresource: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    };
    if author == request.common_name { vec![own, any] } else { vec![any] }
}

/// Why a signer does not sign, if it does not; `Err` for a signer that is somebody else's.
pub(super) fn fault(signer: &str, request: &Request, usages: &[String]) -> Result<Option<String>, ()> {
    match signer {
        CLIENT => Ok(client_fault(usages)),
        KUBELET_CLIENT => Ok(kubelet_client_fault(request, usages)),
        KUBELET_SERVING => Ok(kubelet_serving_fault(request, usages)),
        LEGACY => Ok(None),
        _ => Err(()),
    }
}

fn client_fault(usages: &[String]) -> Option<String> {
    let other = usages.iter().find(|usage| usage.as_str() != CLIENT_AUTH && !is_of_key(usage));
    match other {
        Some(other) => Some(format!("invalid usage for client certificate: {other}")),
        None => (!usages.iter().any(|usage| usage == CLIENT_AUTH))
            .then(|| format!("missing required usage for client certificate: {CLIENT_AUTH}")),
    }
}

fn kubelet_client_fault(request: &Request, usages: &[String]) -> Option<String> {
    let why = match () {
        () if request.organizations != [NODES] => "subject organization is not system:nodes",
        () if !request.dns_names.is_empty() => "DNS subjectAltNames are not allowed",
        () if !request.emails.is_empty() => "Email subjectAltNames are not allowed",
        () if !request.addresses.is_empty() => "IP subjectAltNames are not allowed",
        () if !request.uris.is_empty() => "URI subjectAltNames are not allowed",
        () if !request.common_name.starts_with(NODE_PREFIX) => NOT_A_NODE,
        () => return kubelet_usage_fault(usages, "client auth"),
    };
    Some(why.into())
}

fn kubelet_serving_fault(request: &Request, usages: &[String]) -> Option<String> {
    let why = match () {
        () if request.organizations != [NODES] => "subject organization is not system:nodes",
        () if request.dns_names.is_empty() && request.addresses.is_empty() => {
            "DNS or IP subjectAltName is required"
        }
        () if !request.emails.is_empty() => "Email subjectAltNames are not allowed",
        () if !request.uris.is_empty() => "URI subjectAltNames are not allowed",
        () if !request.common_name.starts_with(NODE_PREFIX) => NOT_A_NODE,
        () => return kubelet_usage_fault(usages, "server auth"),
    };
    Some(why.into())
}

const NOT_A_NODE: &str = "subject common name does not begin with system:node:";

/// Kubelets with RSA keys also ask for `key encipherment`.
fn kubelet_usage_fault(usages: &[String], purpose: &str) -> Option<String> {
    let has = |wanted: &str| usages.iter().any(|usage| usage == wanted);
    let is_fit = has(purpose)
        && has("digital signature")
        && usages.iter().all(|usage| usage == purpose || is_of_key(usage));
    let mut wanted = [purpose, "digital signature", "key encipherment"];
    wanted.sort_unstable();
    (!is_fit).then(|| format!("usages did not match [{}]", wanted.join(" ")))
}

fn is_of_key(usage: &str) -> bool {
    matches!(usage, "digital signature" | "key encipherment")
}

/// How long the certificate lives.
pub(super) fn lifetime(wanted: Option<i32>) -> SignedDuration {
    let wanted = wanted.map(|seconds| SignedDuration::from_secs(i64::from(seconds)));
    wanted.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
}

/// When a request that nobody needs any more is to be deleted; what is approved waits for its signer. `expires` is
/// when its certificate does.
pub(super) fn end(request: &CertificateSigningRequest, expires: Option<Timestamp>) -> Option<Timestamp> {
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    // Conditions carry whatever time a client wrote into them.
    let after = |since: Timestamp, kept| since.checked_add(kept).unwrap_or(Timestamp::MAX);
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    let conditions = conditions.map_or(&[][..], Vec::as_slice);
    if conditions.is_empty() {
        return Some(after(created, KEPT_PENDING));
    }
    let is_issued = expires.is_some();
    let is_decided = |kind: &str| kind == "Denied" || kind == "Failed" || kind == "Approved" && is_issued;
    let decided = conditions.iter().filter(|condition| is_decided(&condition.type_));
    let by_conditions =
        decided.filter_map(|condition| Some(after(condition.last_update_time.as_ref()?.0, KEPT_DECIDED)));
    by_conditions.chain(expires.filter(|_| has(request, "Approved"))).min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kubelet() -> Request {
        Request {
            common_name: "system:node:n1".into(),
            organizations: vec![NODES.into()],
            ..Request::default()
        }
    }

    fn usages(text: &str) -> Vec<String> {
        text.split(", ").map(str::to_string).collect()
    }

    fn object(status: serde_json::Value) -> CertificateSigningRequest {
        let object = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"request": "", "signerName": CLIENT},
            "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn each_signer_signs_what_it_is_for() {
        let client = usages("client auth, digital signature");
        assert_eq!(fault(KUBELET_CLIENT, &kubelet(), &client), Ok(None));
        let named = Request { dns_names: vec!["n1".into()], ..kubelet() };
        assert!(fault(KUBELET_CLIENT, &named, &client).unwrap().unwrap().contains("DNS subjectAltNames"));
        let mismatch = "usages did not match [client auth digital signature key encipherment]";
        let without = fault(KUBELET_CLIENT, &kubelet(), &usages("client auth"));
        assert_eq!(without, Ok(Some(mismatch.into())));
        let person = Request { common_name: "ann".into(), ..Request::default() };
        assert!(fault(KUBELET_CLIENT, &person, &client).unwrap().is_some());
        assert_eq!(fault(CLIENT, &person, &usages("client auth")), Ok(None));
        assert_eq!(
            fault(CLIENT, &person, &usages("client auth, server auth")),
            Ok(Some("invalid usage for client certificate: server auth".into()))
        );
        assert_eq!(
            fault(CLIENT, &person, &usages("digital signature")),
            Ok(Some("missing required usage for client certificate: client auth".into()))
        );
        let serving = usages("server auth, digital signature, key encipherment");
        assert_eq!(fault(KUBELET_SERVING, &named, &serving), Ok(None));
        assert!(fault(KUBELET_SERVING, &kubelet(), &serving).unwrap().unwrap().contains("is required"));
        assert!(fault(KUBELET_SERVING, &named, &client).unwrap().is_some());
        assert_eq!(fault("example.com/own", &person, &client), Err(()));
    }

    #[test]
    fn a_kubelet_asks_for_itself_or_for_another() {
        let client = usages("client auth, digital signature");
        let subresources = |author: &str, signer: &str| -> Vec<&str> {
            auto_approvals(author, signer, &kubelet(), &client).iter().map(|one| one.subresource).collect()
        };
        assert_eq!(subresources("system:node:n1", KUBELET_CLIENT), ["selfnodeclient", "nodeclient"]);
        assert_eq!(subresources("system:bootstrap:abcdef", KUBELET_CLIENT), ["nodeclient"]);
        assert!(subresources("system:node:n1", CLIENT).is_empty());
    }

    #[test]
    fn lifetimes_have_limits() {
        assert_eq!(lifetime(None), LONGEST);
        assert_eq!(lifetime(Some(1)), SHORTEST);
        assert_eq!(lifetime(Some(3600)), SignedDuration::from_secs(3600));
        assert_eq!(lifetime(Some(i32::MAX)), LONGEST);
    }

    #[test]
    fn requests_are_kept_for_a_while() {
        let condition =
            json!([{"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T05:00:00Z"}]);
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(end(&object(json!({})), None), at("2026-01-02T00:00:00Z"));
        let approved = object(json!({"conditions": condition}));
        assert_eq!((stage(&approved), end(&approved, None)), (Stage::Approved, None));
        assert_eq!(end(&approved, at("2026-03-01T00:00:00Z")), at("2026-01-01T06:00:00Z"));
        assert_eq!(end(&approved, at("2026-01-01T05:30:00Z")), at("2026-01-01T05:30:00Z"));
        let late =
            json!([{"type": "Denied", "status": "True", "lastUpdateTime": Timestamp::MAX.to_string()}]);
        assert_eq!(end(&object(json!({"conditions": late})), None), Some(Timestamp::MAX));
        let failed = object(json!({"conditions": [{"type": "Failed", "status": "True"}]}));
        assert_eq!(stage(&failed), Stage::Done);
    }
}
