//! Upstream's bootstrap roles as data: lists are words in one text, `core` is the core group.

/// A role and what it allows.
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) rules: &'static [Grant],
}

/// One rule: verbs, groups, resources and names, or verbs and paths.
pub(super) struct Grant {
    pub(super) verbs: &'static str,
    pub(super) groups: &'static str,
    pub(super) resources: &'static str,
    pub(super) names: &'static str,
    pub(super) urls: &'static str,
}

pub(super) const fn allow(verbs: &'static str, groups: &'static str, resources: &'static str) -> Grant {
    Grant { verbs, groups, resources, names: "", urls: "" }
}

pub(super) const fn allow_named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> Grant {
    Grant { verbs, groups, resources, names, urls: "" }
}

const fn allow_paths(verbs: &'static str, urls: &'static str) -> Grant {
    Grant { verbs, groups: "", resources: "", names: "", urls }
}

pub(super) const READ: &str = "get list watch";
pub(super) const WRITE: &str = "create delete deletecollection patch update";
pub(super) const EVENTS: Grant = allow("create patch update", "core events.k8s.io", "events");
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// The roles that gather the rules of others: each with the label that it gathers, and the one that it carries.
pub(super) const AGGREGATED: &[(&str, &str, Option<&str>)] = &[
    ("admin", "rbac.authorization.k8s.io/aggregate-to-admin", None),
    (
        "edit",
        "rbac.authorization.k8s.io/aggregate-to-edit",
        Some("rbac.authorization.k8s.io/aggregate-to-admin"),
    ),
    (
        "view",
        "rbac.authorization.k8s.io/aggregate-to-view",
        Some("rbac.authorization.k8s.io/aggregate-to-edit"),
    ),
];

/// Gathered by all three of them.
pub(super) const AGGREGATED_METRICS: &str = "system:aggregated-metrics-reader";

/// Roles for people and for components; see `controllers` for the controllers' own.
pub(super) const CLUSTER_ROLES: &[Role] = &[
    Role { name: "cluster-admin", rules: &[allow("*", "*", "*"), allow_paths("*", "*")] },
    Role {
        name: "system:discovery",
        rules: &[allow_paths(
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        )],
    },
    Role {
        name: "system:public-info-viewer",
        rules: &[allow_paths("get", "/healthz /livez /readyz /version /version/")],
    },
    Role {
        name: "system:monitoring",
        rules: &[allow_paths(
            "get",
            "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*",
        )],
    },
    Role {
        name: "system:basic-user",
        rules: &[
            allow("create", AUTHORIZATION, "selfsubjectaccessreviews selfsubjectrulesreviews"),
            allow("create", AUTHENTICATION, "selfsubjectreviews"),
        ],
    },
    Role {
        name: "system:service-account-issuer-discovery",
        rules: &[allow_paths(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    },
    Role {
        name: "system:aggregate-to-admin",
        rules: &[
            allow("create", AUTHORIZATION, "localsubjectaccessreviews"),
            allow("create delete deletecollection get list patch update watch", RBAC, "rolebindings roles"),
        ],
    },
    Role {
        name: "system:aggregate-to-edit",
        rules: &[
            allow(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
            allow("impersonate", "core", "serviceaccounts"),
            allow(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
            allow("create", "core", "pods/eviction"),
            allow(
                WRITE,
                "core",
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
                 serviceaccounts services services/proxy",
            ),
            allow("create", "core", "serviceaccounts/token"),
            allow(
                WRITE,
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets \
                 statefulsets/scale",
            ),
            allow(WRITE, "autoscaling", "horizontalpodautoscalers"),
            allow(WRITE, "batch", "cronjobs jobs"),
            allow(
                WRITE,
                "extensions",
                "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
                 replicasets/scale replicationcontrollers/scale",
            ),
            allow(WRITE, "policy", "poddisruptionbudgets"),
            allow(WRITE, NETWORKING, "ingresses networkpolicies"),
            allow("create delete deletecollection get list patch update watch", COORDINATION, "leases"),
            allow(WRITE, RESOURCE, "resourceclaims resourceclaimtemplates"),
        ],
    },
    Role {
        name: "system:aggregate-to-view",
        rules: &[
            allow(
                READ,
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
                 replicationcontrollers/scale serviceaccounts services services/status",
            ),
            allow(
                READ,
                "core",
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
                 resourcequotas resourcequotas/status",
            ),
            allow(READ, "core", "namespaces"),
            allow(READ, DISCOVERY, "endpointslices"),
            allow(
                READ,
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status \
                 replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            ),
            allow(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            allow(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            allow(
                READ,
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses \
                 ingresses/status networkpolicies replicasets replicasets/scale replicasets/status \
                 replicationcontrollers/scale",
            ),
            allow(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            allow(READ, NETWORKING, "ingresses ingresses/status networkpolicies"),
            allow(READ, RESOURCE, "resourceclaims resourceclaims/status resourceclaimtemplates"),
        ],
    },
    // metrics-server's own, for what is measured here without it.
    Role { name: AGGREGATED_METRICS, rules: &[allow(READ, "metrics.k8s.io", "nodes pods")] },
    Role {
        name: "system:heapster",
        rules: &[
            allow(READ, "core", "events namespaces nodes pods"),
            allow(READ, "extensions", "deployments"),
        ],
    },
    Role { name: "system:node", rules: NODE_RULES },
    Role {
        name: "system:node-problem-detector",
        rules: &[allow("get", "core", "nodes"), allow("patch", "core", "nodes/status"), EVENTS],
    },
    Role {
        name: "system:node-proxier",
        rules: &[
            allow("list watch", "core", "endpoints services"),
            allow(READ, "core", "nodes"),
            EVENTS,
            allow("list watch", DISCOVERY, "endpointslices"),
            allow("list watch", NETWORKING, "servicecidrs"),
        ],
    },
    Role {
        name: "system:node-bootstrapper",
        rules: &[allow("create get list watch", CERTIFICATES, "certificatesigningrequests")],
    },
    Role {
        name: "system:kubelet-api-admin",
        rules: &[
            allow(READ, "core", "nodes"),
            allow("proxy", "core", "nodes"),
            allow("*", "core", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
            allow("*", "core", "nodes/configz nodes/healthz nodes/pods"),
        ],
    },
    Role {
        name: "system:auth-delegator",
        rules: &[
            allow("create", AUTHENTICATION, "tokenreviews"),
            allow("create", AUTHORIZATION, "subjectaccessreviews"),
        ],
    },
    Role { name: "system:kube-aggregator", rules: &[allow(READ, "core", "endpoints services")] },
    Role {
        name: "system:kube-controller-manager",
        rules: &[
            EVENTS,
            allow("create", COORDINATION, "leases"),
            allow_named("get update", COORDINATION, "leases", "kube-controller-manager"),
            allow("create", "core", "secrets serviceaccounts"),
            allow("delete", "core", "secrets"),
            allow("get", "core", "configmaps namespaces secrets serviceaccounts"),
            allow("update", "core", "secrets serviceaccounts"),
            allow("create", AUTHENTICATION, "tokenreviews"),
            allow("create", AUTHORIZATION, "subjectaccessreviews"),
            allow("list watch", "*", "*"),
            allow("create", "core", "serviceaccounts/token"),
        ],
    },
    Role { name: "system:kube-dns", rules: &[allow("list watch", "core", "endpoints services")] },
    Role {
        // The embedded DNS server, which reads EndpointSlices and pods, as CoreDNS does with a role of its own, and
        // from its Node where it listens.
        name: "system:coracle:dns",
        rules: &[
            allow("list watch", "core", "namespaces nodes pods services"),
            allow("list watch", DISCOVERY, "endpointslices"),
        ],
    },
    Role {
        name: "system:cluster-trust-bundle-discovery",
        rules: &[allow(READ, CERTIFICATES, "clustertrustbundles")],
    },
    Role {
        name: "system:kube-scheduler",
        rules: &[
            EVENTS,
            allow("create", COORDINATION, "leases"),
            allow_named("get list update watch", COORDINATION, "leases", "kube-scheduler"),
            allow(
                "create delete deletecollection get list patch update watch",
                COORDINATION,
                "leasecandidates",
            ),
            allow(READ, "core", "nodes"),
            allow("delete get list watch", "core", "pods"),
            allow("create", "core", "bindings pods/binding"),
            allow("patch update", "core", "pods/status"),
            allow(READ, "core", "replicationcontrollers services"),
            allow(READ, "apps extensions", "replicasets"),
            allow(READ, "apps", "statefulsets"),
            allow(READ, "policy", "poddisruptionbudgets"),
            allow(READ, "core", "persistentvolumeclaims persistentvolumes"),
            allow("create", AUTHENTICATION, "tokenreviews"),
            allow("create", AUTHORIZATION, "subjectaccessreviews"),
            allow(READ, STORAGE, "csinodes"),
            allow(READ, STORAGE, "volumeattachments"),
            allow(READ, "core", "namespaces"),
            allow(READ, STORAGE, "csidrivers"),
            allow(READ, STORAGE, "csistoragecapacities"),
            allow(READ, RESOURCE, "deviceclasses"),
            allow("get list patch update watch", RESOURCE, "resourceclaims"),
            allow("get list patch update watch", RESOURCE, "resourceclaims/status"),
            allow("get list patch update watch", "core", "pods/finalizers"),
            allow(READ, RESOURCE, "resourceslices"),
        ],
    },
    Role {
        name: "system:volume-scheduler",
        rules: &[
            allow("get list patch update watch", "core", "persistentvolumes"),
            allow(READ, STORAGE, "storageclasses"),
            allow("get list patch update watch", "core", "persistentvolumeclaims"),
        ],
    },
    Role {
        name: "system:persistent-volume-provisioner",
        rules: &[
            allow("create delete get list watch", "core", "persistentvolumes"),
            allow("get list update watch", "core", "persistentvolumeclaims"),
            allow(READ, STORAGE, "storageclasses"),
            allow("watch", "core", "events"),
            EVENTS,
        ],
    },
    Role {
        name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        rules: &[allow("create", CERTIFICATES, "certificatesigningrequests/nodeclient")],
    },
    Role {
        name: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        rules: &[allow("create", CERTIFICATES, "certificatesigningrequests/selfnodeclient")],
    },
    Role {
        name: "system:certificates.k8s.io:legacy-unknown-approver",
        rules: &[allow_named("approve", CERTIFICATES, "signers", "kubernetes.io/legacy-unknown")],
    },
    Role {
        name: "system:certificates.k8s.io:kubelet-serving-approver",
        rules: &[allow_named("approve", CERTIFICATES, "signers", "kubernetes.io/kubelet-serving")],
    },
    Role {
        name: "system:certificates.k8s.io:kube-apiserver-client-approver",
        rules: &[allow_named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client")],
    },
    Role {
        name: "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        rules: &[allow_named(
            "approve",
            CERTIFICATES,
            "signers",
            "kubernetes.io/kube-apiserver-client-kubelet",
        )],
    },
];

/// What a kubelet may do beyond what the Node authorizer decides by itself.
pub(crate) const NODE_RULES: &[Grant] = &[
    allow("create", AUTHENTICATION, "tokenreviews"),
    allow("create", AUTHORIZATION, "localsubjectaccessreviews subjectaccessreviews"),
    allow(READ, "core", "services"),
    allow("create get list watch", "core", "nodes"),
    allow("patch update", "core", "nodes/status"),
    allow("patch update", "core", "nodes"),
    allow("create patch update", "core", "events"),
    allow(READ, "core", "pods"),
    allow("create delete", "core", "pods"),
    allow("patch update", "core", "pods/status"),
    allow("create", "core", "pods/eviction"),
    allow(READ, "core", "configmaps secrets"),
    allow("get", "core", "persistentvolumeclaims persistentvolumes"),
    allow("get", "core", "endpoints"),
    allow("create get list watch", CERTIFICATES, "certificatesigningrequests"),
    allow("create delete get patch update", COORDINATION, "leases"),
    allow("get", STORAGE, "volumeattachments"),
    allow("get patch update", "core", "persistentvolumeclaims/status"),
    allow("create", "core", "serviceaccounts/token"),
    allow(READ, STORAGE, "csidrivers"),
    allow("create delete get patch update", STORAGE, "csinodes"),
    allow(READ, "node.k8s.io", "runtimeclasses"),
    allow("get", RESOURCE, "resourceclaims"),
    allow("deletecollection", RESOURCE, "resourceslices"),
    allow(READ, CERTIFICATES, "clustertrustbundles"),
    allow("get", "core", "serviceaccounts"),
];

/// Cluster-wide bindings of a role to the role's own users and groups.
pub(super) const CLUSTER_BINDINGS: &[(&str, &[Subject])] = &[
    ("cluster-admin", &[Subject::Group("system:masters")]),
    ("system:monitoring", &[Subject::Group("system:monitoring")]),
    ("system:discovery", &[Subject::Group("system:authenticated")]),
    ("system:basic-user", &[Subject::Group("system:authenticated")]),
    (
        "system:public-info-viewer",
        &[Subject::Group("system:authenticated"), Subject::Group("system:unauthenticated")],
    ),
    ("system:node-proxier", &[Subject::User("system:kube-proxy")]),
    ("system:kube-controller-manager", &[Subject::User("system:kube-controller-manager")]),
    ("system:kube-dns", &[Subject::ServiceAccount("kube-system", "kube-dns")]),
    ("system:coracle:dns", &[Subject::User("system:coracle:dns")]),
    ("system:cluster-trust-bundle-discovery", &[Subject::Group("system:serviceaccounts")]),
    ("system:kube-scheduler", &[Subject::User("system:kube-scheduler")]),
    ("system:volume-scheduler", &[Subject::User("system:kube-scheduler")]),
    ("system:node", &[]),
    ("system:service-account-issuer-discovery", &[Subject::Group("system:serviceaccounts")]),
];

/// Whom a role is bound to.
#[derive(Clone, Copy)]
pub(super) enum Subject {
    User(&'static str),
    Group(&'static str),
    ServiceAccount(&'static str, &'static str),
}

/// Roles within one namespace.
pub(super) const NAMESPACED_ROLES: &[(&str, Role)] = &[
    (
        "kube-system",
        Role {
            name: "extension-apiserver-authentication-reader",
            rules: &[allow_named(READ, "core", "configmaps", "extension-apiserver-authentication")],
        },
    ),
    (
        "kube-system",
        Role { name: "system:controller:bootstrap-signer", rules: &[allow(READ, "core", "secrets")] },
    ),
    (
        "kube-system",
        Role {
            name: "system:controller:cloud-provider",
            rules: &[allow("create get list watch", "core", "configmaps")],
        },
    ),
    (
        "kube-system",
        Role {
            name: "system:controller:token-cleaner",
            rules: &[allow("delete get list watch", "core", "secrets"), EVENTS],
        },
    ),
    (
        "kube-system",
        Role {
            name: "system::leader-locking-kube-controller-manager",
            rules: &[
                allow("create get list update watch", COORDINATION, "leases"),
                allow("create get list update watch", COORDINATION, "leasecandidates"),
            ],
        },
    ),
    (
        // The embedded DNS server publishes itself as the Service `kube-dns`.
        "kube-system",
        Role {
            name: "system:coracle:dns",
            rules: &[
                allow("create", "core", "services"),
                allow("create delete", DISCOVERY, "endpointslices"),
            ],
        },
    ),
    (
        "kube-system",
        Role {
            name: "system::leader-locking-kube-scheduler",
            rules: &[
                allow("create get list update watch", COORDINATION, "leases"),
                allow("create get list update watch", COORDINATION, "leasecandidates"),
            ],
        },
    ),
    // What kubeadm's own set-up adds, for nodes that join.
    (
        "kube-public",
        Role {
            name: "kubeadm:bootstrap-signer-clusterinfo",
            rules: &[allow_named("get", "core", "configmaps", "cluster-info")],
        },
    ),
    (
        "kube-public",
        Role {
            name: "system:controller:bootstrap-signer",
            rules: &[
                allow(READ, "core", "configmaps"),
                allow_named("update", "core", "configmaps", "cluster-info"),
                EVENTS,
            ],
        },
    ),
];

/// Bindings of these: namespace, binding, role, subjects.
pub(super) const NAMESPACED_BINDINGS: &[(&str, &str, &str, &[Subject])] = &[
    (
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &[Subject::User("system:kube-controller-manager"), Subject::User("system:kube-scheduler")],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &[
            Subject::User("system:kube-controller-manager"),
            Subject::ServiceAccount("kube-system", "kube-controller-manager"),
        ],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &[Subject::User("system:kube-scheduler"), Subject::ServiceAccount("kube-system", "kube-scheduler")],
    ),
    ("kube-system", "system:coracle:dns", "system:coracle:dns", &[Subject::User("system:coracle:dns")]),
    (
        "kube-system",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &[Subject::ServiceAccount("kube-system", "bootstrap-signer")],
    ),
    (
        "kube-system",
        "system:controller:cloud-provider",
        "system:controller:cloud-provider",
        &[Subject::ServiceAccount("kube-system", "cloud-provider")],
    ),
    (
        "kube-system",
        "system:controller:token-cleaner",
        "system:controller:token-cleaner",
        &[Subject::ServiceAccount("kube-system", "token-cleaner")],
    ),
    (
        "kube-public",
        "kubeadm:bootstrap-signer-clusterinfo",
        "kubeadm:bootstrap-signer-clusterinfo",
        &[Subject::User("system:anonymous")],
    ),
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &[Subject::ServiceAccount("kube-system", "bootstrap-signer")],
    ),
];
