//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction and ClusterTrustBundleAttest: who may write
//! something for a signer has to be allowed to, beside being allowed to write the object.

use api::{FieldError, Object, Status};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use x509_parser::{certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer};

use super::forbidden;
use crate::{
    authz::{Authorizer, Question},
    hooks::{Attributes, Operation},
    request::User,
};

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";
const REQUESTS_OF_PODS: &str = "podcertificaterequests";

/// Writes into a new request for a certificate who asks; what the client says about that does not count.
pub(super) fn stamp(user: &User, request: &mut Object) {
    request.set(&["spec", "username"], user.name.as_str());
    let mut or_absent = |key: &str, value: Value, is_empty: bool| match is_empty {
        true => drop(request.remove(&["spec", key])),
        false => request.set(&["spec", key], value),
    };
    or_absent("uid", json!(user.uid), user.uid.is_empty());
    or_absent("groups", json!(user.groups), user.groups.is_empty());
    or_absent("extra", json!(user.extra), user.extra.is_empty());
}

/// Refuses what the user may not do for the signer that the object names.
pub(super) async fn check(
    authorizer: &Authorizer,
    attributes: &Attributes<'_>,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    if let Some(why) = refuse_subject(attributes, object) {
        return Err(forbidden(attributes, Some(object), &why));
    }
    let Some(wanted) = wanted(attributes, object, old) else { return Ok(()) };
    // Who may do it for all signers of a domain may do it for each.
    let domain = wanted.signer.split('/').next().unwrap_or_default();
    for name in [wanted.signer, &format!("{domain}/*")] {
        let question = Question {
            is_resource: true,
            verb: wanted.verb,
            group: GROUP,
            resource: "signers",
            name,
            ..Question::default()
        };
        if authorizer.decide(attributes.user, &question).await?.allowed {
            return Ok(());
        }
    }
    if attributes.kind.plural == REQUESTS_OF_PODS {
        // Upstream finds this when it validates.
        let detail = format!(
            "User {:?} is not permitted to {:?} for signer {:?}",
            attributes.user.name, wanted.verb, wanted.signer
        );
        let fault = FieldError::forbidden("spec.signerName", detail);
        return Err(Status::invalid(GROUP, attributes.kind.kind, attributes.name, &[fault]));
    }
    Err(forbidden(attributes, Some(object), &format!("{} {:?}", wanted.refusal, wanted.signer)))
}

/// What the user has to be allowed to do, for which signer.
#[derive(Debug, PartialEq)]
struct Wanted<'a> {
    verb: &'static str,
    signer: &'a str,
    refusal: &'static str,
}

fn wanted<'a>(
    attributes: &Attributes<'_>,
    object: &'a Object,
    old: Option<&'a Object>,
) -> Option<Wanted<'a>> {
    match (attributes.kind.plural, attributes.subresource) {
        ("certificatesigningrequests", "approval") => Some(Wanted {
            verb: "approve",
            signer: old.unwrap_or(object).text(&["spec", "signerName"]),
            refusal: "user not permitted to approve requests with signerName",
        }),
        ("certificatesigningrequests", "status") => {
            let old = old?;
            let is_same = |path: &[&str]| object.at(path) == old.at(path);
            let is_untouched = is_same(&["status", "certificate"]) && is_same(&["status", "conditions"]);
            (!is_untouched).then(|| Wanted {
                verb: "sign",
                signer: old.text(&["spec", "signerName"]),
                refusal: "user not permitted to sign requests with signerName",
            })
        }
        (REQUESTS_OF_PODS, "status") => {
            let path = &["status", "certificateChain"];
            let old = old.filter(|old| old.at(path) != object.at(path))?;
            let signer = old.text(&["spec", "signerName"]);
            Some(Wanted {
                verb: "sign",
                signer,
                refusal: "user not permitted to sign requests with signerName",
            })
        }
        ("clustertrustbundles", "") if attributes.operation != Operation::Delete => {
            let signer = object.text(&["spec", "signerName"]);
            let is_same = old.is_some_and(|old| old.at(&["spec"]) == object.at(&["spec"]));
            (!signer.is_empty() && !is_same).then_some(Wanted {
                verb: "attest",
                signer,
                refusal: "user not permitted to attest for signerName",
            })
        }
        _ => None,
    }
}

/// Nobody becomes almighty by asking for a certificate.
fn refuse_subject(attributes: &Attributes<'_>, object: &Object) -> Option<String> {
    let is_new = attributes.kind.plural == "certificatesigningrequests"
        && attributes.subresource.is_empty()
        && attributes.operation == Operation::Create;
    if !is_new || object.text(&["spec", "signerName"]) != CLIENT_SIGNER {
        return None;
    }
    match organizations(object.text(&["spec", "request"])) {
        None => Some("the certificate signing request cannot be parsed".into()),
        Some(organizations) => organizations
            .iter()
            .any(|name| name == MASTERS)
            .then(|| format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")),
    }
}

/// The groups that a request asks for, read as the signer reads it; `None` where not all of them can be read.
fn organizations(request: &str) -> Option<Vec<String>> {
    let pem = BASE64_STANDARD.decode(request).ok()?;
    let (_, block) = parse_x509_pem(&pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&block.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().map(|name| Some(name.as_str().ok()?.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use api::kinds;

    use super::*;

    fn attributes<'a>(user: &'a User, plural: &str, subresource: &'a str) -> Attributes<'a> {
        Attributes {
            user,
            operation: if subresource.is_empty() { Operation::Create } else { Operation::Update },
            kind: kinds::find(GROUP, "v1", plural).or_else(|| kinds::find(GROUP, "v1beta1", plural)).unwrap(),
            subresource,
            namespace: "",
            name: "x",
            addressed: "",
            dry_run: false,
            options: &Value::Null,
            deadline: None,
        }
    }

    fn request(signer: &str, organization: impl Into<rcgen::DnValue>) -> Object {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let spec = json!({"signerName": signer, "request": BASE64_STANDARD.encode(pem)});
        Object::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap()
    }

    #[test]
    fn approving_and_signing_are_things_to_be_allowed_to_do() {
        let user = User::default();
        let old = request("example.com/s", "devs");
        let verb = |subresource, object: &Object| {
            let attributes = attributes(&user, "certificatesigningrequests", subresource);
            wanted(&attributes, object, Some(&old)).map(|wanted| (wanted.verb, wanted.signer.to_string()))
        };
        assert_eq!(verb("approval", &old), Some(("approve", "example.com/s".into())));
        assert_eq!(verb("status", &old), None);
        let mut signed = old.clone();
        signed.set(&["status", "certificate"], "eA==");
        assert_eq!(verb("status", &signed), Some(("sign", "example.com/s".into())));
    }

    #[test]
    fn a_pods_certificate_is_for_its_signer_to_give() {
        let user = User::default();
        let attributes = attributes(&user, REQUESTS_OF_PODS, "status");
        let request = json!({"spec": {"signerName": "example.com/s"}, "status": {}});
        let old = Object::from_value(request).unwrap();
        let mut new = old.clone();
        new.set(&["status", "conditions"], json!([{"type": "Denied"}]));
        assert_eq!(wanted(&attributes, &new, Some(&old)), None);
        new.set(&["status", "certificateChain"], "x");
        let wanted = wanted(&attributes, &new, Some(&old)).unwrap();
        assert_eq!((wanted.verb, wanted.signer), ("sign", "example.com/s"));
    }

    #[test]
    fn who_asks_is_not_the_clients_to_say() {
        let claimed = json!({"spec": {"username": "root", "uid": "0", "extra": {"a": ["b"]}}});
        let mut request = Object::from_value(claimed).unwrap();
        stamp(&User::new("ann", &["dev"]), &mut request);
        assert_eq!(request.at(&["spec"]), Some(&json!({"username": "ann", "groups": ["dev"]})));
    }

    #[test]
    fn nobody_asks_to_be_master() {
        let user = User::default();
        let attributes = attributes(&user, "certificatesigningrequests", "");
        let refused = refuse_subject(&attributes, &request(CLIENT_SIGNER, MASTERS)).unwrap();
        assert_eq!(
            refused,
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        );
        assert_eq!(refuse_subject(&attributes, &request(CLIENT_SIGNER, "devs")), None);
        assert_eq!(refuse_subject(&attributes, &request("example.com/s", MASTERS)), None);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let user = User::default();
        let attributes = attributes(&user, "certificatesigningrequests", "");
        let hidden = rcgen::string::TeletexString::try_from(MASTERS).unwrap();
        let hidden = request(CLIENT_SIGNER, rcgen::DnValue::TeletexString(hidden));
        let mut nonsense = request(CLIENT_SIGNER, "devs");
        nonsense.set(&["spec", "request"], BASE64_STANDARD.encode("nonsense"));
        for unreadable in [hidden, nonsense] {
            assert!(refuse_subject(&attributes, &unreadable).unwrap().contains("cannot be parsed"));
        }
    }
}
