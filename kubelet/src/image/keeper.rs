//! Looks after the node's images: knows when each was last used, removes some when their disk fills up, and
//! tells the node which ones it has.

use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use cri::v1::{Image, ImageFsInfoRequest};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerImage;
use nix::sys::statvfs::statvfs;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::garbage::{Disk, Policy, Verdict, plan, removable};
use super::shelf::Shelf;
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
    let shelf = Shelf::new(context.images.clone(), context.runtime.clone());
    let keeper = Keeper { context, list: desk.list, shelf, has_failed: false };
    stop.run_until_cancelled(keeper.keep(desk.emergencies)).await;
}

struct Keeper {
    context: Arc<Context>,
    list: watch::Sender<Vec<ContainerImage>>,
    shelf: Shelf,
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
                    let freed = free_all(&mut self.shelf, &self.context.config.image_policy).await;
                    if freed > 0 {
                        self.look_or_warn().await;
                    }
                    // Whoever asked may have stopped waiting.
                    answer.send(freed).ok();
                }
            }
        }
    }

    async fn look_or_warn(&mut self) {
        match self.shelf.look().await {
            Ok(images) => self.tell(images),
            Err(error) => tracing::warn!(%error, "cannot ask the runtime which images there are"),
        }
    }

    fn tell(&self, images: Vec<Image>) {
        let list = node_images(images);
        self.list.send_if_modified(|told| std::mem::replace(told, list.clone()) != list);
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
        let images = self.shelf.look_closely().await.map_err(|error| error.message)?;
        self.tell(images);
        let disk = self.disk().await?;
        let (policy, now) = (&self.context.config.image_policy, Timestamp::now());
        match plan(policy, disk, &self.shelf.known(), self.shelf.in_use(), now) {
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
                let freed = self.shelf.remove(&images).await;
                self.look_or_warn().await;
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

/// Removes all that nobody uses; the bytes that it had. Who uses what has to be known for that.
async fn free_all(shelf: &mut Shelf, policy: &Policy) -> u64 {
    if let Err(error) = shelf.look_closely().await {
        tracing::warn!(%error, "cannot ask the runtime which images are used, removing none");
        return 0;
    }
    let known = shelf.known();
    let chosen = removable(policy, &known, shelf.in_use(), Timestamp::now());
    let ids: Vec<String> = chosen.into_iter().map(|image| image.id.clone()).collect();
    shelf.remove(&ids).await
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use cri::v1::{
        ListContainersRequest, ListContainersResponse, ListImagesRequest, ListImagesResponse,
        RemoveImageRequest, RemoveImageResponse,
    };
    use cri::{Error, ImageService, RuntimeService};

    use super::*;

    fn image(id: &str, tag: &str, size: u64) -> Image {
        Image { id: id.into(), repo_tags: vec![tag.into()], size, ..Image::default() }
    }

    /// Has an image, and does not tell its containers a second time.
    #[derive(Default)]
    struct Forgetful {
        asked: AtomicUsize,
        removed: AtomicUsize,
    }

    #[async_trait]
    impl ImageService for Forgetful {
        async fn list_images(&self, _: ListImagesRequest) -> Result<ListImagesResponse, Error> {
            Ok(ListImagesResponse { images: vec![image("sha256:1", "a:1", 1)] })
        }

        async fn remove_image(&self, _: RemoveImageRequest) -> Result<RemoveImageResponse, Error> {
            self.removed.fetch_add(1, Ordering::SeqCst);
            Ok(RemoveImageResponse {})
        }
    }

    #[async_trait]
    impl RuntimeService for Forgetful {
        async fn list_containers(&self, _: ListContainersRequest) -> Result<ListContainersResponse, Error> {
            match self.asked.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(ListContainersResponse::default()),
                _ => Err(Error::unknown("busy")),
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_removed_while_nobody_knows_who_uses_it() {
        let runtime = Arc::new(Forgetful::default());
        let mut shelf = Shelf::new(runtime.clone(), runtime.clone());
        shelf.look().await.unwrap();
        assert_eq!(free_all(&mut shelf, &Policy::default()).await, 0);
        assert_eq!(runtime.removed.load(Ordering::SeqCst), 0);
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
