//! The journal: what makes writes durable, and from which the state is rebuilt.
//!
//! A directory holds at most one snapshot, the whole store as it stood at some revision, and the
//! segments of the log: all the changes after it. A batch of changes is one frame of a segment, and
//! durable when [`Journal::append`] returns. Once compaction has passed the end of enough segments,
//! a new snapshot takes their place.
//!
//! A failed write is never tried again: the kernel may have dropped the data and forgotten it.

mod frame;
pub(super) mod record;
mod segment;
mod snapshot;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use self::{
    frame::Blocks,
    record::Record,
    segment::{SEGMENT_SIZE, Segment, Spare, SpareFile},
};
use super::{
    OpenError,
    directory::{UNFINISHED, sync_directory},
    state::{Change, State},
};
use crate::Revision;

/// See the module.
pub(super) struct Journal {
    directory: PathBuf,
    segment: Segment,
    number: u64,
    spare: Spare,
    closed: Vec<ClosedSegment>,
    last_revision: Revision,
    buffer: Blocks,
    snapshot: Option<JoinHandle<io::Result<Revision>>>,
}

/// A segment that is not written any more.
struct ClosedSegment {
    path: PathBuf,
    /// No change in it is newer.
    last_revision: Revision,
    size: u64,
}

/// How many segments may wait for a snapshot, however small they are: each start opens a new one.
const MOST_SEGMENTS: usize = 16;

impl Journal {
    /// Reads what there is, cuts off a torn last write, and gets ready to append.
    pub fn open(directory: &Path) -> Result<(Journal, State), OpenError> {
        let io_error = |what| move |source| OpenError::Io { what, path: directory.to_owned(), source };
        let files = Files::list(directory).map_err(io_error("list"))?;
        let mut state = State::new();
        if let Some(snapshot) = files.snapshots.last() {
            snapshot::restore(&snapshot.path, Revision(snapshot.number), &mut state)?;
        }
        let mut closed = Vec::new();
        let mut next_frame = None;
        for file in &files.segments {
            let replayed = segment::replay(&file.path, next_frame, &mut state)?;
            next_frame = Some(replayed.next_frame);
            if replayed.is_empty {
                fs::remove_file(&file.path).map_err(io_error("remove an empty log from"))?;
            } else {
                let (path, size) = (file.path.clone(), replayed.size);
                closed.push(ClosedSegment { path, last_revision: state.revision(), size });
            }
        }
        files.remove_outdated().map_err(io_error("tidy up"))?;
        // A process that was killed may have finished a snapshot and not removed what it replaces.
        let snapshot = files.snapshots.last().map_or(Revision(0), |file| Revision(file.number));
        remove_up_to(snapshot, &mut closed).map_err(io_error("tidy up"))?;
        let number = files.segments.last().map_or(1, |file| file.number + 1);
        let segment = Segment::create(directory, number, next_frame.unwrap_or(1), None);
        let journal = Journal {
            directory: directory.to_owned(),
            segment: segment.map_err(io_error("start a log in"))?,
            number,
            spare: Spare::default(),
            closed,
            last_revision: state.revision(),
            buffer: Blocks::default(),
            snapshot: None,
        };
        Ok((journal, state))
    }

    /// Makes a batch durable. After an error nothing more may be appended.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        self.leave_makeshift()?;
        self.segment.frame(&mut self.buffer, records);
        if self.segment.is_full_for(&self.buffer) {
            self.rotate()?;
            self.segment.frame(&mut self.buffer, records);
        }
        self.segment.append(&self.buffer)?;
        let changed = records.iter().rev().find_map(|record| match record {
            Record::Change(Change { version, .. }) => Some(version.modified),
            Record::Compacted(_) => None,
        });
        self.last_revision = changed.unwrap_or(self.last_revision);
        if self.segment.wants_successor() {
            self.spare.prepare(&self.directory);
        }
        Ok(())
    }

    /// Goes on in a segment that takes writes faster once there is one.
    fn leave_makeshift(&mut self) -> io::Result<()> {
        if !self.segment.is_makeshift() || !self.spare.is_ready() {
            return Ok(());
        }
        match self.spare.take() {
            Some(spare) => self.rotate_to(Some(spare)),
            None => {
                self.segment.settle();
                Ok(())
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let spare = self.spare.take();
        self.rotate_to(spare)
    }

    fn rotate_to(&mut self, spare: Option<SpareFile>) -> io::Result<()> {
        let next = Segment::create(&self.directory, self.number + 1, self.segment.next_frame(), spare)?;
        self.number += 1;
        let closed = std::mem::replace(&mut self.segment, next);
        let last_revision = self.last_revision;
        self.closed.push(ClosedSegment { size: closed.size(), path: closed.path, last_revision });
        Ok(())
    }

    /// Whether compaction up to `compacted` has left so much dead weight in the log that a snapshot
    /// there is worth its cost, with `live_bytes` to be written.
    pub fn wants_snapshot(&self, compacted: Revision, live_bytes: u64) -> bool {
        let passed = self.closed.iter().take_while(|segment| segment.last_revision <= compacted);
        let (count, size) = passed.fold((0, 0), |(count, size), segment| (count + 1, size + segment.size));
        self.snapshot.is_none() && (count >= MOST_SEGMENTS || size >= live_bytes.max(2 * SEGMENT_SIZE))
    }

    /// Starts to write a snapshot in the background: `keys` are all that were there at `revision`.
    pub fn start_snapshot(&mut self, revision: Revision, keys: Vec<Change>) -> io::Result<()> {
        let directory = self.directory.clone();
        let write = move || snapshot::write(&directory, revision, keys).map(|()| revision);
        self.snapshot = Some(std::thread::Builder::new().name("store-snapshot".into()).spawn(write)?);
        Ok(())
    }

    /// Removes what a snapshot that has been finished in the meantime replaces.
    pub fn finish_snapshot(&mut self) -> io::Result<()> {
        match self.snapshot.take_if(|snapshot| snapshot.is_finished()) {
            Some(snapshot) => self.replace_by(snapshot),
            None => Ok(()),
        }
    }

    fn replace_by(&mut self, snapshot: JoinHandle<io::Result<Revision>>) -> io::Result<()> {
        let revision = snapshot.join().map_err(|_| io::Error::other("writing the snapshot panicked"))??;
        remove_up_to(revision, &mut self.closed)?;
        Files::list(&self.directory)?.remove_older_snapshots()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(snapshot) = self.snapshot.take()
            && let Err(error) = self.replace_by(snapshot)
        {
            tracing::warn!(%error, "the last snapshot could not be written; the log still has everything");
        }
    }
}

/// Removes the segments that a snapshot at `revision` replaces, the oldest first: what is left has no gap.
fn remove_up_to(revision: Revision, closed: &mut Vec<ClosedSegment>) -> io::Result<()> {
    let replaced = closed.partition_point(|segment| segment.last_revision <= revision);
    closed.drain(..replaced).try_for_each(|segment| fs::remove_file(segment.path))
}

/// The journal's files in a directory, each kind in order.
struct Files {
    directory: PathBuf,
    snapshots: Vec<NumberedFile>,
    segments: Vec<NumberedFile>,
    unfinished: Vec<PathBuf>,
}

struct NumberedFile {
    number: u64,
    path: PathBuf,
}

impl Files {
    fn list(directory: &Path) -> io::Result<Files> {
        let (mut snapshots, mut segments, mut unfinished) = (Vec::new(), Vec::new(), Vec::new());
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let numbered = |prefix| name.strip_prefix(prefix)?.parse::<u64>().ok();
            if name.ends_with(UNFINISHED) {
                unfinished.push(path);
            } else if let Some(number) = numbered(snapshot::PREFIX) {
                snapshots.push(NumberedFile { number, path });
            } else if let Some(number) = numbered(segment::PREFIX) {
                segments.push(NumberedFile { number, path });
            }
        }
        snapshots.sort_by_key(|file| file.number);
        segments.sort_by_key(|file| file.number);
        Ok(Files { directory: directory.to_owned(), snapshots, segments, unfinished })
    }

    /// Removes what a crash has left.
    fn remove_outdated(&self) -> io::Result<()> {
        self.unfinished.iter().try_for_each(fs::remove_file)?;
        self.remove_older_snapshots()
    }

    fn remove_older_snapshots(&self) -> io::Result<()> {
        let older = self.snapshots.split_last().map_or(&[][..], |(_, older)| older);
        older.iter().try_for_each(|file| fs::remove_file(&file.path))?;
        sync_directory(&self.directory)
    }
}
