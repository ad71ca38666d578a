//! Volumes: everything that a pod's containers find mounted.
//!
//! A pod's volumes live under `<root>/pods/<uid>/volumes/<plugin>/<name>`, where upstream has them. Preparing
//! them is repeatable: what is there stays, files from the API are brought up to date in one step. So the
//! same call makes them, refreshes them and adopts them after a restart.

pub mod atomic;
pub mod files;
pub mod host_path;
pub mod mount;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume,
};
use kube::{Api, Client};

use crate::container::env::Place;
use crate::pod::view::PodView;
use crate::source::{Fetched, Reference, Sources, Watched};
use files::Materials;
use token::Token;

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {cause}")]
pub struct VolumeError {
    /// The volume's name in the pod.
    pub volume: String,
    /// What went wrong.
    pub cause: VolumeFault,
}

/// What can go wrong with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeFault {
    /// The API did not answer.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// A file system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its files cannot be told.
    #[error(transparent)]
    Files(#[from] files::FilesError),
    /// Its place on the node is not as it should be.
    #[error(transparent)]
    HostPath(#[from] host_path::HostPathError),
    /// A claim that is not bound yet.
    #[error("PersistentVolumeClaim \"{0}\" is not bound to a volume")]
    Unbound(String),
    /// A kind of volume that this kubelet does not have.
    #[error("no volume plugin matched")]
    NoPlugin,
    /// The task that did the work died.
    #[error("the work was abandoned")]
    Abandoned,
}

/// The volumes of one pod, as they are on the node.
#[derive(Clone, Default)]
pub struct PodVolumes {
    paths: BTreeMap<String, PathBuf>,
    held: Vec<(Reference, Arc<Watched>)>,
    tokens: BTreeMap<(String, String), Token>,
}

impl PodVolumes {
    /// Where a volume is on the node.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.paths.get(name).map(PathBuf::as_path)
    }

    /// What the volumes are made from.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Watched>> {
        self.held.iter().map(|(_, watched)| watched)
    }

    /// When the next token has to be replaced.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        self.tokens.values().map(|token| token.refresh_at).min()
    }
}

/// Prepares volumes on this node.
pub struct VolumeManager {
    client: Client,
    sources: Arc<Sources>,
    root: PathBuf,
}

impl VolumeManager {
    /// Volumes under `root`.
    pub fn new(client: Client, sources: Arc<Sources>, root: PathBuf) -> VolumeManager {
        VolumeManager { client, sources, root }
    }

    /// The directory of a pod's files.
    pub fn pod_directory(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Brings all volumes that the pod's containers use to what they should be. `before` is what the last
    /// call returned: tokens that are still good are kept.
    pub async fn prepare(
        &self,
        pod: &Pod,
        place: &Place,
        before: &PodVolumes,
    ) -> Result<PodVolumes, VolumeError> {
        let mut ready = PodVolumes::default();
        for volume in used_volumes(pod) {
            let prepared = self.prepare_one(pod, place, volume, before, &mut ready).await;
            let path = prepared.map_err(|cause| VolumeError { volume: volume.name.clone(), cause })?;
            ready.paths.insert(volume.name.clone(), path);
        }
        Ok(ready)
    }

    async fn prepare_one(
        &self,
        pod: &Pod,
        place: &Place,
        volume: &Volume,
        before: &PodVolumes,
        ready: &mut PodVolumes,
    ) -> Result<PathBuf, VolumeFault> {
        let plugin = plugin(volume).ok_or(VolumeFault::NoPlugin)?;
        let directory = self.pod_directory(pod.uid()).join("volumes").join(plugin).join(&volume.name);
        let group = fs_group(pod);
        if files::is_made_of_files(volume) {
            let fetched = self.fetch(pod, volume, ready).await?;
            let tokens = self.tokens(pod, volume, before, ready).await?;
            let materials = Materials { pod, place, fetched: &fetched, tokens: &tokens };
            let wanted = files::files(volume, &materials)?;
            // Secrets must not reach a disk.
            let in_memory = volume.secret.is_some() || volume.projected.is_some();
            let target = directory.clone();
            blocking(move || {
                if in_memory {
                    mount::ensure_tmpfs(&target, None)?;
                }
                atomic::write_files(&target, &wanted, group, Timestamp::now())
            })
            .await?;
            Ok(directory)
        } else if let Some(source) = volume.empty_dir.clone() {
            let target = directory.clone();
            blocking(move || make_empty_dir(&target, &source, group)).await?;
            Ok(directory)
        } else if let Some(source) = volume.host_path.clone() {
            Ok(host_path::prepare(&source.path, source.type_.as_deref().unwrap_or_default())?)
        } else if let Some(claim) = &volume.persistent_volume_claim {
            self.claimed_path(pod, &claim.claim_name, group).await
        } else {
            Err(VolumeFault::NoPlugin)
        }
    }

    async fn fetch(
        &self,
        pod: &Pod,
        volume: &Volume,
        ready: &mut PodVolumes,
    ) -> Result<Fetched, VolumeFault> {
        let wanted = files::references(volume).into_iter();
        let watched: Vec<_> = wanted
            .map(|reference| {
                let watched = self.sources.watch(pod.namespace(), &reference);
                (reference, watched)
            })
            .collect();
        ready.held.extend(watched.iter().cloned());
        Ok(self.sources.fetch(pod.namespace(), &watched).await?)
    }

    async fn tokens(
        &self,
        pod: &Pod,
        volume: &Volume,
        before: &PodVolumes,
        ready: &mut PodVolumes,
    ) -> Result<BTreeMap<String, String>, VolumeFault> {
        let mut texts = BTreeMap::new();
        for projection in files::token_requests(volume) {
            let key = (volume.name.clone(), projection.path.clone());
            let now = Timestamp::now();
            let token = match before.tokens.get(&key).filter(|token| token.refresh_at > now) {
                Some(token) => token.clone(),
                None => token::request(self.client.clone(), pod, &projection, now).await?,
            };
            texts.insert(projection.path, token.text.clone());
            ready.tokens.insert(key, token);
        }
        Ok(texts)
    }

    /// Claims are served from volumes that are a directory of this node.
    async fn claimed_path(&self, pod: &Pod, claim: &str, group: Option<u32>) -> Result<PathBuf, VolumeFault> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), pod.namespace());
        let found = claims.get(claim).await?;
        let is_bound = found.status.and_then(|status| status.phase).as_deref() == Some("Bound");
        let name = found.spec.and_then(|spec| spec.volume_name).filter(|name| is_bound && !name.is_empty());
        let name = name.ok_or_else(|| VolumeFault::Unbound(claim.to_string()))?;
        let spec =
            Api::<PersistentVolume>::all(self.client.clone()).get(&name).await?.spec.unwrap_or_default();
        if let Some(local) = spec.local {
            let path = host_path::prepare(&local.path, "Directory")?;
            if let Some(group) = group {
                let tree = path.clone();
                blocking(move || mount::give_tree_to_group(&tree, group)).await?;
            }
            return Ok(path);
        }
        let source = spec.host_path.ok_or(VolumeFault::NoPlugin)?;
        Ok(host_path::prepare(&source.path, source.type_.as_deref().unwrap_or_default())?)
    }

    /// Mounts a part of a volume for a container and returns where.
    pub fn sub_path(
        &self,
        uid: &str,
        volume: (&str, &Path),
        container: &str,
        index: usize,
        sub_path: &str,
    ) -> io::Result<PathBuf> {
        let (name, path) = volume;
        let parts = self.pod_directory(uid).join("volume-subpaths");
        let target = parts.join(name).join(container).join(index.to_string());
        mount::mount_sub_path(path, sub_path, &target)?;
        Ok(target)
    }

    /// Unmounts and removes a pod's volumes.
    pub async fn remove_volumes(&self, uid: &str) -> io::Result<()> {
        let directory = self.pod_directory(uid);
        blocking_io(move || {
            mount::remove_tree(&directory.join("volume-subpaths"))?;
            mount::remove_tree(&directory.join("volumes"))
        })
        .await
    }

    /// Removes everything that the kubelet keeps of a pod.
    pub async fn remove_pod(&self, uid: &str) -> io::Result<()> {
        let directory = self.pod_directory(uid);
        blocking_io(move || mount::remove_tree(&directory)).await
    }

    /// The uids of pods that have files on this node.
    pub fn pods_on_disk(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("pods")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// The volumes that some container mounts; the others would only cost time.
fn used_volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let mounts =
        pod.all_containers().flat_map(|container| container.volume_mounts.clone().unwrap_or_default());
    let used: BTreeSet<String> = mounts.map(|mount| mount.name).collect();
    // Images are mounted by the runtime itself.
    let prepared = pod.spec().volumes.iter().flatten().filter(|volume| volume.image.is_none());
    prepared.filter(move |volume| used.contains(&volume.name))
}

/// The directory of a kind of volume, as upstream names it.
fn plugin(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        Some("kubernetes.io~configmap")
    } else if volume.secret.is_some() {
        Some("kubernetes.io~secret")
    } else if volume.projected.is_some() {
        Some("kubernetes.io~projected")
    } else if volume.downward_api.is_some() {
        Some("kubernetes.io~downward-api")
    } else if volume.empty_dir.is_some() {
        Some("kubernetes.io~empty-dir")
    } else if volume.host_path.is_some() {
        Some("kubernetes.io~host-path")
    } else if volume.persistent_volume_claim.is_some() {
        Some("kubernetes.io~local-volume")
    } else {
        None
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec().security_context.as_ref();
    context.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok())
}

fn make_empty_dir(directory: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> io::Result<()> {
    let is_new;
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
        // After a reboot the directory is there and the file system in it is not.
        is_new = mount::ensure_tmpfs(directory, limit.map(Quantity::value).filter(|bytes| *bytes > 0))?;
    } else {
        is_new = !directory.exists();
        fs::create_dir_all(directory)?;
    }
    if is_new {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777))?;
        if let Some(group) = group {
            mount::give_to_group(directory, group)?;
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, VolumeFault> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| VolumeFault::Abandoned)?;
    Ok(done?)
}

async fn blocking_io(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
