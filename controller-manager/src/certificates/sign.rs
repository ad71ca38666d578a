//! Certificates as the signers make them: subject, key and names as the request has them, the rest by the signer.
//!
//! Written out as DER by hand: a subject with two organizations is not to lose one on the way.

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, SigningKey};
use x509_parser::{
    certificate::X509Certificate, extensions::ParsedExtension, pem::parse_x509_pem, prelude::FromDer,
};

use super::request::Request;

const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
const LINE: usize = 64;

const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];

/// Usages of keys, with their bits.
const KEY_USAGES: &[(&str, u8)] = &[
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];
/// Purposes of certificates, with their object identifiers.
const PURPOSES: &[(&str, &[u8])] = &[
    ("any", &[0x55, 0x1d, 0x25, 0x00]),
    ("server auth", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]),
    ("client auth", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]),
    ("code signing", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03]),
    ("email protection", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x04]),
    ("s/mime", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x04]),
    ("ipsec end system", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x05]),
    ("ipsec tunnel", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x06]),
    ("ipsec user", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x07]),
    ("timestamping", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08]),
    ("ocsp signing", &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09]),
];

/// An authority that signs.
pub(super) struct Signer {
    key: KeyPair,
    algorithm: Vec<u8>,
    /// The authority's name, DER.
    name: Vec<u8>,
    key_id: Option<Vec<u8>>,
    expires: Timestamp,
}

impl Signer {
    /// The authority with this certificate and key (PEM); `None` where they are none.
    pub(super) fn new(certificate: &str, key: &str) -> Option<Signer> {
        let key = KeyPair::from_pem(key).ok()?;
        let (_, block) = parse_x509_pem(certificate.as_bytes()).ok()?;
        let (_, parsed) = X509Certificate::from_der(&block.contents).ok()?;
        let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let expires = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
        let algorithm = algorithm_of(&key)?;
        Some(Signer { key, algorithm, name: parsed.subject().as_raw().to_vec(), key_id, expires })
    }

    /// A certificate for the request, PEM. `serial` must never be used twice.
    pub(super) fn sign(
        &self,
        request: &Request,
        usages: &[String],
        lifetime: SignedDuration,
        serial: [u8; 16],
        now: Timestamp,
    ) -> Result<String, String> {
        let end = (now + lifetime).min(self.expires);
        let validity = sequence(&[time(now - BACKDATE), time(end)]);
        let tbs = sequence(&[
            tagged(0xa0, &tagged(0x02, &[2])),
            positive(serial),
            self.algorithm.clone(),
            self.name.clone(),
            validity,
            request.subject.clone(),
            request.public_key.clone(),
            tagged(0xa3, &sequence(&self.extensions(request, usages))),
        ]);
        let signature = self.key.sign(&tbs).map_err(|error| format!("unable to sign: {error}"))?;
        Ok(pem(&sequence(&[tbs, self.algorithm.clone(), bits(&signature, 0)])))
    }

    fn extensions(&self, request: &Request, usages: &[String]) -> Vec<Vec<u8>> {
        let is_wanted = |name: &str| usages.iter().any(|usage| usage == name);
        let key_usages: Vec<u8> =
            KEY_USAGES.iter().filter(|(name, _)| is_wanted(name)).map(|(_, bit)| *bit).collect();
        let purposes: Vec<Vec<u8>> = PURPOSES
            .iter()
            .filter(|(name, _)| is_wanted(name))
            .map(|(_, identifier)| tagged(0x06, identifier))
            .collect();
        let mut extensions = Vec::new();
        if !key_usages.is_empty() {
            extensions.push(extension(KEY_USAGE, true, &usage_bits(&key_usages)));
        }
        if !purposes.is_empty() {
            extensions.push(extension(EXTENDED_KEY_USAGE, false, &sequence(&purposes)));
        }
        extensions.push(extension(BASIC_CONSTRAINTS, true, &sequence(&[])));
        if let Some(id) = &self.key_id {
            extensions.push(extension(AUTHORITY_KEY_ID, false, &sequence(&[tagged(0x80, id)])));
        }
        if !request.alternative_names.is_empty() {
            let names = request.alternative_names.iter().map(|(tag, content)| tagged(0x80 | tag, content));
            // Without a subject the names are all there is.
            let has_no_subject = request.subject == sequence(&[]);
            let names = sequence(&names.collect::<Vec<_>>());
            extensions.push(extension(SUBJECT_ALTERNATIVE_NAME, has_no_subject, &names));
        }
        extensions
    }
}

fn algorithm_of(key: &KeyPair) -> Option<Vec<u8>> {
    let algorithm = key.algorithm();
    let known = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, ECDSA_SHA256, false),
        (&rcgen::PKCS_ECDSA_P384_SHA384, ECDSA_SHA384, false),
        (&rcgen::PKCS_RSA_SHA256, RSA_SHA256, true),
        (&rcgen::PKCS_ED25519, ED25519, false),
    ];
    let (_, identifier, has_null) = known.into_iter().find(|(known, ..)| *known == algorithm)?;
    let mut parts = vec![tagged(0x06, identifier)];
    if has_null {
        parts.push(tagged(0x05, &[]));
    }
    Some(sequence(&parts))
}

fn extension(identifier: &[u8], is_critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![tagged(0x06, identifier)];
    if is_critical {
        parts.push(tagged(0x01, &[0xff]));
    }
    parts.push(tagged(0x04, value));
    sequence(&parts)
}

fn usage_bits(set: &[u8]) -> Vec<u8> {
    let last = set.iter().copied().max().unwrap_or_default();
    let mut bytes = vec![0_u8; usize::from(last / 8) + 1];
    for bit in set {
        bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    bits(&bytes, 7 - last % 8)
}

fn bits(bytes: &[u8], unused: u8) -> Vec<u8> {
    tagged(0x03, &[&[unused], bytes].concat())
}

/// A positive number of 16 bytes: neither zero nor with its first bit set.
fn positive(mut bytes: [u8; 16]) -> Vec<u8> {
    bytes[0] = bytes[0] & 0x7f | 0x40;
    tagged(0x02, &bytes)
}

/// UTCTime until 2049, GeneralizedTime from then on.
fn time(time: Timestamp) -> Vec<u8> {
    let text = time.strftime("%Y%m%d%H%M%SZ").to_string();
    match text.as_str() < "2050" {
        true => tagged(0x17, &text.as_bytes()[2..]),
        false => tagged(0x18, text.as_bytes()),
    }
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tagged(0x30, &parts.concat())
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    match content.len() {
        short @ 0..128 => bytes.push(short as u8),
        _ => {
            bytes.push(0x80 | length.len() as u8);
            bytes.extend_from_slice(length);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

fn pem(der: &[u8]) -> String {
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(LINE) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa};

    use super::*;

    fn signer() -> (Signer, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "kubernetes");
        let certificate = parameters.self_signed(&key).unwrap().pem();
        (Signer::new(&certificate, &key.serialize_pem()).unwrap(), certificate)
    }

    fn request(names: &[&str]) -> Request {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::OrganizationName, "dev");
        parameters.distinguished_name.push(DnType::CommonName, "ann");
        Request::from_pem(parameters.serialize_request(&key).unwrap().pem().unwrap().as_bytes()).unwrap()
    }

    #[test]
    fn a_certificate_says_what_the_request_and_the_signer_say() {
        let (signer, authority) = signer();
        let request = request(&["web.example.com", "192.0.2.7"]);
        assert_eq!(
            (request.common_name.as_str(), request.organizations.as_slice()),
            ("ann", &["dev".to_string()][..])
        );
        let usages = ["client auth", "digital signature", "key encipherment"].map(str::to_string);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pem = signer.sign(&request, &usages, SignedDuration::from_hours(1), [0xff; 16], now).unwrap();
        let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = block.parse_x509().unwrap();
        let (_, authority) = parse_x509_pem(authority.as_bytes()).unwrap();
        let authority = authority.parse_x509().unwrap();
        certificate.verify_signature(Some(authority.public_key())).unwrap();
        assert_eq!(certificate.issuer(), authority.subject());
        assert_eq!(certificate.subject().to_string(), "O=dev, CN=ann");
        assert_eq!(certificate.validity().not_after.timestamp(), now.as_second() + 3600);
        assert_eq!(certificate.validity().not_before.timestamp(), now.as_second() - 300);
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 2);
        let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.client_auth && !purposes.server_auth);
        let key_usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(key_usage.digital_signature() && key_usage.key_encipherment() && !key_usage.key_cert_sign());
        assert!(!certificate.is_ca());
    }

    #[test]
    fn a_certificate_does_not_outlive_its_authority() {
        let (signer, _) = signer();
        let long = SignedDuration::from_hours(24 * 365 * 10_000);
        let end = Timestamp::from_second(signer.expires.as_second()).unwrap();
        let now = end - SignedDuration::from_hours(1);
        let pem =
            signer.sign(&request(&[]), &[], long.min(SignedDuration::from_hours(24)), [1; 16], now).unwrap();
        let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
        assert_eq!(block.parse_x509().unwrap().validity().not_after.timestamp(), end.as_second());
    }

    #[test]
    fn a_request_of_somebody_without_the_key_is_refused() {
        let key = KeyPair::generate().unwrap();
        let pem = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
        let mut der = block.contents.clone();
        *der.last_mut().unwrap() ^= 1;
        let forged = super::pem(&der).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        assert!(Request::from_pem(forged.as_bytes()).is_err());
        assert!(Request::from_pem(b"nonsense").is_err());
    }
}
