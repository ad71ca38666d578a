//! The labels and annotations by which pods are found again in the runtime; upstream's names, so that crictl
//! and log collectors read them.

/// The pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The hash of the spec that a container was made from.
pub const HASH: &str = "io.kubernetes.container.hash";
/// How many containers of its name came before it.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Where in the container it leaves its last words.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Whether its log may stand in for them.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The pod's grace period, for a kubelet that finds the container without its pod.
pub const POD_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// The image as the spec names it.
pub const IMAGE: &str = "io.coracle.container.image";
/// The directory of the kubelet that keeps the pod, by which it is told from those of others at the same runtime.
pub const KUBELET: &str = "io.coracle.kubelet.root";
/// What the container was made with.
pub const RESOURCES: &str = "io.coracle.container.resources";
