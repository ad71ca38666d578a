//! What one object uses of what quotas limit, and which scopes it is in. All pure.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    Kind, Object, items,
    quantity::Quantity,
    strategies::{pod::quality_of_service, pod_spec::total},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Amounts by the names that quotas use for them.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// What one object uses, and what decides whether a scoped quota counts it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Charge {
    amounts: Amounts,
    pub(super) scopes: Scopes,
    /// After this it only counts as an object: a pod that should be gone long since. Its node may be lost, and nobody is to
    /// be kept from replacing it.
    pub(super) until: Option<Timestamp>,
}

/// The scopes that an object is in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scopes {
    pub(super) sort: Sort,
    best_effort: bool,
    terminating: bool,
    crosses_namespaces: bool,
    /// The class of a pod's priority, or those of a volume claim's attributes: asked for, given, and on their way.
    classes: BTreeSet<String>,
}

/// Which scopes there are for an object.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Sort {
    Pod,
    Claim,
    /// None.
    #[default]
    Other,
}

/// `count/deployments.apps`: how quotas count the objects of a kind.
pub(super) fn count_name(kind: &Kind) -> String {
    match kind.group {
        "" => format!("count/{}", kind.plural),
        group => format!("count/{}.{group}", kind.plural),
    }
}

/// `cpu` in a quota means the requests.
fn canonical(name: &str) -> &str {
    match name {
        "cpu" => "requests.cpu",
        "memory" => "requests.memory",
        "ephemeral-storage" => "requests.ephemeral-storage",
        name => name,
    }
}

impl Charge {
    /// How much of a resource is used at a time.
    pub(super) fn amount(&self, name: &str, now: Timestamp) -> Quantity {
        let name = canonical(name);
        let is_past = self.until.is_some_and(|until| now > until);
        if is_past && !name.starts_with("count/") {
            return Quantity::default();
        }
        self.amounts.get(name).copied().unwrap_or_default()
    }

    pub(super) fn of(kind: &Kind, object: &Object) -> Charge {
        let mut amounts = Amounts::new();
        let mut add = |name: &str, amount: Quantity| *amounts.entry(name.to_string()).or_default() += amount;
        let one = Quantity::from_value(1);
        let mut scopes = Scopes::default();
        let mut until = None;
        add(&count_name(kind), one);
        match (kind.group, kind.plural) {
            ("", "pods") => {
                if !is_finished(object) {
                    add("pods", one);
                    pod_amounts(object).into_iter().for_each(|(name, amount)| add(&name, amount));
                }
                scopes = Scopes::of_pod(object);
                until = end_of_grace(object);
            }
            ("", "services") => {
                add("services", one);
                let kind = object.text(&["spec", "type"]);
                if kind == "LoadBalancer" {
                    add("services.loadbalancers", one);
                }
                add("services.nodeports", Quantity::from_value(node_ports(kind, object)));
            }
            ("", "persistentvolumeclaims") => {
                add("persistentvolumeclaims", one);
                let class = object
                    .annotation("volume.beta.kubernetes.io/storage-class")
                    .unwrap_or_else(|| object.text(&["spec", "storageClassName"]));
                let size = storage(object);
                add("requests.storage", size);
                if !class.is_empty() {
                    add(&format!("{class}.storageclass.storage.k8s.io/requests.storage"), size);
                    add(&format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one);
                }
                let classes = BTreeSet::from_iter(
                    VOLUME_ATTRIBUTES
                        .iter()
                        .map(|path| object.text(path))
                        .filter(|name| !name.is_empty())
                        .map(String::from),
                );
                scopes = Scopes { sort: Sort::Claim, classes, ..Scopes::default() };
            }
            ("resource.k8s.io", "resourceclaims") => {
                for (class, count) in devices(object) {
                    add(&format!("{class}.deviceclass.resource.k8s.io/devices"), Quantity::from_value(count));
                }
            }
            ("", plural @ ("configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas")) => {
                add(plural, one);
            }
            _ => {}
        }
        Charge { amounts, scopes, until }
    }
}

/// What a volume claim takes: what it asks for or, while it grows, what it may get already; whole bytes.
fn storage(claim: &Object) -> Quantity {
    let bytes = |path: &[&str]| {
        let size = claim.at(path).and_then(|size| Quantity::from_json(size).ok())?;
        Some(Quantity::from_value(size.value()))
    };
    let asked = bytes(&["spec", "resources", "requests", "storage"]);
    let allocated = bytes(&["status", "allocatedResources", "storage"]);
    asked.map_or_else(Quantity::default, |asked| allocated.map_or(asked, |allocated| asked.max(allocated)))
}

/// When a pod that is being deleted has had its time once more.
fn end_of_grace(pod: &Object) -> Option<Timestamp> {
    let deleted: Timestamp = pod.deletion_timestamp()?.parse().ok()?;
    let grace = pod.number(&["metadata", "deletionGracePeriodSeconds"])?;
    deleted.checked_add(SignedDuration::from_secs(grace)).ok()
}

/// Where a volume claim names classes of attributes.
const VOLUME_ATTRIBUTES: [&[&str]; 3] = [
    &["spec", "volumeAttributesClassName"],
    &["status", "currentVolumeAttributesClassName"],
    &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
];

/// So many devices a claim for all there are may get.
const MOST_DEVICES: i64 = 32;

/// How many devices of each class a claim may get, of alternatives the most.
fn devices(claim: &Object) -> BTreeMap<String, i64> {
    let one = |request: &Value| {
        let count = match request["allocationMode"].as_str() {
            Some("All") => MOST_DEVICES,
            _ => request["count"].as_i64().unwrap_or(1),
        };
        Some((request["deviceClassName"].as_str()?.to_string(), count))
    };
    let mut total: BTreeMap<String, i64> = BTreeMap::new();
    for request in claim.list(&["spec", "devices", "requests"]) {
        let alternatives = items(&request["firstAvailable"]);
        let mut of_request: BTreeMap<String, i64> = one(&request["exactly"]).into_iter().collect();
        for (class, count) in alternatives.iter().filter_map(one) {
            let most = of_request.entry(class).or_default();
            *most = (*most).max(count);
        }
        of_request.into_iter().for_each(|(class, count)| *total.entry(class).or_default() += count);
    }
    total
}

/// How many ports of the nodes a Service takes.
fn node_ports(kind: &str, service: &Object) -> i64 {
    let ports = service.list(&["spec", "ports"]);
    let count = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer"
            if service.at(&["spec", "allocateLoadBalancerNodePorts"]).is_some_and(|it| it == false) =>
        {
            ports.iter().filter(|port| port["nodePort"].as_u64().is_some_and(|number| number > 0)).count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Scopes {
    fn of_pod(pod: &Object) -> Scopes {
        Scopes {
            sort: Sort::Pod,
            best_effort: quality_of_service(pod) == "BestEffort",
            terminating: pod.number(&["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0),
            crosses_namespaces: crosses_namespaces(pod),
            classes: Some(pod.text(&["spec", "priorityClassName"]).to_string())
                .filter(|name| !name.is_empty())
                .into_iter()
                .collect(),
        }
    }

    /// Whether a quota counts the object at all.
    pub(super) fn match_quota(&self, quota: &Object) -> bool {
        let plain = quota.list(&["spec", "scopes"]).iter().filter_map(Value::as_str);
        let selected = quota.list(&["spec", "scopeSelector", "matchExpressions"]);
        let mut terms = plain.map(|scope| self.is_in(scope, &Value::Null)).chain(
            selected.iter().map(|term| self.is_in(term["scopeName"].as_str().unwrap_or_default(), term)),
        );
        terms.all(|is_in| is_in)
    }

    fn is_in(&self, scope: &str, term: &Value) -> bool {
        match (self.sort, scope) {
            (Sort::Pod, "BestEffort") => self.best_effort,
            (Sort::Pod, "NotBestEffort") => !self.best_effort,
            (Sort::Pod, "Terminating") => self.terminating,
            (Sort::Pod, "NotTerminating") => !self.terminating,
            (Sort::Pod, "CrossNamespacePodAffinity") => self.crosses_namespaces,
            (Sort::Pod, "PriorityClass") | (Sort::Claim, "VolumeAttributesClass") => self.has_class(term),
            _ => false,
        }
    }

    fn has_class(&self, term: &Value) -> bool {
        let values = items(&term["values"]);
        let is_listed = values.iter().filter_map(Value::as_str).any(|value| self.classes.contains(value));
        match term["operator"].as_str() {
            Some("In") => is_listed,
            Some("NotIn") => !is_listed,
            Some("DoesNotExist") => self.classes.is_empty(),
            _ => !self.classes.is_empty(),
        }
    }
}

/// Whether a pod wants to be near or far from pods of other namespaces.
fn crosses_namespaces(pod: &Object) -> bool {
    let Some(affinity) = pod.at(&["spec", "affinity"]) else { return false };
    let terms = |list: &Value| list.as_array().cloned().unwrap_or_default();
    ["podAffinity", "podAntiAffinity"].iter().any(|sort| {
        let required = terms(&affinity[sort]["requiredDuringSchedulingIgnoredDuringExecution"]);
        let preferred = terms(&affinity[sort]["preferredDuringSchedulingIgnoredDuringExecution"]);
        let preferred = preferred.into_iter().map(|term| term["podAffinityTerm"].clone());
        required.into_iter().chain(preferred).any(|term| {
            term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
                || !term["namespaceSelector"].is_null()
        })
    })
}

fn is_finished(pod: &Object) -> bool {
    matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed")
}

/// The containers that do not say how much of a resource they need, although a quota counts it.
pub(super) fn silent_containers(pod: &Object, name: &str) -> BTreeSet<String> {
    let Some((part, resource)) = canonical(name).split_once('.') else { return BTreeSet::new() };
    let counts = matches!(part, "requests" | "limits") && matches!(resource, "cpu" | "memory");
    let is_said = pod.at(&["spec", "resources", part, resource]).is_some_and(|amount| !amount.is_null());
    if !counts || is_said {
        return BTreeSet::new();
    }
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| pod.list(&["spec", list]));
    let silent = containers.filter(|container| container["resources"][part][resource].is_null());
    silent.filter_map(|container| container["name"].as_str().map(str::to_string)).collect()
}

/// `requests.cpu`, `limits.memory` and so on, with the pod's overhead.
fn pod_amounts(pod: &Object) -> Amounts {
    let mut total = Amounts::new();
    for part in ["requests", "limits"] {
        let amounts = total::of_pod(pod, part).into_iter();
        total.extend(amounts.map(|(resource, amount)| (format!("{part}.{resource}"), amount)));
    }
    let overhead = pod.at(&["spec", "overhead"]).and_then(Value::as_object).into_iter().flatten();
    for (resource, amount) in overhead {
        let Ok(amount) = Quantity::from_json(amount) else { continue };
        *total.entry(format!("requests.{resource}")).or_default() += amount;
        // There is no limit where none is set.
        if let Some(limit) = total.get_mut(&format!("limits.{resource}")) {
            *limit += amount;
        }
    }
    // Pages are known by their plain name, too.
    let pages = total.iter().filter_map(|(name, amount)| {
        let plain = name.strip_prefix("requests.").filter(|resource| resource.starts_with("hugepages-"))?;
        Some((plain.to_string(), *amount))
    });
    let pages: Vec<_> = pages.collect();
    total.extend(pages);
    total
}

#[cfg(test)]
mod tests {
    use api::kinds;
    use serde_json::json;

    use super::*;

    fn charge(plural: &str, object: Value) -> Charge {
        Charge::of(kinds::find("", "v1", plural).unwrap(), &Object::from_value(object).unwrap())
    }

    fn amount(charge: &Charge, name: &str) -> String {
        charge.amounts.get(name).map(ToString::to_string).unwrap_or_default()
    }

    fn cpu(requests: &str) -> Value {
        json!({"resources": {"requests": {"cpu": requests}}})
    }

    #[test]
    fn sidecars_run_beside_the_containers_and_init_containers_before_them() {
        let mut sidecar = cpu("100m");
        sidecar["restartPolicy"] = "Always".into();
        let spec = |init: &str| {
            json!({"spec": {
                "initContainers": [sidecar, cpu(init)], "containers": [cpu("200m"), cpu("200m")],
                "overhead": {"cpu": "10m"},
            }})
        };
        assert_eq!(amount(&charge("pods", spec("1m")), "requests.cpu"), "510m");
        assert_eq!(amount(&charge("pods", spec("1")), "requests.cpu"), "1110m");
        let mut own = spec("1");
        own["spec"]["resources"] = json!({"requests": {"cpu": "300m"}});
        assert_eq!(amount(&charge("pods", own), "requests.cpu"), "310m");
    }

    #[test]
    fn a_finished_pod_uses_nothing_but_its_place() {
        let finished =
            charge("pods", json!({"spec": {"containers": [cpu("1")]}, "status": {"phase": "Succeeded"}}));
        assert_eq!(finished.amounts.keys().collect::<Vec<_>>(), ["count/pods"]);
    }

    #[test]
    fn a_pod_that_should_be_gone_leaves_room_for_another() {
        let pod = charge(
            "pods",
            json!({
                "metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30},
                "spec": {"containers": [cpu("1")]},
            }),
        );
        let at = |time: &str| {
            let now = time.parse().unwrap();
            ["pods", "cpu", "count/pods"].map(|name| pod.amount(name, now).to_string())
        };
        assert_eq!(at("2026-01-01T00:01:00Z"), ["1", "1", "1"]);
        assert_eq!(at("2026-01-01T00:01:01Z"), ["0", "0", "1"]);
    }

    #[test]
    fn a_growing_claim_takes_what_it_may_get() {
        let claim = |asked: &str, allocated: Value| {
            let claim = charge(
                "persistentvolumeclaims",
                json!({
                    "metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
                    "spec": {"storageClassName": "new", "resources": {"requests": {"storage": asked}}},
                    "status": {"allocatedResources": allocated},
                }),
            );
            let own = amount(&claim, "old.storageclass.storage.k8s.io/requests.storage");
            assert_eq!(own, amount(&claim, "requests.storage"));
            own
        };
        let quantity = |text: &str| Quantity::parse(text).unwrap().value().to_string();
        assert_eq!(claim("1Gi", Value::Null), quantity("1Gi"));
        assert_eq!(claim("1Gi", json!({"storage": "3Gi"})), quantity("3Gi"));
        assert_eq!(claim("2Gi", json!({"storage": "1Gi"})), quantity("2Gi"));
        assert_eq!(claim("1500m", Value::Null), "2");
    }

    #[test]
    fn overhead_and_nothing_make_no_pod_worth_more_effort() {
        let is_best_effort = |spec: Value| charge("pods", json!({"spec": spec})).scopes.best_effort;
        assert!(is_best_effort(json!({"containers": [{}], "overhead": {"cpu": "1"}})));
        assert!(is_best_effort(json!({"containers": [cpu("0")]})));
        assert!(!is_best_effort(json!({"containers": [cpu("1m")]})));
    }

    #[test]
    fn huge_pages_have_two_names_and_claims_count_devices() {
        let pages = json!({"resources": {"requests": {"hugepages-2Mi": "4Mi"}}});
        let pod = charge("pods", json!({"spec": {"containers": [pages]}}));
        assert_eq!(
            ["hugepages-2Mi", "requests.hugepages-2Mi"].map(|name| amount(&pod, name)),
            ["4Mi", "4Mi"]
        );
        let kind = kinds::find("resource.k8s.io", "v1", "resourceclaims").unwrap();
        let request = |class: &str, count: i64| json!({"deviceClassName": class, "count": count});
        let requests = json!([
            {"exactly": request("gpu", 2)},
            {"firstAvailable": [request("gpu", 1), request("gpu", 3), request("nic", 1)]},
            {"exactly": {"deviceClassName": "disk", "allocationMode": "All"}},
        ]);
        let claim = Object::from_value(json!({"spec": {"devices": {"requests": requests}}})).unwrap();
        let claim = Charge::of(kind, &claim);
        let devices = ["gpu", "nic", "disk"]
            .map(|class| amount(&claim, &format!("{class}.deviceclass.resource.k8s.io/devices")));
        assert_eq!(devices, ["5", "1", "32"]);
    }

    #[test]
    fn services_take_ports_of_nodes() {
        let ports = |spec: Value| amount(&charge("services", json!({"spec": spec})), "services.nodeports");
        let two = json!([{"port": 80}, {"port": 81, "nodePort": 30081}]);
        assert_eq!(ports(json!({"type": "ClusterIP", "ports": two})), "0");
        assert_eq!(ports(json!({"type": "NodePort", "ports": two})), "2");
        assert_eq!(ports(json!({"type": "LoadBalancer", "ports": two})), "2");
        assert_eq!(
            ports(json!({"type": "LoadBalancer", "ports": two, "allocateLoadBalancerNodePorts": false})),
            "1"
        );
    }

    #[test]
    fn containers_have_to_say_what_is_counted_unless_the_pod_does() {
        let pod = |resources: Value| {
            let containers = json!([{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}]);
            Object::from_value(json!({"spec": {"containers": containers, "resources": resources}})).unwrap()
        };
        let silent = |pod: &Object, name: &str| silent_containers(pod, name).into_iter().collect::<Vec<_>>();
        assert_eq!(silent(&pod(Value::Null), "cpu"), ["a"]);
        assert_eq!(silent(&pod(Value::Null), "limits.memory"), ["a", "b"]);
        assert!(silent(&pod(json!({"requests": {"cpu": "2"}})), "requests.cpu").is_empty());
        assert!(silent(&pod(Value::Null), "requests.ephemeral-storage").is_empty());
    }

    #[test]
    fn scopes_tell_pods_and_claims_apart() {
        let quota = |selector: Value| {
            Object::from_value(json!({"spec": {"scopeSelector": {"matchExpressions": [selector]}}})).unwrap()
        };
        let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}});
        let pod = charge("pods", json!({"spec": {"affinity": near, "priorityClassName": "high"}})).scopes;
        let claim =
            charge("persistentvolumeclaims", json!({"spec": {"volumeAttributesClassName": "gold"}})).scopes;
        let crossing = quota(json!({"scopeName": "CrossNamespacePodAffinity", "operator": "Exists"}));
        assert!(pod.match_quota(&crossing) && !claim.match_quota(&crossing));
        let high = quota(json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}));
        assert!(pod.match_quota(&high) && !claim.match_quota(&high));
        let gold = quota(json!({"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["gold"]}));
        assert!(claim.match_quota(&gold) && !pod.match_quota(&gold));
    }
}
