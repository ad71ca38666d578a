//! Certificate authorities and the leaves that they sign.

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use x509_parser::{extensions::GeneralName, extensions::ParsedExtension, pem::parse_x509_pem};

use super::{CertifiedPair, PkiError, files};

const DAY: u64 = 24 * 60 * 60;
const AUTHORITY_LIFETIME: u64 = 3650 * DAY;
const LEAF_LIFETIME: u64 = 365 * DAY;
const RENEWED_BEFORE: u64 = LEAF_LIFETIME / 4;
/// Certificates are valid from a little earlier, for machines whose clocks are behind.
const CLOCK_SKEW: u64 = 5 * 60;

/// Who a certificate is about.
#[derive(Clone, Debug)]
pub struct Identity {
    user: String,
    groups: Vec<String>,
    names: Vec<String>,
}

/// What a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
}

/// A key that signs certificates.
pub(super) struct Authority {
    /// PEM.
    pub(super) certificate: String,
    key: KeyPair,
}

impl Identity {
    /// A user by name (the certificate's common name).
    pub fn new(user: impl Into<String>) -> Identity {
        Identity { user: user.into(), groups: Vec::new(), names: Vec::new() }
    }

    /// The user's groups (the certificate's organizations).
    pub fn in_groups<'a>(mut self, groups: impl IntoIterator<Item = &'a str>) -> Identity {
        self.groups.extend(groups.into_iter().map(str::to_string));
        self
    }

    /// The DNS names and addresses under which a server is reached.
    pub fn reached_as(mut self, names: impl IntoIterator<Item = String>) -> Identity {
        self.names.extend(names);
        self.names.sort();
        self.names.dedup();
        self
    }
}

impl Authority {
    /// The authority in `<file>.crt` and `<file>.key`; at first start, a new one called `name`.
    pub(super) fn load_or_create(
        dir: &Path,
        file: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<Authority, PkiError> {
        let (certificate_path, key_path) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        let issue = |source| PkiError::Issue { subject: name.to_string(), source };
        let key = match files::read(&key_path)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|_| PkiError::Content {
                path: key_path.clone(),
                expected: "a private key in PEM",
            })?,
            None if certificate_path.exists() => return Err(PkiError::MissingKey { path: key_path }),
            None => {
                let key = KeyPair::generate().map_err(issue)?;
                files::write(&key_path, &key.serialize_pem())?;
                // A certificate without its key would be the end of the cluster.
                files::sync(dir)?;
                key
            }
        };
        let certificate = match files::read(&certificate_path)? {
            Some(pem) => pem,
            None => {
                let pem = authority_parameters(name, now).self_signed(&key).map_err(issue)?.pem();
                files::write(&certificate_path, &pem)?;
                pem
            }
        };
        if Issuer::from_ca_cert_pem(&certificate, &key).is_err() {
            return Err(PkiError::Content { path: certificate_path, expected: "a CA certificate in PEM" });
        }
        Ok(Authority { certificate, key })
    }

    /// The pair in `<file>.crt` and `<file>.key` if it still serves `identity`, else a new one in its place.
    pub(super) fn load_or_issue(
        &self,
        dir: &Path,
        file: &str,
        identity: &Identity,
        usage: Usage,
        now: Timestamp,
    ) -> Result<CertifiedPair, PkiError> {
        let (certificate_path, key_path) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        if let (Some(certificate), Some(key)) = (files::read(&certificate_path)?, files::read(&key_path)?)
            && self.still_serves(&certificate, &key, identity, now)
        {
            return Ok(CertifiedPair { certificate, key });
        }
        let pair = self.issue(identity, usage, now)?;
        files::write(&key_path, &pair.key)?;
        files::write(&certificate_path, &pair.certificate)?;
        Ok(pair)
    }

    /// A new key and a certificate for it.
    pub(super) fn issue(
        &self,
        identity: &Identity,
        usage: Usage,
        now: Timestamp,
    ) -> Result<CertifiedPair, PkiError> {
        let issue = |source| PkiError::Issue { subject: identity.user.clone(), source };
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, &self.key).map_err(issue)?;
        let key = KeyPair::generate().map_err(issue)?;
        let parameters = leaf_parameters(identity, usage, now).map_err(issue)?;
        let certificate = parameters.signed_by(&key, &issuer).map_err(issue)?;
        Ok(CertifiedPair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Whether a stored pair belongs together, comes from this authority, carries the identity and is young enough.
    fn still_serves(&self, certificate: &str, key: &str, identity: &Identity, now: Timestamp) -> bool {
        let Ok(key) = KeyPair::from_pem(key) else { return false };
        let (Ok((_, leaf)), Ok((_, authority))) =
            (parse_x509_pem(certificate.as_bytes()), parse_x509_pem(self.certificate.as_bytes()))
        else {
            return false;
        };
        let (Ok(leaf), Ok(authority)) = (leaf.parse_x509(), authority.parse_x509()) else { return false };
        let seconds_left = leaf.validity().not_after.timestamp() - now.as_second();
        leaf.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
            && leaf.issuer().as_raw() == authority.subject().as_raw()
            && signer_of(&leaf).is_some_and(|id| Some(id) == key_id_of(&authority))
            && common_name(&leaf) == Some(identity.user.as_str())
            && names_of(&leaf) == identity.names.iter().cloned().collect()
            && u64::try_from(seconds_left).is_ok_and(|left| left > RENEWED_BEFORE)
    }
}

fn authority_parameters(name: &str, now: Timestamp) -> CertificateParams {
    let mut parameters = valid_for(AUTHORITY_LIFETIME, now);
    parameters.distinguished_name = distinguished_name(name, &[]);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    parameters
}

fn leaf_parameters(
    identity: &Identity,
    usage: Usage,
    now: Timestamp,
) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = valid_for(LEAF_LIFETIME, now);
    parameters.subject_alt_names = CertificateParams::new(identity.names.clone())?.subject_alt_names;
    parameters.distinguished_name = distinguished_name(&identity.user, &identity.groups);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![match usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn valid_for(lifetime: u64, now: Timestamp) -> CertificateParams {
    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut parameters = CertificateParams::default();
    parameters.not_before = epoch + now.saturating_sub(Duration::from_secs(CLOCK_SKEW));
    parameters.not_after = epoch + now + Duration::from_secs(lifetime);
    parameters
}

fn distinguished_name(user: &str, groups: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // One name holds each attribute once in rcgen; components are in one group at most.
    for group in groups {
        name.push(DnType::OrganizationName, group.as_str());
    }
    name.push(DnType::CommonName, user);
    name
}

fn common_name<'a>(certificate: &'a x509_parser::certificate::X509Certificate<'_>) -> Option<&'a str> {
    certificate.subject().iter_common_name().next()?.as_str().ok()
}

fn names_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_string()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

fn signer_of<'a>(certificate: &'a x509_parser::certificate::X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

fn key_id_of<'a>(certificate: &'a x509_parser::certificate::X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}
