//! The user in a client certificate: the common name, with the organizations as groups.

use rustls_pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use crate::request::User;

/// The user in a verified certificate; `None` when it names nobody.
pub(super) fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?;
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_string).collect();
    groups.push("system:authenticated".into());
    Some(User { name: name.to_string(), groups, ..User::default() })
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::pki::{Names, Pki};

    #[test]
    fn a_kubelet_is_a_node_in_the_group_of_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::load_or_create(dir.path(), &Names::default()).unwrap();
        let (certificate, _) = pki.issue_client("system:node:lab1", &["system:nodes"]).unwrap();
        let user = user_of(&CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        assert_eq!(user, User::new("system:node:lab1", &["system:nodes", "system:authenticated"]));
    }
}
