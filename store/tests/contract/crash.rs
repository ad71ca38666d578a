//! Kills during writes: what was acknowledged must be there afterwards.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use store::{Revision, Store, embedded::Embedded};

use crate::subject::{Kind, Subject};

/// How many acknowledgements are awaited before each kill.
const WRITES: usize = 2000;
const WRITERS: usize = 16;
const ROUNDS: usize = 3;
/// Set in the process that is to be killed: this test once more, as the writer in this directory.
const DIRECTORY: &str = "STORE_CRASH_TEST_DIRECTORY";

/// Creates and updates keys from several tasks; `acknowledged` gets `ack KEY REVISION` lines.
async fn write_until_it_fails(store: Arc<dyn Store>, acknowledged: impl Fn(&str) + Send + Sync + 'static) {
    let acknowledged = Arc::new(acknowledged);
    let generation = store.revision().await.unwrap();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, acknowledged) = (store.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    let key = format!("/crash/{generation}-{writer}-{number}");
                    let Ok(mut revision) = store.create(&key, value_of(&key), None).await else { return };
                    acknowledged(&format!("ack {key} {revision}\n"));
                    if number % 3 == 0 {
                        let Ok(updated) = store.update(&key, value_of(&key), revision, None).await else {
                            return;
                        };
                        revision = updated;
                        acknowledged(&format!("ack {key} {revision}\n"));
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Long enough that a batch spans several blocks.
fn value_of(key: &str) -> Bytes {
    Bytes::from(key.repeat(40))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_loses_nothing_acknowledged_when_it_is_killed() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let store: Arc<dyn Store> = Arc::new(Embedded::open(Path::new(&directory)).unwrap());
        return write_until_it_fails(store, |line| {
            // One write call a line: nothing is lost in a buffer of this process.
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        })
        .await;
    }
    let this_test = "crash::the_embedded_store_loses_nothing_acknowledged_when_it_is_killed";
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this_test, "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref().take(WRITES) {
            note(&mut acknowledged, &line.unwrap());
        }
        child.kill().unwrap();
        // What it had still told before it died counts too.
        for line in lines.map_while(Result::ok) {
            note(&mut acknowledged, &line);
        }
        child.wait().unwrap();
        let store = Embedded::open(directory.path()).unwrap();
        verify(&store, &acknowledged).await;
    }
    assert!(acknowledged.len() > WRITES);
}

fn note(acknowledged: &mut BTreeMap<String, Revision>, line: &str) {
    if let ["ack", key, revision] = line.trim_end().split(' ').collect::<Vec<_>>()[..]
        && let Ok(revision) = revision.parse()
    {
        acknowledged.insert(key.to_owned(), Revision(revision));
    }
}

async fn verify(store: &dyn Store, acknowledged: &BTreeMap<String, Revision>) {
    let found = store.range("/crash/", None, None, 0).await.unwrap();
    let found: BTreeMap<&str, _> = found.items.iter().map(|item| (&*item.key, item)).collect();
    for (key, revision) in acknowledged {
        let item = found.get(key.as_str()).unwrap_or_else(|| panic!("{key} at {revision} is lost"));
        // A later write may have happened without having been acknowledged.
        assert!(item.mod_revision >= *revision, "{key} is back at {} from {revision}", item.mod_revision);
        assert_eq!(item.value, value_of(key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_killed_loses_nothing_acknowledged() {
    let Some(mut subject) = Subject::start(Kind::Etcd).await else { return };
    let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
    let told = acknowledged.clone();
    let (sender, enough) = tokio::sync::oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let writing = tokio::spawn(write_until_it_fails(subject.store(), move |line| {
        let mut told = told.lock().unwrap();
        note(&mut told, line);
        if told.len() == WRITES
            && let Some(sender) = sender.lock().unwrap().take()
        {
            sender.send(()).unwrap();
        }
    }));
    enough.await.unwrap();
    subject.kill_server();
    writing.await.unwrap();
    subject.restart().await;
    let acknowledged = acknowledged.lock().unwrap().clone();
    verify(&*subject.store(), &acknowledged).await;
}
