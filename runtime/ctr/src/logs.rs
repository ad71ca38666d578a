//! `ctr logs`: CRI's log lines as a container wrote them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::args::LogsArgs;
use crate::containers::Container;
use crate::place::Place;

/// Which lines are wanted.
struct Wanted {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    timestamps: bool,
}

/// A line of the log.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    at: Timestamp,
    is_error: bool,
    /// Whether the line goes on in the next one.
    is_partial: bool,
    text: &'a [u8],
}

/// `ctr logs`.
pub async fn logs(place: &Place, args: &LogsArgs) -> Result<()> {
    let container = Container::find(place, &args.container)?;
    let now = Timestamp::now();
    let wanted = Wanted {
        since: args.since.as_deref().map(|text| time(text, now)).transpose()?,
        until: args.until.as_deref().map(|text| time(text, now)).transpose()?,
        timestamps: args.timestamps,
    };
    let path = container.log();
    let mut reader = match File::open(&path) {
        // It has not been started yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !args.follow => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            File::create_new(&path).or_else(|_| File::open(&path)).context("cannot open the log")?;
            BufReader::new(File::open(&path).context("cannot open the log")?)
        }
        result => BufReader::new(result.context("cannot open the log")?),
    };
    match args.tail.as_str() {
        "all" | "-1" => {}
        number => {
            let lines: usize =
                number.parse().with_context(|| format!("invalid value for \"tail\": {number}"))?;
            let start = start_of_last(&mut reader, lines)?;
            reader.seek(SeekFrom::Start(start)).context("cannot read the log")?;
        }
    }
    if !args.follow {
        return show(&mut reader, &wanted).map(drop);
    }
    follow(place, &container, reader, &path, &wanted).await
}

/// Where the last lines begin; parts of a long line are one.
fn start_of_last(reader: &mut BufReader<File>, lines: usize) -> Result<u64> {
    let (mut starts, mut at, mut goes_on) = (VecDeque::with_capacity(lines + 1), 0, false);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let length = reader.read_until(b'\n', &mut bytes).context("cannot read the log")?;
        if length == 0 {
            break;
        }
        if !goes_on {
            starts.push_back(at);
            if starts.len() > lines {
                starts.pop_front();
            }
        }
        goes_on = parse(&bytes).is_some_and(|line| line.is_partial);
        at += length as u64;
    }
    Ok(starts.front().copied().unwrap_or(at))
}

/// Writes out whole lines up to the end; `false` when what comes is later than what is wanted.
fn show(reader: &mut BufReader<File>, wanted: &Wanted) -> Result<bool> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let length = reader.read_until(b'\n', &mut bytes).context("cannot read the log")?;
        if bytes.last() != Some(&b'\n') {
            // Half a line is being written: it is read again when it is whole.
            reader.seek_relative(-(length as i64)).context("cannot read the log")?;
            return Ok(true);
        }
        let Some(line) = parse(&bytes) else { continue };
        if wanted.until.is_some_and(|until| line.at > until) {
            return Ok(false);
        }
        if wanted.since.is_none_or(|since| line.at >= since) && write(&line, wanted.timestamps).is_err() {
            // Nobody reads on.
            return Ok(false);
        }
    }
}

fn write(line: &Line<'_>, timestamps: bool) -> io::Result<()> {
    let mut text = Vec::with_capacity(line.text.len() + 40);
    if timestamps {
        write!(text, "{:.9} ", line.at)?;
    }
    text.extend_from_slice(line.text);
    if !line.is_partial {
        text.push(b'\n');
    }
    if line.is_error {
        io::stderr().write_all(&text)
    } else {
        let mut output = io::stdout().lock();
        output.write_all(&text)?;
        output.flush()
    }
}

/// Goes on with what is written, until the container has ended and all is read.
async fn follow(
    place: &Place,
    container: &Container,
    mut reader: BufReader<File>,
    path: &Path,
    wanted: &Wanted,
) -> Result<()> {
    let changes =
        Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("cannot watch the log")?;
    let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    let folders = [container.folder().to_owned(), path.to_owned()];
    for folder in &folders {
        changes.add_watch(folder, flags).context("cannot watch the log")?;
    }
    let descriptor = changes.as_fd().try_clone_to_owned().context("cannot watch the log")?;
    let changed = runtime::sys::poll::watched(descriptor).context("cannot watch the log")?;
    // It is not subscribed, so that it keeps no shim from its end: with the shim the connection ends.
    let mut alive = runtime::shim::connect(&place.pod(container.id())).ok();
    loop {
        let runs = container.status(place)?.is_running();
        if !show(&mut reader, wanted)? || !runs {
            return Ok(());
        }
        tokio::select! {
            ready = changed.readable() => {
                let mut ready = ready.context("cannot watch the log")?;
                match changes.read_events() {
                    Ok(_) | Err(nix::Error::EAGAIN) => ready.clear_ready(),
                    Err(error) => return Err(error).context("cannot watch the log"),
                }
            }
            () = gone(&mut alive) => alive = None,
        }
    }
}

async fn gone(connection: &mut Option<runtime::shim::Connection>) {
    match connection {
        Some(connection) => while let Ok(Some(_)) = connection.receive().await {},
        None => std::future::pending().await,
    }
}

/// `2026-01-02T03:04:05.678901234Z stdout F text`.
fn parse(bytes: &[u8]) -> Option<Line<'_>> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut parts = bytes.splitn(4, |byte| *byte == b' ');
    let at = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let is_error = parts.next()? == b"stderr";
    let is_partial = parts.next()? == b"P";
    Some(Line { at, is_error, is_partial, text: parts.next()? })
}

/// A time as docker reads it: RFC 3339, a date, seconds since 1970, or how long ago: `1h30m`.
fn time(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<jiff::civil::DateTime>() {
        return Ok(time.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp());
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Timestamp::from_nanosecond((seconds * 1e9) as i128)
            .with_context(|| format!("invalid time: {text}"));
    }
    match text.parse::<jiff::SignedDuration>() {
        Ok(duration) => now.checked_sub(duration).with_context(|| format!("invalid time: {text}")),
        Err(_) => bail!("invalid value for time: failed to parse value as time or duration: \"{text}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_spaces() {
        let line = parse(b"2026-01-02T03:04:05.600000000Z stderr P  two  spaces\n").unwrap();
        assert_eq!((line.is_error, line.is_partial, line.text), (true, true, &b" two  spaces"[..]));
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F \n").unwrap().text, b"");
        assert_eq!(parse(b"nonsense\n"), None);
    }

    #[test]
    fn times_are_given_in_many_ways() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let told = |text: &str| time(text, now).unwrap().to_string();
        assert_eq!(told("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05Z");
        assert_eq!(told("2026-01-02"), "2026-01-02T00:00:00Z");
        assert_eq!(told("1h30m"), "2026-06-01T10:30:00Z");
        assert_eq!(told("1000.5"), "1970-01-01T00:16:40.5Z");
        assert!(time("yesterday", now).is_err());
    }
}
