//! The promises, one function each.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use store::{ReadError, Revision, Store, Watch, WatchEvent, WriteError};
use tokio::time::timeout;

use crate::subject::{Subject, now};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn create_makes_a_key_once(subject: &mut Subject) {
    let store = subject.store();
    let before = now(&*store).await;
    let created = create(&*store, "/a", "one").await;
    assert!(created > before);
    assert_eq!(now(&*store).await, created);
    let again = store.create("/a", "two".into(), None).await;
    assert!(matches!(again, Err(WriteError::AlreadyExists { key }) if key == "/a"));
    let found = store.get("/a", None).await.unwrap().unwrap();
    assert_eq!((&*found.key, &found.value[..]), ("/a", &b"one"[..]));
    assert_eq!((found.create_revision, found.mod_revision), (created, created));
    assert_eq!(now(&*store).await, created, "a refused write takes no revision");
    assert_eq!(store.get("/b", None).await.unwrap(), None);
}

pub async fn update_needs_the_current_revision(subject: &mut Subject) {
    let store = subject.store();
    let created = create(&*store, "/a", "one").await;
    let updated = update(&*store, "/a", "two", created).await;
    assert!(updated > created);
    match store.update("/a", "three".into(), created, None).await {
        Err(WriteError::Conflict { key, expected, actual }) => {
            assert_eq!((key.as_str(), expected, actual), ("/a", created, updated));
        }
        other => panic!("{other:?}"),
    }
    let absent = store.update("/b", "one".into(), created, None).await;
    assert!(matches!(absent, Err(WriteError::NotFound { key }) if key == "/b"));
    let never = store.update("/b", "one".into(), Revision(0), None).await;
    assert!(matches!(never, Err(WriteError::NotFound { .. })), "an update creates nothing");
    let found = store.get("/a", None).await.unwrap().unwrap();
    assert_eq!((found.create_revision, found.mod_revision), (created, updated));
    assert_eq!(found.value, "two");
}

pub async fn delete_can_need_the_current_revision(subject: &mut Subject) {
    let store = subject.store();
    let created = create(&*store, "/a", "one").await;
    let updated = update(&*store, "/a", "two", created).await;
    match store.delete("/a", Some(created)).await {
        Err(WriteError::Conflict { expected, actual, .. }) => {
            assert_eq!((expected, actual), (created, updated))
        }
        other => panic!("{other:?}"),
    }
    let (deleted, revision) = store.delete("/a", Some(updated)).await.unwrap();
    assert_eq!((deleted.value, deleted.mod_revision), ("two".into(), updated));
    assert!(revision > updated);
    assert_eq!(store.get("/a", None).await.unwrap(), None);
    for expected in [None, Some(updated)] {
        assert!(matches!(store.delete("/a", expected).await, Err(WriteError::NotFound { .. })));
    }
    create(&*store, "/b", "one").await;
    assert_eq!(store.delete("/b", None).await.unwrap().0.value, "one");
}

pub async fn a_key_created_again_is_a_new_one(subject: &mut Subject) {
    let store = subject.store();
    let first = create(&*store, "/a", "one").await;
    let (_, deleted) = store.delete("/a", None).await.unwrap();
    let second = create(&*store, "/a", "two").await;
    assert!(second > deleted);
    assert_eq!(store.get("/a", None).await.unwrap().unwrap().create_revision, second);
    assert!(matches!(
        store.update("/a", "three".into(), first, None).await,
        Err(WriteError::Conflict { actual, .. }) if actual == second
    ));
}

pub async fn concurrent_updates_lose_nothing(subject: &mut Subject) {
    let store = subject.store();
    create(&*store, "/counter", "0").await;
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(count_up(subject.store(), 20))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.get("/counter", None).await.unwrap().unwrap().value, "160");
}

async fn count_up(store: Arc<dyn Store>, times: usize) {
    for _ in 0..times {
        loop {
            let found = store.get("/counter", None).await.unwrap().unwrap();
            let count: u64 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
            let next = Bytes::from((count + 1).to_string());
            match store.update("/counter", next, found.mod_revision, None).await {
                Ok(_) => break,
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

pub async fn range_takes_whole_prefixes_in_order(subject: &mut Subject) {
    let store = subject.store();
    for key in ["/b/2", "/a/1", "/b/10", "/b0", "/b", "/b/ü", "/c/1", "/b/\u{10ffff}"] {
        create(&*store, key, "x").await;
    }
    let all = store.range("/b/", None, None, 0).await.unwrap();
    assert_eq!(keys(&all.items), ["/b/10", "/b/2", "/b/ü", "/b/\u{10ffff}"]);
    assert_eq!((all.more, all.count, all.revision), (false, 4, now(&*store).await));
    let everything = store.range("", None, None, 0).await.unwrap();
    assert_eq!(everything.count, 8);
    let nothing = store.range("/d/", None, None, 10).await.unwrap();
    assert_eq!((nothing.items.len(), nothing.more, nothing.count), (0, false, 0));
    let after = store.range("/b/", Some("/b/10"), None, 2).await.unwrap();
    assert_eq!((keys(&after.items), after.more, after.count), (vec!["/b/2", "/b/ü"], true, 3));
    let exact = store.range("/b/", Some("/b/10"), None, 3).await.unwrap();
    assert!(!exact.more);
}

pub async fn range_goes_on_at_a_fixed_revision(subject: &mut Subject) {
    let store = subject.store();
    // More than an engine reads at once.
    let wanted: Vec<String> = (0..4500).map(|number| format!("/pods/{number:04}")).collect();
    create_all(&store, &wanted).await;
    let first = store.range("/pods/", None, None, 7).await.unwrap();
    assert_eq!((first.items.len(), first.more, first.count), (7, true, 4500));
    store.delete("/pods/0008", None).await.unwrap();
    create(&*store, "/pods/0008a", "new").await;
    update(&*store, "/pods/0009", "changed", first_revision(&*store, "/pods/0009").await).await;

    let mut seen: Vec<String> = first.items.iter().map(|item| item.key.to_string()).collect();
    let mut limits = [1, 500, 2300, 100_000].into_iter();
    loop {
        let after = seen.last().cloned();
        let limit = limits.next().unwrap();
        let page = store.range("/pods/", after.as_deref(), Some(first.revision), limit).await.unwrap();
        assert_eq!(page.revision, first.revision);
        assert_eq!(page.count, 4500 - seen.len() as u64);
        assert!(page.items.iter().all(|item| item.value != "changed"));
        seen.extend(page.items.iter().map(|item| item.key.to_string()));
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, wanted);
    let whole = store.range("/pods/", None, None, 0).await.unwrap();
    assert_eq!((whole.items.len(), whole.count, whole.more), (4500, 4500, false));
}

pub async fn the_past_can_be_read(subject: &mut Subject) {
    let store = subject.store();
    let created = create(&*store, "/a", "one").await;
    let updated = update(&*store, "/a", "two", created).await;
    let (_, deleted) = store.delete("/a", None).await.unwrap();
    let again = create(&*store, "/a", "three").await;
    for (at, expected) in
        [(created, Some("one")), (updated, Some("two")), (deleted, None), (again, Some("three"))]
    {
        let found = store.get("/a", Some(at)).await.unwrap().map(|found| found.value);
        assert_eq!(found, expected.map(Bytes::from));
        let range = store.range("/", None, Some(at), 0).await.unwrap();
        assert_eq!((range.items.len(), range.revision), (usize::from(expected.is_some()), at));
    }
    let future = Revision(again.0 + 1);
    let read = store.get("/a", Some(future)).await;
    assert!(matches!(read, Err(ReadError::Future { requested, .. }) if requested == future), "{read:?}");
    let read = store.range("/", None, Some(future), 0).await;
    assert!(matches!(read, Err(ReadError::Future { .. })), "{read:?}");
}

/// Many writers, and watches that start before, in the middle and after: each sees exactly the
/// changes after its start, in order.
pub async fn watch_is_ordered_and_complete(subject: &mut Subject) {
    let store = subject.store();
    let start = now(&*store).await;
    let early = store.watch("/pods/", start).await.unwrap();
    let other = store.watch("/nodes/", start).await.unwrap();
    let writers: Vec<_> = (0..8).map(|writer| tokio::spawn(churn(subject.store(), writer))).collect();
    let mut tasks = vec![tokio::spawn(collect(early, start, 8 * 60))];
    for _ in 0..8 {
        let middle = now(&*store).await;
        let watch = store.watch("/pods/", middle).await.unwrap();
        tasks.push(tokio::spawn(collect(watch, middle, 0)));
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let end = create(&*store, "/pods/end", "end").await;
    create(&*store, "/nodes/end", "end").await;
    tasks.push(tokio::spawn(collect(store.watch("/pods/", start).await.unwrap(), start, 8 * 60)));
    let all: BTreeMap<Revision, WatchEvent> = {
        let seen = timeout(PATIENCE, tasks.remove(0)).await.unwrap().unwrap();
        seen.into_iter().map(|event| (event.revision(), event)).collect()
    };
    assert_eq!(all.keys().last(), Some(&end));
    assert_eq!(all.len(), 8 * 60 + 1);
    for task in tasks {
        let seen = timeout(PATIENCE, task).await.unwrap().unwrap();
        let first = seen[0].revision();
        let expected: Vec<_> = all.range(first..).map(|(_, event)| event.clone()).collect();
        assert_eq!(seen, expected);
    }
    let others = timeout(PATIENCE, collect(other, start, 0)).await.unwrap();
    assert_eq!(others.len(), 1, "a watch sees its own prefix only");
}

/// Creates, updates and deletes 20 keys.
async fn churn(store: Arc<dyn Store>, writer: usize) {
    for number in 0..20 {
        let key = format!("/pods/{writer}-{number}");
        let created = create(&*store, &key, "one").await;
        let updated = update(&*store, &key, "two", created).await;
        store.delete(&key, Some(updated)).await.unwrap();
    }
}

/// Everything up to the key `end`, checking the order; at least `least` events before it.
async fn collect(mut watch: Box<dyn Watch>, after: Revision, least: usize) -> Vec<WatchEvent> {
    let mut seen: Vec<WatchEvent> = Vec::new();
    let mut last = after;
    loop {
        let (events, told) = watch.next().await.unwrap();
        for event in events {
            assert!(event.revision() > last, "{event:?} after {last}");
            last = event.revision();
            seen.push(event);
        }
        assert!(told >= last);
        if seen.last().is_some_and(|event| key_of(event).ends_with("/end")) {
            assert!(seen.len() > least);
            return seen;
        }
    }
}

pub async fn watch_resumes(subject: &mut Subject) {
    let store = subject.store();
    let start = now(&*store).await;
    let mut expected = Vec::new();
    for number in 0..10 {
        expected.push(create(&*store, &format!("/a/{number}"), "x").await);
    }
    let mut seen = Vec::new();
    let mut told = start;
    while seen.len() < expected.len() {
        // A new watch for each answer, from where the last one had come.
        let mut watch = store.watch("/a/", told).await.unwrap();
        let (events, revision) = next(&mut watch).await;
        seen.extend(events.first().map(WatchEvent::revision));
        told = events.first().map_or(revision, WatchEvent::revision);
    }
    assert_eq!(seen, expected);
}

pub async fn watch_tells_what_was_replaced(subject: &mut Subject) {
    let store = subject.store();
    let start = now(&*store).await;
    let created = create(&*store, "/a", "one").await;
    let updated = update(&*store, "/a", "two", created).await;
    let (_, deleted) = store.delete("/a", None).await.unwrap();
    create(&*store, "/end", "").await;
    let seen = collect(store.watch("/", start).await.unwrap(), start, 0).await;
    match &seen[..] {
        [
            WatchEvent::Put { current: first, previous: None },
            WatchEvent::Put { current: second, previous: Some(replaced) },
            WatchEvent::Delete { previous: last, revision },
            _,
        ] => {
            assert_eq!((first.mod_revision, &first.value[..]), (created, &b"one"[..]));
            assert_eq!((second.mod_revision, second.create_revision), (updated, created));
            assert_eq!(replaced, first);
            assert_eq!((last, *revision), (second, deleted));
        }
        other => panic!("{other:?}"),
    }
}

pub async fn watch_of_a_slow_reader_misses_nothing(subject: &mut Subject) {
    let store = subject.store();
    let start = now(&*store).await;
    let mut slow = store.watch("/a/", start).await.unwrap();
    create(&*store, "/a/first", "x").await;
    next(&mut slow).await;
    let read = now(&*store).await;
    // More than any queue holds.
    let keys: Vec<String> = (0..3000).map(|number| format!("/a/{number:04}")).collect();
    create_all(&store, &keys).await;
    create(&*store, "/a/end", "x").await;
    let seen = timeout(PATIENCE, collect(slow, read, 3000)).await.unwrap();
    assert_eq!(seen.len(), 3001);
}

pub async fn compacted_is_a_distinct_error(subject: &mut Subject) {
    let store = subject.store();
    let created = create(&*store, "/a", "one").await;
    let updated = update(&*store, "/a", "two", created).await;
    create(&*store, "/gone", "x").await;
    let (_, deleted) = store.delete("/gone", None).await.unwrap();
    create(&*store, "/end", "x").await;
    store.compact(deleted).await.unwrap();

    for compacted in [created, updated] {
        assert_compacted(store.get("/a", Some(compacted)).await, compacted);
        assert_compacted(store.range("/", None, Some(compacted), 0).await, compacted);
        match store.watch("/", compacted).await {
            Ok(mut watch) => assert_compacted(watch.next().await, compacted),
            Err(error) => assert_compacted(Err::<(), _>(error), compacted),
        }
    }
    assert_compacted(store.compact(updated).await, updated);
    let future = store.compact(Revision(deleted.0 + 100)).await;
    assert!(matches!(future, Err(ReadError::Future { .. })), "{future:?}");

    let kept = store.range("/", None, Some(deleted), 0).await.unwrap();
    assert_eq!(keys(&kept.items), ["/a"]);
    assert_eq!(store.get("/a", None).await.unwrap().unwrap().mod_revision, updated);
    let seen = collect(store.watch("/", deleted).await.unwrap(), deleted, 0).await;
    assert_eq!(seen.len(), 1, "a watch can start where history was cut");
    create(&*store, "/gone", "again").await;
}

fn assert_compacted<T: std::fmt::Debug>(result: Result<T, ReadError>, at: Revision) {
    match result {
        Err(ReadError::Compacted { requested, .. }) => assert_eq!(requested, at),
        other => panic!("{other:?}"),
    }
}

pub async fn a_key_with_a_time_to_live_expires(subject: &mut Subject) {
    let store = subject.store();
    let start = now(&*store).await;
    let watch = store.watch("/", start).await.unwrap();
    let ttl = Some(Duration::from_secs(1));
    let created = store.create("/a/short", "one".into(), ttl).await.unwrap();
    // Keeps the time it has.
    let updated = update(&*store, "/a/short", "two", created).await;
    create(&*store, "/a/forever", "one").await;
    let later = store.create("/a/prolonged", "one".into(), ttl).await.unwrap();
    let prolonged = Some(Duration::from_secs(3600));
    store.update("/a/prolonged", "two".into(), later, prolonged).await.unwrap();
    let expired = timeout(PATIENCE, next_deletion(watch)).await.unwrap();
    match expired {
        WatchEvent::Delete { previous, revision } => {
            assert_eq!((&*previous.key, previous.mod_revision), ("/a/short", updated));
            assert!(revision > updated);
        }
        other => panic!("{other:?}"),
    }
    let left = store.range("/a/", None, None, 0).await.unwrap();
    assert_eq!(keys(&left.items), ["/a/forever", "/a/prolonged"]);
    create(&*store, "/a/short", "again").await;
}

async fn next_deletion(mut watch: Box<dyn Watch>) -> WatchEvent {
    loop {
        let (events, _) = watch.next().await.unwrap();
        let deletion = events.into_iter().find(|event| matches!(event, WatchEvent::Delete { .. }));
        if let Some(deletion) = deletion {
            return deletion;
        }
    }
}

pub async fn a_restart_changes_nothing(subject: &mut Subject) {
    let store = subject.store();
    let start = now(&*store).await;
    let created = create(&*store, "/a", "one").await;
    let compacted = update(&*store, "/a", "two", created).await;
    store.compact(compacted).await.unwrap();
    create(&*store, "/b", "one").await;
    store.delete("/b", None).await.unwrap();
    store.create("/short", "x".into(), Some(Duration::from_secs(2))).await.unwrap();
    create(&*store, "/end", "").await;
    let (revision, before) = (now(&*store).await, store.range("/", None, None, 0).await.unwrap());
    drop(store);
    subject.restart().await;

    let store = subject.store();
    let after = store.range("/", None, Some(revision), 0).await.unwrap();
    assert_eq!(after.items, before.items);
    assert_compacted(store.get("/a", Some(created)).await, created);
    assert_compacted(store.get("/a", Some(start)).await, start);
    let seen = collect(store.watch("/", compacted).await.unwrap(), compacted, 0).await;
    assert_eq!(seen.len(), 4, "history survives");
    timeout(PATIENCE, next_deletion(store.watch("/short", compacted).await.unwrap())).await.unwrap();
    assert!(create(&*store, "/c", "one").await > revision, "revisions go on");
}

pub async fn create(store: &dyn Store, key: &str, value: &'static str) -> Revision {
    store.create(key, Bytes::from_static(value.as_bytes()), None).await.unwrap()
}

async fn create_all(store: &Arc<dyn Store>, keys: &[String]) {
    let creates = keys.iter().map(|key| store.create(key, Bytes::from_static(b"x"), None));
    for created in futures::future::join_all(creates).await {
        created.unwrap();
    }
}

async fn update(store: &dyn Store, key: &str, value: &'static str, expected: Revision) -> Revision {
    store.update(key, Bytes::from_static(value.as_bytes()), expected, None).await.unwrap()
}

async fn first_revision(store: &dyn Store, key: &str) -> Revision {
    store.get(key, None).await.unwrap().unwrap().mod_revision
}

async fn next(watch: &mut Box<dyn Watch>) -> (Vec<WatchEvent>, Revision) {
    timeout(PATIENCE, watch.next()).await.unwrap().unwrap()
}

fn key_of(event: &WatchEvent) -> &str {
    match event {
        WatchEvent::Put { current, .. } => &current.key,
        WatchEvent::Delete { previous, .. } => &previous.key,
    }
}

fn keys(items: &[store::KeyValue]) -> Vec<&str> {
    items.iter().map(|item| &*item.key).collect()
}
