//! The controllers' own roles; each is called `system:controller:NAME` and bound to `kube-system/NAME`.

use super::roles::{EVENTS, Grant, READ, allow, allow_named};

const READ_DELETE: &str = "delete get list watch";
const READ_UPDATE: &str = "get list update watch";

/// Name and rules of every controller.
pub(super) const CONTROLLERS: &[(&str, &[Grant])] = &[
    (
        "attachdetach-controller",
        &[
            allow("list watch", "core", "persistentvolumeclaims persistentvolumes"),
            allow(READ, "core", "nodes"),
            allow("patch update", "core", "nodes/status"),
            allow("list watch", "core", "pods"),
            EVENTS,
            allow("create delete get list watch", "storage.k8s.io", "volumeattachments"),
            allow(READ, "storage.k8s.io", "csidrivers"),
            allow(READ, "storage.k8s.io", "csinodes"),
        ],
    ),
    (
        "certificate-controller",
        &[
            allow(READ_DELETE, "certificates.k8s.io", "certificatesigningrequests"),
            allow(
                "patch update",
                "certificates.k8s.io",
                "certificatesigningrequests/approval certificatesigningrequests/status",
            ),
            allow_named(
                "approve",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client-kubelet",
            ),
            allow_named(
                "sign",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet \
                 kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
            ),
            allow("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[allow("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles")],
    ),
    (
        "cronjob-controller",
        &[
            allow(READ_UPDATE, "batch", "cronjobs"),
            allow("create delete get list patch update watch", "batch", "jobs"),
            allow("update", "batch", "cronjobs/status"),
            allow("update", "batch", "cronjobs/finalizers"),
            allow("delete list watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            allow(READ, "apps extensions", "daemonsets"),
            allow("update", "apps extensions", "daemonsets/status"),
            allow("update", "apps extensions", "daemonsets/finalizers"),
            allow("list watch", "core", "nodes"),
            allow("create delete list patch watch", "core", "pods"),
            allow("create", "core", "pods/binding"),
            allow("create delete get list patch update watch", "apps", "controllerrevisions"),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            // Ours patches where upstream's updates, here and below.
            allow("get list patch update watch", "apps extensions", "deployments"),
            allow("patch update", "apps extensions", "deployments/status"),
            allow("update", "apps extensions", "deployments/finalizers"),
            allow("create delete get list patch update watch", "apps extensions", "replicasets"),
            allow(READ_UPDATE, "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "device-taint-eviction-controller",
        &[
            allow(READ_DELETE, "core", "pods"),
            allow("patch update", "core", "pods/status"),
            allow(READ, "resource.k8s.io", "resourceclaims"),
            allow(READ, "resource.k8s.io", "resourceslices"),
            allow(READ, "resource.k8s.io", "deviceclasses"),
            allow(READ, "resource.k8s.io", "devicetaintrules"),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            allow(READ, "apps extensions", "deployments"),
            allow(READ, "apps extensions", "replicasets"),
            allow(READ, "core", "replicationcontrollers"),
            allow(READ, "policy", "poddisruptionbudgets"),
            allow(READ, "apps", "statefulsets"),
            allow("update", "policy", "poddisruptionbudgets/status"),
            allow("patch update", "core", "pods/status"),
            allow("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            allow(READ, "core", "pods services"),
            allow("create delete get list update watch", "core", "endpoints"),
            allow("create", "core", "endpoints/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            allow(READ, "core", "nodes pods services"),
            allow("update", "core", "services/finalizers"),
            allow("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            allow(READ, "core", "endpoints services"),
            allow("update", "core", "services/finalizers"),
            allow("update", "core", "endpoints/finalizers"),
            allow("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            allow(READ, "core", "pods"),
            allow("update", "core", "pods/finalizers"),
            allow("create get list watch", "core", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            allow("get list patch update watch", "core", "persistentvolumes"),
            allow("patch update", "core", "persistentvolumeclaims/status"),
            allow(READ, "core", "persistentvolumeclaims"),
            EVENTS,
            allow("get", "core", "services"),
        ],
    ),
    ("generic-garbage-collector", &[allow("delete get list patch update watch", "*", "*"), EVENTS]),
    (
        "horizontal-pod-autoscaler",
        &[
            allow(READ, "autoscaling", "horizontalpodautoscalers"),
            allow("update", "autoscaling", "horizontalpodautoscalers/status"),
            allow("get update", "*", "*/scale"),
            allow("list watch", "core", "pods"),
            allow("list watch", "metrics.k8s.io", "pods"),
            allow(READ, "custom.metrics.k8s.io", "*"),
            allow(READ, "external.metrics.k8s.io", "*"),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            allow("get list patch update watch", "batch", "jobs"),
            allow("update", "batch", "jobs/status"),
            allow("update", "batch", "jobs/finalizers"),
            allow("create delete list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "legacy-service-account-token-cleaner",
        &[
            allow_named("get", "core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
            allow("delete patch", "core", "secrets"),
        ],
    ),
    (
        "namespace-controller",
        &[
            allow(READ_DELETE, "core", "namespaces"),
            allow("patch update", "core", "namespaces/finalize namespaces/status"),
            allow("delete deletecollection get list watch", "*", "*"),
        ],
    ),
    (
        "node-controller",
        &[
            allow("delete get list patch update watch", "core", "nodes"),
            allow("patch update", "core", "nodes/status"),
            allow("patch update", "core", "pods/status"),
            allow(READ_DELETE, "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            allow("create delete get list update watch", "core", "persistentvolumes"),
            allow("update", "core", "persistentvolumes/status"),
            allow(READ_UPDATE, "core", "persistentvolumeclaims"),
            allow("update", "core", "persistentvolumeclaims/status"),
            allow("create delete get list watch", "core", "pods"),
            allow(READ, "storage.k8s.io", "storageclasses"),
            allow("list watch", "core", "nodes"),
            EVENTS,
            allow("watch", "core", "events"),
            allow("get", "core", "services"),
        ],
    ),
    ("podcertificaterequestcleaner", &[allow(READ_DELETE, "certificates.k8s.io", "podcertificaterequests")]),
    (
        "pod-garbage-collector",
        &[
            allow("delete list watch", "core", "pods"),
            allow(READ, "core", "nodes"),
            allow("patch", "core", "pods/status"),
        ],
    ),
    (
        "pv-protection-controller",
        &[allow("get list patch update watch", "core", "persistentvolumes"), EVENTS],
    ),
    (
        "pvc-protection-controller",
        &[
            allow("get list patch update watch", "core", "persistentvolumeclaims"),
            allow(READ, "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "replicaset-controller",
        &[
            allow(READ_UPDATE, "apps extensions", "replicasets"),
            allow("update", "apps extensions", "replicasets/status"),
            allow("update", "apps extensions", "replicasets/finalizers"),
            allow("create delete list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            allow(READ_UPDATE, "core", "replicationcontrollers"),
            allow("update", "core", "replicationcontrollers/status"),
            allow("update", "core", "replicationcontrollers/finalizers"),
            allow("create delete list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            allow(READ, "core", "pods"),
            allow("update", "core", "pods/finalizers"),
            allow("create delete get list watch", "resource.k8s.io", "resourceclaims"),
            allow("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status"),
            allow("patch update", "core", "pods/status"),
            EVENTS,
            allow("patch update", "resource.k8s.io", "resourceclaims/binding"),
        ],
    ),
    (
        "resourcequota-controller",
        &[allow("list watch", "*", "*"), allow("update", "core", "resourcequotas/status"), EVENTS],
    ),
    (
        "kube-apiserver-serving-clustertrustbundle-publisher",
        &[
            allow_named("attest", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-serving"),
            allow("create delete list update watch", "certificates.k8s.io", "clustertrustbundles"),
            EVENTS,
        ],
    ),
    (
        "storage-version-migrator-controller",
        &[
            allow("create list patch watch", "*", "*"),
            allow("update", "storagemigration.k8s.io", "storageversionmigrations/status"),
        ],
    ),
    ("root-ca-cert-publisher", &[allow("create update", "core", "configmaps"), EVENTS]),
    (
        "route-controller",
        &[allow("list watch", "core", "nodes"), allow("patch", "core", "nodes/status"), EVENTS],
    ),
    (
        "selinux-warning-controller",
        &[
            EVENTS,
            allow(READ, "core", "persistentvolumes"),
            allow(READ, "core", "persistentvolumeclaims"),
            allow(READ, "core", "pods"),
            allow(READ, "storage.k8s.io", "csidrivers"),
        ],
    ),
    ("service-account-controller", &[allow("create", "core", "serviceaccounts"), EVENTS]),
    (
        "service-cidrs-controller",
        &[
            allow("get list patch update watch", "networking.k8s.io", "servicecidrs"),
            allow("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
            allow("patch update", "networking.k8s.io", "servicecidrs/status"),
            allow(READ, "networking.k8s.io", "ipaddresses"),
            EVENTS,
        ],
    ),
    (
        "service-controller",
        &[
            allow(READ, "core", "services"),
            allow("patch update", "core", "services/status"),
            allow("list watch", "core", "nodes"),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            allow("list watch", "core", "pods"),
            allow(READ, "apps", "statefulsets"),
            allow("update", "apps", "statefulsets/status"),
            allow("update", "apps", "statefulsets/finalizers"),
            allow("create delete get patch update", "core", "pods"),
            allow("create delete get list patch update watch", "apps", "controllerrevisions"),
            allow("create get list watch", "core", "persistentvolumeclaims"),
            allow("delete update", "core", "persistentvolumeclaims"),
            allow("update", "core", "pods/finalizers"),
            EVENTS,
        ],
    ),
    ("ttl-after-finished-controller", &[allow(READ_DELETE, "batch", "jobs"), EVENTS]),
    ("ttl-controller", &[allow("list patch update watch", "core", "nodes"), EVENTS]),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            allow(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
            allow("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
            EVENTS,
        ],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            allow(READ, "core", "persistentvolumeclaims"),
            allow(READ, "core", "persistentvolumes"),
            allow(READ_UPDATE, "storage.k8s.io", "volumeattributesclasses"),
            EVENTS,
        ],
    ),
];
