//! Whom to trust on the other side, and what is said of whom is not trusted.
//!
//! Certificates are verified by `webpki`. Two things are as in Go's library, which users' certificates are made for: a
//! certificate that is itself among the trusted ones may serve although it is an authority's, and every refusal is worded
//! as `x509: ...`.

use std::{fmt, io, sync::Arc};

use api::time;
use jiff::Timestamp;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::{extensions::GeneralName, prelude::*};

/// Whose certificates are good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Those of the authorities in this PEM text.
    Authorities(Vec<u8>),
    /// Those of the authorities that the machine trusts.
    Machine,
    /// Anybody's.
    Anybody,
}

/// TLS towards a server that is trusted so. `identity` is what is shown when the server asks for it.
pub(crate) fn client_config(
    trust: &Trust,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(trust, provider)?));
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string()),
    }
}

/// Why a handshake failed, in Go's words.
pub(super) fn in_words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
            format!("tls: failed to verify certificate: {why}")
        }
        Some(Error::InvalidMessage(_)) => "http: server gave HTTP response to HTTPS client".into(),
        Some(Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".into(),
        _ => error.to_string(),
    }
}

#[derive(Debug)]
struct Verifier {
    /// None: anybody will do.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(trust: &Trust, provider: Arc<CryptoProvider>) -> Result<Verifier, String> {
        let trusted = match trust {
            Trust::Authorities(pem) => authorities(pem)?,
            Trust::Machine => rustls_native_certs::load_native_certs().certs,
            Trust::Anybody => return Ok(Verifier { webpki: None, trusted: Vec::new(), provider }),
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let webpki = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build();
        let webpki = webpki
            .map_err(|_| "unable to load root certificates: no valid certificate authority data seen")?;
        Ok(Verifier { webpki: Some(webpki), trusted, provider })
    }
}

fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let refused = |why: &dyn fmt::Display| format!("unable to load root certificates: {why}");
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|_| refused(&"unable to parse bytes as PEM block"))?;
    if found.is_empty() {
        return Err(refused(&"unable to parse bytes as PEM block"));
    }
    for certificate in &found {
        X509Certificate::from_der(certificate)
            .map_err(|error| refused(&format_args!("failed to parse certificate: {error}")))?;
    }
    Ok(found)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(webpki) = &self.webpki else { return Ok(ServerCertVerified::assertion()) };
        let Err(error) = webpki.verify_server_cert(leaf, chain, name, ocsp, now) else {
            return Ok(ServerCertVerified::assertion());
        };
        let refuse = |why: String| {
            let why = OtherError(Arc::new(Untrusted(why)));
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
        };
        match judge(leaf, name, now) {
            Err(why) => refuse(why),
            Ok(()) if self.trusted.iter().any(|one| one == leaf) => Ok(ServerCertVerified::assertion()),
            Ok(()) => refuse(unlinked(&error)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A reason in Go's words.
#[derive(Debug)]
struct Untrusted(String);

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Untrusted {}

/// Why a certificate that is good in itself does not lead to anybody who is trusted.
fn unlinked(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::InvalidPurpose)
        | Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. }) => {
            "x509: certificate specifies an incompatible key usage".into()
        }
        _ => "x509: certificate signed by unknown authority".into(),
    }
}

/// Whether a certificate is for this server and for now, whoever signed it.
fn judge(leaf: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), String> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|error| format!("x509: malformed certificate: {error}"))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    let written = |seconds: i64| time::format(Timestamp::from_second(seconds).unwrap_or_default());
    let expired = "x509: certificate has expired or is not yet valid";
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if now < begin {
        return Err(format!("{expired}: current time {} is before {}", written(now), written(begin)));
    }
    if now > end {
        return Err(format!("{expired}: current time {} is after {}", written(now), written(end)));
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    match name {
        ServerName::IpAddress(address) => judge_address(names, std::net::IpAddr::from(*address)),
        name => judge_name(&certificate, names, &name.to_str()),
    }
}

fn judge_address(names: &[GeneralName<'_>], wanted: std::net::IpAddr) -> Result<(), String> {
    let addresses: Vec<std::net::IpAddr> = names.iter().filter_map(address).collect();
    if addresses.contains(&wanted) {
        return Ok(());
    }
    if addresses.is_empty() {
        return Err(format!(
            "x509: cannot validate certificate for {wanted} because it doesn't contain any IP SANs"
        ));
    }
    let known: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    Err(format!("x509: certificate is valid for {}, not {wanted}", known.join(", ")))
}

fn address(name: &GeneralName<'_>) -> Option<std::net::IpAddr> {
    match name {
        GeneralName::IPAddress(bytes) if bytes.len() == 4 => <[u8; 4]>::try_from(*bytes).ok().map(Into::into),
        GeneralName::IPAddress(bytes) => <[u8; 16]>::try_from(*bytes).ok().map(Into::into),
        _ => None,
    }
}

fn judge_name(
    certificate: &X509Certificate<'_>,
    names: &[GeneralName<'_>],
    wanted: &str,
) -> Result<(), String> {
    let known: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    if known.iter().any(|pattern| is_match(pattern, wanted)) {
        return Ok(());
    }
    let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    if names.is_empty() && common.is_some_and(|common| is_match(common, wanted)) {
        return Err("x509: certificate relies on legacy Common Name field, use SANs instead".into());
    }
    if known.is_empty() {
        return Err(format!("x509: certificate is not valid for any names, but wanted to match {wanted}"));
    }
    Err(format!("x509: certificate is valid for {}, not {wanted}", known.join(", ")))
}

/// Whether a name, or a pattern with a star for its first label, is the wanted one.
fn is_match(pattern: &str, wanted: &str) -> bool {
    if pattern.eq_ignore_ascii_case(wanted) {
        return true;
    }
    let rest = pattern.strip_prefix("*.");
    rest.is_some_and(|rest| wanted.split_once('.').is_some_and(|(_, tail)| tail.eq_ignore_ascii_case(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a certificate for these names at the server with that name.
    fn said(names: &[&str], server: &str) -> Result<(), String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        judge(made.cert.der(), &ServerName::try_from(server.to_string()).unwrap(), UnixTime::now())
    }

    #[test]
    fn a_certificate_is_for_the_names_that_it_has() {
        assert_eq!(said(&["hook.prod.svc"], "hook.prod.svc"), Ok(()));
        assert_eq!(said(&["*.prod.svc"], "hook.prod.svc"), Ok(()));
        assert_eq!(said(&["127.0.0.1"], "127.0.0.1"), Ok(()));
        let cases: [(&[&str], &str, &str); 4] = [
            (&["a.svc", "b.svc"], "c.svc", "x509: certificate is valid for a.svc, b.svc, not c.svc"),
            (&["10.0.0.1"], "127.0.0.1", "x509: certificate is valid for 10.0.0.1, not 127.0.0.1"),
            (
                &["a.svc"],
                "127.0.0.1",
                "x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
            ),
            (
                &["10.0.0.1"],
                "c.svc",
                "x509: certificate is not valid for any names, but wanted to match c.svc",
            ),
        ];
        for (names, server, why) in cases {
            assert_eq!(said(names, server), Err(why.to_string()));
        }
    }

    #[test]
    fn a_certificate_is_for_its_time() {
        let made = rcgen::generate_simple_self_signed(["a.svc".to_string()]).unwrap();
        let name = ServerName::try_from("a.svc").unwrap();
        let long_ago = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
        let why = judge(made.cert.der(), &name, long_ago).unwrap_err();
        let start =
            "x509: certificate has expired or is not yet valid: current time 1970-01-01T00:00:00Z is before ";
        assert!(why.starts_with(start), "{why}");
    }

    #[test]
    fn a_bundle_has_to_hold_certificates() {
        let refused = |pem: &[u8]| authorities(pem).unwrap_err();
        let nothing = "unable to load root certificates: unable to parse bytes as PEM block";
        assert_eq!(refused(b""), nothing);
        assert_eq!(refused(b"no certificate"), nothing);
    }
}
