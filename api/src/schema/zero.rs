//! Which values are as good as none. A field of upstream's types that is no pointer and left out when empty does not
//! survive being read: `type: ""`, `paused: false` and `nodeSelector: {}` say as much as nothing, are not kept, and get the
//! default that an absent field gets. Facts of the API as of 1.37, in alphabetical order of the types.

use super::Shape;

/// Whether a field's zero value is dropped. `definition` is a full name such as `io.k8s.api.core.v1.PodSpec`.
pub(super) fn vanishes(definition: &str, field: &str, shape: &Shape) -> bool {
    use Shape::{Boolean, Bytes, Int32, Int64, List, Map, Number, Text};
    let has_zero = matches!(shape, Boolean | Bytes | Int32 | Int64 | Number | Text | List(_) | Map(_));
    has_zero && !keeps(super::merge::short(definition), field)
}

fn keeps(name: &str, field: &str) -> bool {
    let row = KEPT.binary_search_by(|(listed, _)| (*listed).cmp(name)).ok();
    row.is_some_and(|index| KEPT[index].1.contains(&field))
}

/// The fields that are optional and yet tell nothing from zero: pointers, and those that are always written.
/// What a schema requires is kept anyway.
#[rustfmt::skip]
const KEPT: &[(&str, &[&str])] = &[
    ("admissionregistration.v1.MatchResources", &["matchPolicy"]),
    ("admissionregistration.v1.MutatingAdmissionPolicySpec", &["failurePolicy"]),
    ("admissionregistration.v1.MutatingWebhook", &["failurePolicy", "matchPolicy", "reinvocationPolicy", "timeoutSeconds"]),
    ("admissionregistration.v1.NamedRuleWithOperations", &["scope"]),
    ("admissionregistration.v1.ParamRef", &["parameterNotFoundAction"]),
    ("admissionregistration.v1.RuleWithOperations", &["scope"]),
    ("admissionregistration.v1.ServiceReference", &["path", "port"]),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", &["failurePolicy"]),
    ("admissionregistration.v1.ValidatingWebhook", &["failurePolicy", "matchPolicy", "timeoutSeconds"]),
    ("admissionregistration.v1.Validation", &["reason"]),
    ("admissionregistration.v1.WebhookClientConfig", &["url"]),
    ("apiextensions.v1.CustomResourceDefinitionStatus", &["conditions", "storedVersions"]),
    ("apiextensions.v1.CustomResourceDefinitionVersion", &["deprecationWarning"]),
    ("apiextensions.v1.CustomResourceSubresourceScale", &["labelSelectorPath"]),
    ("apiextensions.v1.JSONSchemaProps", &["$ref", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-preserve-unknown-fields"]),
    ("apiextensions.v1.ServiceReference", &["path", "port"]),
    ("apiextensions.v1.ValidationRule", &["optionalOldSelf", "reason"]),
    ("apiextensions.v1.WebhookClientConfig", &["url"]),
    ("apiregistration.v1.ServiceReference", &["port"]),
    ("apps.v1.ControllerRevision", &["revision"]),
    ("apps.v1.DaemonSetCondition", &["status", "type"]),
    ("apps.v1.DaemonSetSpec", &["revisionHistoryLimit"]),
    ("apps.v1.DaemonSetStatus", &["collisionCount"]),
    ("apps.v1.DeploymentCondition", &["status", "type"]),
    ("apps.v1.DeploymentSpec", &["progressDeadlineSeconds", "replicas", "revisionHistoryLimit"]),
    ("apps.v1.DeploymentStatus", &["collisionCount", "terminatingReplicas"]),
    ("apps.v1.ReplicaSetCondition", &["status", "type"]),
    ("apps.v1.ReplicaSetSpec", &["replicas"]),
    ("apps.v1.ReplicaSetStatus", &["terminatingReplicas"]),
    ("apps.v1.RollingUpdateStatefulSetStrategy", &["partition"]),
    ("apps.v1.StatefulSetCondition", &["status", "type"]),
    ("apps.v1.StatefulSetOrdinals", &["start"]),
    ("apps.v1.StatefulSetSpec", &["replicas", "revisionHistoryLimit", "serviceName"]),
    ("apps.v1.StatefulSetStatus", &["availableReplicas", "collisionCount"]),
    ("authentication.v1.TokenRequestSpec", &["audiences", "expirationSeconds"]),
    ("authentication.v1.TokenRequestStatus", &["token"]),
    ("autoscaling.v1.HorizontalPodAutoscalerSpec", &["minReplicas", "targetCPUUtilizationPercentage"]),
    ("autoscaling.v1.HorizontalPodAutoscalerStatus", &["currentCPUUtilizationPercentage", "observedGeneration"]),
    ("autoscaling.v2.HPAScalingRules", &["selectPolicy", "stabilizationWindowSeconds"]),
    ("autoscaling.v2.HorizontalPodAutoscalerCondition", &["observedGeneration"]),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", &["minReplicas"]),
    ("autoscaling.v2.HorizontalPodAutoscalerStatus", &["currentMetrics", "observedGeneration"]),
    ("autoscaling.v2.MetricTarget", &["averageUtilization"]),
    ("autoscaling.v2.MetricValueStatus", &["averageUtilization"]),
    ("batch.v1.CronJobSpec", &["failedJobsHistoryLimit", "startingDeadlineSeconds", "successfulJobsHistoryLimit", "suspend", "timeZone"]),
    ("batch.v1.JobSpec", &["activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex", "completionMode", "completions", "managedBy", "manualSelector", "maxFailedIndexes", "parallelism", "podReplacementPolicy", "suspend", "ttlSecondsAfterFinished"]),
    ("batch.v1.JobStatus", &["failedIndexes", "ready", "terminating"]),
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", &["containerName"]),
    ("batch.v1.PodFailurePolicyOnPodConditionsPattern", &["status"]),
    ("batch.v1.SuccessPolicyRule", &["succeededCount", "succeededIndexes"]),
    ("certificates.v1.CertificateSigningRequestSpec", &["expirationSeconds"]),
    ("certificates.v1.PodCertificateRequestSpec", &["maxExpirationSeconds"]),
    ("coordination.v1.LeaseSpec", &["holderIdentity", "leaseDurationSeconds", "leaseTransitions", "preferredHolder", "strategy"]),
    ("core.v1.AppArmorProfile", &["localhostProfile"]),
    ("core.v1.AzureDiskVolumeSource", &["cachingMode", "fsType", "kind", "readOnly"]),
    ("core.v1.AzureFilePersistentVolumeSource", &["secretNamespace"]),
    ("core.v1.CSIVolumeSource", &["fsType", "readOnly"]),
    ("core.v1.ClientIPConfig", &["timeoutSeconds"]),
    ("core.v1.ClusterTrustBundleProjection", &["name", "optional", "signerName", "user"]),
    ("core.v1.ConfigMap", &["immutable"]),
    ("core.v1.ConfigMapEnvSource", &["optional"]),
    ("core.v1.ConfigMapKeySelector", &["optional"]),
    ("core.v1.ConfigMapProjection", &["optional"]),
    ("core.v1.ConfigMapVolumeSource", &["defaultMode", "defaultUser", "optional"]),
    ("core.v1.Container", &["restartPolicy"]),
    ("core.v1.ContainerImage", &["names"]),
    ("core.v1.ContainerStatus", &["started", "stopSignal"]),
    ("core.v1.DownwardAPIVolumeFile", &["mode", "user"]),
    ("core.v1.DownwardAPIVolumeSource", &["defaultMode", "defaultUser"]),
    ("core.v1.EmptyDirVolumeSource", &["mode"]),
    ("core.v1.EndpointAddress", &["nodeName"]),
    ("core.v1.EndpointPort", &["appProtocol"]),
    ("core.v1.EphemeralContainer", &["restartPolicy"]),
    ("core.v1.Event", &["reportingComponent", "reportingInstance"]),
    ("core.v1.FCVolumeSource", &["lun"]),
    ("core.v1.FileKeySelector", &["optional"]),
    ("core.v1.GRPCAction", &["mode", "service"]),
    ("core.v1.GlusterfsPersistentVolumeSource", &["endpointsNamespace"]),
    ("core.v1.HTTPGetAction", &["protocol"]),
    ("core.v1.HostPathVolumeSource", &["type"]),
    ("core.v1.ISCSIPersistentVolumeSource", &["initiatorName"]),
    ("core.v1.ISCSIVolumeSource", &["initiatorName"]),
    ("core.v1.KeyToPath", &["mode", "user"]),
    ("core.v1.Lifecycle", &["stopSignal"]),
    ("core.v1.LoadBalancerIngress", &["ipMode"]),
    ("core.v1.LocalVolumeSource", &["fsType"]),
    ("core.v1.NodeFeatures", &["supplementalGroupsPolicy"]),
    ("core.v1.NodeRuntimeHandler", &["name"]),
    ("core.v1.NodeRuntimeHandlerFeatures", &["recursiveReadOnlyMounts", "userNamespaces"]),
    ("core.v1.NodeSwapStatus", &["capacity"]),
    ("core.v1.PersistentVolumeClaimSpec", &["storageClassName", "volumeAttributesClassName", "volumeMode"]),
    ("core.v1.PersistentVolumeClaimStatus", &["currentVolumeAttributesClassName"]),
    ("core.v1.PersistentVolumeSpec", &["volumeAttributesClassName", "volumeMode"]),
    ("core.v1.PodCertificateProjection", &["maxExpirationSeconds", "user"]),
    ("core.v1.PodDNSConfigOption", &["value"]),
    ("core.v1.PodResourceClaim", &["resourceClaimName", "resourceClaimTemplateName"]),
    ("core.v1.PodResourceClaimStatus", &["resourceClaimName"]),
    ("core.v1.PodSchedulingGroup", &["podGroupName"]),
    ("core.v1.PodSecurityContext", &["fsGroup", "fsGroupChangePolicy", "runAsGroup", "runAsNonRoot", "runAsUser", "seLinuxChangePolicy", "supplementalGroupsPolicy"]),
    ("core.v1.PodSpec", &["activeDeadlineSeconds", "automountServiceAccountToken", "enableServiceLinks", "hostUsers", "hostnameOverride", "preemptionPolicy", "priority", "runtimeClassName", "setHostnameAsFQDN", "shareProcessNamespace", "terminationGracePeriodSeconds"]),
    ("core.v1.PortStatus", &["error"]),
    ("core.v1.Probe", &["terminationGracePeriodSeconds"]),
    ("core.v1.ProjectedVolumeSource", &["defaultMode", "defaultUser", "sources"]),
    ("core.v1.ReplicationControllerSpec", &["replicas"]),
    ("core.v1.ResourceHealth", &["message"]),
    ("core.v1.SeccompProfile", &["localhostProfile"]),
    ("core.v1.Secret", &["immutable"]),
    ("core.v1.SecretEnvSource", &["optional"]),
    ("core.v1.SecretKeySelector", &["optional"]),
    ("core.v1.SecretProjection", &["optional"]),
    ("core.v1.SecretVolumeSource", &["defaultMode", "defaultUser", "optional"]),
    ("core.v1.SecurityContext", &["allowPrivilegeEscalation", "privileged", "procMount", "readOnlyRootFilesystem", "runAsGroup", "runAsNonRoot", "runAsUser"]),
    ("core.v1.ServiceAccount", &["automountServiceAccountToken"]),
    ("core.v1.ServiceAccountTokenProjection", &["expirationSeconds", "user"]),
    ("core.v1.ServicePort", &["appProtocol"]),
    ("core.v1.ServiceSpec", &["allocateLoadBalancerNodePorts", "internalTrafficPolicy", "ipFamilyPolicy", "loadBalancerClass", "trafficDistribution"]),
    ("core.v1.Toleration", &["tolerationSeconds"]),
    ("core.v1.TopologySpreadConstraint", &["minDomains", "nodeAffinityPolicy", "nodeTaintsPolicy"]),
    ("core.v1.TypedLocalObjectReference", &["apiGroup"]),
    ("core.v1.TypedObjectReference", &["apiGroup", "namespace"]),
    ("core.v1.VolumeMount", &["mountPropagation", "recursiveReadOnly"]),
    ("core.v1.VolumeMountStatus", &["recursiveReadOnly"]),
    ("core.v1.WindowsSecurityContextOptions", &["gmsaCredentialSpec", "gmsaCredentialSpecName", "hostProcess", "runAsUserName"]),
    ("discovery.v1.Endpoint", &["hostname", "nodeName", "zone"]),
    ("discovery.v1.EndpointConditions", &["ready", "serving", "terminating"]),
    ("discovery.v1.EndpointPort", &["appProtocol", "name", "port", "protocol"]),
    ("discovery.v1.EndpointSlice", &["endpoints", "ports"]),
    ("flowcontrol.v1.ExemptPriorityLevelConfiguration", &["lendablePercent", "nominalConcurrencyShares"]),
    ("flowcontrol.v1.FlowSchemaSpec", &["matchingPrecedence"]),
    ("flowcontrol.v1.LimitedPriorityLevelConfiguration", &["borrowingLimitPercent", "lendablePercent", "nominalConcurrencyShares"]),
    ("flowcontrol.v1.QueuingConfiguration", &["handSize", "queueLengthLimit", "queues"]),
    ("flowcontrol.v1.ResourcePolicyRule", &["namespaces"]),
    ("meta.v1.DeleteOptions", &["gracePeriodSeconds", "ignoreStoreReadErrorWithClusterBreakingPotential", "orphanDependents", "propagationPolicy"]),
    ("meta.v1.ListMeta", &["remainingItemCount"]),
    ("meta.v1.ObjectMeta", &["deletionGracePeriodSeconds"]),
    ("meta.v1.OwnerReference", &["blockOwnerDeletion", "controller"]),
    ("meta.v1.Preconditions", &["resourceVersion", "uid"]),
    ("networking.v1.IngressClassParametersReference", &["apiGroup", "namespace", "scope"]),
    ("networking.v1.IngressPortStatus", &["error"]),
    ("networking.v1.IngressSpec", &["ingressClassName"]),
    ("networking.v1.NetworkPolicyPort", &["endPort", "protocol"]),
    ("policy.v1.PodDisruptionBudgetSpec", &["unhealthyPodEvictionPolicy"]),
    ("policy.v1.PodDisruptionBudgetStatus", &["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"]),
    ("rbac.v1.ClusterRole", &["rules"]),
    ("rbac.v1.Role", &["rules"]),
    ("rbac.v1.RoleRef", &["apiGroup"]),
    ("resource.v1.AllocatedDeviceStatus", &["conditions", "shareID"]),
    ("resource.v1.Device", &["allNodes", "allowMultipleAllocations", "bindsToNode", "nodeName"]),
    ("resource.v1.DeviceAttribute", &["bool", "int", "string", "version"]),
    ("resource.v1.DeviceClaim", &["requests"]),
    ("resource.v1.DeviceClassSpec", &["extendedResourceName"]),
    ("resource.v1.DeviceConstraint", &["distinctAttribute", "matchAttribute"]),
    ("resource.v1.DeviceRequestAllocationResult", &["adminAccess", "shareID"]),
    ("resource.v1.DeviceTaintSelector", &["device", "driver", "pool"]),
    ("resource.v1.DeviceToleration", &["tolerationSeconds"]),
    ("resource.v1.ExactDeviceRequest", &["adminAccess"]),
    ("resource.v1.NodeAllocatableMapping", &["capacityKey"]),
    ("resource.v1.ResourceSliceSpec", &["allNodes", "nodeName", "partitionTypeAttribute", "perDeviceNodeSelection"]),
    ("scheduling.v1.PriorityClass", &["preemptionPolicy", "value"]),
    ("storage.v1.CSIDriverSpec", &["attachRequired", "fsGroupPolicy", "nodeAllocatableUpdatePeriodSeconds", "podInfoOnMount", "preventPodSchedulingIfMissing", "requiresRepublish", "seLinuxMount", "serviceAccountTokenInSecrets", "storageCapacity"]),
    ("storage.v1.CSINodeDriver", &["topologyKeys"]),
    ("storage.v1.StorageClass", &["allowVolumeExpansion", "reclaimPolicy", "volumeBindingMode"]),
    ("storage.v1.StorageHealthCondition", &["accessMode", "volumeMode"]),
    ("storage.v1.TokenRequest", &["expirationSeconds"]),
    ("storage.v1.VolumeAttachmentSource", &["persistentVolumeName"]),
    ("storage.v1.VolumeError", &["errorCode"]),
    ("storage.v1.VolumeNodeResources", &["count"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_is_kept_exists() {
        assert!(KEPT.is_sorted_by_key(|(name, _)| *name));
        for root in super::super::ROOTS {
            super::super::by_name(&(root.name)());
        }
        for (name, fields) in KEPT {
            let full = [format!("io.k8s.api.{name}"), format!("io.k8s.apimachinery.pkg.apis.{name}")];
            let kube = ["apiextensions-apiserver", "kube-aggregator"]
                .map(|part| format!("io.k8s.{part}.pkg.apis.{name}"));
            let schema = full.iter().chain(&kube).find_map(|name| super::super::by_name(name));
            let Some(schema) = schema else { panic!("no type {name}") };
            for field in *fields {
                let field = schema.field(field).unwrap_or_else(|| panic!("no field {field} in {name}"));
                assert!(!field.vanishes, "{name}.{}", field.name);
            }
        }
    }
}
