//! Looks after the node's images: knows when each was last used, removes some when their disk fills up, and
//! tells the node which ones it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use cri::Error;
use cri::v1::{
    Container, Image, ImageFsInfoRequest, ImageSpec, ListContainersRequest, ListImagesRequest,
    RemoveImageRequest,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerImage;
use nix::sys::statvfs::statvfs;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::garbage::{Disk, Known, Verdict, plan, removable};
use crate::context::Context;
use crate::events::node_reference;

/// How often it is looked which images there are, besides after each pull.
const LOOK: Duration = Duration::from_secs(60);
/// How often the disk is looked at, as upstream.
const COLLECTION: Duration = Duration::from_secs(300);
/// The Node names this many images, by so many names each.
const MOST_IMAGES: usize = 50;
const MOST_NAMES: usize = 5;

/// The way to the keeper of a node's images.
#[derive(Clone)]
pub struct Images {
    list: watch::Receiver<Vec<ContainerImage>>,
    emergencies: mpsc::Sender<oneshot::Sender<u64>>,
}

/// The other end, for the keeper itself.
pub struct Desk {
    list: watch::Sender<Vec<ContainerImage>>,
    emergencies: mpsc::Receiver<oneshot::Sender<u64>>,
}

impl Images {
    /// The two ends of the way.
    pub fn channel() -> (Images, Desk) {
        let (tell, list) = watch::channel(Vec::new());
        let (ask, emergencies) = mpsc::channel(1);
        (Images { list, emergencies: ask }, Desk { list: tell, emergencies })
    }

    /// What the Node says of its images.
    pub fn list(&self) -> Vec<ContainerImage> {
        self.list.borrow().clone()
    }

    /// Moves when the list does.
    pub fn changed(&self) -> watch::Receiver<Vec<ContainerImage>> {
        self.list.clone()
    }

    /// Whether this image is on the list. One that came by another way than a pull is not, at first.
    pub fn lists(&self, image: &Image) -> bool {
        let names = || image.repo_tags.iter().chain(&image.repo_digests);
        self.list
            .borrow()
            .iter()
            .flat_map(|listed| listed.names.iter().flatten())
            .any(|name| names().any(|own| own == name))
    }

    /// Removes every image that nobody uses, as the disk is short; answers how many bytes they had.
    pub async fn free_all(&self) -> u64 {
        let (answer, answered) = oneshot::channel();
        // Without a keeper there is nothing to free.
        match self.emergencies.send(answer).await {
            Ok(()) => answered.await.unwrap_or(0),
            Err(_) => 0,
        }
    }
}

/// Keeps the images until `stop`.
pub async fn run(context: Arc<Context>, desk: Desk, stop: CancellationToken) {
    let keeper = Keeper {
        context,
        list: desk.list,
        known: BTreeMap::new(),
        in_use: BTreeSet::new(),
        has_failed: false,
    };
    stop.run_until_cancelled(keeper.keep(desk.emergencies)).await;
}

struct Keeper {
    context: Arc<Context>,
    list: watch::Sender<Vec<ContainerImage>>,
    known: BTreeMap<String, Known>,
    in_use: BTreeSet<String>,
    /// The first failure after a start is not worth an event.
    has_failed: bool,
}

impl Keeper {
    async fn keep(mut self, mut emergencies: mpsc::Receiver<oneshot::Sender<u64>>) {
        let mut pulled = self.context.pulls.pulled();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut collections = interval(COLLECTION);
        collections.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when nobody has had time to use anything.
        collections.tick().await;
        loop {
            tokio::select! {
                _ = looks.tick() => self.look_or_warn().await,
                Ok(()) = pulled.changed() => self.look_or_warn().await,
                _ = collections.tick() => self.collect().await,
                Some(answer) = emergencies.recv() => {
                    let freed = self.free_all().await;
                    // Whoever asked may have stopped waiting.
                    answer.send(freed).ok();
                }
            }
        }
    }

    async fn look_or_warn(&mut self) {
        if let Err(error) = self.look().await {
            tracing::warn!(%error, "cannot ask the runtime which images there are");
        }
    }

    /// Brings what is known up to date.
    async fn look(&mut self) -> Result<(), Error> {
        let context = &self.context;
        let images = context.images.list_images(ListImagesRequest::default()).await?.images;
        let containers = context.runtime.list_containers(ListContainersRequest::default()).await?.containers;
        let is_first = self.known.is_empty();
        let now = Timestamp::now();
        self.in_use = used(&images, &containers);
        let before = std::mem::take(&mut self.known);
        for image in &images {
            let old = before.get(&image.id);
            // What was there before the kubelet is as old as can be.
            let new = if is_first { Timestamp::UNIX_EPOCH } else { now };
            let known = Known {
                id: image.id.clone(),
                size: image.size,
                pinned: image.pinned,
                first_seen: old.map_or(new, |old| old.first_seen),
                last_used: match self.in_use.contains(&image.id) {
                    true => now,
                    false => old.map_or(Timestamp::UNIX_EPOCH, |old| old.last_used),
                },
            };
            self.known.insert(image.id.clone(), known);
        }
        let list = node_images(images);
        self.list.send_if_modified(|told| std::mem::replace(told, list.clone()) != list);
        Ok(())
    }

    /// Removes what the disk asks for. A failure is an event from the second time on.
    async fn collect(&mut self) {
        match self.try_to_collect().await {
            Ok(()) => self.has_failed = false,
            Err(failure) if self.has_failed => {
                tracing::warn!(reason = "ImageGCFailed", failure, "image garbage collection failed again");
                self.warn("ImageGCFailed", failure);
            }
            Err(failure) => {
                tracing::warn!(failure, "image garbage collection failed once");
                self.has_failed = true;
            }
        }
    }

    async fn try_to_collect(&mut self) -> Result<(), String> {
        self.look().await.map_err(|error| error.message)?;
        let disk = self.disk().await?;
        let known: Vec<Known> = self.known.values().cloned().collect();
        match plan(&self.context.config.image_policy, disk, &known, &self.in_use, Timestamp::now()) {
            Verdict::Enough => Ok(()),
            Verdict::NoDisk => {
                let message = "invalid capacity 0 on image filesystem";
                self.warn("InvalidDiskCapacity", message.to_string());
                Err(message.to_string())
            }
            Verdict::Remove { images, wanted, eligible } => {
                tracing::info!(
                    wanted,
                    eligible,
                    images = images.len(),
                    "removing images, their disk fills up"
                );
                let freed = self.remove(&images).await;
                if freed >= wanted {
                    return Ok(());
                }
                let message = format!(
                    "Failed to garbage collect required amount of images. \
                     Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
                );
                self.warn("FreeDiskSpaceFailed", message.clone());
                Err(message)
            }
        }
    }

    async fn free_all(&mut self) -> u64 {
        self.look_or_warn().await;
        let known: Vec<Known> = self.known.values().cloned().collect();
        let chosen = removable(&self.context.config.image_policy, &known, &self.in_use, Timestamp::now());
        let ids: Vec<String> = chosen.into_iter().map(|image| image.id.clone()).collect();
        self.remove(&ids).await
    }

    /// Removes these images; the bytes of those that are gone.
    async fn remove(&mut self, ids: &[String]) -> u64 {
        let mut freed = 0;
        for id in ids {
            let image = Some(ImageSpec { image: id.clone(), ..ImageSpec::default() });
            match self.context.images.remove_image(RemoveImageRequest { image }).await {
                Ok(_) => {
                    tracing::info!(image = id, "removed an image that nobody uses");
                    freed += self.known.remove(id).map_or(0, |known| known.size);
                }
                Err(error) => tracing::warn!(image = id, %error, "cannot remove an image"),
            }
        }
        if !ids.is_empty() {
            self.look_or_warn().await;
        }
        freed
    }

    /// The disk that the runtime says its images are on.
    async fn disk(&self) -> Result<Disk, String> {
        let info = self.context.images.image_fs_info(ImageFsInfoRequest {}).await;
        let info = info.map_err(|error| error.message)?;
        let place = info.image_filesystems.into_iter().next().and_then(|usage| usage.fs_id);
        let place = place.ok_or("the runtime names no file system of images")?.mountpoint;
        let disk = statvfs(place.as_str()).map_err(|errno| format!("cannot measure {place}: {errno}"))?;
        let size = disk.fragment_size();
        Ok(Disk { capacity: disk.blocks() * size, available: disk.blocks_available() * size })
    }

    fn warn(&self, reason: &str, message: String) {
        let regarding = node_reference(&self.context.config.node_name);
        self.context.events.event(regarding, EventType::Warning, reason, message);
    }
}

/// The ids of the images that containers are made from. Runtimes name them by id, by digest or by tag.
fn used(images: &[Image], containers: &[Container]) -> BTreeSet<String> {
    let named: BTreeSet<&str> = containers
        .iter()
        .flat_map(|container| {
            let spec = container.image.as_ref().map(|image| image.image.as_str());
            [Some(container.image_ref.as_str()), Some(container.image_id.as_str()), spec]
        })
        .flatten()
        .collect();
    let is_named = |image: &&Image| {
        let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        names.into_iter().any(|name| named.contains(name.as_str()))
    };
    images.iter().filter(is_named).map(|image| image.id.clone()).collect()
}

/// The largest images, as the Node names them.
fn node_images(mut images: Vec<Image>) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images.truncate(MOST_IMAGES);
    let entry = |image: Image| {
        let names = image.repo_digests.into_iter().chain(image.repo_tags);
        ContainerImage {
            names: Some(names.take(MOST_NAMES).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        }
    };
    images.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: &str, size: u64) -> Image {
        Image { id: id.into(), repo_tags: vec![tag.into()], size, ..Image::default() }
    }

    #[test]
    fn an_image_is_used_by_whatever_name() {
        let images = [image("sha256:1", "a:1", 1), image("sha256:2", "b:1", 1), image("sha256:3", "c:1", 1)];
        let by_id = Container { image_id: "sha256:1".into(), ..Container::default() };
        let spec = Some(ImageSpec { image: "b:1".into(), ..ImageSpec::default() });
        let by_tag = Container { image: spec, ..Container::default() };
        let used: Vec<_> = used(&images, &[by_id, by_tag]).into_iter().collect();
        assert_eq!(used, ["sha256:1", "sha256:2"]);
    }

    #[test]
    fn the_node_names_its_largest_images() {
        let many = (0..60).map(|number| image(&format!("sha256:{number}"), &format!("a:{number}"), number));
        let told = node_images(many.collect());
        assert_eq!(told.len(), MOST_IMAGES);
        assert_eq!(told[0].size_bytes, Some(59));
        assert_eq!(told[0].names.as_deref(), Some(&["a:59".to_string()][..]));
    }
}
