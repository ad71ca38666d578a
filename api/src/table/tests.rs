//! Name, type, format and priority of every column, as upstream declares them.
//!
//! A row names the resource and its columns: `Name` alone is text that is always printed; `:type` says otherwise,
//! `/format` gives a format, a leading `+` is printed with `-o wide` only. Every kind has its name first, unless the row
//! says where it stands.

use super::*;
use crate::kinds;

const COLUMNS: &[(&str, &str)] = &[
    ("v1 pods", "Ready|Status|Restarts|Age|+IP|+Node|+Nominated Node|+Readiness Gates"),
    ("v1 podtemplates", "Containers|Images|Pod Labels"),
    ("policy/v1 poddisruptionbudgets", "Min Available|Max Unavailable|Allowed Disruptions:integer|Age"),
    (
        "v1 replicationcontrollers",
        "Desired:integer|Current:integer|Ready:integer|Age|+Containers|+Images|+Selector",
    ),
    (
        "apps/v1 replicasets",
        "Desired:integer|Current:integer|Ready:integer|Age|+Containers|+Images|+Selector",
    ),
    (
        "apps/v1 daemonsets",
        "Desired:integer|Current:integer|Ready:integer|Up-to-date:integer|Available:integer|Node Selector|Age|+Containers|+Images|+Selector",
    ),
    ("batch/v1 jobs", "Status|Completions|Duration|Age|+Containers|+Images|+Selector"),
    (
        "batch/v1 cronjobs",
        "Schedule|Timezone|Suspend:boolean|Active:integer|Last Schedule|Age|+Containers|+Images|+Selector",
    ),
    ("v1 services", "Type|Cluster-IP|External-IP|Port(s)|Age|+Selector"),
    ("networking.k8s.io/v1 ingresses", "Class|Hosts|Address|Ports|Age"),
    ("networking.k8s.io/v1 ingressclasses", "Controller|Parameters|Age"),
    ("networking.k8s.io/v1 networkpolicies", "Pod-Selector|Age"),
    ("apps/v1 statefulsets", "Ready|Age|+Containers|+Images"),
    ("v1 endpoints", "Endpoints|Age"),
    (
        "v1 nodes",
        "Status|Roles|Age|Version|+Internal-IP|+External-IP|+OS-Image|+Kernel-Version|+Container-Runtime",
    ),
    ("v1 events", "Last Seen|Type|Reason|Object|+Subobject|+Source|Message|+First Seen|+Count|+Name/name"),
    (
        "events.k8s.io/v1 events",
        "Last Seen|Type|Reason|Object|+Subobject|+Source|Message|+First Seen|+Count|+Name/name",
    ),
    ("v1 namespaces", "Status|Age"),
    ("v1 secrets", "Type|Data|Age"),
    ("v1 serviceaccounts", "Secrets|Age"),
    ("v1 configmaps", "Data|Age"),
    (
        "v1 persistentvolumes",
        "Capacity|Access Modes|Reclaim Policy|Status|Claim|StorageClass|VolumeAttributesClass|Reason|Age|+VolumeMode",
    ),
    (
        "v1 persistentvolumeclaims",
        "Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|+VolumeMode",
    ),
    ("v1 componentstatuses", "Status|Message|Error"),
    ("v1 resourcequotas", "Request|Limit|Age"),
    ("v1 limitranges", "Created At:date"),
    ("apps/v1 deployments", "Ready|Up-to-date|Available|Age|+Containers|+Images|+Selector"),
    ("autoscaling/v1 horizontalpodautoscalers", "Reference|Targets|MinPods|MaxPods|Replicas|Age"),
    ("autoscaling/v2 horizontalpodautoscalers", "Reference|Targets|MinPods|MaxPods|Replicas|Age"),
    ("rbac.authorization.k8s.io/v1 roles", "Created At:date"),
    ("rbac.authorization.k8s.io/v1 clusterroles", "Created At:date"),
    ("rbac.authorization.k8s.io/v1 rolebindings", "Role|Age|+Users|+Groups|+ServiceAccounts"),
    ("rbac.authorization.k8s.io/v1 clusterrolebindings", "Role|Age|+Users|+Groups|+ServiceAccounts"),
    (
        "certificates.k8s.io/v1 certificatesigningrequests",
        "Age|SignerName|Requestor|RequestedDuration|Condition",
    ),
    ("certificates.k8s.io/v1 clustertrustbundles", "SignerName"),
    ("coordination.k8s.io/v1 leases", "Holder|Age"),
    (
        "storage.k8s.io/v1 storageclasses",
        "Name/name|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age",
    ),
    ("storage.k8s.io/v1 volumeattributesclasses", "Name/name|DriverName|Age"),
    ("storage.k8s.io/v1 volumeattachments", "Attacher/name|PV|Node|Attached:boolean|Age"),
    ("storage.k8s.io/v1 csinodes", "Drivers:integer|Age"),
    (
        "storage.k8s.io/v1 csidrivers",
        "AttachRequired:boolean|PodInfoOnMount:boolean|StorageCapacity:boolean|TokenRequests|RequiresRepublish:boolean|Modes|Age",
    ),
    ("storage.k8s.io/v1 csistoragecapacities", "StorageClassName|Capacity"),
    ("apps/v1 controllerrevisions", "Controller|Revision|Age"),
    ("scheduling.k8s.io/v1 priorityclasses", "Value:integer|Global-Default:boolean|Age|PreemptionPolicy"),
    ("node.k8s.io/v1 runtimeclasses", "Handler|Age"),
    ("discovery.k8s.io/v1 endpointslices", "AddressType|Ports|Endpoints|Age"),
    ("admissionregistration.k8s.io/v1 mutatingwebhookconfigurations", "Webhooks:integer|Age"),
    ("admissionregistration.k8s.io/v1 validatingwebhookconfigurations", "Webhooks:integer|Age"),
    ("admissionregistration.k8s.io/v1 validatingadmissionpolicies", "Validations:integer|ParamKind|Age"),
    ("admissionregistration.k8s.io/v1 validatingadmissionpolicybindings", "PolicyName|ParamRef|Age"),
    ("admissionregistration.k8s.io/v1 mutatingadmissionpolicies", "Mutations:integer|ParamKind|Age"),
    ("admissionregistration.k8s.io/v1 mutatingadmissionpolicybindings", "PolicyName|ParamRef|Age"),
    (
        "flowcontrol.apiserver.k8s.io/v1 flowschemas",
        "PriorityLevel|MatchingPrecedence|DistinguisherMethod|Age|MissingPL",
    ),
    (
        "flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations",
        "Type|NominalConcurrencyShares|Queues|HandSize|QueueLengthLimit|Age",
    ),
    ("resource.k8s.io/v1 deviceclasses", "Age"),
    ("resource.k8s.io/v1 resourceclaims", "State|Age"),
    ("resource.k8s.io/v1 resourceclaimtemplates", "Age"),
    ("resource.k8s.io/v1 resourceslices", "Node|Driver|Pool|Age"),
    ("networking.k8s.io/v1 servicecidrs", "CIDRs|Age"),
    ("apiregistration.k8s.io/v1 apiservices", "Service|Available|Age"),
    ("apiextensions.k8s.io/v1 customresourcedefinitions", "Created At:date"),
];

fn written(definition: &Value) -> String {
    let text = |field: &str| definition[field].as_str().unwrap().to_string();
    let wide = if definition["priority"] == 1 { "+" } else { "" };
    let kind =
        Some(text("type")).filter(|kind| kind != "string").map_or(String::new(), |kind| format!(":{kind}"));
    let format =
        Some(text("format")).filter(|it| !it.is_empty()).map_or(String::new(), |it| format!("/{it}"));
    format!("{wide}{}{kind}{format}", text("name"))
}

#[test]
fn every_column_is_declared_as_upstream_declares_it() {
    for (resource, columns) in COLUMNS {
        let (api_version, plural) = resource.split_once(' ').unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = kinds::find(group, version, plural).unwrap_or_else(|| panic!("{resource}"));
        let found = definitions(kind);
        let found: Vec<String> = found.as_array().unwrap().iter().map(written).collect();
        let name = if columns.contains("Name/name") { "" } else { "Name/name|" };
        assert_eq!(found.join("|"), format!("{name}{columns}"), "{resource}");
    }
    let scale = definitions(&kinds::SCALE);
    let scale: Vec<String> = scale.as_array().unwrap().iter().map(written).collect();
    assert_eq!(scale, ["Name", "Desired:integer", "Available:integer", "Age"]);
}

/// A kind, an object, and the cells that some of its columns have.
fn cells() -> Vec<(&'static str, Value, &'static [(&'static str, &'static str)])> {
    vec![
        (
            "discovery.k8s.io/v1 endpointslices",
            json!({"ports": [{"name": "web"}, {"port": 80}, {}], "endpoints": [{"addresses": ["10.0.0.1"]}]}),
            &[("Ports", "web,80,*"), ("Endpoints", "10.0.0.1")],
        ),
        ("v1 endpoints", json!({"subsets": [{"ports": [{"port": 80}]}]}), &[("Endpoints", "")]),
        (
            "v1 services",
            json!({"spec": {"type": "LoadBalancer", "externalIPs": ["192.0.2.9"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "a.io"}, {"ip": "192.0.2.2"}]}}}),
            &[("External-IP", "192.0.2.2,a.io,192.0.2.9")],
        ),
        (
            "v1 resourcequotas",
            json!({"spec": {"hard": {"pods": "2"}}, "status": {
                "hard": {"limits.cpu": "4", "requests.cpu": "2", "limits": "1"}, "used": {"limits.cpu": "1"}}}),
            &[("Request", "limits: 0/1, requests.cpu: 0/2"), ("Limit", "limits.cpu: 1/4")],
        ),
        (
            "v1 componentstatuses",
            json!({"conditions": [{"type": "Healthy", "status": "Unknown", "error": "e"}]}),
            &[("Status", "Unhealthy"), ("Error", "e")],
        ),
        (
            "storage.k8s.io/v1 volumeattributesclasses",
            json!({"metadata": {"name": "fast", "annotations": {"volumeattributesclass.alpha.kubernetes.io/is-default-class": "true"}}}),
            &[("Name", "fast (default)")],
        ),
        ("storage.k8s.io/v1 csidrivers", json!({"spec": {}}), &[("Modes", "<none>")]),
        ("v1 persistentvolumes", json!({"spec": {}}), &[("Capacity", "0"), ("Claim", "")]),
        (
            "admissionregistration.k8s.io/v1 validatingadmissionpolicybindings",
            json!({"spec": {"paramRef": {"name": "p"}}}),
            &[("ParamRef", "*/p")],
        ),
        (
            "admissionregistration.k8s.io/v1 validatingadmissionpolicybindings",
            json!({"spec": {"paramRef": {"selector": {"matchLabels": {"a": "b"},
                "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]}}}}),
            &[(
                "ParamRef",
                "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:c,Operator:In,Values:[d e],},},}",
            )],
        ),
        (
            "autoscaling/v2 horizontalpodautoscalers",
            json!({"spec": {"metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"averageValue": "2"}}},
                {"type": "Object", "object": {"target": {"averageValue": "3"}}},
            ]}}),
            &[("Targets", "cpu: <unknown>/2, <unknown>/3 (avg)")],
        ),
        (
            "v1 events",
            json!({"series": {"count": 0}, "count": 4, "source": {"component": "kubelet"}, "reportingInstance": "n1"}),
            &[("Count", "0"), ("Source", "kubelet, n1")],
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1 prioritylevelconfigurations",
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5}}}),
            &[("NominalConcurrencyShares", "5"), ("Queues", "\"<none>\"")],
        ),
        (
            "apiregistration.k8s.io/v1 apiservices",
            json!({"status": {"conditions": [{"type": "Available", "status": "False"}]}}),
            &[("Available", "False")],
        ),
    ]
}

#[test]
fn cells_say_what_upstreams_say() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    for (resource, object, expected) in cells() {
        let (api_version, plural) = resource.split_once(' ').unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = kinds::find(group, version, plural).unwrap();
        let object = Object::from_value(object).unwrap();
        for (name, expected) in expected {
            let column = columns(kind).find(|column| column.name == *name).unwrap();
            let cell = column.cell_of(&object, now);
            let found = match &cell {
                Value::String(text) if !expected.starts_with('"') => text.clone(),
                // Of some columns it matters whether they hold a number.
                other => other.to_string(),
            };
            assert_eq!(found, *expected, "{resource}: {name}");
        }
    }
}
