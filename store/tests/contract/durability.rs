//! What only the embedded engine promises: about its data directory, and about broken ones.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use store::{
    Revision, Store, Watch, WatchEvent, WriteError,
    embedded::{Embedded, OpenError, Retention},
};

use crate::{subject::now, suite::create};

#[tokio::test]
async fn a_directory_is_for_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let first = Embedded::open(directory.path()).unwrap();
    let second = Embedded::open(directory.path()).err().unwrap();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    drop(first);
    Embedded::open(directory.path()).unwrap();
}

#[test]
fn a_newer_format_is_refused_in_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    drop(Embedded::open(directory.path()).unwrap());
    fs::write(directory.path().join("format"), "2\n").unwrap();
    let refused = Embedded::open(directory.path()).err().unwrap();
    let path = directory.path().display();
    assert_eq!(
        refused.to_string(),
        format!(
            "the data directory {path} has format 2, this program understands formats up to 1: \
             use a newer version or choose another directory"
        )
    );
    fs::write(directory.path().join("format"), "elephant").unwrap();
    assert!(matches!(Embedded::open(directory.path()), Err(OpenError::UnknownFormat { .. })));
}

/// A start does not wait for a segment to be filled with zeros; a store that is written to soon goes on in one
/// that is, and has everything afterwards.
#[tokio::test]
async fn a_busy_store_leaves_its_first_segment() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let logs = || names(directory.path()).into_iter().filter(|name| name.starts_with("log-")).count();
    let mut written = 0;
    let begin = Instant::now();
    while logs() < 2 {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "{written} writes, and the segment is still not left"
        );
        // Large ones until the segment may be left; then small ones, which do not fill it, until another is ready.
        let value = Bytes::from(vec![b'x'; if written < 9 { 31 << 10 } else { 1 }]);
        store.create(&format!("/a/{written:05}"), value, None).await.unwrap();
        written += 1;
        if written > 9 {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
    create(&store, "/b", "in the next one").await;
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(store.range("/a/", None, None, 0).await.unwrap().items.len(), written);
    assert!(store.get("/b", None).await.unwrap().is_some());
}

/// Enough restarts with compactions that snapshots replace the log, and nothing changes by that.
#[tokio::test]
async fn snapshots_replace_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (mut expected, mut written) = (Vec::new(), BTreeMap::new());
    for round in 0..40 {
        let logs = names(directory.path()).into_iter().filter(|name| name.starts_with("log-"));
        written.extend(logs.map(|name| (name.clone(), fs::read(directory.path().join(name)).unwrap())));
        let store = Embedded::open(directory.path()).unwrap();
        let key = format!("/a/{round}");
        let created = create(&store, &key, "one").await;
        let updated = store.update(&key, "two".into(), created, None).await.unwrap();
        expected.push((key, created, updated));
        if round % 7 == 0 {
            create(&store, "/b", "x").await;
            store.delete("/b", None).await.unwrap();
        }
        if round % 3 == 0 {
            store.compact(now(&store).await).await.unwrap();
        }
    }
    let files = names(directory.path());
    assert_eq!(files.iter().filter(|name| name.starts_with("snapshot-")).count(), 1, "{files:?}");
    assert!(files.iter().filter(|name| name.starts_with("log-")).count() < 40, "{files:?}");
    assert!(!files.iter().any(|name| name.ends_with(".unfinished")), "{files:?}");
    // Killed between a snapshot and the removal of what it replaces, that is removed at the next start.
    written.retain(|name, _| !files.contains(name));
    assert!(written.len() > 10, "{files:?}");
    written.iter().for_each(|(name, content)| fs::write(directory.path().join(name), content).unwrap());
    drop(Embedded::open(directory.path()).unwrap());
    let mut now_there = names(directory.path());
    now_there.retain(|name| !files.contains(name));
    assert_eq!(now_there.len(), 1, "only the new log: {now_there:?}");
    let store = Embedded::open(directory.path()).unwrap();
    let found = store.range("/", None, None, 0).await.unwrap().items;
    let found: Vec<_> = found
        .into_iter()
        .map(|item| (item.key.to_string(), item.create_revision, item.mod_revision))
        .collect();
    expected.sort();
    assert_eq!(found, expected);
}

/// The log cut, zeroed or overwritten with garbage at many places of its last write: what was before
/// is all there, and the last write is there as a whole or not at all.
#[tokio::test]
async fn a_torn_last_write_is_cut_off() {
    let original = tempfile::tempdir().unwrap();
    let (before, last_write) = {
        let store = Embedded::open(original.path()).unwrap();
        create(&store, "/a", "one").await;
        create(&store, "/b", "one").await;
        let before = now(&store).await;
        (before, store.create("/big", Bytes::from(vec![7; 9000]), None).await.unwrap())
    };
    let log = only_log(original.path());
    let bytes = fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let start = end - 9000 - 80;
    let mut torn = 0;
    for cut in (start..=end).step_by(389).chain([end - 1, end]) {
        for damage in [Damage::Cut, Damage::Zeros, Damage::Garbage] {
            let copy = tempfile::tempdir().unwrap();
            fs::copy(original.path().join("format"), copy.path().join("format")).unwrap();
            fs::write(copy.path().join(log.file_name().unwrap()), damage.apply(&bytes[..end], cut)).unwrap();
            let store = Embedded::open(copy.path()).unwrap();
            let whole = store.get("/big", None).await.unwrap();
            assert_eq!(store.get("/b", None).await.unwrap().unwrap().mod_revision, before);
            match whole {
                Some(found) => assert_eq!((cut, found.mod_revision), (end, last_write)),
                None => {
                    torn += 1;
                    assert_eq!(now(&store).await, before);
                    // The store goes on from there, also after another start.
                    let next = create(&store, "/c", "one").await;
                    drop(store);
                    let store = Embedded::open(copy.path()).unwrap();
                    assert_eq!(now(&store).await, next);
                }
            }
        }
    }
    assert!(torn > 60);
}

#[derive(Clone, Copy)]
enum Damage {
    Cut,
    Zeros,
    Garbage,
}

impl Damage {
    fn apply(self, bytes: &[u8], cut: usize) -> Vec<u8> {
        let mut torn = bytes[..cut].to_vec();
        match self {
            Damage::Cut => {}
            Damage::Zeros => torn.resize(bytes.len() + 20_000, 0),
            Damage::Garbage => {
                torn.resize(bytes.len().max(cut), 0xa5);
                torn.resize(bytes.len() + 20_000, 0);
            }
        }
        torn
    }
}

/// Damage anywhere before the last write is not a torn write: nothing may be thrown away silently.
#[tokio::test]
async fn damage_in_the_middle_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    {
        let store = Embedded::open(directory.path()).unwrap();
        for key in ["/a", "/b", "/c"] {
            create(&store, key, "one").await;
        }
    }
    let log = only_log(directory.path());
    let sound = fs::read(&log).unwrap();
    for offset in [0, 20, 4096, 4100, 4110, 4150, 2 * 4096 + 30] {
        let mut bytes = sound.clone();
        bytes[offset] ^= 0x10;
        fs::write(&log, bytes).unwrap();
        let refused = Embedded::open(directory.path()).err().unwrap();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{offset}: {refused}");
    }
    fs::write(&log, sound).unwrap();
    Embedded::open(directory.path()).unwrap();
}

#[tokio::test]
async fn history_is_bounded_by_its_size() {
    let retention = Retention { bytes: 100_000, ..Retention::default() };
    let store = Embedded::in_memory_with(retention).unwrap();
    let start = now(&store).await;
    let mut revision = store.create("/a", Bytes::from(vec![0; 1000]), None).await.unwrap();
    for _ in 0..500 {
        revision = store.update("/a", Bytes::from(vec![0; 1000]), revision, None).await.unwrap();
    }
    assert!(store.get("/a", Some(start)).await.is_err(), "the beginning is forgotten");
    assert!(store.get("/a", Some(Revision(revision.0 - 20))).await.is_ok(), "the last changes are not");
}

#[tokio::test]
async fn watches_tell_their_progress_when_asked() {
    let store = Embedded::in_memory().unwrap();
    let mut watch = store.watch("/a/", now(&store).await).await.unwrap();
    create(&store, "/a/1", "x").await;
    let elsewhere = create(&store, "/b/1", "x").await;
    let wanted = store.request_progress("/a/").await.unwrap().unwrap();
    assert_eq!(wanted, elsewhere);
    let (events, _) = watch.next().await.unwrap();
    assert_eq!(events.len(), 1, "what has happened comes first");
    let (events, told) = watch.next().await.unwrap();
    assert_eq!((events.len(), told), (0, elsewhere));
    let event = create(&store, "/a/2", "x").await;
    assert_eq!(only(watch.next().await.unwrap().0).revision(), event);
}

#[tokio::test]
async fn a_watch_ends_with_its_store() {
    let store = Embedded::in_memory().unwrap();
    let mut watch: Box<dyn Watch> = store.watch("/", now(&store).await).await.unwrap();
    drop(store);
    assert!(watch.next().await.is_err());
}

/// A full disk, played by a directory that is gone when the log wants its next file.
#[tokio::test]
async fn a_failed_log_makes_the_store_read_only() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let created = create(&store, "/a", "one").await;
    fs::remove_dir_all(directory.path()).unwrap();
    let value = Bytes::from(vec![0; 1 << 20]);
    let mut number = 0;
    let failed = loop {
        number += 1;
        if let Err(error) = store.create(&format!("/big/{number}"), value.clone(), None).await {
            break error;
        }
    };
    assert!(matches!(failed, WriteError::Unavailable { .. }), "{failed}");
    assert!(matches!(store.delete("/a", None).await, Err(WriteError::Unavailable { .. })));
    assert_eq!(store.get("/a", None).await.unwrap().unwrap().mod_revision, created);
    assert_eq!(store.get(&format!("/big/{number}"), None).await.unwrap(), None);
}

fn only(mut events: Vec<WatchEvent>) -> WatchEvent {
    assert_eq!(events.len(), 1);
    events.remove(0)
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn only_log(directory: &Path) -> PathBuf {
    let logs: Vec<_> = names(directory).into_iter().filter(|name| name.starts_with("log-")).collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    directory.join(&logs[0])
}
