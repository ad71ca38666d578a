//! A request as it came (PKCS#10): who is named in it, and what the certificate takes over as it stands.

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    pem::parse_x509_pem,
    prelude::FromDer,
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
        let texts =
            |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().ok().map(str::to_string);
        request.common_name = info.subject.iter_common_name().find_map(texts).unwrap_or_default();
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
