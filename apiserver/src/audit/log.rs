//! The log file: one writer, a queue that is bounded in bytes, files that are put aside when they are full.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::metrics;

/// How much may be on its way, in KiB. One event with two great bodies must fit.
const QUEUE: usize = 64 << 10;
/// How many events may be on their way.
const QUEUE_EVENTS: usize = 1 << 16;
/// How long a request waits for room.
const PATIENCE: Duration = Duration::from_secs(2);
const MEGABYTE: u64 = 1 << 20;
/// How backups are told apart: by when they were put aside.
const BACKUP_TIME: &str = "%Y-%m-%dT%H-%M-%S.%3f";

/// When a file is full, and which old ones are kept. Zero: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `--audit-log-maxage`: days.
    pub max_age_days: u32,
    /// `--audit-log-maxbackup`: files.
    pub max_backups: usize,
    /// `--audit-log-maxsize`: megabytes.
    pub max_megabytes: u64,
}

/// Why the log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} the audit log {}", path.display())]
pub struct LogError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The way to the writer.
pub(super) struct Log {
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
}

enum Message {
    /// A line, and the room that it takes until it is written.
    Line(Vec<u8>, OwnedSemaphorePermit),
    Flush(oneshot::Sender<()>),
}

impl Log {
    /// Opens the log and starts its writer, which ends when nobody can write any more.
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Log, LogError> {
        let target = Target::open(path, limits)?;
        let (queue, messages) = mpsc::channel(QUEUE_EVENTS);
        // A thread of its own: a disk that hangs must not hold up the others.
        let started = thread::Builder::new().name("audit-log".into()).spawn(move || run(target, messages));
        started.map_err(|source| LogError { what: "start the writer of", path: path.into(), source })?;
        Ok(Log { queue, room: Arc::new(Semaphore::new(QUEUE)) })
    }

    /// Hands over a line; lost, and counted, when there is no room for long.
    pub(super) async fn write(&self, line: Vec<u8>) {
        metrics::EVENTS.inc();
        let room = self.room.clone().acquire_many_owned(kibibytes(&line));
        let sent = match tokio::time::timeout(PATIENCE, room).await {
            Ok(Ok(permit)) => self.queue.send_timeout(Message::Line(line, permit), PATIENCE).await.is_ok(),
            _ => false,
        };
        if !sent {
            lost();
        }
    }

    /// The same without waiting.
    pub(super) fn write_now(&self, line: Vec<u8>) {
        metrics::EVENTS.inc();
        let permit = self.room.clone().try_acquire_many_owned(kibibytes(&line));
        let sent = permit.is_ok_and(|permit| self.queue.try_send(Message::Line(line, permit)).is_ok());
        if !sent {
            lost();
        }
    }

    /// Waits until everything so far has been written.
    pub(super) async fn flushed(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_err() || wait.await.is_err() {
            tracing::error!("the writer of the audit log has ended");
        }
    }
}

fn kibibytes(line: &[u8]) -> u32 {
    u32::try_from(line.len().div_ceil(1024).min(QUEUE)).unwrap_or(u32::MAX)
}

fn lost() {
    metrics::LOST.inc();
    tracing::warn!("the audit log does not keep up, an event is lost");
}

fn run(mut target: Target, mut messages: mpsc::Receiver<Message>) {
    while let Some(message) = messages.blocking_recv() {
        match message {
            Message::Line(line, _permit) => {
                if let Err(error) = target.write(&line) {
                    metrics::LOST.inc();
                    tracing::error!(error = &error as &dyn std::error::Error, "an audit event is lost");
                }
            }
            Message::Flush(done) => {
                // Nobody may be waiting any more; then nobody minds.
                done.send(()).unwrap_or_default();
            }
        }
    }
}

enum Target {
    Standard,
    File { path: PathBuf, file: File, limits: Limits },
}

impl Target {
    fn open(path: &Path, limits: Limits) -> Result<Target, LogError> {
        if path == Path::new("-") {
            return Ok(Target::Standard);
        }
        let error = |what| move |source| LogError { what, path: path.into(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(error("make the folder of"))?;
        }
        let mut file = open(path).map_err(error("open"))?;
        let size = file.metadata().map_err(error("look at"))?.len();
        if size > 0 && !ends_with_a_line(path, size).map_err(error("look at"))? {
            // Whoever wrote last was cut off: that costs one event and not the next one, too.
            file.write_all(b"\n").map_err(error("write"))?;
        }
        Ok(Target::File { path: path.into(), file, limits })
    }

    fn write(&mut self, line: &[u8]) -> Result<(), LogError> {
        let (path, file, limits) = match self {
            Target::Standard => {
                return io::stdout().lock().write_all(line).map_err(|source| LogError {
                    what: "write",
                    path: "-".into(),
                    source,
                });
            }
            Target::File { path, file, limits } => (path, file, limits),
        };
        // Asked each time: others may shorten the file, too.
        let mut size = length(path, file)?;
        let is_full = limits.max_megabytes > 0
            && size > 0
            && size + line.len() as u64 > limits.max_megabytes * MEGABYTE;
        if is_full {
            let now = Timestamp::now();
            match put_aside(path, now) {
                Ok(new) => {
                    *file = new;
                    size = length(path, file)?;
                    clear(path, limits, now);
                }
                // A file that is too long is better than an event that is lost.
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "the audit log cannot be put aside")
                }
            }
        }
        if let Err(source) = file.write_all(line) {
            // Half a line would spoil the next one.
            if let Err(error) = file.set_len(size) {
                tracing::warn!(%error, path = %path.display(), "half an audit event cannot be taken back");
            }
            return Err(LogError { what: "write", path: path.clone(), source });
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn length(path: &Path, file: &File) -> Result<u64, LogError> {
    let metadata =
        file.metadata().map_err(|source| LogError { what: "look at", path: path.into(), source })?;
    Ok(metadata.len())
}

fn ends_with_a_line(path: &Path, size: u64) -> io::Result<bool> {
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, size - 1)?;
    Ok(last == *b"\n")
}

/// Makes the file a backup and begins a new one.
fn put_aside(path: &Path, now: Timestamp) -> io::Result<File> {
    // Two within a millisecond must not have one name.
    let mut time = now;
    while path.with_file_name(backup_name(path, time)).exists() {
        time += SignedDuration::from_millis(1);
    }
    match std::fs::rename(path, path.with_file_name(backup_name(path, time))) {
        // Somebody else has put it aside already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => open(path),
        Err(error) => Err(error),
        Ok(()) => open(path),
    }
}

/// Removes the backups that are too many or too old. What stays behind harms no event: the next time will do.
fn clear(path: &Path, limits: &Limits, now: Timestamp) {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "the backups of the audit log cannot be listed");
            return;
        }
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    for name in superseded(path, names, limits, now) {
        if let Err(error) = std::fs::remove_file(folder.join(&name)) {
            tracing::warn!(%error, name, "a backup of the audit log cannot be removed");
        }
    }
}

/// `audit-2026-01-02T03-04-05.678.log`, as upstream's are called.
fn backup_name(path: &Path, now: Timestamp) -> String {
    let (stem, extension) = name_parts(path);
    format!("{stem}-{}{extension}", now.strftime(BACKUP_TIME))
}

/// The backups among `names` that are too many or too old.
fn superseded(path: &Path, names: Vec<String>, limits: &Limits, now: Timestamp) -> Vec<String> {
    let (stem, extension) = name_parts(path);
    let time_of = |name: &str| {
        let text = name.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
        let time = jiff::civil::DateTime::strptime("%Y-%m-%dT%H-%M-%S%.f", text).ok()?;
        Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    };
    let mut backups: Vec<(Timestamp, String)> =
        names.into_iter().filter_map(|name| Some((time_of(&name)?, name))).collect();
    backups.sort_unstable_by(|one, other| other.cmp(one));
    let oldest = now - SignedDuration::from_hours(24 * i64::from(limits.max_age_days));
    let is_too_old = |time: Timestamp| limits.max_age_days > 0 && time < oldest;
    let is_too_many = |index: usize| limits.max_backups > 0 && index >= limits.max_backups;
    let judged = backups.into_iter().enumerate();
    judged
        .filter(|(index, (time, _))| is_too_many(*index) || is_too_old(*time))
        .map(|(_, (_, name))| name)
        .collect()
}

fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    (text(path.file_stem()).unwrap_or_default(), extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_go_when_they_are_too_many_or_too_old() {
        let path = Path::new("/var/log/audit.log");
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        let name = |day: &str| format!("audit-2026-01-{day}T00-00-00.000.log");
        assert_eq!(backup_name(path, now), name("10"));
        let names = || vec![name("09"), name("01"), name("08"), "audit.log".into(), "audit-x.log".into()];
        let gone = |limits| superseded(path, names(), &limits, now);
        assert!(gone(Limits::default()).is_empty());
        assert_eq!(gone(Limits { max_backups: 2, ..Limits::default() }), [name("01")]);
        assert_eq!(gone(Limits { max_age_days: 3, ..Limits::default() }), [name("01")]);
        assert_eq!(
            gone(Limits { max_backups: 1, max_age_days: 30, ..Limits::default() }),
            [name("08"), name("01")]
        );
    }

    #[test]
    fn a_full_file_is_put_aside_and_no_line_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let limits = Limits { max_megabytes: 1, ..Limits::default() };
        let mut target = Target::open(&path, limits).unwrap();
        let line = [b"x".repeat(700 << 10), b"\n".to_vec()].concat();
        target.write(&line).unwrap();
        target.write(&line).unwrap();
        let files: Vec<_> = std::fs::read_dir(dir.path().join("logs")).unwrap().collect();
        assert_eq!(files.len(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), line.len() as u64);
    }

    #[test]
    fn a_line_is_written_though_backups_make_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("logs");
        let path = folder.join("audit.log");
        let limits = Limits { max_megabytes: 1, max_backups: 1, ..Limits::default() };
        let mut target = Target::open(&path, limits).unwrap();
        // A backup that is no file cannot be removed as one.
        std::fs::create_dir(folder.join("audit-2020-01-01T00-00-00.000.log")).unwrap();
        let line = [b"x".repeat(700 << 10), b"\n".to_vec()].concat();
        target.write(&line).unwrap();
        target.write(&line).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), line.len() as u64);
        // Nowhere to begin a new file: the present one goes on.
        std::fs::rename(&folder, dir.path().join("away")).unwrap();
        target.write(&line).unwrap();
        let present = dir.path().join("away/audit.log");
        assert_eq!(std::fs::metadata(&present).unwrap().len(), 2 * line.len() as u64);
        std::fs::create_dir(&folder).unwrap();
        target.write(&line).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), line.len() as u64);
    }

    #[test]
    fn files_that_are_put_aside_at_once_do_not_replace_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for text in ["one", "two", "three"] {
            std::fs::write(&path, text).unwrap();
            put_aside(&path, now).unwrap();
        }
        let mut texts: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        texts.sort();
        assert_eq!(texts, ["", "one", "three", "two"]);
    }

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::fs::write(&path, "{\"whole\": 1}\n{\"cut of").unwrap();
        let mut target = Target::open(&path, Limits::default()).unwrap();
        target.write(b"{\"next\": 1}\n").unwrap();
        drop(Target::open(&path, Limits::default()).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"whole\": 1}\n{\"cut of\n{\"next\": 1}\n");
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_flush() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = Log::open(&path, Limits::default()).unwrap();
        log.write(b"one\n".to_vec()).await;
        log.write_now(b"two\n".to_vec());
        log.flushed().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
