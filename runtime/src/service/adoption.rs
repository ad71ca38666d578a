//! Finding again what an earlier server left: pods that still run, and pods that were cut short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::shims::{end_shim_of, says_nobody_is_there};
use super::state::{Container, ContainerState, Happened, Sandbox};
use super::{RuntimeError, Shared};
use crate::cgroup::Cgroup;
use crate::image::OrNotFound;
use crate::shim::protocol::{Exit, Introduction, Life, PodDirectory, Reply, Request, Started, VERSIONS};
use crate::shim::{self, Connection};

/// How long a server waits for a shim before it goes on without; who answers later is met then.
const ADOPTION_PATIENCE: Duration = Duration::from_secs(3);

/// How long after a failure a shim is met again, at first and at last.
const MEET_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Reads all pods from disk, connects to the shims that are alive, and cleans up after those that are not.
///
/// A pod that cannot be adopted keeps nobody from starting, nor does a shim that does not answer.
pub(super) async fn adopt(shared: &Arc<Shared>) -> Result<(), RuntimeError> {
    let entries = fs::read_dir(shared.pods_directory()).map_err(RuntimeError::system("list the pods"))?;
    let entries: io::Result<Vec<_>> = entries.collect();
    let entries = entries.map_err(RuntimeError::system("list the pods"))?;
    let adopting = entries.into_iter().map(|entry| async move {
        let id = entry.file_name().to_string_lossy().into_owned();
        let adopted = adopt_sandbox(shared, &id, PodDirectory(entry.path())).await;
        let failed =
            adopted.inspect_err(|error| tracing::error!(sandbox = id, %error, "a pod cannot be adopted"));
        failed.is_err().then_some(id)
    });
    let failed: Vec<String> = futures::future::join_all(adopting).await.into_iter().flatten().collect();
    if failed.is_empty() {
        forget_orphans(shared)?;
        remove_unknown_groups(shared).await;
    } else {
        // What seems to be nobody's may be theirs.
        tracing::warn!("no layer and no control group is cleaned up before all pods have been adopted");
    }
    if let Some(network) = &shared.config.network {
        let mut live = shared.live_sandboxes();
        live.extend(failed);
        if let Err(error) = network.retain(&live).await {
            tracing::warn!(%error, "failed to free the addresses of pods that are gone");
        }
    }
    Ok(())
}

pub(super) async fn adopt_sandbox(shared: &Arc<Shared>, id: &str, directory: PodDirectory) -> io::Result<()> {
    let sandbox = match whole(Sandbox::load(id, directory.clone()))? {
        Some(sandbox) => Arc::new(sandbox),
        None => {
            tracing::warn!(sandbox = id, "a pod's creation was cut short, removing what is there of it");
            end_shim_of(&directory, ADOPTION_PATIENCE).await?;
            crate::sys::mount::detach(&directory.shared_memory())?;
            return fs::remove_dir_all(&directory.0).or_not_found();
        }
    };
    shared.pods().sandboxes.insert(id.to_owned(), sandbox.clone());
    // Subscribed before the files are read, so that no end falls between the two.
    let met = match sandbox.record().stopped {
        // It was being stopped when the last server ended.
        true => end_shim_of(&directory, ADOPTION_PATIENCE).await.map(|()| Met::Nobody),
        false => {
            let met = tokio::time::timeout(ADOPTION_PATIENCE, meet(&sandbox)).await;
            met.map_err(io::Error::from).flatten()
        }
    };
    for container in load_containers(&sandbox)? {
        shared.pods().containers.insert(container.id.clone(), Arc::new(container));
    }
    match met {
        Ok(Met::Shim { connection, unsaved }) => {
            shared.take_in(&unsaved);
            sandbox.ready.send_replace(true);
            watch(shared, &sandbox, Some(connection));
        }
        Ok(Met::Nobody) => shared.clone().end_of_shim(&sandbox).await,
        Err(error) => {
            tracing::warn!(sandbox = id, %error, "a pod's shim does not answer");
            sandbox.ready.send_replace(!sandbox.record().stopped);
            watch(shared, &sandbox, None);
        }
    }
    Ok(())
}

/// What could be read. A file that a power failure has torn is as good as none; one that the system does not give
/// says nothing.
fn whole<T>(read: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match read {
        Err(error) if error.raw_os_error().is_none() => Ok(None),
        read => read,
    }
}

fn load_containers(sandbox: &Arc<Sandbox>) -> io::Result<Vec<Container>> {
    let mut containers = Vec::new();
    let entries = match fs::read_dir(sandbox.directory.containers()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(containers),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let id = entry.file_name().to_string_lossy().into_owned();
        match whole(Container::load(&id, sandbox))? {
            Some(container) => containers.push(container),
            None => fs::remove_dir_all(entry.path()).or_not_found()?,
        }
    }
    Ok(containers)
}

/// Writable layers whose container was never recorded.
fn forget_orphans(shared: &Shared) -> Result<(), RuntimeError> {
    for name in shared.images.snapshot_names()? {
        if !shared.pods().containers.contains_key(&name) {
            shared.images.remove_snapshot(&name)?;
        }
    }
    Ok(())
}

/// Removes control groups that nobody answers for: a server was killed between their making and their record,
/// or between the removal of the record and theirs.
async fn remove_unknown_groups(shared: &Shared) {
    let parent = shared.config.cgroup_parent.as_str();
    let (pods, ours) = {
        let pods = shared.pods();
        let groups = pods.sandboxes.values().map(|sandbox| relative(&shared.pod_group_path(sandbox)));
        let ours = pods.containers.values().map(|container| relative(&container.record.cgroup));
        (groups.collect(), ours.chain([relative(parent).join("shims")]).collect())
    };
    let there = Cgroup::new(&shared.layout, parent).descendants();
    for path in unknown_groups(&relative(parent), &there, &pods, &ours) {
        tracing::info!(cgroup = %path.display(), "removing a control group that nobody answers for");
        shared.remove_cgroup(&path.to_string_lossy()).await;
    }
}

fn relative(path: &str) -> PathBuf {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// The topmost of the groups `there` that neither are nor lead to one of `pods` or `containers`, nor were made
/// by a container below its own. The kubelet's `kubepods` and its classes of pods stay.
fn unknown_groups(
    parent: &Path,
    there: &BTreeSet<PathBuf>,
    pods: &BTreeSet<PathBuf>,
    containers: &BTreeSet<PathBuf>,
) -> Vec<PathBuf> {
    let classes = ["", "besteffort", "burstable"].map(|class| parent.join("kubepods").join(class));
    let mut unknown: Vec<PathBuf> = Vec::new();
    for path in there {
        let leads_to_known =
            pods.iter().chain(containers).chain(&classes).any(|known| known.starts_with(path));
        let is_of_container = containers.iter().any(|container| path.starts_with(container));
        let is_covered = unknown.last().is_some_and(|above| path.starts_with(above));
        if !leads_to_known && !is_of_container && !is_covered {
            unknown.push(path.clone());
        }
    }
    unknown
}

/// Who was found where a pod's shim should be.
pub(super) enum Met {
    /// A shim that tells of every end from now on. One that does not speak our protocol tells nothing, and
    /// its sandbox knows that.
    Shim {
        /// To it.
        connection: Connection,
        /// What it could not write down.
        unsaved: BTreeMap<String, Life>,
    },
    /// Nobody.
    Nobody,
}

/// Connects to a pod's shim to hear of every end. One that hangs is waited for; an error tells nothing about whether
/// there is a shim.
async fn meet(sandbox: &Sandbox) -> io::Result<Met> {
    let greet = async {
        let mut connection = shim::connect(&sandbox.directory)?;
        let Some(introduction) = connection.introduce(true).await? else {
            // A shim of version 1 ends the connection on which it hears what it does not know.
            connection = shim::connect(&sandbox.directory)?;
            return match connection.call(&Request::Subscribe, Vec::new()).await? {
                (Reply::Done, _) => Ok((connection, BTreeMap::new())),
                (other, _) => Err(io::Error::other(format!("the pod's shim answered {other:?}"))),
            };
        };
        if VERSIONS.common(introduction.versions).is_none() {
            let refusal = refusal(&introduction);
            tracing::error!(sandbox = sandbox.id, refusal, "a pod is left alone");
            // Set once at most: a sandbox is met when it is adopted, and again only by who is watching it.
            sandbox.refusal.get_or_init(|| refusal);
        }
        Ok((connection, introduction.unsaved))
    };
    let met: io::Result<_> = greet.await;
    match met {
        Ok((connection, unsaved)) => Ok(Met::Shim { connection, unsaved }),
        Err(error) if says_nobody_is_there(&error) => {
            tracing::debug!(sandbox = sandbox.id, %error, "found no shim");
            Ok(Met::Nobody)
        }
        Err(error) => Err(error),
    }
}

/// As [`meet`], until that tells who is there.
async fn meet_at_last(sandbox: &Sandbox) -> Met {
    let (mut pause, longest) = MEET_AGAIN;
    loop {
        match meet(sandbox).await {
            Ok(met) => return met,
            Err(error) => tracing::warn!(sandbox = sandbox.id, %error, "failed to talk to a pod's shim"),
        }
        tokio::time::sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

/// Why nothing can be done with a pod.
fn refusal(introduction: &Introduction) -> String {
    let Introduction { versions, release, .. } = introduction;
    format!(
        "the pod's shim ({release}) speaks versions {} to {} of its protocol, this server versions {} to {}: \
         the pod runs on, but only a release that speaks one of the shim's can work with it",
        versions.oldest, versions.newest, VERSIONS.oldest, VERSIONS.newest
    )
}

/// Listens to a shim for as long as it lives; to one that has not been met yet, from when it answers.
pub(super) fn watch(shared: &Arc<Shared>, sandbox: &Arc<Sandbox>, mut connection: Option<Connection>) {
    // Another process may be at the pod next: only who holds its lock cleans up after it.
    if shared.daemonless.is_some() {
        return;
    }
    let (shared, sandbox) = (shared.clone(), sandbox.clone());
    tokio::spawn(async move {
        let listen = async {
            loop {
                while let Some(connection) = &mut connection
                    && let Ok(Some((reply, _))) = connection.receive().await
                {
                    match reply {
                        Reply::ContainerStarted { container, started } => {
                            shared.container_started(&container, started);
                        }
                        Reply::ContainerExited { container, exit } => {
                            shared.container_exited(&container, exit);
                        }
                        _ => {}
                    }
                }
                // The end of a connection need not be that of the shim, whose pod would be killed for it.
                match meet_at_last(&sandbox).await {
                    Met::Shim { connection: next, unsaved } => {
                        connection = Some(next);
                        shared.catch_up_with(&sandbox, &unsaved);
                    }
                    Met::Nobody => return,
                }
            }
        };
        tokio::select! {
            biased;
            // The server ends, the shim does not.
            () = shared.stop.cancelled() => return,
            () = listen => {}
        }
        // Whoever stops the pod at this moment does the same, and tells its caller how it went.
        shared.end_of_shim(&sandbox).await;
    });
}

impl Shared {
    /// A container has begun that an earlier server was starting when it was killed.
    fn container_started(self: &Arc<Self>, id: &str, started: Started) {
        let container = self.pods().containers.get(id).cloned();
        if let Some(container) = container
            && container.happened(Happened::Started(started))
        {
            self.tell(cri::v1::ContainerEventType::ContainerStartedEvent, &container);
        }
    }

    /// A container's first process has ended.
    pub(super) fn container_exited(self: &Arc<Self>, id: &str, exit: Exit) {
        let container = self.pods().containers.get(id).cloned();
        let Some(container) = container else { return };
        // A life too short to be seen has left its beginning on disk.
        if let Err(error) = container.catch_up() {
            tracing::warn!(container = id, %error, "failed to read what the shim wrote");
        }
        container.happened(Happened::Exited(exit));
        self.tell(cri::v1::ContainerEventType::ContainerStoppedEvent, &container);
        self.clone().spawn_cgroup_removal(container.record.cgroup.clone());
    }

    /// What a shim tells of the time when nobody heard it.
    fn take_in(self: &Arc<Self>, unsaved: &BTreeMap<String, Life>) {
        for (id, life) in unsaved {
            let container = self.pods().containers.get(id).cloned();
            if let Some(container) = container {
                container.lived(life);
            }
        }
    }

    /// After a gap: what the shim has written meanwhile, and what it could not write.
    fn catch_up_with(self: &Arc<Self>, sandbox: &Sandbox, unsaved: &BTreeMap<String, Life>) {
        for container in self.containers_of(&sandbox.id) {
            let before = container.state();
            if let Err(error) = container.catch_up() {
                tracing::warn!(container = container.id, %error, "failed to read what the shim wrote");
            }
            if let Some(life) = unsaved.get(&container.id) {
                container.lived(life);
            }
            if let ContainerState::Exited { exit, .. } = container.state()
                && !matches!(before, ContainerState::Exited { .. })
            {
                self.container_exited(&container.id, exit);
            }
        }
    }

    /// As [`Shared::shim_is_gone`], where nobody waits for the outcome.
    async fn end_of_shim(self: Arc<Self>, sandbox: &Arc<Sandbox>) {
        if let Err(error) = self.shim_is_gone(sandbox).await {
            tracing::warn!(sandbox = sandbox.id, %error, "failed to release what a pod held");
        }
    }

    /// The shim of a pod has ended, on purpose or not: what it held is gone, so its processes go too.
    pub(super) async fn shim_is_gone(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), cri::Error> {
        sandbox.ready.send_replace(false);
        let last_words = fs::read_to_string(sandbox.directory.shim_log()).unwrap_or_default();
        if !last_words.is_empty() {
            tracing::warn!(sandbox = sandbox.id, last_words, "a pod's shim had something to say");
        }
        for container in self.containers_of(&sandbox.id) {
            if let Err(error) = container.catch_up() {
                tracing::warn!(container = container.id, %error, "failed to read what the shim wrote");
            }
            let group = Cgroup::new(&self.layout, &container.record.cgroup);
            if let Err(error) = group.kill() {
                tracing::warn!(container = container.id, %error, "failed to kill what is left of a container");
            }
            // Nobody is told that it has ended before it has.
            self.remove_cgroup(&container.record.cgroup).await;
            if container.is_running() {
                let exit = Exit::of_killed_shim(Timestamp::now());
                if let Err(error) = crate::shim::protocol::write_json(&container.directory.exit(), &exit) {
                    tracing::warn!(container = container.id, %error, "failed to record an exit");
                }
                if container.happened(Happened::Exited(exit)) {
                    self.tell(cri::v1::ContainerEventType::ContainerStoppedEvent, &container);
                }
            }
        }
        self.release(sandbox).await
    }

    /// Removes a group as soon as the kernel has buried its last process.
    pub(super) async fn remove_cgroup(&self, path: &str) {
        let group = Cgroup::new(&self.layout, path);
        for attempt in 0..10 {
            match group.remove() {
                Ok(true) => return,
                // Whoever is still in there was left behind by a first process that ended.
                Ok(false) => drop(group.kill()),
                Err(error) => {
                    tracing::warn!(cgroup = path, %error, "failed to remove a control group");
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(1 << attempt)).await;
        }
        tracing::warn!(cgroup = path, "a control group is still in use");
    }

    /// As [`Shared::remove_cgroup`], without anybody waiting for it.
    pub(super) fn spawn_cgroup_removal(self: Arc<Self>, path: String) {
        tokio::spawn(async move { self.remove_cgroup(&path).await });
    }

    pub(super) fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        let pods = self.pods();
        pods.containers.values().filter(|container| container.sandbox.id == sandbox_id).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(texts: &[&str]) -> BTreeSet<PathBuf> {
        texts.iter().copied().map(PathBuf::from).collect()
    }

    #[test]
    fn only_groups_that_nobody_answers_for_are_removed() {
        let there = paths(&[
            "c/shims",
            "c/kubepods",
            "c/kubepods/besteffort",
            "c/kubepods/besteffort/pod1",
            "c/kubepods/besteffort/pod1/known",
            "c/kubepods/besteffort/pod1/known/made-by-itself",
            "c/kubepods/besteffort/pod1/unknown",
            "c/kubepods/besteffort/pod2",
            "c/kubepods/besteffort/pod2/unknown",
            "c/kubepods/pod3",
        ]);
        let pods = paths(&["c/kubepods/besteffort/pod1"]);
        let containers = paths(&["c/shims", "c/kubepods/besteffort/pod1/known"]);
        let unknown = unknown_groups(Path::new("c"), &there, &pods, &containers);
        let expected =
            ["c/kubepods/besteffort/pod1/unknown", "c/kubepods/besteffort/pod2", "c/kubepods/pod3"];
        assert_eq!(unknown, expected.map(PathBuf::from));
    }
}
