//! Taking everything away: pods, images, control groups, state.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::containers::KILL_PATIENCE;
use super::shims::end_shim_of;
use super::{Config, RuntimeError, pods_directory};
use crate::cgroup::{Cgroup, Layout};
use crate::image::OrNotFound;
use crate::shim::protocol::PodDirectory;

/// Ends all pods and removes every trace of the runtime: processes, mounts, control groups, files. The
/// pod network is the caller's. No server may be running on the same directories.
pub async fn reset(config: &Config) -> Result<(), RuntimeError> {
    reset_pods(config).await?;
    for directory in [&config.state, &config.root] {
        let removed = fs::remove_dir_all(directory).or_not_found();
        removed.map_err(RuntimeError::system("remove the runtime's files"))?;
    }
    Ok(())
}

/// Ends all pods and removes their control groups; images and files stay.
pub async fn reset_pods(config: &Config) -> Result<(), RuntimeError> {
    end_pods(&config.state).await.map_err(RuntimeError::system("end the pods"))?;
    remove_groups(&config.cgroup_parent).await.map_err(RuntimeError::system("remove the control groups"))
}

async fn end_pods(state: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(pods_directory(state)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    let directories: Vec<PodDirectory> =
        entries.map(|entry| entry.map(|entry| PodDirectory(entry.path()))).collect::<io::Result<_>>()?;
    let ending = directories.iter().map(|directory| async move {
        // One that cannot be ended like this ends with the control group of all shims, or is missed there.
        if let Err(error) = end_shim_of(directory, KILL_PATIENCE).await {
            tracing::warn!(pod = %directory.0.display(), %error, "failed to end a pod's shim");
        }
    });
    futures::future::join_all(ending).await;
    directories.iter().try_for_each(|directory| crate::sys::mount::detach(&directory.shared_memory()))
}

async fn remove_groups(parent: &str) -> io::Result<()> {
    let Ok(layout) = Layout::detect() else { return Ok(()) };
    let group = Cgroup::new(&layout, parent);
    for attempt in 0..10 {
        group.kill_if_there()?;
        if group.remove().map_err(io::Error::other)? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1 << attempt)).await;
    }
    Err(io::Error::other(format!("processes are still in {parent}")))
}
