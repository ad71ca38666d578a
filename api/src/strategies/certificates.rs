//! ClusterTrustBundles and PodCertificateRequests: certificates beside those that are asked for by
//! CertificateSigningRequests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::check::{Faults, Field};
use crate::{FieldError, FieldErrorKind, Object, name};

const DAY_IN_SECONDS: i64 = 86_400;
const SHORTEST_SECONDS: i64 = 3_600;
const LONGEST_SECONDS: i64 = 91 * DAY_IN_SECONDS;
/// The longest that signers of Kubernetes itself give.
const LONGEST_OF_KUBERNETES: i64 = DAY_IN_SECONDS;
const LARGEST_BUNDLE: usize = 1024 * 1024;

/// Rules of ClusterTrustBundles.
pub struct ClusterTrustBundle;

impl crate::Strategy for ClusterTrustBundle {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let signer = spec.get("signerName");
        validate_bundle_name(&Field::at(object, &["metadata", "name"]), signer.text(), &mut faults);
        if !signer.text().is_empty() {
            validate_signer(&signer, &mut faults);
        }
        validate_bundle(&spec.get("trustBundle"), &mut faults);
        if let Some(old) = old {
            faults.immutable(&signer, &Field::at(old, &["spec", "signerName"]));
        }
        faults.0
    }

    /// The rest of the rule needs the signer, so it is checked with the object.
    fn validate_name(&self, name: &str) -> Result<(), String> {
        name::path_segment(name)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// A bundle of a signer carries its name.
fn validate_bundle_name(name: &Field, signer: &str, faults: &mut Faults) {
    if signer.is_empty() {
        if name.text().contains(':') {
            faults.invalid(name, "ClusterTrustBundle without signer name must not have \":\" in its name");
        } else {
            faults.keeps(name, name::dns_subdomain);
        }
        return;
    }
    let prefix = signer.replace('/', ":") + ":";
    match name.text().strip_prefix(&prefix) {
        None => {
            let text =
                format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
            faults.invalid(name, text);
        }
        Some(rest) => {
            if let Err(message) = name::dns_subdomain(rest) {
                faults.invalid(name, message);
            }
        }
    }
}

fn validate_bundle(bundle: &Field, faults: &mut Faults) {
    let mut say = |detail: String| {
        let value = "\"<value omitted>\"".to_string();
        faults.0.push(FieldError::new(FieldErrorKind::Invalid, &bundle.path, value, detail));
    };
    if bundle.text().len() > LARGEST_BUNDLE {
        return faults.0.push(FieldError::too_long(&bundle.path, LARGEST_BUNDLE));
    }
    let mut anchors: Vec<(Vec<u8>, Vec<usize>)> = Vec::new();
    let mut is_sound = true;
    for (index, block) in pem_blocks(bundle.text()).into_iter().enumerate() {
        if let Some(fault) = fault_of_anchor(&block) {
            say(format!("entry {index} {fault}"));
            is_sound = false;
            continue;
        }
        match anchors.iter_mut().find(|(content, _)| *content == block.content) {
            Some((_, places)) => places.push(index),
            None => anchors.push((block.content, vec![index])),
        }
    }
    // What is broken is enough to be told.
    if !is_sound {
        return;
    }
    if anchors.is_empty() {
        say("at least one trust anchor must be provided".into());
    }
    for (_, places) in anchors.iter().filter(|(_, places)| places.len() > 1) {
        let places: Vec<String> = places.iter().map(usize::to_string).collect();
        say(format!("duplicate trust anchor (indices [{}])", places.join(" ")));
    }
}

/// Why a block is no certificate of an authority.
fn fault_of_anchor(block: &PemBlock) -> Option<String> {
    if block.kind != "CERTIFICATE" {
        return Some(format!("has bad block type: {}", block.kind));
    }
    if block.has_headers {
        return Some("has PEM block headers".into());
    }
    let parsed = X509Certificate::from_der(&block.content).ok().filter(|(rest, _)| rest.is_empty());
    let Some((_, certificate)) = parsed else { return Some("does not parse as X.509".into()) };
    let is_authority = certificate.basic_constraints().ok().flatten().is_some_and(|it| it.value.ca);
    (!is_authority).then(|| "does not have the CA bit set".into())
}

/// Why a text is no chain of certificates, in the words of upstream's reader.
pub(super) fn fault_of_chain(pem: &str) -> Option<String> {
    let blocks = pem_blocks(pem);
    if blocks.is_empty() {
        return Some("must contain at least one CERTIFICATE PEM block".into());
    }
    blocks.iter().find_map(|block| match X509Certificate::from_der(&block.content) {
        _ if block.kind != "CERTIFICATE" => {
            Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.kind))
        }
        _ if block.has_headers => Some("no PEM block headers are permitted".into()),
        Ok(_) => None,
        Err(_) => Some("x509: malformed certificate".into()),
    })
}

struct PemBlock {
    kind: String,
    has_headers: bool,
    content: Vec<u8>,
}

/// The PEM blocks of a text; what stands between them is nobody's business.
fn pem_blocks(text: &str) -> Vec<PemBlock> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let kind = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(kind) = kind else { continue };
        let end = format!("-----END {kind}-----");
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
        let has_headers = body.iter().any(|line| line.contains(':'));
        let content: String = body.into_iter().filter(|line| !line.contains(':')).collect();
        let content = STANDARD.decode(content).unwrap_or_default();
        blocks.push(PemBlock { kind: kind.to_string(), has_headers, content });
    }
    blocks
}

/// Rules of PodCertificateRequests, by which a kubelet asks for a pod's certificate. Written once.
pub struct PodCertificateRequest;

impl crate::Strategy for PodCertificateRequest {
    fn set_defaults(&self, object: &mut Object) {
        object.set_if_absent(&["spec", "maxExpirationSeconds"], DAY_IN_SECONDS);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], json!({}));
    }

    fn status_is_apart(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        if let Some(old) = old {
            faults.immutable(&spec, &Field::at(old, &["spec"]));
        }
        if faults.must_be_given(&spec.get("signerName")) {
            validate_signer(&spec.get("signerName"), &mut faults);
        }
        for name in ["podName", "serviceAccountName", "nodeName"] {
            faults.must_keep(&spec.get(name), name::dns_subdomain);
        }
        for name in ["podUID", "serviceAccountUID", "nodeUID"] {
            let uid = spec.get(name);
            if faults.must_be_given(&uid) && uid.text().len() > 128 {
                faults.0.push(FieldError::too_long(&uid.path, 128));
            }
        }
        let seconds = spec.get("maxExpirationSeconds");
        let is_ours = is_of_kubernetes(spec.get("signerName").text());
        let longest = if is_ours { LONGEST_OF_KUBERNETES } else { LONGEST_SECONDS };
        if !seconds.number().is_some_and(|seconds| (SHORTEST_SECONDS..=longest).contains(&seconds)) {
            let text = format!("must be in the range [{SHORTEST_SECONDS}, {longest}]");
            faults.invalid(&seconds, text);
        }
        faults.must_be_given(&spec.get("stubPKCS10Request"));
        faults.0
    }

    /// A request is answered once: issued, denied or failed.
    fn validate_status(&self, object: &Object, old: &Object) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let (status, before) = (Field::at(object, &["status"]), Field::at(old, &["status"]));
        let conditions = status.get("conditions");
        let mut answers = 0;
        for condition in conditions.items() {
            faults.must_be_one_of(&condition.get("type"), &["Denied", "Failed", "Issued"]);
            if condition.get("status").text() != "True" {
                faults.not_supported(&condition.get("status"), &["True"]);
            }
            answers += 1;
        }
        if answers > 1 {
            let text = "There may be at most one condition with type Denied, Failed or Issued";
            faults.invalid(&Field { path: conditions.path.clone(), value: &Value::Null }, text);
        }
        if !before.get("conditions").is_empty() {
            faults.immutable(&status, &before);
        }
        faults.0
    }

    fn has_generation(&self) -> bool {
        false
    }
}

fn is_of_kubernetes(signer: &str) -> bool {
    signer
        .split('/')
        .next()
        .is_some_and(|domain| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"))
}

fn validate_signer(signer: &Field, faults: &mut Faults) {
    match signer.text().split_once('/') {
        Some((domain, path)) if !path.is_empty() => {
            let parts = path.split('.').map(name::dns_label);
            for message in std::iter::once(name::dns_subdomain(domain)).chain(parts).filter_map(Result::err) {
                faults.invalid(signer, message);
            }
        }
        _ => faults.invalid(
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strategy as _;

    fn bundle(name: &str, signer: &str, text: &str) -> Vec<String> {
        let object = json!({"metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": text}});
        let faults = ClusterTrustBundle.validate(&Object::from_value(object).unwrap(), None);
        faults.iter().map(FieldError::to_string).collect()
    }

    fn pem(kind: &str, content: &[u8]) -> String {
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(content))
    }

    fn anchor(is_authority: bool) -> String {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        if is_authority {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn a_bundle_is_named_after_its_signer() {
        let anchors = anchor(true);
        assert_eq!(bundle("all", "", &anchors), [""; 0]);
        assert_eq!(bundle("example.com:foo:v1", "example.com/foo", &anchors), [""; 0]);
        assert_eq!(
            bundle("v1", "example.com/foo", &anchors),
            [
                "metadata.name: Invalid value: \"v1\": ClusterTrustBundle for signerName example.com/foo must be named with prefix example.com:foo:"
            ]
        );
    }

    #[test]
    fn a_bundle_is_made_of_certificates_that_differ() {
        assert!(bundle("all", "", "hello")[0].ends_with("at least one trust anchor must be provided"));
        let good = anchor(true);
        let told = bundle("all", "", &format!("{good}{}{good}", pem("KEY", b"0abc")));
        assert_eq!(told.len(), 1);
        assert!(told[0].ends_with("\"<value omitted>\": entry 1 has bad block type: KEY"), "{told:?}");
        let told = bundle("all", "", &format!("{good}{}{good}", anchor(true)));
        assert!(told[0].ends_with("duplicate trust anchor (indices [0 2])"), "{told:?}");
        for (entry, fault) in [
            (pem("CERTIFICATE", b"0abc"), "entry 1 does not parse as X.509"),
            (anchor(false), "entry 1 does not have the CA bit set"),
        ] {
            let told = bundle("all", "", &(good.clone() + &entry));
            assert!(told.len() == 1 && told[0].ends_with(fault), "{told:?}");
        }
    }

    #[test]
    fn a_pod_asks_for_a_certificate_of_at_most_a_quarter_of_a_year() {
        let request = |seconds: Value| {
            let mut object = Object::from_value(json!({"spec": {
                "signerName": "example.com/foo", "podName": "a", "podUID": "1", "serviceAccountName": "b",
                "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3", "stubPKCS10Request": "MA==",
                "maxExpirationSeconds": seconds,
            }}))
            .unwrap();
            PodCertificateRequest.set_defaults(&mut object);
            PodCertificateRequest.validate(&object, None).len()
        };
        assert_eq!([json!(null), json!(3600), json!(7_862_400)].map(request), [0, 0, 0]);
        assert_eq!([json!(60), json!(7_862_401)].map(request), [1, 1]);
    }
}
