//! Container logs in CRI's format: `2026-01-02T03:04:05.123456789Z stdout F the line`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use jiff::Timestamp;

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
    file: Option<File>,
}

impl LogFile {
    /// Opens the file, going on where it ends.
    pub fn open(path: PathBuf) -> io::Result<LogFile> {
        let file = Some(append(&path)?);
        Ok(LogFile { path, file })
    }

    /// Goes on in a new file of the same name, after somebody has renamed the old one.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = Some(append(&self.path)?);
        Ok(())
    }

    /// Writes lines. When the disk is full the container must go on: the log has a gap then.
    pub fn write(&mut self, lines: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(lines)
        {
            eprintln!("failed to write {}: {error}", self.path.display());
        }
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
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
}
