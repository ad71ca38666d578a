//! The user in a client certificate: the common name, with the organizations as groups.

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

use crate::{pki::ClientAuthority, request::User};

const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// How long a verified chain counts as such; an intermediate authority may end before the leaf.
const VERIFIED_FOR: SignedDuration = SignedDuration::from_mins(10);

/// What a chain of certificates is good for, and until when that need not be asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The user whom the clients' authority vouches for.
    pub(crate) user: Option<User>,
    /// The common name of a proxy whom the front proxies' authority vouches for.
    pub(crate) front_proxy: Option<String>,
    until: Timestamp,
}

impl Verdict {
    /// Asks both authorities.
    pub(super) fn of(
        chain: &[CertificateDer<'_>],
        clients: &ClientAuthority,
        front_proxies: Option<&ClientAuthority>,
        now: Timestamp,
    ) -> Verdict {
        let nothing = Verdict { user: None, front_proxy: None, until: now + VERIFIED_FOR };
        let Some(leaf) = chain.first() else { return nothing };
        let Ok((_, parsed)) = parse_x509_certificate(leaf) else { return nothing };
        let end = Timestamp::from_second(parsed.validity().not_after.timestamp()).unwrap_or(now);
        let user = clients.vouches_for(chain, now).then(|| user_of(leaf, &parsed)).flatten();
        let is_proxy = front_proxies.is_some_and(|authority| authority.vouches_for(chain, now));
        let front_proxy = is_proxy.then(|| common_name(&parsed).unwrap_or_default());
        let until = if end > now { end.min(nothing.until) } else { nothing.until };
        Verdict { user, front_proxy, until }
    }

    /// Whether it still holds.
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

fn user_of(raw: &CertificateDer<'_>, certificate: &X509Certificate<'_>) -> Option<User> {
    let name = common_name(certificate).filter(|name| !name.is_empty())?;
    let subject = certificate.subject();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_string).collect();
    groups.push("system:authenticated".into());
    let id = format!("X509SHA256={}", hex::encode(Sha256::digest(raw)));
    let extra = [(CREDENTIAL_ID.to_string(), vec![id])].into();
    Some(User { name, groups, extra, ..User::default() })
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    Some(certificate.subject().iter_common_name().next()?.as_str().ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::pki::{Names, Pki};

    const DAY: i64 = 24 * 3600;

    fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()]
    }

    fn pki() -> (Pki, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Pki::load_or_create(dir.path(), &Names::default()).unwrap(), dir)
    }

    #[test]
    fn a_kubelet_is_a_node_in_the_group_of_nodes() {
        let (pki, _dir) = pki();
        let (certificate, _) = pki.issue_client("system:node:lab1", &["system:nodes"]).unwrap();
        let authority = ClientAuthority::from_pem(pki.ca_certificate()).unwrap();
        let user = Verdict::of(&chain(&certificate), &authority, None, Timestamp::now()).user.unwrap();
        assert_eq!(user.name, "system:node:lab1");
        assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
    }

    #[test]
    fn nobody_vouches_for_expired_foreign_and_serving_certificates() {
        let ((pki, _dir), (other, _other_dir)) = (pki(), pki());
        let authority = ClientAuthority::from_pem(pki.ca_certificate()).unwrap();
        let now = Timestamp::now();
        let user = |pem: &str, now| Verdict::of(&chain(pem), &authority, None, now).user;
        let (good, _) = pki.issue_client("ann", &[]).unwrap();
        assert!(user(&good, now).is_some());
        assert!(user(&good, now + SignedDuration::from_secs(366 * DAY)).is_none(), "expired");
        assert!(user(&good, now - SignedDuration::from_secs(DAY)).is_none(), "not yet valid");
        let (foreign, _) = other.issue_client("ann", &[]).unwrap();
        assert!(user(&foreign, now).is_none(), "of another authority with the same name");
        let serving = pki.kubelet_serving("n1", &["192.0.2.7".parse().unwrap()]).unwrap();
        assert!(user(&serving.certificate, now).is_none(), "meant for servers");
    }

    #[test]
    fn a_proxy_is_not_a_user_and_a_user_is_no_proxy() {
        let (pki, dir) = pki();
        let clients = ClientAuthority::from_pem(pki.ca_certificate()).unwrap();
        let proxies = ClientAuthority::from_pem(pki.front_proxy_ca_certificate()).unwrap();
        let proxy = std::fs::read_to_string(dir.path().join("front-proxy-client.crt")).unwrap();
        let verdict = |pem: &str| Verdict::of(&chain(pem), &clients, Some(&proxies), Timestamp::now());
        assert_eq!(verdict(&proxy).front_proxy.as_deref(), Some("front-proxy-client"));
        assert_eq!(verdict(&proxy).user, None);
        let (user, _) = pki.issue_client("front-proxy-client", &[]).unwrap();
        assert_eq!(verdict(&user).front_proxy, None);
    }
}
