//! The etcd engine over TLS, with certificates on both sides.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use store::etcd::{Etcd, Tls, TlsIdentity};

use crate::{
    subject::{EtcdServer, now},
    suite::create,
};

#[tokio::test]
async fn etcd_is_reached_over_tls() {
    if !EtcdServer::is_installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();

    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let issue = |names: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (server_certificate, server_key) = issue(&["127.0.0.1"]);
    let (certificate, key) = issue(&["coracle"]);
    for (name, text) in [("ca", &ca_certificate), ("certificate", &server_certificate), ("key", &server_key)]
    {
        std::fs::write(path(name), text).unwrap();
    }
    let server = EtcdServer::start_with(
        &directory.path().join("data"),
        "https",
        &[
            "--cert-file",
            &path("certificate"),
            "--key-file",
            &path("key"),
            "--trusted-ca-file",
            &path("ca"),
            "--client-cert-auth",
        ],
    );

    let endpoints = [server.url.clone()];
    let identity = TlsIdentity { certificate: certificate.into(), key: key.into() };
    let tls = Tls { ca: ca_certificate.clone().into(), identity: Some(identity) };
    let store = Etcd::connect(&endpoints, Some(tls)).await.unwrap();
    let created = create(&store, "/a", "one").await;
    assert_eq!(now(&store).await, created);

    let stranger = Tls { ca: ca_certificate.into(), identity: None };
    let refused = Etcd::connect(&endpoints, Some(stranger)).await.err().unwrap();
    assert!(refused.to_string().contains(&server.url), "{refused}");
}
