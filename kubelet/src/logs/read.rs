//! Reads a container's log as `kubectl logs` asks for it.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::follow::LogChange;
use super::record::parse;

/// How much is read from the end at a time when the last lines are looked for.
const STEP: u64 = 64 * 1024;
/// How much is sent at a time.
const CHUNK: usize = 32 * 1024;

/// Which part of a log, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    /// Go on with what is still to come.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<usize>,
    /// Only what was written at this time or later.
    pub since: Option<Timestamp>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// No more than so many bytes.
    pub limit: Option<usize>,
}

/// Sends the log to `output`. When following, that goes on until `ended` says that the container has ended and everything
/// is read, or nobody listens any more.
pub async fn stream(
    path: PathBuf,
    options: LogOptions,
    output: mpsc::Sender<io::Result<Bytes>>,
    ended: impl Future<Output = ()>,
) {
    if let Err(error) = read_all(&path, &options, &output, ended).await {
        // A listener that is gone does not need to know.
        output.send(Err(error)).await.unwrap_or_default();
    }
}

async fn read_all(
    path: &Path,
    options: &LogOptions,
    output: &mpsc::Sender<io::Result<Bytes>>,
    ended: impl Future<Output = ()>,
) -> io::Result<()> {
    // Watching comes before reading, so that nothing is written unseen.
    let directory = path.parent().unwrap_or(Path::new("/"));
    let change = options.follow.then(|| LogChange::watch(directory)).transpose()?;
    let mut log = LogFile::open(path, options.tail)?;
    let mut limit = options.limit.unwrap_or(usize::MAX);
    tokio::pin!(ended);
    let mut has_ended = false;
    loop {
        let mut text = Vec::new();
        while log.read_into(&mut text, options)? {
            if text.len() >= CHUNK && !send(std::mem::take(&mut text), &mut limit, output).await {
                return Ok(());
            }
        }
        if !send(text, &mut limit, output).await {
            return Ok(());
        }
        let Some(change) = &change else { return Ok(()) };
        if log.reopen_if_replaced(path)? {
            continue;
        }
        if has_ended {
            return Ok(());
        }
        tokio::select! {
            result = change.wait() => result?,
            // What was written last is read once more.
            () = &mut ended => has_ended = true,
            () = output.closed() => return Ok(()),
        }
    }
}

/// Whether there is more to send.
async fn send(mut text: Vec<u8>, limit: &mut usize, output: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    text.truncate(*limit);
    *limit -= text.len();
    let sent = text.is_empty() || output.send(Ok(Bytes::from(text))).await.is_ok();
    sent && *limit > 0
}

/// A log file and how far it has been read; a record that is not complete yet waits in `rest`.
struct LogFile {
    reader: BufReader<File>,
    inode: u64,
    rest: Vec<u8>,
}

impl LogFile {
    fn open(path: &Path, tail: Option<usize>) -> io::Result<LogFile> {
        let mut file = File::open(path)?;
        if let Some(lines) = tail {
            let start = start_of_last_lines(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        let inode = file.metadata()?.ino();
        Ok(LogFile { reader: BufReader::new(file), inode, rest: Vec::new() })
    }

    /// Reads one record; `false` when there is no whole one.
    fn read_into(&mut self, text: &mut Vec<u8>, options: &LogOptions) -> io::Result<bool> {
        self.reader.read_until(b'\n', &mut self.rest)?;
        if self.rest.last() != Some(&b'\n') {
            return Ok(false);
        }
        self.rest.pop();
        if let Some(record) = parse(&self.rest) {
            let is_wanted =
                options.since.is_none_or(|since| record.timestamp().is_none_or(|time| time >= since));
            if is_wanted {
                record.render(options.timestamps, text);
            }
        }
        self.rest.clear();
        Ok(true)
    }

    /// After a rotation the name belongs to another file.
    fn reopen_if_replaced(&mut self, path: &Path) -> io::Result<bool> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.ino() != self.inode => {
                *self = LogFile::open(path, None)?;
                Ok(true)
            }
            // Between the two steps of a rotation there is none.
            _ => Ok(false),
        }
    }
}

/// Where the last `lines` lines begin. Parts of one line count as one.
fn start_of_last_lines(file: &mut File, lines: usize) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let mut window = STEP;
    loop {
        let start = length.saturating_sub(window);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(length - start).read_to_end(&mut bytes)?;
        if let Some(offset) = offset_of_last_lines(&bytes, lines) {
            return Ok(start + offset as u64);
        }
        if start == 0 {
            return Ok(0);
        }
        window *= 4;
    }
}

/// Where in `bytes` the last `lines` lines begin, if so many begin there.
fn offset_of_last_lines(bytes: &[u8], lines: usize) -> Option<usize> {
    let mut found = 0;
    let mut end = bytes.strip_suffix(b"\n").map_or(bytes.len(), <[u8]>::len);
    while let Some(newline) = bytes[..end].iter().rposition(|byte| *byte == b'\n') {
        let before_start = bytes[..newline].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let goes_on = parse(&bytes[before_start..newline]).is_some_and(|record| record.is_partial);
        if !goes_on {
            found += 1;
            if found == lines {
                return Some(newline + 1);
            }
        }
        end = newline;
    }
    None
}

/// The text of the last lines, for a container that has left no last words; empty when there is no log.
pub fn last_lines(path: &Path, lines: usize, limit: usize) -> String {
    let text = read_now(path, Some(lines)).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(limit)..]).into_owned()
}

/// What is there now, or so many of the last lines of it.
pub(super) fn read_now(path: &Path, tail: Option<usize>) -> io::Result<Vec<u8>> {
    let mut log = LogFile::open(path, tail)?;
    let mut text = Vec::new();
    while log.read_into(&mut text, &LogOptions::default())? {}
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::sync::oneshot;

    use super::*;

    struct Log {
        directory: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Log {
            let log = Log { directory: tempfile::tempdir().unwrap() };
            log.write("");
            log
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("0.log")
        }

        fn write(&self, text: &str) {
            let mut file = File::options().append(true).create(true).open(self.path()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn line(&self, second: u32, text: &str) {
            self.write(&format!("2026-11-21T08:00:{second:02}Z stdout F {text}\n"));
        }

        async fn read(&self, options: LogOptions) -> String {
            let (sender, mut receiver) = mpsc::channel(64);
            stream(self.path(), options, sender, std::future::pending()).await;
            let mut text = Vec::new();
            while let Ok(chunk) = receiver.try_recv() {
                text.extend_from_slice(&chunk.unwrap());
            }
            String::from_utf8(text).unwrap()
        }
    }

    #[tokio::test]
    async fn options_choose_the_part() {
        let log = Log::new();
        (1..=4).for_each(|second| log.line(second, &format!("line {second}")));
        log.write("2026-11-21T08:00:05Z stdout P half ");
        let all = LogOptions::default();
        assert_eq!(log.read(all.clone()).await, "line 1\nline 2\nline 3\nline 4\n");
        assert_eq!(log.read(LogOptions { tail: Some(1), ..all.clone() }).await, "");
        log.write("and half\n2026-11-21T08:00:05Z stdout F done\n");
        assert_eq!(log.read(LogOptions { tail: Some(1), ..all.clone() }).await, "half and halfdone\n");
        assert_eq!(log.read(LogOptions { tail: Some(0), ..all.clone() }).await, "");
        assert_eq!(
            log.read(LogOptions { tail: Some(99), limit: Some(9), ..all.clone() }).await,
            "line 1\nli"
        );
        let since = Some("2026-11-21T08:00:04Z".parse().unwrap());
        let late = LogOptions { since, timestamps: true, tail: Some(2), ..all };
        assert_eq!(
            log.read(late).await,
            "2026-11-21T08:00:04Z line 4\n2026-11-21T08:00:05Z half and half2026-11-21T08:00:05Z done\n"
        );
    }

    #[test]
    fn the_last_lines_are_found_far_from_the_end() {
        let log = Log::new();
        let long = "x".repeat(3000);
        (0..60).for_each(|second| log.line(second, &format!("{second} {long}")));
        let mut file = File::open(log.path()).unwrap();
        let start = start_of_last_lines(&mut file, 50).unwrap();
        let whole = fs::read_to_string(log.path()).unwrap();
        assert!(whole[start as usize..].starts_with("2026-11-21T08:00:10Z stdout F 10 "));
        assert!(last_lines(&log.path(), 2, 100).ends_with("xxx\n"));
        assert_eq!(last_lines(Path::new("/none"), 2, 100), "");
    }

    #[tokio::test]
    async fn following_goes_on_through_a_rotation_to_the_end_of_the_container() {
        let log = Log::new();
        log.line(1, "one");
        let (sender, mut receiver) = mpsc::channel(64);
        let (end, ended) = oneshot::channel::<()>();
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let reading =
            tokio::spawn(stream(log.path(), options, sender, async move { ended.await.unwrap_or(()) }));
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "one\n");
        log.line(2, "two");
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "two\n");
        fs::rename(log.path(), log.directory.path().join("0.log.1")).unwrap();
        log.line(3, "three");
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "three\n");
        end.send(()).unwrap();
        assert!(receiver.recv().await.is_none());
        reading.await.unwrap();
    }
}
