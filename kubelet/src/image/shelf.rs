//! The node's images as far as they are known: which there are, since when, and who uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cri::v1::{
    Container, ContainerStatusRequest, Image, ImageSpec, ListContainersRequest, ListImagesRequest,
    RemoveImageRequest,
};
use cri::{Error, ImageService, RuntimeService};
use jiff::Timestamp;

use super::garbage::Known;

/// The images, kept by asking the runtime again and again.
pub(super) struct Shelf {
    images: Arc<dyn ImageService>,
    runtime: Arc<dyn RuntimeService>,
    known: BTreeMap<String, Known>,
    in_use: BTreeSet<String>,
    has_looked: bool,
}

impl Shelf {
    pub(super) fn new(images: Arc<dyn ImageService>, runtime: Arc<dyn RuntimeService>) -> Shelf {
        Shelf { images, runtime, known: BTreeMap::new(), in_use: BTreeSet::new(), has_looked: false }
    }

    /// What is known of each image.
    pub(super) fn known(&self) -> Vec<Known> {
        self.known.values().cloned().collect()
    }

    /// The images that must stay.
    pub(super) fn in_use(&self) -> &BTreeSet<String> {
        &self.in_use
    }

    /// Brings what is known up to date; tells all images.
    pub(super) async fn look(&mut self) -> Result<Vec<Image>, Error> {
        let images = self.images.list_images(ListImagesRequest::default()).await?.images;
        let containers = self.runtime.list_containers(ListContainersRequest::default()).await?.containers;
        self.note(&images, used(&images, &named_by(&containers)));
        Ok(images)
    }

    /// As [`Shelf::look`], and asks each container for the images that it has as volumes: lists do not tell them.
    pub(super) async fn look_closely(&mut self) -> Result<Vec<Image>, Error> {
        let images = self.images.list_images(ListImagesRequest::default()).await?.images;
        let containers = self.runtime.list_containers(ListContainersRequest::default()).await?.containers;
        let mut names = named_by(&containers);
        for container in containers {
            let request = ContainerStatusRequest { container_id: container.id, verbose: false };
            let status = match self.runtime.container_status(request).await {
                Ok(response) => response.status.unwrap_or_default(),
                // It is gone since the list was made.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            names.extend(status.mounts.into_iter().filter_map(|mount| Some(mount.image?.image)));
        }
        self.note(&images, used(&images, &names));
        Ok(images)
    }

    fn note(&mut self, images: &[Image], in_use: BTreeSet<String>) {
        let now = Timestamp::now();
        // What was there before the kubelet is as old as can be.
        let new = if self.has_looked { now } else { Timestamp::UNIX_EPOCH };
        let before = std::mem::take(&mut self.known);
        for image in images {
            let old = before.get(&image.id);
            let last_used = old.map_or(Timestamp::UNIX_EPOCH, |old| old.last_used);
            let known = Known {
                id: image.id.clone(),
                size: image.size,
                pinned: image.pinned,
                first_seen: old.map_or(new, |old| old.first_seen),
                last_used: if in_use.contains(&image.id) { now } else { last_used },
            };
            self.known.insert(image.id.clone(), known);
        }
        self.in_use = in_use;
        self.has_looked = true;
    }

    /// Removes these images; the bytes of those that are gone.
    pub(super) async fn remove(&mut self, ids: &[String]) -> u64 {
        let mut freed = 0;
        for id in ids {
            let image = Some(ImageSpec { image: id.clone(), ..ImageSpec::default() });
            match self.images.remove_image(RemoveImageRequest { image }).await {
                Ok(_) => {
                    tracing::info!(image = id, "removed an image that nobody uses");
                    freed += self.known.remove(id).map_or(0, |known| known.size);
                }
                Err(error) => tracing::warn!(image = id, %error, "cannot remove an image"),
            }
        }
        freed
    }
}

/// What containers say that they are made from. Runtimes name images by id, by digest or by tag.
fn named_by(containers: &[Container]) -> BTreeSet<String> {
    let names = |container: &Container| {
        let spec = container.image.as_ref().map(|image| image.image.clone());
        [Some(container.image_ref.clone()), Some(container.image_id.clone()), spec]
    };
    containers.iter().flat_map(names).flatten().collect()
}

/// The ids of the images with these names.
fn used(images: &[Image], named: &BTreeSet<String>) -> BTreeSet<String> {
    let is_named = |image: &&Image| {
        let mut names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
        names.any(|name| named.contains(name))
    };
    images.iter().filter(is_named).map(|image| image.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use async_trait::async_trait;
    use cri::v1::*;

    use super::super::garbage::{Policy, removable};
    use super::*;

    /// A runtime with these images, and one container that has an image as a volume.
    #[derive(Default)]
    struct Stock {
        images: Mutex<Vec<Image>>,
        containers: Mutex<Vec<(Container, ContainerStatus)>>,
    }

    #[async_trait]
    impl ImageService for Stock {
        async fn list_images(&self, _: ListImagesRequest) -> Result<ListImagesResponse, Error> {
            Ok(ListImagesResponse { images: self.images.lock().unwrap().clone() })
        }

        async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse, Error> {
            let id = request.image.unwrap().image;
            self.images.lock().unwrap().retain(|image| image.id != id);
            Ok(RemoveImageResponse {})
        }
    }

    #[async_trait]
    impl RuntimeService for Stock {
        async fn list_containers(&self, _: ListContainersRequest) -> Result<ListContainersResponse, Error> {
            let containers = self.containers.lock().unwrap();
            let containers = containers.iter().map(|(container, _)| container.clone()).collect();
            Ok(ListContainersResponse { containers })
        }

        async fn container_status(
            &self,
            request: ContainerStatusRequest,
        ) -> Result<ContainerStatusResponse, Error> {
            let containers = self.containers.lock().unwrap();
            let found = containers.iter().find(|(container, _)| container.id == request.container_id);
            let status = Some(found.ok_or_else(|| Error::not_found("gone"))?.1.clone());
            Ok(ContainerStatusResponse { status, ..ContainerStatusResponse::default() })
        }
    }

    fn image(id: &str, tag: &str, size: u64) -> Image {
        Image { id: id.into(), repo_tags: vec![tag.into()], size, ..Image::default() }
    }

    fn spec(image: &str) -> Option<ImageSpec> {
        Some(ImageSpec { image: image.into(), ..ImageSpec::default() })
    }

    #[test]
    fn an_image_is_used_by_whatever_name() {
        let images = [image("sha256:1", "a:1", 1), image("sha256:2", "b:1", 1), image("sha256:3", "c:1", 1)];
        let by_id = Container { image_id: "sha256:1".into(), ..Container::default() };
        let by_tag = Container { image: spec("b:1"), ..Container::default() };
        let used: Vec<_> = used(&images, &named_by(&[by_id, by_tag])).into_iter().collect();
        assert_eq!(used, ["sha256:1", "sha256:2"]);
    }

    #[tokio::test]
    async fn an_image_that_is_a_volume_is_in_use() {
        let stock = Arc::new(Stock::default());
        *stock.images.lock().unwrap() =
            vec![image("sha256:1", "a:1", 1), image("sha256:2", "data:1", 1), image("sha256:3", "c:1", 1)];
        let container = Container { id: "x".into(), image_id: "sha256:1".into(), ..Container::default() };
        let mounts = vec![Mount { image: spec("sha256:2"), ..Mount::default() }];
        let status = ContainerStatus { mounts, ..ContainerStatus::default() };
        stock.containers.lock().unwrap().push((container, status));
        let mut shelf = Shelf::new(stock.clone(), stock);
        shelf.look_closely().await.unwrap();
        assert_eq!(shelf.in_use().iter().collect::<Vec<_>>(), ["sha256:1", "sha256:2"]);
    }

    #[tokio::test]
    async fn the_first_image_of_an_empty_node_is_young() {
        let stock = Arc::new(Stock::default());
        let mut shelf = Shelf::new(stock.clone(), stock.clone());
        shelf.look().await.unwrap();
        stock.images.lock().unwrap().push(image("sha256:1", "a:1", 1));
        shelf.look().await.unwrap();
        let policy = Policy { minimum_age: Duration::from_secs(3600), ..Policy::default() };
        assert!(removable(&policy, &shelf.known(), shelf.in_use(), Timestamp::now()).is_empty());
        // To a kubelet that comes later it may be as old as can be.
        let mut later = Shelf::new(stock.clone(), stock);
        later.look().await.unwrap();
        assert_eq!(removable(&policy, &later.known(), later.in_use(), Timestamp::now()).len(), 1);
    }

    #[tokio::test]
    async fn what_is_removed_is_counted() {
        let stock = Arc::new(Stock::default());
        *stock.images.lock().unwrap() = vec![image("sha256:1", "a:1", 7), image("sha256:2", "b:1", 5)];
        let mut shelf = Shelf::new(stock.clone(), stock.clone());
        shelf.look().await.unwrap();
        assert_eq!(shelf.remove(&["sha256:1".to_owned()]).await, 7);
        assert_eq!(stock.images.lock().unwrap().len(), 1);
    }
}
