//! ClusterTrustBundles and PodCertificateRequests: certificates beside those that are asked for by
//! CertificateSigningRequests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::check::{Faults, Field};
use crate::{
    FieldError, FieldErrorKind, Object,
    name::{self, LABEL_LENGTH, SUBDOMAIN_LENGTH},
};

const DAY_IN_SECONDS: i64 = 86_400;
pub(super) const SHORTEST_SECONDS: i64 = 3_600;
const LONGEST_SECONDS: i64 = 91 * DAY_IN_SECONDS;
/// The longest that signers of Kubernetes itself give.
const LONGEST_OF_KUBERNETES: i64 = DAY_IN_SECONDS;
/// The longest name of a signer: a domain, a slash, and a namespace and a name with a dot between.
const LONGEST_SIGNER: usize = SUBDOMAIN_LENGTH + 1 + LABEL_LENGTH + 1 + SUBDOMAIN_LENGTH;
const LARGEST_BUNDLE: usize = 1024 * 1024;

/// Rules of ClusterTrustBundles.
pub struct ClusterTrustBundle;

impl crate::Strategy for ClusterTrustBundle {
    fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        let spec = Field::at(object, &["spec"]);
        let signer = spec.get("signerName");
        let name = Field::at(object, &["metadata", "name"]);
        if !name.text().is_empty()
            && let Err(message) = bundle_name(name.text(), signer.text())
        {
            faults.invalid(&name, message);
        }
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
pub(super) fn bundle_name(name: &str, signer: &str) -> Result<(), String> {
    if signer.is_empty() {
        return match name.contains(':') {
            true => Err("ClusterTrustBundle without signer name must not have \":\" in its name".into()),
            false => name::dns_subdomain(name),
        };
    }
    let prefix = signer.replace('/', ":") + ":";
    match name.strip_prefix(&prefix) {
        Some(rest) => name::dns_subdomain(rest),
        None => Err(format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")),
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
        validate_signer(&spec.get("signerName"), &mut faults);
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
        let longest = longest_seconds(spec.get("signerName").text());
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

/// The longest that pods may ask a signer for.
pub(super) fn longest_seconds(signer: &str) -> i64 {
    let domain = signer.split('/').next().unwrap_or_default();
    match domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
        true => LONGEST_OF_KUBERNETES,
        false => LONGEST_SECONDS,
    }
}

/// `example.com/signer-name`: a domain of several parts, and a name in it. Of each, the first bad label is told.
pub(super) fn validate_signer(signer: &Field, faults: &mut Faults) {
    if !faults.must_be_given(signer) {
        return;
    }
    let parts: Vec<&str> = signer.text().split('/').collect();
    let [domain, path] = parts.as_slice() else {
        let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return faults.invalid(signer, form);
    };
    if domain.len() > SUBDOMAIN_LENGTH {
        faults.0.push(FieldError::too_long(&signer.path, SUBDOMAIN_LENGTH));
    }
    let mut refuse = |part: &str, message: String| {
        faults.0.push(FieldError::invalid(&signer.path, &part.into(), message));
    };
    if let Some(message) = first_bad_label(domain, name::dns_label) {
        refuse(domain, message);
    }
    if !domain.contains('.') {
        refuse(domain, "should be a domain with at least two segments separated by dots".into());
    }
    if let Some(message) = first_bad_label(path, name::dns_subdomain) {
        refuse(path, message);
    }
    if signer.text().len() > LONGEST_SIGNER {
        faults.0.push(FieldError::too_long(&signer.path, LONGEST_SIGNER));
    }
}

fn first_bad_label(part: &str, rule: fn(&str) -> Result<(), String>) -> Option<String> {
    part.split('.').find_map(|label| Some(format!("validating label {label:?}: {}", rule(label).err()?)))
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
    fn a_signer_has_a_domain_of_several_parts() {
        let faults = |signer: &str| -> Vec<String> {
            let (value, mut faults) = (Value::from(signer), Faults::new());
            validate_signer(&Field { path: "signer".into(), value: &value }, &mut faults);
            faults.0.iter().map(FieldError::to_string).collect()
        };
        let long = [["a"; 127].join("."), ["a"; 159].join(".")].join("/");
        assert_eq!(long.len(), LONGEST_SIGNER);
        for good in ["example.com/foo", "a.b/space.name", &long] {
            assert_eq!(faults(good), [""; 0], "{good}");
        }
        let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        for bad in ["foo", "example.com/foo/bar"] {
            assert_eq!(faults(bad), [format!("signer: Invalid value: {bad:?}: {form}")]);
        }
        assert_eq!(faults(""), ["signer: Required value"]);
        assert_eq!(
            faults("local/foo"),
            [
                "signer: Invalid value: \"local\": should be a domain with at least two segments separated by dots"
            ]
        );
        // Nobody needs to hear of the same letter twice.
        let told = faults("A.B/C.D");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("signer: Invalid value: \"A.B\": validating label \"A\": a lowercase"));
        assert!(told[1].starts_with("signer: Invalid value: \"C.D\": validating label \"C\": a lowercase"));
        assert_eq!(
            faults(&format!("a.{long}")),
            [
                "signer: Too long: may not be more than 253 bytes",
                "signer: Too long: may not be more than 571 bytes"
            ]
        );
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
