//! What users are told about images: which ones the node has, and why one cannot be had.

use e2e::{Cluster, cluster::IMAGE, eventually};

fn pod(name: &str, image: &str, policy: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers: [{{name: c, image: \"{image}\", imagePullPolicy: {policy}, command: [sleep, \"1000\"]}}]\n"
    )
}

#[test]
fn a_pod_without_its_image_says_why_and_the_node_lists_what_it_has() {
    let cluster = Cluster::start();
    cluster.apply(&pod("never", "coracle.test/none:1", "Never"));
    cluster.apply(&pod("wrong", "Not An Image", "IfNotPresent"));
    // Nobody listens there.
    cluster.apply(&pod("unreachable", "127.0.0.1:9/none:1", "IfNotPresent"));
    cluster.apply(&pod("local", IMAGE, "IfNotPresent"));
    let reason = "{.status.containerStatuses[0].state.waiting.reason}";
    cluster.wait_for("pod never", reason, "ErrImageNeverPull");
    cluster.wait_for("pod wrong", reason, "InvalidImageName");
    cluster.wait_for("pod unreachable", reason, "ImagePullBackOff");
    cluster.wait_for("pod local", "{.status.phase}", "Running");
    let wanted = [
        "Container image \"coracle.test/none:1\" is not present with pull policy of Never",
        "Failed to apply default image tag \"Not An Image\"",
        "Pulling image \"127.0.0.1:9/none:1\"",
        "Failed to pull image \"127.0.0.1:9/none:1\"",
        "Error: ErrImagePull",
        "Back-off pulling image \"127.0.0.1:9/none:1\"",
        "Error: ImagePullBackOff",
        "Container image \"busybox:1.35\" already present on machine",
    ];
    eventually("all of it is told", || {
        let events = cluster.kubectl("get events").out;
        let missing: Vec<_> = wanted.iter().filter(|text| !events.contains(**text)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} of\n{events}")) }
    });
    eventually("the node lists its image", || {
        let images = cluster.get("nodes")["items"][0]["status"]["images"].to_string();
        if images.contains("busybox:1.35") && images.contains("sizeBytes") { Ok(()) } else { Err(images) }
    });
}
