//! One layer of a pull: fetched from where the last attempt ended, unpacked meanwhile, verified, published.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Puller;
use super::progress::{LayerReport, State};
use super::tail::{Feed, follow};
use crate::image::ImageError;
use crate::image::manifest::Descriptor;
use crate::image::packed::{self, Expected, Unpacked};
use crate::image::registry::{PATIENCE, RegistryError, Repository};
use crate::image::store::{Download, Lease, Started, checked_digest, layer_size};

/// How often in a row a download may bring nothing before it is given up.
const TRIES: u32 = 5;

/// The first pause before another try; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(200);

/// Bytes are written in pieces of this size.
const PIECE: usize = 512 << 10;

/// A layer that an image needs.
pub(super) struct Wanted<'a> {
    pub repository: &'a Repository<'a>,
    pub lease: Arc<Lease>,
    pub blob: &'a Descriptor,
    pub diff_id: &'a str,
    pub report: LayerReport,
}

impl Puller {
    /// Sees to it that a layer is here, packed and unpacked; tells how many bytes its files have.
    pub(super) async fn layer(&self, wanted: Wanted<'_>) -> Result<u64, ImageError> {
        let digest = checked_digest(&wanted.blob.digest)?.to_owned();
        let (store, lease, diff_id) = (self.store.clone(), wanted.lease.clone(), wanted.diff_id.to_owned());
        let started = blocking(move || {
            lease.keep(&digest)?;
            lease.keep(&diff_id)?;
            // Somebody else may be fetching the same: this waits.
            store.start_download(&digest)
        })
        .await?;
        let layer = self.store.layer_path(wanted.diff_id);
        match started {
            Started::Present(_) if layer.is_dir() => {
                wanted.report.is(State::Present);
                blocking(move || layer_size(&layer)).await
            }
            Started::Present(blob) => {
                wanted.report.is(State::Unpacking);
                let file = File::open(&blob).map_err(ImageError::storage("read", blob))?;
                let unpacked = unpack(file, &wanted).await?;
                self.publish(unpacked, None, &wanted).await
            }
            Started::Missing(download) => self.fetch(&wanted, download).await,
        }
    }

    async fn fetch(&self, wanted: &Wanted<'_>, download: Download) -> Result<u64, ImageError> {
        let resumed = download.length()? > 0;
        let mut attempt = self.fetch_once(wanted, &download).await;
        if resumed && attempt.as_ref().is_err_and(ImageError::is_corrupt) {
            // The beginning came from elsewhere or from another time; it deserves one fresh start.
            download.clear()?;
            attempt = self.fetch_once(wanted, &download).await;
        }
        match attempt {
            Ok(unpacked) => self.publish(unpacked, Some(download), wanted).await,
            Err(error) => {
                // What is wrong must not be continued, and a full disk must not stay full.
                if error.is_corrupt() || error.is_disk_full() {
                    download.remove()?;
                }
                Err(error)
            }
        }
    }

    async fn fetch_once(&self, wanted: &Wanted<'_>, download: &Download) -> Result<Unpacked, ImageError> {
        let (feed, follower) = follow(download.file()?, download.length()?.min(wanted.blob.size));
        let unpacking = unpack(follower, wanted);
        let fetching = async {
            let fetched = self.receive(wanted, download, &feed).await;
            if fetched.is_ok() {
                wanted.report.is(State::Unpacking);
                feed.complete();
            } else {
                drop(feed);
            }
            fetched
        };
        match tokio::join!(fetching, unpacking) {
            (Ok(()), unpacked) => unpacked,
            // The download stopped because the unpacker had; its reason counts.
            (Err(Stopped::Unfollowed), Err(error)) => Err(error),
            (Err(Stopped::Unfollowed), Ok(unpacked)) => Ok(unpacked),
            (Err(Stopped::Failed(error)), unpacked) => {
                if let Ok(unpacked) = unpacked {
                    let directory = unpacked.directory;
                    std::fs::remove_dir_all(&directory).map_err(ImageError::storage("remove", directory))?;
                }
                Err(error)
            }
        }
    }

    /// Fetches all that is missing, however often the connection breaks, as long as something comes.
    async fn receive(&self, wanted: &Wanted<'_>, download: &Download, feed: &Feed) -> Result<(), Stopped> {
        let size = wanted.blob.size;
        let mut have = download.length()?;
        if have > size {
            download.clear()?;
            have = 0;
        }
        let mut tries = 0;
        while have < size {
            let before = have;
            let failure = match self.receive_once(wanted, download, feed, &mut have).await {
                Ok(()) if have == size => break,
                Ok(()) => cut(&wanted.blob.digest, "unexpected EOF"),
                Err(Stopped::Failed(ImageError::Registry(error))) if error.is_passing() => error,
                Err(stopped) => return Err(stopped),
            };
            tries = if have > before { 0 } else { tries + 1 };
            if tries == TRIES {
                return Err(ImageError::from(failure).into());
            }
            tracing::debug!(digest = wanted.blob.digest, have, size, error = %failure, "a download is continued");
            tokio::time::sleep(PAUSE * 2_u32.pow(tries)).await;
        }
        Ok(())
    }

    async fn receive_once(
        &self,
        wanted: &Wanted<'_>,
        download: &Download,
        feed: &Feed,
        have: &mut u64,
    ) -> Result<(), Stopped> {
        let digest = &wanted.blob.digest;
        let opened = wanted.repository.blob(digest, *have).await.map_err(ImageError::from)?;
        let mut body = opened.body;
        let mut piece = Vec::with_capacity(PIECE);
        // A server that cannot begin in the middle sends again what is here.
        let mut skip = *have - opened.offset;
        loop {
            let chunk = next_chunk(&mut body, digest).await;
            let ended = !matches!(chunk, Ok(Some(_)));
            if let Ok(Some(bytes)) = &chunk {
                let known = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                skip -= known as u64;
                piece.extend_from_slice(&bytes[known..]);
            }
            if *have + piece.len() as u64 > wanted.blob.size {
                let reason =
                    format!("it is larger than the {} bytes that the manifest promises", wanted.blob.size);
                let url = digest.clone();
                return Err(ImageError::from(RegistryError::Invalid { url, reason }).into());
            }
            // What has come before a break counts as well.
            if !piece.is_empty() && (ended || piece.len() >= PIECE) {
                let (file, at) = (download.file()?, *have);
                let (written, buffer) = blocking(move || Ok((file.write_all_at(&piece, at), piece))).await?;
                piece = buffer;
                written.map_err(ImageError::storage("write", "the download"))?;
                *have += piece.len() as u64;
                piece.clear();
                wanted.report.received(*have);
                if !feed.grown_to(*have) {
                    return Err(Stopped::Unfollowed);
                }
            }
            match chunk {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(ImageError::from(error).into()),
            }
        }
    }

    /// Makes the layer durable and visible, and its packed form a blob.
    async fn publish(
        &self,
        unpacked: Unpacked,
        download: Option<Download>,
        wanted: &Wanted<'_>,
    ) -> Result<u64, ImageError> {
        let store = self.store.clone();
        let size = blocking(move || {
            if let Some(download) = download {
                download.finish(&store, &unpacked.digest)?;
            }
            packed::publish(&unpacked, &store)?;
            Ok(unpacked.size)
        })
        .await?;
        wanted.report.is(State::Done);
        Ok(size)
    }
}

/// Why a download stopped.
enum Stopped {
    /// The unpacker has had enough.
    Unfollowed,
    Failed(ImageError),
}

impl From<ImageError> for Stopped {
    fn from(error: ImageError) -> Stopped {
        Stopped::Failed(error)
    }
}

/// The next bytes; none at the end.
async fn next_chunk(body: &mut Incoming, digest: &str) -> Result<Option<Bytes>, RegistryError> {
    loop {
        match tokio::time::timeout(PATIENCE, body.frame()).await {
            Err(_) => return Err(cut(digest, "no data for 30 s")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(cut(digest, &error.to_string())),
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

fn cut(digest: &str, why: &str) -> RegistryError {
    RegistryError::Request { method: "GET".to_owned(), url: digest.to_owned(), source: why.into() }
}

/// Unpacks on a thread of its own.
async fn unpack(
    packed: impl std::io::Read + Send + 'static,
    wanted: &Wanted<'_>,
) -> Result<Unpacked, ImageError> {
    let lease = wanted.lease.clone();
    let (digest, diff_id) = (wanted.blob.digest.clone(), wanted.diff_id.to_owned());
    blocking(move || {
        let expected = Expected { name: &digest, digest: Some(&digest), diff_id: Some(&diff_id) };
        packed::unpack(packed, &lease, &expected)
    })
    .await
}

/// Runs what waits for disks or locks where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
