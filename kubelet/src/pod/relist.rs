//! Finds out what has happened to containers where the runtime does not tell, as containerd before 1.7.
//!
//! One list of all sandboxes and one of all containers a second, as upstream's: whoever differs from the list
//! before is told of, in the same words that a runtime would use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cri::v1::{
    Container, ContainerEventResponse, ListContainersRequest, ListPodSandboxRequest, PodSandbox,
    PodSandboxMetadata, PodSandboxStatus,
};
use cri::{Error, EventStream, RuntimeService};
use futures::StreamExt;

use crate::container::labels;

/// How often everything is listed.
const PERIOD: Duration = Duration::from_secs(1);

/// The state of every sandbox and container, by the uid of its pod.
type Seen = BTreeMap<String, BTreeSet<(String, i32)>>;

/// A stream like the runtime's own. It ends with the first list that fails.
pub(super) fn events(runtime: Arc<dyn RuntimeService>) -> EventStream {
    let first = (runtime, Seen::new(), VecDeque::new());
    let events = futures::stream::unfold(first, |(runtime, mut seen, mut waiting)| async move {
        loop {
            if let Some(uid) = waiting.pop_front() {
                return Some((Ok(about(uid)), (runtime, seen, waiting)));
            }
            tokio::time::sleep(PERIOD).await;
            match list(&*runtime).await {
                Ok(now) => {
                    waiting.extend(moved(&seen, &now));
                    seen = now;
                }
                Err(error) => return Some((Err(error), (runtime, seen, waiting))),
            }
        }
    });
    events.boxed()
}

async fn list(runtime: &dyn RuntimeService) -> Result<Seen, Error> {
    let sandboxes = runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await?.items;
    let containers = runtime.list_containers(ListContainersRequest::default()).await?.containers;
    Ok(states(&sandboxes, &containers))
}

fn states(sandboxes: &[PodSandbox], containers: &[Container]) -> Seen {
    let sandboxes = sandboxes.iter().map(|sandbox| (&sandbox.labels, &sandbox.id, sandbox.state));
    let containers = containers.iter().map(|container| (&container.labels, &container.id, container.state));
    let mut seen = Seen::new();
    for (labels, id, state) in sandboxes.chain(containers) {
        if let Some(uid) = labels.get(labels::POD_UID) {
            seen.entry(uid.clone()).or_default().insert((id.clone(), state));
        }
    }
    seen
}

/// The pods of which anything has come, gone or changed.
fn moved(before: &Seen, now: &Seen) -> Vec<String> {
    let uids: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    uids.into_iter().filter(|uid| before.get(*uid) != now.get(*uid)).cloned().collect()
}

fn about(uid: String) -> ContainerEventResponse {
    let metadata = Some(PodSandboxMetadata { uid, ..PodSandboxMetadata::default() });
    let pod_sandbox_status = Some(PodSandboxStatus { metadata, ..PodSandboxStatus::default() });
    ContainerEventResponse { pod_sandbox_status, ..ContainerEventResponse::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn container(uid: &str, id: &str, state: i32) -> Container {
        let labels = HashMap::from([(labels::POD_UID.to_string(), uid.to_string())]);
        Container { id: id.into(), labels, state, ..Container::default() }
    }

    #[test]
    fn only_pods_that_have_changed_are_told_of() {
        let sandbox = PodSandbox { id: "s".into(), ..PodSandbox::default() };
        let before =
            states(&[sandbox], &[container("a", "1", 1), container("b", "2", 1), container("c", "3", 1)]);
        let after = states(&[], &[container("a", "1", 1), container("b", "2", 2), container("d", "4", 0)]);
        assert_eq!(moved(&before, &after), ["b", "c", "d"]);
        assert_eq!(moved(&after, &after), Vec::<String>::new());
    }
}
