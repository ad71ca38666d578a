//! Container logs in CRI's format: `2026-01-02T03:04:05.123456789Z stdout F the line`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::container::spec::LogLimit;

/// Longer lines are written in parts, marked P but for the last; containerd's limit.
const LONGEST_LINE: usize = 16 * 1024;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Cuts a stream into log lines.
pub struct Lines {
    stream: Stream,
    unfinished: Vec<u8>,
}

impl Lines {
    /// Nothing has come yet.
    pub fn new(stream: Stream) -> Lines {
        Lines { stream, unfinished: Vec::new() }
    }

    /// Adds to `log` what `data` makes of whole lines; the rest waits for more.
    pub fn feed(&mut self, mut data: &[u8], now: Timestamp, log: &mut Vec<u8>) {
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            self.extend(&data[..end], now, log);
            self.write('F', now, log);
            data = &data[end + 1..];
        }
        self.extend(data, now, log);
    }

    /// Adds to `log` what came without an end of line.
    pub fn finish(&mut self, now: Timestamp, log: &mut Vec<u8>) {
        if !self.unfinished.is_empty() {
            self.write('P', now, log);
        }
    }

    fn extend(&mut self, mut data: &[u8], now: Timestamp, log: &mut Vec<u8>) {
        while self.unfinished.len() + data.len() > LONGEST_LINE {
            let (part, rest) = data.split_at(LONGEST_LINE - self.unfinished.len());
            self.unfinished.extend_from_slice(part);
            self.write('P', now, log);
            data = rest;
        }
        self.unfinished.extend_from_slice(data);
    }

    fn write(&mut self, tag: char, now: Timestamp, log: &mut Vec<u8>) {
        // Nine digits always, so that lines sort by their text.
        write!(log, "{now:.9} {} {tag} ", self.stream.name()).expect("a vector takes everything");
        log.append(&mut self.unfinished);
        log.push(b'\n');
    }
}

/// A log file.
pub struct LogFile {
    path: PathBuf,
    file: File,
    limit: Option<LogLimit>,
    length: u64,
    /// Whether the last attempt to write failed, which is told once.
    is_failing: bool,
}

impl LogFile {
    /// Opens the file, going on where it ends.
    pub fn open(path: PathBuf, limit: Option<LogLimit>) -> io::Result<LogFile> {
        let file = append(&path)?;
        let length = file.metadata()?.len();
        Ok(LogFile { path, file, limit, length, is_failing: false })
    }

    /// Goes on in a new file of the same name, after somebody has renamed the old one.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        self.length = self.file.metadata()?.len();
        Ok(())
    }

    /// Writes whole lines. When the disk is full the container must go on: the log has a gap then.
    pub fn write(&mut self, lines: &[u8]) {
        let is_full = |limit: &LogLimit| self.length > 0 && self.length + lines.len() as u64 > limit.bytes;
        if let Some(limit) = self.limit.filter(is_full) {
            // Where that fails the log grows on.
            let rotated = self.rotate(limit);
            self.note(rotated);
        }
        let written = self.write_all_or_nothing(lines);
        self.note(written);
    }

    fn write_all_or_nothing(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < lines.len() {
            match self.file.write(&lines[written..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(length) if length > 0 => written += length,
                outcome => {
                    // Half a line would swallow the next one's beginning.
                    let end = self.file.metadata()?.len();
                    self.file.set_len(end.saturating_sub(written as u64))?;
                    return Err(outcome.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                }
            }
        }
        self.length += written as u64;
        Ok(())
    }

    fn note(&mut self, outcome: io::Result<()>) {
        if let Err(error) = &outcome
            && !self.is_failing
        {
            super::say(&format!("failed to write {}: {error}", self.path.display()));
        }
        self.is_failing = outcome.is_err();
    }

    /// Gives the file a name with the time, as the kubelet does, and goes on in a new one.
    fn rotate(&mut self, limit: LogLimit) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
        let rotated = self.path.with_file_name(format!("{name}.{stamp}"));
        // Names tell seconds: a faster log grows for the rest of this one.
        if rotated.exists() {
            return Ok(());
        }
        std::fs::rename(&self.path, rotated)?;
        self.reopen()?;
        remove_oldest(&self.path, limit.files)
    }
}

/// Removes the oldest files that were rotated away from `path`, so that `most` remain with itself.
fn remove_oldest(path: &Path, most: usize) -> io::Result<()> {
    let prefix = format!("{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let mut old = Vec::new();
    for entry in std::fs::read_dir(path.parent().unwrap_or(Path::new("/")))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            old.push(entry.path());
        }
    }
    old.sort();
    let surplus = (old.len() + 1).saturating_sub(most);
    old.iter().take(surplus).try_for_each(std::fs::remove_file)
}

fn append(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Readable by its owner alone: logs hold secrets more often than one would like.
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(parts: &[&str]) -> Vec<String> {
        let now: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
        let (mut lines, mut log) = (Lines::new(Stream::Stdout), Vec::new());
        parts.iter().for_each(|part| lines.feed(part.as_bytes(), now, &mut log));
        lines.finish(now, &mut log);
        let text = String::from_utf8(log).unwrap();
        text.lines()
            .map(|line| line.strip_prefix("2026-01-02T03:04:05.600000000Z stdout ").unwrap().to_owned())
            .collect()
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(logged(&["one\ntw", "o\n\nthree\n"]), ["F one", "F two", "F ", "F three"]);
    }

    #[test]
    fn what_has_no_end_is_partial() {
        assert_eq!(logged(&["done\n$ "]), ["F done", "P $ "]);
    }

    #[test]
    fn long_lines_come_in_parts() {
        let long = "x".repeat(LONGEST_LINE + 5) + "\n";
        let lines = logged(&[&long]);
        assert_eq!(lines[0].len(), LONGEST_LINE + 2);
        assert_eq!(lines[1], "F xxxxx");
    }

    fn limited(directory: &Path, bytes: u64) -> LogFile {
        LogFile::open(directory.join("0.log"), Some(LogLimit { bytes, files: 2 })).unwrap()
    }

    #[test]
    fn a_log_that_grows_too_long_goes_on_in_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        for old in ["0.log.20200101-000000", "0.log.20200101-000001"] {
            std::fs::write(directory.path().join(old), "old").unwrap();
        }
        let mut log = limited(directory.path(), 10);
        log.write(b"first\n");
        log.write(b"second\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second\n");
        // The kubelet, too, may give the file another name.
        std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        log.reopen().unwrap();
        log.write(b"third\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\n");
        let rotated = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let rotated: Vec<_> = rotated.filter(|path| path.to_string_lossy().contains(".log.")).collect();
        assert_eq!(rotated.len(), 1, "{rotated:?}");
        assert_eq!(std::fs::read_to_string(&rotated[0]).unwrap(), "first\n");
    }

    #[test]
    fn a_line_too_long_for_every_file_is_written_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = limited(directory.path(), 3);
        log.write(b"longer\n");
        assert_eq!(std::fs::read_to_string(directory.path().join("0.log")).unwrap(), "longer\n");
    }

    #[test]
    fn a_disk_that_takes_nothing_is_no_reason_to_end() {
        let mut log = LogFile::open("/dev/full".into(), None).unwrap();
        log.write(b"lost\n");
        assert!(log.is_failing);
    }
}
