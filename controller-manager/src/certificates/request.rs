//! A request as it came (PKCS#10): who is named in it, and what the certificate takes over as it stands.

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    pem::parse_x509_pem,
    prelude::FromDer,
    x509::AttributeTypeAndValue,
};

/// What is in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) emails: Vec<String>,
    pub(super) addresses: Vec<Vec<u8>>,
    pub(super) uris: Vec<String>,
    /// The subject, DER.
    pub(super) subject: Vec<u8>,
    /// The public key with its algorithm, DER.
    pub(super) public_key: Vec<u8>,
    /// The alternative names, each with its tag number and its content.
    pub(super) alternative_names: Vec<(u8, Vec<u8>)>,
}

impl Request {
    /// Reads a request whose author holds the key in it; the error says what is wrong.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Request, String> {
        let (_, block) = parse_x509_pem(pem).map_err(|_| "unable to parse csr: no PEM block")?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err("PEM block type must be CERTIFICATE REQUEST".into());
        }
        let (_, parsed) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|error| format!("unable to parse csr: {error}"))?;
        parsed
            .verify_signature()
            .map_err(|error| format!("unable to verify certificate request signature: {error}"))?;
        let info = &parsed.certification_request_info;
        let mut request = Request {
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..Request::default()
        };
        // What is not read here others may read differently, and the certificate would still carry it.
        if info.subject.iter_attributes().any(|part| part.as_str().is_err()) {
            return Err("unable to parse csr: the subject has a part that is no plain text".into());
        }
        let texts = |part: &AttributeTypeAndValue<'_>| part.as_str().ok().map(str::to_string);
        let mut common_names = info.subject.iter_common_name().filter_map(texts);
        request.common_name = common_names.next().unwrap_or_default();
        if common_names.next().is_some() {
            return Err("unable to parse csr: the subject has more than one common name".into());
        }
        request.organizations = info.subject.iter_organization().filter_map(texts).collect();
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().try_for_each(|name| request.add(name))?;
            }
        }
        Ok(request)
    }

    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), String> {
        let (tag, content) = match name {
            GeneralName::RFC822Name(email) => {
                self.emails.push((*email).to_string());
                (1, email.as_bytes())
            }
            GeneralName::DNSName(name) => {
                self.dns_names.push((*name).to_string());
                (2, name.as_bytes())
            }
            GeneralName::URI(uri) => {
                self.uris.push((*uri).to_string());
                (6, uri.as_bytes())
            }
            GeneralName::IPAddress(address) => {
                self.addresses.push(address.to_vec());
                (7, *address)
            }
            // Upstream does not carry other sorts over either.
            _ => return Ok(()),
        };
        self.alternative_names.push((tag, content.to_vec()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, string::TeletexString};

    use super::*;

    fn read(parts: Vec<(DnType, DnValue)>) -> Result<Request, String> {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        for (sort, text) in parts {
            parameters.distinguished_name.push(sort, text);
        }
        let key = KeyPair::generate().unwrap();
        Request::from_pem(parameters.serialize_request(&key).unwrap().pem().unwrap().as_bytes())
    }

    #[test]
    fn a_subject_that_can_be_read_in_two_ways_is_refused() {
        let masters = TeletexString::try_from("system:masters").unwrap();
        let hidden = vec![
            (DnType::CommonName, DnValue::from("ann")),
            (DnType::OrganizationName, DnValue::TeletexString(masters)),
        ];
        assert!(read(hidden).unwrap_err().contains("no plain text"));
        // The same attribute under another name, so that the writer lets it stand twice.
        let again = DnType::CustomDnType(vec![2, 5, 4, 3]);
        let twice = vec![(DnType::CommonName, DnValue::from("ann")), (again, DnValue::from("root"))];
        assert!(read(twice).unwrap_err().contains("more than one common name"));
        let plain = read(vec![(DnType::CommonName, DnValue::from("ann"))]).unwrap();
        assert_eq!(plain.common_name, "ann");
    }
}
