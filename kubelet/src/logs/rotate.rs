//! Keeps logs from filling the disk: a file that has grown too long gets another name, the oldest go.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::RuntimeService;
use cri::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, ContainerStatusRequest, ListContainersRequest,
    ReopenContainerLogRequest,
};
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::container::labels;

/// Upstream's limits.
const LONGEST_FILE: u64 = 10 * 1024 * 1024;
const MOST_FILES: usize = 5;
/// A minute of writing may go over the limit; looking more often would wake an idle node for nothing.
const PERIOD: Duration = Duration::from_secs(60);

/// Looks after the logs of running containers until `stop`.
pub async fn run(runtime: &dyn RuntimeService, log_dir: &Path, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = rotate_all(runtime, log_dir).await {
            tracing::warn!(%error, "cannot look after the containers' logs");
        }
    }
}

async fn rotate_all(runtime: &dyn RuntimeService, log_dir: &Path) -> Result<(), cri::Error> {
    let state = Some(ContainerStateValue { state: ContainerState::ContainerRunning as i32 });
    let filter = Some(ContainerFilter { state, ..ContainerFilter::default() });
    for container in runtime.list_containers(ListContainersRequest { filter }).await?.containers {
        let Some(path) =
            log_path(log_dir, &container.labels, container.metadata.as_ref().map_or(0, |m| m.attempt))
        else {
            continue;
        };
        if fs::metadata(&path).map_or(0, |metadata| metadata.len()) <= LONGEST_FILE {
            continue;
        }
        if let Err(error) = rotate(&path, MOST_FILES, Timestamp::now()) {
            tracing::warn!(log = %path.display(), %error, "cannot rotate a log");
            continue;
        }
        let request = ReopenContainerLogRequest { container_id: container.id.clone() };
        if let Err(error) = runtime.reopen_container_log(request).await {
            let request = ContainerStatusRequest { container_id: container.id, verbose: false };
            // One that has ended meanwhile writes no more.
            if runtime.container_status(request).await.is_ok() {
                tracing::warn!(log = %path.display(), %error, "the runtime writes on into a rotated log");
            }
        }
    }
    Ok(())
}

fn log_path(log_dir: &Path, container: &HashMap<String, String>, attempt: u32) -> Option<PathBuf> {
    let label = |name: &str| container.get(name).cloned();
    let (namespace, pod) = (label(labels::POD_NAMESPACE)?, label(labels::POD_NAME)?);
    let directory = log_dir.join(format!("{namespace}_{pod}_{}", label(labels::POD_UID)?));
    Some(directory.join(label(labels::CONTAINER_NAME)?).join(format!("{attempt}.log")))
}

/// Gives the file a name with the time and removes the oldest such files, so that `most` remain with the new one.
fn rotate(path: &Path, most: usize, now: Timestamp) -> io::Result<()> {
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    fs::rename(path, path.with_file_name(format!("{name}.{stamp}")))?;
    let mut old = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(path))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&format!("{name}.")) {
            old.push(entry.path());
        }
    }
    old.sort();
    let surplus = (old.len() + 1).saturating_sub(most);
    old.iter().take(surplus).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        for second in 0..5 {
            fs::write(&path, second.to_string()).unwrap();
            rotate(&path, 3, Timestamp::from_second(second).unwrap()).unwrap();
        }
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["3", "4"]);
    }
}
