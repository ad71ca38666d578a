use std::{os::unix::fs::PermissionsExt, thread};

use x509_parser::pem::parse_x509_pem;

use super::*;

fn names(address: &str) -> Names {
    Names {
        hostname: "lab1".into(),
        addresses: vec![address.parse().unwrap()],
        service_address: Some("10.96.0.1".parse().unwrap()),
        cluster_domain: "cluster.local".into(),
        extra: Vec::new(),
    }
}

#[test]
fn a_second_start_finds_what_the_first_one_made() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::load_or_create(dir.path(), &names("192.0.2.7")).unwrap();
    let second = Pki::load_or_create(dir.path(), &names("192.0.2.7")).unwrap();
    assert_eq!(first.ca_certificate(), second.ca_certificate());
    assert_eq!(first.serving, second.serving);
    assert_eq!(first.admin_kubeconfig("https://a").unwrap(), second.admin_kubeconfig("https://a").unwrap());
    assert_eq!(first.token_key.key_set(), second.token_key.key_set());
}

#[test]
fn a_new_address_renews_the_serving_certificate_only() {
    let dir = tempfile::tempdir().unwrap();
    let before = Pki::load_or_create(dir.path(), &names("192.0.2.7")).unwrap();
    let after = Pki::load_or_create(dir.path(), &names("192.0.2.8")).unwrap();
    assert_eq!(before.ca_certificate(), after.ca_certificate());
    assert_eq!(before.kubelet_client, after.kubelet_client);
    assert_ne!(before.serving, after.serving);
}

#[test]
fn a_certificate_near_its_end_or_of_another_authority_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let authority = Authority::load_or_create(dir.path(), "ca", "kubernetes", now).unwrap();
    let other = Authority::load_or_create(dir.path(), "other", "kubernetes", now).unwrap();
    let identity = Identity::new("a");
    let issue = |authority: &Authority, at| {
        authority.load_or_issue(dir.path(), "leaf", &identity, Usage::Client, at).unwrap()
    };
    let first = issue(&authority, now);
    assert_eq!(issue(&authority, now + jiff::SignedDuration::from_hours(24 * 200)), first);
    let second = issue(&authority, now + jiff::SignedDuration::from_hours(24 * 300));
    assert_ne!(second, first);
    assert_ne!(issue(&other, now), second);
}

#[test]
fn client_certificates_name_user_and_group() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(dir.path(), &names("192.0.2.7")).unwrap();
    let (certificate, _) = pki.issue_client("system:node:lab1", &["system:nodes"]).unwrap();
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).unwrap();
    let subject = pem.parse_x509().unwrap().subject().to_string();
    assert_eq!(subject, "O=system:nodes, CN=system:node:lab1");
}

#[test]
fn every_file_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    Pki::load_or_create(dir.path(), &names("192.0.2.7")).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn a_missing_authority_key_is_an_error_and_not_a_new_cluster() {
    let dir = tempfile::tempdir().unwrap();
    Pki::load_or_create(dir.path(), &names("192.0.2.7")).unwrap();
    std::fs::remove_file(dir.path().join("ca.key")).unwrap();
    let error = Pki::load_or_create(dir.path(), &names("192.0.2.7")).err().unwrap();
    assert!(matches!(error, PkiError::MissingKey { .. }));
}

#[test]
fn processes_that_start_together_share_one_authority() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Pki::load_or_create(dir.path(), &names("192.0.2.7")).unwrap().ca_certificate().to_string();
    let made: Vec<String> = thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(made.iter().all(|certificate| *certificate == made[0]));
}

#[test]
fn tls_accepts_the_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(dir.path(), &names("192.0.2.7")).unwrap();
    pki.server_config(&[ClientAuthority::from_pem(pki.ca_certificate()).unwrap()]).unwrap();
    pki.kubelet_client_config().unwrap();
    let serving = pki.kubelet_serving("lab1", &["192.0.2.7".parse().unwrap()]).unwrap();
    pki.server_config_with(&serving).unwrap();
}

#[test]
fn tokens_are_verified_by_the_key_that_signed_them_alone() {
    let (ours, theirs) = (TokenKey::generate(), TokenKey::generate());
    let claims = serde_json::json!({"sub": "system:serviceaccount:default:web"});
    let token = ours.sign(&claims).unwrap();
    assert_eq!(ours.verify(&token), Some(claims));
    assert_eq!(theirs.verify(&token), None);
    let forged = format!("{}x", &token[..token.len() - 1]);
    assert_eq!(ours.verify(&forged), None);
    assert_eq!(ours.verify("not.a.token"), None);
}
