//! How the fields of built-in types merge: what upstream's types say in `+patchStrategy`, `+listType` and
//! their like. Facts of the API as of 1.37, in alphabetical order of the types.
//!
//! Types are named `group.version.Type` as in their definitions' names. A list that is not mentioned is
//! replaced by a strategic merge and belongs to one owner as a whole.

use std::sync::LazyLock;

use serde_json::Value;

use super::{ListType, Merge};

/// The rule of a field, if it has one. `definition` is a full name such as `io.k8s.api.core.v1.PodSpec`.
pub(crate) fn of(definition: &str, field: &str) -> Option<&'static Merge> {
    let name = short(definition);
    let rule = row(RULES, name).and_then(|fields| fields.iter().find(|(listed, _)| *listed == field));
    let is_atomic = || row(ATOMIC_LISTS, name).is_some_and(|fields| fields.contains(&field));
    rule.map(|(_, rule)| rule).or_else(|| is_atomic().then_some(&ATOMIC_LIST))
}

/// Whether server-side apply treats all fields of a type as one.
pub(crate) fn is_atomic_type(definition: &str) -> bool {
    ATOMIC_TYPES.binary_search(&short(definition)).is_ok()
}

/// The value that a key field has in items that leave it out.
pub(super) fn key_default(definition: &str, field: &str) -> Option<&'static Value> {
    static TCP: LazyLock<Value> = LazyLock::new(|| "TCP".into());
    let is_protocol =
        field == "protocol" && matches!(short(definition), "core.v1.ContainerPort" | "core.v1.ServicePort");
    is_protocol.then_some(&TCP)
}

/// Every type with the fields that are mentioned.
#[cfg(test)]
pub(super) fn rules() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let rules = RULES.iter().map(|(name, fields)| (*name, fields.iter().map(|(field, _)| *field).collect()));
    rules.chain(ATOMIC_LISTS.iter().map(|(name, fields)| (*name, fields.to_vec())))
}

fn row<T>(rows: &'static [(&str, T)], name: &str) -> Option<&'static T> {
    let index = rows.binary_search_by(|(listed, _)| (*listed).cmp(name)).ok()?;
    Some(&rows[index].1)
}

/// `core.v1.PodSpec` of `io.k8s.api.core.v1.PodSpec`: the last three parts.
pub(super) fn short(definition: &str) -> &str {
    let start = definition.rmatch_indices('.').nth(2).map_or(0, |(index, _)| index + 1);
    &definition[start..]
}

const PLAIN: Merge =
    Merge { merge: false, replace: false, retain_keys: false, key: "", list: None, keys: &[] };
const ATOMIC_LIST: Merge = Merge { list: Some(ListType::Atomic), ..PLAIN };
const ATOMIC_MAP: Merge = Merge { list: Some(ListType::AtomicMap), ..PLAIN };
const SET: Merge = Merge { list: Some(ListType::Set), ..PLAIN };
const MERGED_SET: Merge = Merge { merge: true, ..SET };
const RETAINING: Merge = PLAIN.retaining_keys();
const REPLACED: Merge = Merge { replace: true, ..PLAIN };

/// Merged by `key`; for server-side apply a map with `keys`, or atomic when there are none.
const fn merged_by(key: &'static str, keys: &'static [&'static str]) -> Merge {
    let list = if keys.is_empty() { ListType::Atomic } else { ListType::Map };
    Merge { merge: true, key, list: Some(list), keys, ..PLAIN }
}

/// Replaced by a strategic merge, yet a map with `keys` for server-side apply.
const fn listed_by(keys: &'static [&'static str]) -> Merge {
    Merge { list: Some(ListType::Map), keys, ..PLAIN }
}

impl Merge {
    const fn retaining_keys(self) -> Merge {
        Merge { retain_keys: true, ..self }
    }
}

#[rustfmt::skip]
const RULES: &[(&str, &[(&str, Merge)])] = &[
    ("admissionregistration.v1.MutatingAdmissionPolicySpec", &[("matchConditions", merged_by("name", &["name"]))]),
    ("admissionregistration.v1.MutatingWebhook", &[("matchConditions", merged_by("name", &["name"]))]),
    ("admissionregistration.v1.MutatingWebhookConfiguration", &[("webhooks", merged_by("name", &["name"]))]),
    ("admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec", &[("validationActions", SET)]),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", &[
        ("matchConditions", merged_by("name", &["name"])),
        ("variables", merged_by("name", &["name"])),
    ]),
    ("admissionregistration.v1.ValidatingAdmissionPolicyStatus", &[("conditions", listed_by(&["type"]))]),
    ("admissionregistration.v1.ValidatingWebhook", &[("matchConditions", merged_by("name", &["name"]))]),
    ("admissionregistration.v1.ValidatingWebhookConfiguration", &[("webhooks", merged_by("name", &["name"]))]),
    ("apiextensions.v1.CustomResourceDefinitionStatus", &[("conditions", listed_by(&["type"]))]),
    ("apiextensions.v1.JSONSchemaProps", &[("x-kubernetes-validations", merged_by("rule", &["rule"]))]),
    ("apiregistration.v1.APIServiceStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("apps.v1.DaemonSetStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("apps.v1.DeploymentSpec", &[("strategy", RETAINING)]),
    ("apps.v1.DeploymentStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("apps.v1.ReplicaSetStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("apps.v1.StatefulSetStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("autoscaling.v2.HorizontalPodAutoscalerStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("batch.v1.JobSchedulingConfiguration", &[("resourceClaims", merged_by("name", &["name"]))]),
    ("batch.v1.JobStatus", &[("conditions", merged_by("type", &[]))]),
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", &[("values", SET)]),
    ("batch.v1.UncountedTerminatedPods", &[
        ("succeeded", SET),
        ("failed", SET),
    ]),
    ("certificates.v1.CertificateSigningRequestStatus", &[("conditions", listed_by(&["type"]))]),
    ("certificates.v1.PodCertificateRequestStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("core.v1.ComponentStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("core.v1.Container", &[
        ("ports", merged_by("containerPort", &["containerPort", "protocol"])),
        ("env", merged_by("name", &["name"])),
        ("volumeMounts", merged_by("mountPath", &["mountPath"])),
        ("volumeDevices", merged_by("devicePath", &["devicePath"])),
    ]),
    ("core.v1.ContainerRestartRuleOnExitCodes", &[("values", SET)]),
    ("core.v1.ContainerStatus", &[
        ("volumeMounts", merged_by("mountPath", &["mountPath"])),
        ("allocatedResourcesStatus", merged_by("name", &["name"])),
    ]),
    ("core.v1.EphemeralContainer", &[
        ("ports", merged_by("containerPort", &["containerPort", "protocol"])),
        ("env", merged_by("name", &["name"])),
        ("volumeMounts", merged_by("mountPath", &["mountPath"])),
        ("volumeDevices", merged_by("devicePath", &["devicePath"])),
    ]),
    ("core.v1.NamespaceStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("core.v1.NodeAllocatableResourceClaimStatus", &[
        ("containers", SET),
        ("mapping", merged_by("name", &["name"])),
        ("overhead", merged_by("name", &["name"])),
    ]),
    ("core.v1.NodePodPreemptionPolicy", &[("disableResizePreemption", SET)]),
    ("core.v1.NodeSpec", &[("podCIDRs", MERGED_SET)]),
    ("core.v1.NodeStatus", &[
        ("conditions", merged_by("type", &["type"])),
        ("addresses", merged_by("type", &["type"])),
    ]),
    ("core.v1.PersistentVolumeClaimStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("core.v1.PodSpec", &[
        ("volumes", merged_by("name", &["name"]).retaining_keys()),
        ("initContainers", merged_by("name", &["name"])),
        ("containers", merged_by("name", &["name"])),
        ("ephemeralContainers", merged_by("name", &["name"])),
        ("nodeSelector", ATOMIC_MAP),
        ("imagePullSecrets", merged_by("name", &["name"])),
        ("hostAliases", merged_by("ip", &["ip"])),
        ("topologySpreadConstraints", merged_by("topologyKey", &["topologyKey", "whenUnsatisfiable"])),
        ("schedulingGates", merged_by("name", &["name"])),
        ("resourceClaims", merged_by("name", &["name"]).retaining_keys()),
        ("evictionResponders", merged_by("name", &["name"])),
    ]),
    ("core.v1.PodStatus", &[
        ("conditions", merged_by("type", &["type"])),
        ("hostIPs", merged_by("ip", &[])),
        ("podIPs", merged_by("ip", &["ip"])),
        ("resourceClaimStatuses", merged_by("name", &["name"]).retaining_keys()),
        ("nodeAllocatableResourceClaimStatuses", merged_by("resourceClaimName", &["resourceClaimName"])),
        ("volumeHealth", listed_by(&["name"])),
    ]),
    ("core.v1.PodVolumeHealth", &[("healthConditions", merged_by("status", &["status", "reason"]))]),
    ("core.v1.ReplicationControllerSpec", &[("selector", ATOMIC_MAP)]),
    ("core.v1.ReplicationControllerStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("core.v1.ResourceRequirements", &[("claims", listed_by(&["name"]))]),
    ("core.v1.ResourceStatus", &[("resources", listed_by(&["resourceID"]))]),
    ("core.v1.ServiceAccount", &[("secrets", merged_by("name", &["name"]))]),
    ("core.v1.ServiceSpec", &[
        ("ports", merged_by("port", &["port", "protocol"])),
        ("selector", ATOMIC_MAP),
    ]),
    ("core.v1.ServiceStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("core.v1.VolumeHealthStatus", &[("healthConditions", merged_by("status", &["status", "reason"]))]),
    ("core.v1.VolumeMount", &[("bindMountOptions", SET)]),
    ("discovery.v1.Endpoint", &[("addresses", SET)]),
    ("flowcontrol.v1.FlowSchemaStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("flowcontrol.v1.NonResourcePolicyRule", &[
        ("verbs", SET),
        ("nonResourceURLs", SET),
    ]),
    ("flowcontrol.v1.PriorityLevelConfigurationStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("flowcontrol.v1.ResourcePolicyRule", &[
        ("verbs", SET),
        ("apiGroups", SET),
        ("resources", SET),
        ("namespaces", SET),
    ]),
    ("meta.v1.ObjectMeta", &[
        ("finalizers", MERGED_SET),
        ("ownerReferences", merged_by("uid", &["uid"])),
    ]),
    ("networking.v1.ServiceCIDRStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("node.v1.Scheduling", &[("nodeSelector", ATOMIC_MAP)]),
    ("policy.v1.PodDisruptionBudgetSpec", &[("selector", REPLACED)]),
    ("policy.v1.PodDisruptionBudgetStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("resource.v1.AllocatedDeviceStatus", &[("conditions", listed_by(&["type"]))]),
    ("resource.v1.DeviceRequestAllocationResult", &[("skipNodeOperations", SET)]),
    ("resource.v1.DeviceTaintRuleStatus", &[("conditions", merged_by("type", &["type"]))]),
    ("resource.v1.ResourceClaimStatus", &[
        ("reservedFor", merged_by("uid", &["uid"])),
        ("devices", listed_by(&["driver", "device", "pool", "shareID"])),
    ]),
    ("resource.v1.ResourceSliceSpec", &[("skipNodeOperations", SET)]),
    ("storage.v1.CSIDriverSpec", &[("volumeLifecycleModes", SET)]),
    ("storage.v1.CSINodeSpec", &[("drivers", merged_by("name", &["name"]))]),
    ("storage.v1.CSINodeStatus", &[("storageHealth", merged_by("name", &["name"]))]),
    ("storagemigration.v1.StorageVersionMigrationStatus", &[("conditions", merged_by("type", &["type"]))]),
];

/// Lists of which upstream says that they are one whole.
#[rustfmt::skip]
const ATOMIC_LISTS: &[(&str, &[&str])] = &[
    ("admissionregistration.v1.MatchResources", &["resourceRules", "excludeResourceRules"]),
    ("admissionregistration.v1.MutatingAdmissionPolicySpec", &["variables", "mutations"]),
    ("admissionregistration.v1.MutatingWebhook", &["rules", "admissionReviewVersions"]),
    ("admissionregistration.v1.NamedRuleWithOperations", &["resourceNames", "operations", "apiGroups", "apiVersions", "resources"]),
    ("admissionregistration.v1.RuleWithOperations", &["operations", "apiGroups", "apiVersions", "resources"]),
    ("admissionregistration.v1.TypeChecking", &["expressionWarnings"]),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", &["validations", "auditAnnotations"]),
    ("admissionregistration.v1.ValidatingWebhook", &["rules", "admissionReviewVersions"]),
    ("apiextensions.v1.CustomResourceDefinitionNames", &["categories", "shortNames"]),
    ("apiextensions.v1.CustomResourceDefinitionSpec", &["versions"]),
    ("apiextensions.v1.CustomResourceDefinitionStatus", &["storedVersions"]),
    ("apiextensions.v1.CustomResourceDefinitionVersion", &["additionalPrinterColumns", "selectableFields"]),
    ("apiextensions.v1.JSONSchemaProps", &["allOf", "anyOf", "enum", "oneOf", "required", "x-kubernetes-list-map-keys"]),
    ("apiextensions.v1.WebhookConversion", &["conversionReviewVersions"]),
    ("apps.v1.StatefulSetSpec", &["volumeClaimTemplates"]),
    ("authentication.v1.TokenRequestSpec", &["audiences"]),
    ("authentication.v1.TokenReviewSpec", &["audiences"]),
    ("authentication.v1.TokenReviewStatus", &["audiences"]),
    ("authentication.v1.UserInfo", &["groups"]),
    ("authorization.v1.FieldSelectorAttributes", &["requirements"]),
    ("authorization.v1.LabelSelectorAttributes", &["requirements"]),
    ("authorization.v1.NonResourceRule", &["verbs", "nonResourceURLs"]),
    ("authorization.v1.ResourceRule", &["verbs", "apiGroups", "resources", "resourceNames"]),
    ("authorization.v1.SubjectAccessReviewSpec", &["groups"]),
    ("authorization.v1.SubjectRulesReviewStatus", &["resourceRules", "nonResourceRules"]),
    ("autoscaling.v2.HPAScalingRules", &["policies"]),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", &["metrics"]),
    ("autoscaling.v2.HorizontalPodAutoscalerStatus", &["currentMetrics"]),
    ("batch.v1.CronJobStatus", &["active"]),
    ("batch.v1.PodFailurePolicy", &["rules"]),
    ("batch.v1.PodFailurePolicyRule", &["onPodConditions"]),
    ("batch.v1.SuccessPolicy", &["rules"]),
    ("certificates.v1.CertificateSigningRequestSpec", &["usages", "groups"]),
    ("core.v1.Capabilities", &["add", "drop"]),
    ("core.v1.CephFSPersistentVolumeSource", &["monitors"]),
    ("core.v1.CephFSVolumeSource", &["monitors"]),
    ("core.v1.ConfigMapProjection", &["items"]),
    ("core.v1.ConfigMapVolumeSource", &["items"]),
    ("core.v1.Container", &["command", "args", "envFrom", "resizePolicy", "restartPolicyRules"]),
    ("core.v1.ContainerImage", &["names"]),
    ("core.v1.DownwardAPIProjection", &["items"]),
    ("core.v1.DownwardAPIVolumeSource", &["items"]),
    ("core.v1.EndpointSubset", &["addresses", "notReadyAddresses", "ports"]),
    ("core.v1.Endpoints", &["subsets"]),
    ("core.v1.EphemeralContainer", &["command", "args", "envFrom", "resizePolicy", "restartPolicyRules"]),
    ("core.v1.ExecAction", &["command"]),
    ("core.v1.FCVolumeSource", &["targetWWNs", "wwids"]),
    ("core.v1.HTTPGetAction", &["httpHeaders"]),
    ("core.v1.HostAlias", &["hostnames"]),
    ("core.v1.ISCSIPersistentVolumeSource", &["portals"]),
    ("core.v1.ISCSIVolumeSource", &["portals"]),
    ("core.v1.LimitRangeSpec", &["limits"]),
    ("core.v1.LinuxContainerUser", &["supplementalGroups"]),
    ("core.v1.LoadBalancerIngress", &["ports"]),
    ("core.v1.LoadBalancerStatus", &["ingress"]),
    ("core.v1.NamespaceSpec", &["finalizers"]),
    ("core.v1.NodeAffinity", &["preferredDuringSchedulingIgnoredDuringExecution"]),
    ("core.v1.NodeSelector", &["nodeSelectorTerms"]),
    ("core.v1.NodeSelectorRequirement", &["values"]),
    ("core.v1.NodeSelectorTerm", &["matchExpressions", "matchFields"]),
    ("core.v1.NodeSpec", &["taints"]),
    ("core.v1.NodeStatus", &["images", "volumesInUse", "volumesAttached", "runtimeHandlers", "declaredFeatures"]),
    ("core.v1.PersistentVolumeClaimSpec", &["accessModes"]),
    ("core.v1.PersistentVolumeClaimStatus", &["accessModes"]),
    ("core.v1.PersistentVolumeSpec", &["accessModes", "mountOptions"]),
    ("core.v1.PodAffinity", &["requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"]),
    ("core.v1.PodAffinityTerm", &["namespaces", "matchLabelKeys", "mismatchLabelKeys"]),
    ("core.v1.PodAntiAffinity", &["requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"]),
    ("core.v1.PodDNSConfig", &["nameservers", "searches", "options"]),
    ("core.v1.PodExtendedResourceClaimStatus", &["requestMappings"]),
    ("core.v1.PodSecurityContext", &["supplementalGroups", "sysctls"]),
    ("core.v1.PodSpec", &["tolerations", "readinessGates"]),
    ("core.v1.PodStatus", &["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"]),
    ("core.v1.ProjectedVolumeSource", &["sources"]),
    ("core.v1.RBDPersistentVolumeSource", &["monitors"]),
    ("core.v1.RBDVolumeSource", &["monitors"]),
    ("core.v1.ResourceQuotaSpec", &["scopes"]),
    ("core.v1.ScopeSelector", &["matchExpressions"]),
    ("core.v1.ScopedResourceSelectorRequirement", &["values"]),
    ("core.v1.SecretProjection", &["items"]),
    ("core.v1.SecretVolumeSource", &["items"]),
    ("core.v1.ServiceAccount", &["imagePullSecrets"]),
    ("core.v1.ServiceSpec", &["clusterIPs", "externalIPs", "loadBalancerSourceRanges", "ipFamilies"]),
    ("core.v1.TopologySelectorLabelRequirement", &["values"]),
    ("core.v1.TopologySelectorTerm", &["matchLabelExpressions"]),
    ("core.v1.TopologySpreadConstraint", &["matchLabelKeys"]),
    ("discovery.v1.EndpointHints", &["forZones", "forNodes"]),
    ("discovery.v1.EndpointSlice", &["endpoints", "ports"]),
    ("flowcontrol.v1.FlowSchemaSpec", &["rules"]),
    ("flowcontrol.v1.PolicyRulesWithSubjects", &["subjects", "resourceRules", "nonResourceRules"]),
    ("meta.v1.DeleteOptions", &["dryRun"]),
    ("meta.v1.FieldSelectorRequirement", &["values"]),
    ("meta.v1.LabelSelector", &["matchExpressions"]),
    ("meta.v1.LabelSelectorRequirement", &["values"]),
    ("meta.v1.StatusDetails", &["causes"]),
    ("networking.v1.HTTPIngressRuleValue", &["paths"]),
    ("networking.v1.IPBlock", &["except"]),
    ("networking.v1.IngressLoadBalancerIngress", &["ports"]),
    ("networking.v1.IngressLoadBalancerStatus", &["ingress"]),
    ("networking.v1.IngressSpec", &["tls", "rules"]),
    ("networking.v1.IngressTLS", &["hosts"]),
    ("networking.v1.NetworkPolicyEgressRule", &["ports", "to"]),
    ("networking.v1.NetworkPolicyIngressRule", &["ports", "from"]),
    ("networking.v1.NetworkPolicySpec", &["ingress", "egress", "policyTypes"]),
    ("networking.v1.ServiceCIDRSpec", &["cidrs"]),
    ("node.v1.Scheduling", &["tolerations"]),
    ("rbac.v1.AggregationRule", &["clusterRoleSelectors"]),
    ("rbac.v1.ClusterRole", &["rules"]),
    ("rbac.v1.ClusterRoleBinding", &["subjects"]),
    ("rbac.v1.PolicyRule", &["verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs"]),
    ("rbac.v1.Role", &["rules"]),
    ("rbac.v1.RoleBinding", &["subjects"]),
    ("resource.v1.CapacityRequestPolicy", &["validValues"]),
    ("resource.v1.Device", &["consumesCounters", "taints", "bindingConditions", "bindingFailureConditions"]),
    ("resource.v1.DeviceAllocationConfiguration", &["requests"]),
    ("resource.v1.DeviceAllocationResult", &["results", "config"]),
    ("resource.v1.DeviceAttribute", &["ints", "bools", "strings", "versions"]),
    ("resource.v1.DeviceClaim", &["requests", "constraints", "config"]),
    ("resource.v1.DeviceClaimConfiguration", &["requests"]),
    ("resource.v1.DeviceClassSpec", &["selectors", "config"]),
    ("resource.v1.DeviceConstraint", &["requests"]),
    ("resource.v1.DeviceRequest", &["firstAvailable"]),
    ("resource.v1.DeviceRequestAllocationResult", &["tolerations", "bindingConditions", "bindingFailureConditions"]),
    ("resource.v1.DeviceSubRequest", &["selectors", "tolerations"]),
    ("resource.v1.ExactDeviceRequest", &["selectors", "tolerations"]),
    ("resource.v1.NetworkDeviceData", &["ips"]),
    ("resource.v1.ResourceSliceSpec", &["devices", "sharedCounters"]),
    ("storage.v1.CSIDriverSpec", &["tokenRequests"]),
    ("storage.v1.CSINodeDriver", &["topologyKeys"]),
    ("storage.v1.StorageClass", &["mountOptions", "allowedTopologies"]),
    ("storage.v1.StorageHealth", &["healthConditions"]),
];

/// Types that are one whole.
#[rustfmt::skip]
const ATOMIC_TYPES: &[&str] = &[
    "admissionregistration.v1.MatchResources", "admissionregistration.v1.NamedRuleWithOperations",
    "admissionregistration.v1.ParamKind", "admissionregistration.v1.ParamRef",
    "admissionregistration.v1.Variable", "autoscaling.v1.CrossVersionObjectReference",
    "core.v1.ConfigMapKeySelector", "core.v1.EndpointAddress", "core.v1.EndpointPort",
    "core.v1.EvictionResponder", "core.v1.FileKeySelector", "core.v1.LocalObjectReference",
    "core.v1.NodeSelector", "core.v1.NodeSelectorTerm", "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference", "core.v1.ResourceFieldSelector", "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector", "core.v1.SecretReference", "core.v1.TopologySelectorTerm",
    "core.v1.TypedLocalObjectReference", "discovery.v1.EndpointPort", "meta.v1.LabelSelector",
    "meta.v1.OwnerReference", "networking.v1.ServiceBackendPort", "rbac.v1.RoleRef", "rbac.v1.Subject",
];
