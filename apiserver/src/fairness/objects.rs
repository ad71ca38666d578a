//! The levels and schemas that every cluster has: two of each without which nothing works, and upstream's
//! suggestion for the rest.

use api::{
    Kind, Object, kinds,
    strategies::flow_control::{mandatory_level, mandatory_schema},
};
use serde_json::{Value, json};

/// With this annotation, set to `true`, an object is brought back to what it should be at every start.
pub(crate) const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// The schemas and levels that have to be as they are.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// An object that there should be.
pub(crate) struct Wanted {
    pub(crate) kind: &'static Kind,
    pub(crate) object: Object,
    /// Whether it has to be as it is here, whatever its annotation says.
    pub(crate) is_mandatory: bool,
}

/// The kind of flow schemas.
pub(crate) fn schema_kind() -> &'static Kind {
    kind("flowschemas")
}

/// The kind of levels.
pub(crate) fn level_kind() -> &'static Kind {
    kind("prioritylevelconfigurations")
}

fn kind(plural: &str) -> &'static Kind {
    kinds::built_in("flowcontrol.apiserver.k8s.io", plural)
}

/// All of them.
pub(crate) fn all() -> Vec<Wanted> {
    levels().into_iter().chain(schemas()).collect()
}

fn wanted(kind: &'static Kind, name: &str, spec: Value) -> Wanted {
    let object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    });
    let mut object = Object::from_value(object).unwrap_or_default();
    kind.strategy.set_defaults(&mut object);
    Wanted { kind, object, is_mandatory: MANDATORY.contains(&name) }
}

/// name, shares, percentage that may be lent, queues, hand
const LEVELS: [(&str, u32, u32, u32, u32); 6] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

fn levels() -> Vec<Wanted> {
    let fixed = MANDATORY.into_iter().filter_map(|name| Some((name, mandatory_level(name)?)));
    let mut levels: Vec<Wanted> = fixed.map(|(name, spec)| wanted(level_kind(), name, spec)).collect();
    levels.extend(LEVELS.map(|(name, shares, lendable, queues, hand)| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let spec = json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares,
            "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": queuing},
        }});
        wanted(level_kind(), name, spec)
    }));
    levels
}

fn schemas() -> Vec<Wanted> {
    const USER: Option<&str> = Some("ByUser");
    const NAMESPACE: Option<&str> = Some("ByNamespace");
    let manager = || user("system:kube-controller-manager");
    let everybody = || json!([group("system:unauthenticated"), group("system:authenticated")]);
    let elections = |places: [&str; 1]| {
        let verbs = ["get", "create", "update"];
        json!([resources(&verbs, "coordination.k8s.io", &["leases"], &places, false)])
    };
    let nodes = json!([
        resources(&["*"], "", &["nodes", "nodes/status"], &["*"], true),
        resources(&["*"], "coordination.k8s.io", &["leases"], &["*"], false),
    ]);
    let endpoints = json!([resources(&["get", "create", "update"], "", &["endpoints"], &["*"], false)]);
    let fixed = MANDATORY.into_iter().filter_map(|name| Some((name, mandatory_schema(name)?)));
    let mandatory = fixed.map(|(name, spec)| wanted(schema_kind(), name, spec));
    let suggested = [
        schema(
            "probes",
            "exempt",
            2,
            None,
            json!({
                "subjects": everybody(),
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
            }),
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            USER,
            json!({
                "subjects": [manager(), user("system:kube-scheduler"), accounts("*")],
                "resourceRules": elections(["*"]),
            }),
        ),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            USER,
            json!({
                "subjects": [manager(), accounts("endpoint-controller"), accounts("endpointslicemirroring-controller")],
                "resourceRules": endpoints,
            }),
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            USER,
            json!({
                "subjects": [accounts("*")],
                "resourceRules": elections(["*"]),
            }),
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            USER,
            json!({
                "subjects": [group("system:nodes")],
                "resourceRules": nodes,
            }),
        ),
        schema("system-nodes", "system", 500, USER, everything(json!([group("system:nodes")]))),
        schema("kube-controller-manager", "workload-high", 800, NAMESPACE, everything(json!([manager()]))),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            NAMESPACE,
            everything(json!([user("system:kube-scheduler")])),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            NAMESPACE,
            everything(json!([accounts("*")])),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            USER,
            everything(json!([group("system:serviceaccounts")])),
        ),
        schema("global-default", "global-default", 9900, USER, everything(everybody())),
    ];
    mandatory.chain(suggested).collect()
}

fn schema(name: &str, level: &str, precedence: u32, method: Option<&str>, rule: Value) -> Wanted {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    });
    if let Some(method) = method {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    wanted(schema_kind(), name, spec)
}

/// Whatever these subjects ask for.
fn everything(subjects: Value) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], places: &[&str], of_cluster: bool) -> Value {
    let mut rule =
        json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": places});
    if of_cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

/// Service accounts of `kube-system`.
fn accounts(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_cluster_has_is_valid() {
        for Wanted { kind, object, .. } in all() {
            let faults = kind.strategy.validate(&object, None);
            assert_eq!(faults, [], "{} {}", kind.kind, object.name());
        }
    }

    #[test]
    fn every_schema_leads_to_a_level() {
        let (levels, schemas): (Vec<Wanted>, Vec<Wanted>) =
            all().into_iter().partition(|wanted| wanted.kind.kind == "PriorityLevelConfiguration");
        assert_eq!((levels.len(), schemas.len()), (8, 13));
        for schema in schemas {
            let level = schema.object.text(&["spec", "priorityLevelConfiguration", "name"]);
            assert!(levels.iter().any(|wanted| wanted.object.name() == level), "{level}");
        }
    }
}
