//! Who is at the other end of a connection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::TlsFiles;

/// Administrators, as upstream calls them.
const MASTERS: &str = "system:masters";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of its kind.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate and key do not work.
    #[error("cannot use the kubelet's serving certificate")]
    Certificate(#[from] rustls::Error),
    /// The CA does not work.
    #[error("cannot use the CA of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Whom a client certificate names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its common name.
    pub name: String,
    /// Its organizations.
    pub groups: Vec<String>,
}

impl Identity {
    /// Whether this is an administrator or one of those named, who need not be asked about.
    pub fn is_trusted(&self, allowed: &[String]) -> bool {
        self.groups.iter().any(|group| group == MASTERS) || allowed.contains(&self.name)
    }
}

/// TLS that asks for a client certificate; that one came is checked for each request, so that the refusal
/// can be told in HTTP.
pub(super) fn server_config(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.client_ca)? {
        roots.add(certificate)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.allow_unauthenticated().build()?;
    let key = PrivateKeyDer::from_pem_file(&files.private_key)
        .map_err(|source| TlsError::Read { path: files.private_key.clone(), source })?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, key)?;
    // Streams are upgraded connections, which HTTP/2 does not have in this form.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_path_buf(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// The identity in the peer's certificate, which TLS has verified.
pub(super) fn of_peer(chain: Option<&[CertificateDer<'_>]>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(chain?.first()?).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_string();
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_string);
    Some(Identity { name, groups: groups.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_server_and_administrators_may() {
        let may = |name: &str, groups: &[&str]| {
            let groups = groups.iter().map(|group| group.to_string()).collect();
            let allowed = ["kube-apiserver-kubelet-client".to_string()];
            Identity { name: name.into(), groups }.is_trusted(&allowed)
        };
        assert!(may("kube-apiserver-kubelet-client", &[]));
        assert!(may("jane", &["devs", "system:masters"]));
        assert!(!may("system:node:other", &["system:nodes"]));
    }
}
