//! Clients' certificates: who may show one in TLS, and whether an authority vouches for it.
//!
//! TLS makes sure that a client holds the key of what it shows, and no more: whether somebody vouches for it is asked
//! for each request, so that a bad certificate is answered with 401 and an expired one ends nothing but its own rights.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};

use super::PkiError;

/// An authority that vouches for clients.
#[derive(Clone, Debug)]
pub struct ClientAuthority(Arc<dyn ClientCertVerifier>);

impl ClientAuthority {
    /// The authorities in a bundle of PEM certificates.
    pub fn from_pem(bundle: &str) -> Result<ClientAuthority, PkiError> {
        let tls = |reason: String| PkiError::Tls { what: "client certificates", reason };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            let certificate = certificate.map_err(|error| tls(error.to_string()))?;
            roots.add(certificate).map_err(|error| tls(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
        Ok(ClientAuthority(verifier.map_err(|error| tls(error.to_string()))?))
    }

    /// Whether the chain leads to the authority, is valid now and meant for clients.
    pub fn vouches_for(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let since = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
        self.0.verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since)).is_ok()
    }

    fn subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }
}

/// Takes any certificate whose key the client holds; names the authorities whose certificates are of use.
#[derive(Debug)]
pub(super) struct AnyClient {
    provider: Arc<CryptoProvider>,
    subjects: Vec<DistinguishedName>,
}

impl AnyClient {
    pub(super) fn new(provider: Arc<CryptoProvider>, authorities: &[ClientAuthority]) -> AnyClient {
        let subjects = authorities.iter().flat_map(ClientAuthority::subjects).cloned().collect();
        AnyClient { provider, subjects }
    }
}

impl ClientCertVerifier for AnyClient {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
