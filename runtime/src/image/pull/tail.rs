//! A file that is read while it grows: the unpacker follows the download.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Says how far the file has grown. Dropped before its end, the reader fails.
pub(super) struct Feed(Arc<Tail>);

/// Reads the file from its beginning and waits at its end for more.
pub(super) struct Follower {
    tail: Arc<Tail>,
    file: File,
    offset: u64,
}

struct Tail {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct State {
    length: u64,
    ending: Ending,
    followed: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Growing,
    Complete,
    Broken,
}

/// Both ends of a file of which `length` bytes are there.
pub(super) fn follow(file: File, length: u64) -> (Feed, Follower) {
    let state = State { length, ending: Ending::Growing, followed: true };
    let tail = Arc::new(Tail { state: Mutex::new(state), changed: Condvar::new() });
    (Feed(tail.clone()), Follower { tail, file, offset: 0 })
}

impl Tail {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    /// This many bytes are in the file now; false when nobody reads them any more.
    pub(super) fn grown_to(&self, length: u64) -> bool {
        let mut state = self.0.state();
        state.length = length;
        self.0.changed.notify_one();
        state.followed
    }

    /// All bytes are there.
    pub(super) fn complete(self) {
        self.0.state().ending = Ending::Complete;
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.ending == Ending::Growing {
            state.ending = Ending::Broken;
        }
        self.0.changed.notify_one();
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = {
            let state = self.tail.state();
            let waits = |state: &mut State| state.length <= self.offset && state.ending == Ending::Growing;
            *self.tail.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner)
        };
        if state.length <= self.offset {
            return match state.ending {
                Ending::Complete => Ok(0),
                _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download ended early")),
            };
        }
        let there = usize::try_from(state.length - self.offset).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..there], self.offset)?;
        if length == 0 && there > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the download was cut short"));
        }
        self.offset += length as u64;
        Ok(length)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.tail.state().followed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_gets_what_has_come_and_then_what_comes() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        let (feed, mut follower) = follow(file.try_clone().unwrap(), 3);
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            follower.read_to_end(&mut all).map(|_| all)
        });
        file.write_all_at(b"def", 3).unwrap();
        assert!(feed.grown_to(6));
        feed.complete();
        assert_eq!(reading.join().unwrap().unwrap(), b"abcdef");
    }

    #[test]
    fn a_broken_download_ends_the_reader_and_a_gone_reader_is_noticed() {
        let (feed, mut follower) = follow(tempfile::tempfile().unwrap(), 0);
        drop(feed);
        assert_eq!(follower.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (feed, follower) = follow(tempfile::tempfile().unwrap(), 0);
        drop(follower);
        assert!(!feed.grown_to(1));
    }
}
