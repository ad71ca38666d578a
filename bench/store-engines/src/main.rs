//! Grouped durable writes a second, by engine and number of concurrent writers.
//!
//! Each writer waits for its write to be on the disk before it sends the next one; one thread commits
//! all the writes that are waiting as one transaction, as the embedded store does. The last line of
//! each block is that store itself, whole: deciding, logging, indexing and telling watches.
//!
//! `cargo run --release -- [directory] [seconds] [engine...]`

mod engines;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use engines::{Engine, Fjall, Heed, Log, Redb};
use store::{Store, embedded::Embedded};
use tokio::sync::oneshot;

const WRITERS: [usize; 3] = [1, 32, 256];
/// About what a pod is.
const VALUE_SIZE: usize = 2048;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "/var/tmp/store-engines".into()));
    let seconds = arguments.next().map_or(3.0, |text| text.parse().expect("seconds"));
    let mut names: Vec<String> = arguments.collect();
    if names.is_empty() {
        names = ["redb", "fjall", "heed", "log", "store"].map(String::from).to_vec();
    }
    println!("{:<8}{:>10}{:>14}{:>10}{:>10}", "engine", "writers", "writes/s", "p50 µs", "p99 µs");
    for writers in WRITERS {
        for name in &names {
            let directory = directory.join(name);
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => std::fs::create_dir_all(&directory).expect("create the directory"),
            }
            let time = Duration::from_secs_f64(seconds);
            let mut latencies = match name.as_str() {
                "redb" => run_engine(Box::new(Redb::open(&directory)), writers, time),
                "fjall" => run_engine(Box::new(Fjall::open(&directory)), writers, time),
                "heed" => run_engine(Box::new(Heed::open(&directory)), writers, time),
                "log" => run_engine(Box::new(Log::open(&directory)), writers, time),
                "store" => run_store(&directory, writers, time),
                unknown => panic!("there is no engine {unknown}"),
            };
            latencies.sort();
            let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_micros();
            let rate = latencies.len() as f64 / seconds;
            println!("{name:<8}{writers:>10}{rate:>14.0}{:>10}{:>10}", at(0.5), at(0.99));
            std::fs::remove_dir_all(&directory).expect("remove the directory");
        }
    }
}

struct Write {
    key: String,
    value: Vec<u8>,
    done: oneshot::Sender<()>,
}

/// Latencies of writes that one thread commits to an engine in groups.
fn run_engine(mut engine: Box<dyn Engine>, writers: usize, time: Duration) -> Vec<Duration> {
    let (sender, waiting) = mpsc::channel::<Write>();
    let committer = std::thread::spawn(move || {
        while let Ok(first) = waiting.recv() {
            let batch: Vec<Write> = std::iter::once(first).chain(waiting.try_iter()).collect();
            engine.commit(&mut batch.iter().map(|write| (write.key.as_str(), write.value.as_slice())));
            for write in batch {
                write.done.send(()).expect("the writer waits");
            }
        }
    });
    let latencies = run(writers, time, move |key, value| {
        let sender = sender.clone();
        async move {
            let (done, durable) = oneshot::channel();
            sender.send(Write { key, value, done }).expect("committer");
            durable.await.expect("committer");
        }
    });
    committer.join().expect("committer");
    latencies
}

/// Latencies of creates in the embedded store.
fn run_store(directory: &Path, writers: usize, time: Duration) -> Vec<Duration> {
    let store = Arc::new(Embedded::open(directory).expect("open the store"));
    run(writers, time, move |key, value| {
        let store = store.clone();
        async move {
            store.create(&key, value.into(), None).await.expect("create");
        }
    })
}

/// Latencies of writes that each of `writers` makes one after the other.
fn run<F: Future<Output = ()> + Send>(
    writers: usize,
    time: Duration,
    write: impl Fn(String, Vec<u8>) -> F + Clone + Send + 'static,
) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("runtime");
    runtime.block_on(async {
        let end = Instant::now() + time;
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let write = write.clone();
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while Instant::now() < end {
                        let start = Instant::now();
                        let key = format!("/registry/pods/default/pod-{writer}-{}", latencies.len());
                        write(key, vec![b'x'; VALUE_SIZE]).await;
                        latencies.push(start.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("writer"));
        }
        all
    })
}
