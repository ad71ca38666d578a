//! NodeRestriction for certificates of pods: a kubelet asks for those of its own pods, as what they are.

use api::meta::MIRROR;
use api::{Object, Status};

use super::{forbidden, kind};
use crate::{
    hooks::{Attributes, Operation},
    registry::Registry,
};

/// Whether a write is one of a request for a pod's certificate.
pub(super) fn are_meant(attributes: &Attributes<'_>) -> bool {
    (attributes.kind.group, attributes.kind.plural) == ("certificates.k8s.io", "podcertificaterequests")
}

/// Refuses what does not agree with the pod, its account and the node as they are.
pub(super) async fn validate(
    registry: &Registry,
    node: &str,
    attributes: &Attributes<'_>,
    request: &Object,
) -> Result<(), Status> {
    let namespace = attributes.namespace;
    let named = |field: &str| request.text(&["spec", field]);
    let subjects = Subjects {
        node: registry.find(kind("", "nodes"), "", named("nodeName")).await?,
        pod: registry.find(kind("", "pods"), namespace, named("podName")).await?,
        account: registry.find(kind("", "serviceaccounts"), namespace, named("serviceAccountName")).await?,
    };
    let refused = match (attributes.operation, attributes.subresource) {
        (Operation::Create, "") => refuse(node, namespace, request, &subjects),
        (Operation::Create, subresource) => {
            Err(Refusal::Forbidden(format!("unexpected subresource {subresource}")))
        }
        _ => Err(Refusal::Forbidden("unexpected operation".into())),
    };
    refused.map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => forbidden(attributes, Some(request), &why),
        Refusal::TooEarly(why) => Status::new(500, "InternalError", why),
    })
}

/// What a request is about, as far as it is there.
struct Subjects {
    node: Option<Object>,
    pod: Option<Object>,
    account: Option<Object>,
}

#[derive(Debug, PartialEq)]
enum Refusal {
    Forbidden(String),
    /// Upstream may not have seen yet what the kubelet has seen, and lets it try again.
    TooEarly(String),
}

fn refuse(node: &str, namespace: &str, request: &Object, subjects: &Subjects) -> Result<(), Refusal> {
    let given = |field: &str| request.text(&["spec", field]);
    let pod_name = format!("{namespace}/{}", given("podName"));
    let forbidden = |why: String| Err(Refusal::Forbidden(why));
    if given("nodeName") != node {
        let name = given("nodeName");
        return forbidden(format!(
            "PodCertificateRequest.Spec.NodeName={name:?}, which is not the requesting node {node:?}"
        ));
    }
    let own = found(&subjects.node, "node", node, node)?;
    if own.uid() != given("nodeUID") {
        return Err(Refusal::TooEarly(format!(
            "PodCertificateRequest for pod {pod_name:?} names node UID {:?}, inconsistent with the running node ({:?})",
            given("nodeUID"),
            own.uid()
        )));
    }
    let pod = found(&subjects.pod, "pod", &pod_name, given("podName"))?;
    if pod.uid() != given("podUID") {
        return Err(Refusal::TooEarly(format!(
            "PodCertificateRequest for pod {pod_name:?} contains pod UID ({:?}) which differs from running pod {:?}",
            given("podUID"),
            pod.uid()
        )));
    }
    if pod.text(&["spec", "nodeName"]) != node {
        return forbidden(format!(
            "pod {pod_name:?} is not running on node {node:?} named in the PodCertificateRequest"
        ));
    }
    if pod.annotation(MIRROR).is_some() {
        return forbidden(format!("pod {pod_name:?} is a mirror pod"));
    }
    let (account, as_whom) = (given("serviceAccountName"), pod.text(&["spec", "serviceAccountName"]));
    if account != as_whom {
        return forbidden(format!(
            "PodCertificateRequest for pod {pod_name:?} contains serviceAccountName ({account:?}) that differs from running pod ({as_whom:?})"
        ));
    }
    let running = found(&subjects.account, "service account", &format!("{namespace}/{account}"), account)?;
    if running.uid() != given("serviceAccountUID") {
        return Err(Refusal::TooEarly(format!(
            "PodCertificateRequest for pod {pod_name:?} names service account UID {:?}, which differs from the running service account ({:?})",
            given("serviceAccountUID"),
            running.uid()
        )));
    }
    Ok(())
}

fn found<'a>(
    subject: &'a Option<Object>,
    what: &str,
    reference: &str,
    name: &str,
) -> Result<&'a Object, Refusal> {
    let kind = what.replace(' ', "");
    subject.as_ref().ok_or_else(|| {
        Refusal::TooEarly(format!(
            "while retrieving {what} {reference:?} named in the PodCertificateRequest: {kind} {name:?} not found"
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn subjects(pod: Value) -> Subjects {
        Subjects {
            node: Some(object(json!({"metadata": {"name": "n", "uid": "1"}}))),
            pod: Some(object(pod)),
            account: Some(object(json!({"metadata": {"name": "web", "uid": "3"}}))),
        }
    }

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "uid": "2"}, "spec": {"nodeName": "n", "serviceAccountName": "web"}})
    }

    fn request(field: &str, value: &str) -> Object {
        let mut request = object(json!({"spec": {
            "nodeName": "n", "nodeUID": "1", "podName": "p", "podUID": "2",
            "serviceAccountName": "web", "serviceAccountUID": "3",
        }}));
        request.set(&["spec", field], value);
        request
    }

    #[test]
    fn a_kubelet_asks_for_its_own_pods_as_what_they_are() {
        let told = |field: &str, value: &str| refuse("n", "a", &request(field, value), &subjects(pod()));
        assert_eq!(told("podName", "p"), Ok(()));
        let starts = [
            ("nodeName", "m", "Forbidden(\"PodCertificateRequest.Spec.NodeName="),
            ("nodeUID", "9", "TooEarly(\"PodCertificateRequest for pod"),
            ("podUID", "9", "TooEarly(\"PodCertificateRequest for pod"),
            ("serviceAccountName", "admin", "Forbidden(\"PodCertificateRequest for pod"),
            ("serviceAccountUID", "9", "TooEarly(\"PodCertificateRequest for pod"),
        ];
        for (field, value, start) in starts {
            let refusal = format!("{:?}", told(field, value).unwrap_err());
            assert!(refusal.starts_with(start), "{field}: {refusal}");
        }
    }

    #[test]
    fn pods_elsewhere_mirrors_and_what_is_gone_get_none() {
        let told = |change: Value| {
            let pod = api::patch::merge_patch(&pod(), &change).unwrap();
            refuse("n", "a", &request("podName", "p"), &subjects(pod)).unwrap_err()
        };
        let elsewhere = told(json!({"spec": {"nodeName": "m"}}));
        let why = r#"pod "a/p" is not running on node "n" named in the PodCertificateRequest"#;
        assert_eq!(elsewhere, Refusal::Forbidden(why.into()));
        let mirror = told(json!({"metadata": {"annotations": {MIRROR: "x"}}}));
        assert_eq!(mirror, Refusal::Forbidden(r#"pod "a/p" is a mirror pod"#.into()));
        let gone = Subjects { pod: None, ..subjects(pod()) };
        let why = r#"while retrieving pod "a/p" named in the PodCertificateRequest: pod "p" not found"#;
        let refused = refuse("n", "a", &request("podName", "p"), &gone);
        assert_eq!(refused, Err(Refusal::TooEarly(why.into())));
    }
}
