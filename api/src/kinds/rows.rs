//! The table of built-in kinds. A row says only what cannot be derived.

use crate::kind::Plain;
use crate::strategies::{
    address, admission_policy, api_service, certificate_signing_request, certificates, config_map,
    coordination, cron_job, custom_resource_definition, daemon_set, deployment, device, endpoints, event,
    flow_control, horizontal_pod_autoscaler, horizontal_pod_autoscaler_v1, ingress, job, limits, namespace,
    network_policy, node, persistent_volume, persistent_volume_claim, plain, pod, policy, rbac, replica_set,
    service, stateful_set, storage, webhook_configuration,
};
use crate::{Kind, Scale, Scope, Verbs, table};

const REPLICAS: Scale = Scale {
    spec_replicas: &["spec", "replicas"],
    status_replicas: &["status", "replicas"],
    selector: &["spec", "selector"],
};

const DEVICES: &str = "resource.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

/// In the order of discovery.
pub(super) const ROWS: &[Kind] = &[
    // The core group.
    Kind { plural: "bindings", verbs: Verbs::Create, ..namespaced("", "v1", "Binding") },
    Kind {
        plural: "componentstatuses",
        short: &["cs"],
        verbs: Verbs::Read,
        columns: table::cluster::COMPONENT_STATUS,
        deprecation: "v1 ComponentStatus is deprecated in v1.19+",
        ..cluster("", "v1", "ComponentStatus")
    },
    Kind {
        plural: "configmaps",
        short: &["cm"],
        strategy: &config_map::ConfigMap,
        columns: table::cluster::CONFIG_MAP,
        ..namespaced("", "v1", "ConfigMap")
    },
    Kind {
        plural: "endpoints",
        short: &["ep"],
        storage: "services/endpoints",
        strategy: &endpoints::Endpoints,
        columns: table::network::ENDPOINTS,
        deprecation: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        created_by_put: true,
        ..namespaced("", "v1", "Endpoints")
    },
    Kind {
        plural: "events",
        short: &["ev"],
        selectable: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        strategy: &event::Core,
        columns: table::cluster::EVENT,
        created_by_put: true,
        ..namespaced("", "v1", "Event")
    },
    Kind {
        plural: "limitranges",
        short: &["limits"],
        strategy: &limits::LimitRange,
        created_by_put: true,
        ..namespaced("", "v1", "LimitRange")
    },
    Kind {
        plural: "namespaces",
        short: &["ns"],
        verbs: Verbs::OneByOne,
        status: true,
        subresources: &["finalize"],
        selectable: &["status.phase"],
        strategy: &namespace::Strategy,
        columns: table::cluster::NAMESPACE,
        ..cluster("", "v1", "Namespace")
    },
    Kind {
        plural: "nodes",
        short: &["no"],
        status: true,
        subresources: &["proxy"],
        storage: "minions",
        selectable: &["spec.unschedulable"],
        strategy: &node::Strategy,
        columns: table::cluster::NODE,
        ..cluster("", "v1", "Node")
    },
    Kind {
        plural: "persistentvolumeclaims",
        short: &["pvc"],
        status: true,
        strategy: &persistent_volume_claim::Strategy,
        columns: table::storage::PERSISTENT_VOLUME_CLAIM,
        returned_when_deleted: true,
        ..namespaced("", "v1", "PersistentVolumeClaim")
    },
    Kind {
        plural: "persistentvolumes",
        short: &["pv"],
        status: true,
        strategy: &persistent_volume::PersistentVolume,
        columns: table::storage::PERSISTENT_VOLUME,
        returned_when_deleted: true,
        ..cluster("", "v1", "PersistentVolume")
    },
    Kind {
        plural: "pods",
        short: &["po"],
        categories: &["all"],
        status: true,
        subresources: &[
            "attach",
            "binding",
            "ephemeralcontainers",
            "eviction",
            "exec",
            "log",
            "portforward",
            "proxy",
            "resize",
        ],
        selectable: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        strategy: &pod::Strategy,
        columns: table::pod::COLUMNS,
        returned_when_deleted: true,
        ..namespaced("", "v1", "Pod")
    },
    Kind {
        plural: "podtemplates",
        strategy: &plain::PodTemplate,
        columns: table::workload::POD_TEMPLATE,
        returned_when_deleted: true,
        ..namespaced("", "v1", "PodTemplate")
    },
    Kind {
        plural: "replicationcontrollers",
        short: &["rc"],
        categories: &["all"],
        status: true,
        scale: Some(&REPLICAS),
        storage: "controllers",
        selectable: &["status.replicas"],
        strategy: &replica_set::ReplicationController,
        columns: table::workload::REPLICATION_CONTROLLER,
        ..namespaced("", "v1", "ReplicationController")
    },
    Kind {
        plural: "resourcequotas",
        short: &["quota"],
        status: true,
        strategy: &limits::ResourceQuota,
        columns: table::cluster::RESOURCE_QUOTA,
        returned_when_deleted: true,
        ..namespaced("", "v1", "ResourceQuota")
    },
    Kind {
        plural: "secrets",
        selectable: &["type"],
        strategy: &config_map::Secret,
        columns: table::cluster::SECRET,
        ..namespaced("", "v1", "Secret")
    },
    Kind {
        plural: "serviceaccounts",
        short: &["sa"],
        subresources: &["token"],
        strategy: &plain::ServiceAccount,
        columns: table::cluster::SERVICE_ACCOUNT,
        returned_when_deleted: true,
        ..namespaced("", "v1", "ServiceAccount")
    },
    Kind {
        plural: "services",
        short: &["svc"],
        categories: &["all"],
        status: true,
        subresources: &["proxy"],
        storage: "services/specs",
        selectable: &["spec.clusterIP", "spec.type"],
        strategy: &service::Strategy,
        columns: table::network::SERVICE,
        created_by_put: true,
        returned_when_deleted: true,
        ..namespaced("", "v1", "Service")
    },
    // Workloads.
    Kind {
        plural: "controllerrevisions",
        strategy: &plain::ControllerRevision,
        columns: table::workload::CONTROLLER_REVISION,
        ..namespaced("apps", "v1", "ControllerRevision")
    },
    Kind {
        plural: "daemonsets",
        short: &["ds"],
        categories: &["all"],
        status: true,
        strategy: &daemon_set::Strategy,
        columns: table::workload::DAEMON_SET,
        ..namespaced("apps", "v1", "DaemonSet")
    },
    Kind {
        plural: "deployments",
        short: &["deploy"],
        categories: &["all"],
        status: true,
        scale: Some(&REPLICAS),
        strategy: &deployment::Strategy,
        columns: table::workload::DEPLOYMENT,
        ..namespaced("apps", "v1", "Deployment")
    },
    Kind {
        plural: "replicasets",
        short: &["rs"],
        categories: &["all"],
        status: true,
        scale: Some(&REPLICAS),
        selectable: &["status.replicas"],
        strategy: &replica_set::Strategy,
        columns: table::workload::REPLICA_SET,
        ..namespaced("apps", "v1", "ReplicaSet")
    },
    Kind {
        plural: "statefulsets",
        short: &["sts"],
        categories: &["all"],
        status: true,
        scale: Some(&REPLICAS),
        strategy: &stateful_set::Strategy,
        columns: table::workload::STATEFUL_SET,
        ..namespaced("apps", "v1", "StatefulSet")
    },
    Kind {
        plural: "cronjobs",
        short: &["cj"],
        categories: &["all"],
        status: true,
        strategy: &cron_job::Strategy,
        columns: table::workload::CRON_JOB,
        ..namespaced("batch", "v1", "CronJob")
    },
    Kind {
        plural: "jobs",
        categories: &["all"],
        status: true,
        selectable: &["status.successful"],
        strategy: &job::Strategy,
        columns: table::workload::JOB,
        ..namespaced("batch", "v1", "Job")
    },
    Kind {
        plural: "horizontalpodautoscalers",
        short: &["hpa"],
        categories: &["all"],
        status: true,
        strategy: &horizontal_pod_autoscaler::Strategy,
        columns: table::workload::HORIZONTAL_POD_AUTOSCALER,
        ..namespaced("autoscaling", "v2", "HorizontalPodAutoscaler")
    },
    Kind {
        plural: "horizontalpodautoscalers",
        short: &["hpa"],
        categories: &["all"],
        status: true,
        stored_as: Some("autoscaling/v2"),
        strategy: &horizontal_pod_autoscaler_v1::Strategy,
        columns: table::workload::HORIZONTAL_POD_AUTOSCALER,
        ..namespaced("autoscaling", "v1", "HorizontalPodAutoscaler")
    },
    Kind {
        plural: "poddisruptionbudgets",
        short: &["pdb"],
        status: true,
        strategy: &policy::PodDisruptionBudget,
        columns: table::workload::POD_DISRUPTION_BUDGET,
        needs_version: true,
        ..namespaced("policy", "v1", "PodDisruptionBudget")
    },
    Kind {
        plural: "priorityclasses",
        short: &["pc"],
        strategy: &policy::PriorityClass,
        columns: table::cluster::PRIORITY_CLASS,
        ..cluster("scheduling.k8s.io", "v1", "PriorityClass")
    },
    Kind {
        plural: "runtimeclasses",
        strategy: &policy::RuntimeClass,
        columns: table::cluster::RUNTIME_CLASS,
        created_by_put: true,
        needs_version: true,
        ..cluster("node.k8s.io", "v1", "RuntimeClass")
    },
    // The network.
    Kind {
        plural: "endpointslices",
        strategy: &endpoints::EndpointSlice,
        columns: table::network::ENDPOINT_SLICE,
        ..namespaced("discovery.k8s.io", "v1", "EndpointSlice")
    },
    Kind {
        plural: "ingressclasses",
        strategy: &ingress::IngressClass,
        columns: table::network::INGRESS_CLASS,
        ..cluster("networking.k8s.io", "v1", "IngressClass")
    },
    Kind {
        plural: "ingresses",
        short: &["ing"],
        status: true,
        storage: "ingress",
        strategy: &ingress::Ingress,
        columns: table::network::INGRESS,
        ..namespaced("networking.k8s.io", "v1", "Ingress")
    },
    Kind {
        plural: "ipaddresses",
        short: &["ip"],
        strategy: &address::IpAddress,
        columns: table::network::IP_ADDRESS,
        ..cluster("networking.k8s.io", "v1", "IPAddress")
    },
    Kind {
        plural: "networkpolicies",
        short: &["netpol"],
        strategy: &network_policy::Strategy,
        columns: table::network::NETWORK_POLICY,
        ..namespaced("networking.k8s.io", "v1", "NetworkPolicy")
    },
    Kind {
        plural: "servicecidrs",
        status: true,
        strategy: &address::ServiceCidr,
        columns: table::network::SERVICE_CIDR,
        ..cluster("networking.k8s.io", "v1", "ServiceCIDR")
    },
    // Volumes.
    Kind {
        plural: "csidrivers",
        strategy: &storage::CsiDriver,
        columns: table::storage::CSI_DRIVER,
        needs_version: true,
        returned_when_deleted: true,
        ..cluster("storage.k8s.io", "v1", "CSIDriver")
    },
    Kind {
        plural: "csinodes",
        strategy: &storage::CsiNode,
        columns: table::storage::CSI_NODE,
        needs_version: true,
        returned_when_deleted: true,
        ..cluster("storage.k8s.io", "v1", "CSINode")
    },
    Kind {
        plural: "csistoragecapacities",
        strategy: &storage::CsiStorageCapacity,
        columns: table::storage::CSI_STORAGE_CAPACITY,
        needs_version: true,
        ..namespaced("storage.k8s.io", "v1", "CSIStorageCapacity")
    },
    Kind {
        plural: "storageclasses",
        short: &["sc"],
        strategy: &persistent_volume::StorageClass,
        columns: table::storage::STORAGE_CLASS,
        returned_when_deleted: true,
        ..cluster("storage.k8s.io", "v1", "StorageClass")
    },
    Kind {
        plural: "volumeattachments",
        status: true,
        strategy: &storage::VolumeAttachment,
        columns: table::storage::VOLUME_ATTACHMENT,
        needs_version: true,
        returned_when_deleted: true,
        ..cluster("storage.k8s.io", "v1", "VolumeAttachment")
    },
    Kind {
        plural: "volumeattributesclasses",
        short: &["vac"],
        strategy: &storage::VolumeAttributesClass,
        columns: table::storage::VOLUME_ATTRIBUTES_CLASS,
        returned_when_deleted: true,
        ..cluster("storage.k8s.io", "v1", "VolumeAttributesClass")
    },
    // Devices.
    Kind {
        plural: "deviceclasses",
        strategy: &device::DeviceClass,
        columns: table::device::DEVICE_CLASS,
        ..cluster(DEVICES, "v1", "DeviceClass")
    },
    Kind {
        plural: "devicetaintrules",
        status: true,
        strategy: &device::DeviceTaintRule,
        columns: table::device::DEVICE_CLASS,
        ..cluster(DEVICES, "v1", "DeviceTaintRule")
    },
    Kind {
        plural: "resourceclaims",
        status: true,
        strategy: &device::ResourceClaim,
        columns: table::device::RESOURCE_CLAIM,
        ..namespaced(DEVICES, "v1", "ResourceClaim")
    },
    Kind {
        plural: "resourceclaimtemplates",
        strategy: &device::ResourceClaimTemplate,
        columns: table::device::DEVICE_CLASS,
        ..namespaced(DEVICES, "v1", "ResourceClaimTemplate")
    },
    Kind {
        plural: "resourceslices",
        selectable: &["spec.nodeName", "spec.driver"],
        strategy: &device::ResourceSlice,
        columns: table::device::RESOURCE_SLICE,
        ..cluster(DEVICES, "v1", "ResourceSlice")
    },
    Kind {
        plural: "storageversionmigrations",
        status: true,
        strategy: &plain::StorageVersionMigration,
        needs_version: true,
        ..cluster("storagemigration.k8s.io", "v1", "StorageVersionMigration")
    },
    // What is measured and never stored.
    Kind {
        plural: "nodes",
        verbs: Verbs::Read,
        columns: table::cluster::NODE_METRICS,
        schema: "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics",
        ..cluster("metrics.k8s.io", "v1beta1", "NodeMetrics")
    },
    Kind {
        plural: "pods",
        verbs: Verbs::Read,
        columns: table::cluster::POD_METRICS,
        schema: "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics",
        ..namespaced("metrics.k8s.io", "v1beta1", "PodMetrics")
    },
    // How components agree and what they say.
    Kind {
        plural: "leases",
        strategy: &coordination::Lease,
        columns: table::cluster::LEASE,
        created_by_put: true,
        needs_version: true,
        ..namespaced("coordination.k8s.io", "v1", "Lease")
    },
    Kind {
        plural: "events",
        short: &["ev"],
        stored_as: Some("v1"),
        selectable: &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        strategy: &event::Events,
        columns: table::cluster::EVENTS_EVENT,
        created_by_put: true,
        ..namespaced("events.k8s.io", "v1", "Event")
    },
    // Who is served when.
    Kind {
        plural: "flowschemas",
        status: true,
        strategy: &flow_control::FlowSchema,
        columns: table::flow_control::FLOW_SCHEMA,
        ..cluster("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema")
    },
    Kind {
        plural: "prioritylevelconfigurations",
        status: true,
        strategy: &flow_control::PriorityLevel,
        columns: table::flow_control::PRIORITY_LEVEL,
        ..cluster("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration")
    },
    // Who may do what.
    Kind {
        plural: "clusterrolebindings",
        strategy: &rbac::RoleBinding,
        columns: table::cluster::ROLE_BINDING,
        created_by_put: true,
        ..cluster(RBAC, "v1", "ClusterRoleBinding")
    },
    Kind {
        plural: "clusterroles",
        strategy: &rbac::Role,
        created_by_put: true,
        ..cluster(RBAC, "v1", "ClusterRole")
    },
    Kind {
        plural: "rolebindings",
        strategy: &rbac::RoleBinding,
        columns: table::cluster::ROLE_BINDING,
        created_by_put: true,
        ..namespaced(RBAC, "v1", "RoleBinding")
    },
    Kind { plural: "roles", strategy: &rbac::Role, created_by_put: true, ..namespaced(RBAC, "v1", "Role") },
    Kind {
        plural: "certificatesigningrequests",
        short: &["csr"],
        status: true,
        subresources: &["approval"],
        selectable: &["spec.signerName"],
        strategy: &certificate_signing_request::Strategy,
        columns: table::cluster::CERTIFICATE_SIGNING_REQUEST,
        ..cluster("certificates.k8s.io", "v1", "CertificateSigningRequest")
    },
    Kind {
        plural: "clustertrustbundles",
        selectable: &["spec.signerName"],
        strategy: &certificates::ClusterTrustBundle,
        columns: table::device::CLUSTER_TRUST_BUNDLE,
        needs_version: true,
        ..cluster("certificates.k8s.io", "v1", "ClusterTrustBundle")
    },
    Kind {
        plural: "podcertificaterequests",
        status: true,
        selectable: &["spec.signerName", "spec.podName", "spec.nodeName"],
        strategy: &certificates::PodCertificateRequest,
        columns: table::device::POD_CERTIFICATE_REQUEST,
        needs_version: true,
        ..namespaced("certificates.k8s.io", "v1", "PodCertificateRequest")
    },
    Kind {
        plural: "customresourcedefinitions",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        status: true,
        strategy: &custom_resource_definition::Strategy,
        storage: "apiextensions.k8s.io/customresourcedefinitions",
        schema: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        needs_version: true,
        ..cluster("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    },
    Kind {
        plural: "mutatingadmissionpolicies",
        categories: &["api-extensions"],
        strategy: &admission_policy::Mutating,
        columns: table::cluster::MUTATING_POLICY,
        needs_version: true,
        ..cluster("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy")
    },
    Kind {
        plural: "mutatingadmissionpolicybindings",
        categories: &["api-extensions"],
        strategy: &admission_policy::MutatingBinding,
        columns: table::cluster::MUTATING_POLICY_BINDING,
        needs_version: true,
        ..cluster("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicyBinding")
    },
    Kind {
        plural: "mutatingwebhookconfigurations",
        categories: &["api-extensions"],
        strategy: &webhook_configuration::Mutating,
        columns: table::cluster::WEBHOOK_CONFIGURATION,
        needs_version: true,
        ..cluster("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration")
    },
    Kind {
        plural: "validatingadmissionpolicies",
        categories: &["api-extensions"],
        status: true,
        strategy: &admission_policy::Validating,
        columns: table::cluster::VALIDATING_POLICY,
        needs_version: true,
        ..cluster("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy")
    },
    Kind {
        plural: "validatingadmissionpolicybindings",
        categories: &["api-extensions"],
        strategy: &admission_policy::ValidatingBinding,
        columns: table::cluster::VALIDATING_POLICY_BINDING,
        needs_version: true,
        ..cluster("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding")
    },
    Kind {
        plural: "validatingwebhookconfigurations",
        categories: &["api-extensions"],
        strategy: &webhook_configuration::Validating,
        columns: table::cluster::WEBHOOK_CONFIGURATION,
        needs_version: true,
        ..cluster("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration")
    },
    Kind {
        plural: "apiservices",
        categories: &["api-extensions"],
        status: true,
        strategy: &api_service::Strategy,
        columns: table::cluster::API_SERVICE,
        storage: "apiregistration.k8s.io/apiservices",
        schema: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
        needs_version: true,
        ..cluster("apiregistration.k8s.io", "v1", "APIService")
    },
    review("selfsubjectreviews", cluster("authentication.k8s.io", "v1", "SelfSubjectReview")),
    review("tokenreviews", cluster("authentication.k8s.io", "v1", "TokenReview")),
    review("localsubjectaccessreviews", namespaced("authorization.k8s.io", "v1", "LocalSubjectAccessReview")),
    review("selfsubjectaccessreviews", cluster("authorization.k8s.io", "v1", "SelfSubjectAccessReview")),
    review("selfsubjectrulesreviews", cluster("authorization.k8s.io", "v1", "SelfSubjectRulesReview")),
    review("subjectaccessreviews", cluster("authorization.k8s.io", "v1", "SubjectAccessReview")),
];

const fn namespaced(group: &'static str, version: &'static str, kind: &'static str) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural: "",
        singular: "",
        short: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verbs::All,
        status: false,
        scale: None,
        subresources: &[],
        storage: "",
        stored_as: None,
        strategy: &Plain,
        columns: table::CREATED_AT,
        selectable: &[],
        deprecation: "",
        created_by_put: false,
        needs_version: false,
        returned_when_deleted: false,
        schema: "",
        custom: None,
    }
}

const fn cluster(group: &'static str, version: &'static str, kind: &'static str) -> Kind {
    Kind { scope: Scope::Cluster, ..namespaced(group, version, kind) }
}

/// What the `scale` subresource of any kind is an object of; no client lists them.
pub static SCALE: Kind = Kind {
    columns: table::workload::SCALE,
    schema: "io.k8s.api.autoscaling.v1.Scale",
    ..namespaced("autoscaling", "v1", "Scale")
};

/// What is sent to a pod's `eviction`.
pub static EVICTION: Kind =
    Kind { schema: "io.k8s.api.policy.v1.Eviction", ..namespaced("policy", "v1", "Eviction") };

/// What is sent to a service account's `token`.
pub static TOKEN_REQUEST: Kind = Kind {
    schema: "io.k8s.api.authentication.v1.TokenRequest",
    ..namespaced("authentication.k8s.io", "v1", "TokenRequest")
};

/// A question that is answered and never stored.
const fn review(plural: &'static str, row: Kind) -> Kind {
    Kind { plural, verbs: Verbs::Create, ..row }
}
