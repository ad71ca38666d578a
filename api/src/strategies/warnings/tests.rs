//! What each kind warns of, asked as the server asks.

use serde_json::{Value, json};

use crate::{Object, kinds};

fn said(group: &str, plural: &str, object: Value) -> Vec<String> {
    let version = kinds::KINDS.iter().find(|kind| kind.group == group && kind.plural == plural);
    let object = Object::from_value(object).unwrap();
    version.unwrap().strategy.warnings(&object, None)
}

#[test]
fn every_kind_says_what_is_on_its_way_out() {
    let cases = [
        (
            ("", "services"),
            json!({
                "metadata": {"annotations": {"service.kubernetes.io/topology-aware-hints": "auto"}},
                "spec": {"type": "ClusterIP", "clusterIP": "None", "loadBalancerIP": "1.2.3.4",
                    "externalIPs": ["1.2.3.4"], "sessionAffinity": "ClientIP", "externalName": "a",
                    "trafficDistribution": "PreferClose", "loadBalancerSourceRanges": ["10.0.0.1/8"]},
            }),
            &[
                "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
                "spec.loadBalancerIP is ignored for headless services",
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
                "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ][..],
        ),
        (
            ("", "services"),
            json!({"spec": {"type": "ClusterIP", "clusterIP": "1.1.1.1", "clusterIPs": ["1.1.1.1", "2001:DB8::1"], "externalIPs": ["1.2.3.4"]}}),
            &[
                "spec.clusterIPs[1]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            ],
        ),
        (
            ("", "persistentvolumes"),
            json!({
                "metadata": {"annotations": {
                    "volume.beta.kubernetes.io/storage-class": "a", "volume.beta.kubernetes.io/mount-options": "b",
                }},
                "spec": {"persistentVolumeReclaimPolicy": "Recycle", "cephfs": {}, "capacity": {"storage": "100m"}},
            }),
            &[
                "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
                "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \"mountOptions\" attribute instead",
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
                "spec.capacity[storage]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.cephfs: deprecated in v1.28, non-functional in v1.31+",
            ],
        ),
        (
            ("storage.k8s.io", "storageclasses"),
            json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "beta.kubernetes.io/arch"}]}]}),
            &[
                "allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.14; use \"kubernetes.io/arch\" instead",
            ],
        ),
        (
            ("node.k8s.io", "runtimeclasses"),
            json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/arch": "x"}}}),
            &["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/arch\" instead"],
        ),
        (
            ("discovery.k8s.io", "endpointslices"),
            json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]}),
            &["spec.addressType: FQDN endpoints are deprecated"],
        ),
        (
            ("", "nodes"),
            json!({"spec": {"externalID": "x", "configSource": {}}}),
            &[
                "spec.configSource: the feature is removed",
                "spec.externalID: this field is deprecated, and is unused by Kubernetes",
            ],
        ),
        (
            ("", "serviceaccounts"),
            json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}}),
            &[
                "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
            ],
        ),
        (
            ("", "secrets"),
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}),
            &["tls: failed to find any PEM data in certificate input"],
        ),
        (
            ("apps", "statefulsets"),
            json!({"spec": {"revisionHistoryLimit": -1, "volumeClaimTemplates": [{"spec": {"resources": {"requests": {"storage": "1m"}}}}]}}),
            &[
                "spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte value \"1m\" is invalid, must be an integer",
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
            ],
        ),
        (
            ("networking.k8s.io", "networkpolicies"),
            json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}}),
            &[
                "spec.ingress[0].from[0].ipBlock.cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
            ],
        ),
        (
            ("apiextensions.k8s.io", "customresourcedefinitions"),
            json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "a": {"type": "string", "format": "colour"}, "b": {"type": "integer", "format": "int32"},
                "c": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}},
            }}}}]}}),
            &[
                "unrecognized format \"colour\"",
                "x-kubernetes-list-type: set for items of type \"object\" is not supported by server-side apply or CEL validation rules",
            ],
        ),
    ];
    for ((group, plural), object, expected) in cases {
        assert_eq!(said(group, plural, object), expected, "{plural}");
    }
}

#[test]
fn a_name_that_is_no_label_is_told_once() {
    for (group, plural) in
        [("apps", "deployments"), ("batch", "cronjobs"), ("batch", "jobs"), ("", "replicationcontrollers")]
    {
        let kind = kinds::find(group, "v1", plural).unwrap();
        let object = Object::from_value(json!({"metadata": {"name": "a.b"}})).unwrap();
        let told = kind.strategy.warnings(&object, None);
        assert!(
            told.len() == 1 && told[0].starts_with("metadata.name: this is used in Pod names and hostnames"),
            "{told:?}"
        );
        assert!(kind.strategy.warnings(&object, Some(&object)).is_empty());
    }
}

#[test]
fn what_was_wrong_in_a_schema_before_is_not_told_again() {
    let kind = kinds::find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    let schema = |format: &str| {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "format": format}}});
        Object::from_value(json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}})).unwrap()
    };
    assert!(kind.strategy.warnings(&schema("colour"), Some(&schema("colour"))).is_empty());
    assert_eq!(
        kind.strategy.warnings(&schema("taste"), Some(&schema("colour"))),
        ["unrecognized format \"taste\""]
    );
}
