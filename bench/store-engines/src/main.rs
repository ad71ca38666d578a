//! Grouped durable writes a second, by engine and number of concurrent writers.
//!
//! Each writer waits for its write to be on the disk before it sends the next one; one thread commits
//! all the writes that are waiting as one transaction, as the embedded store does.
//!
//! `cargo run --release -- [directory] [seconds]`

mod engines;

use std::{path::PathBuf, sync::mpsc, time::{Duration, Instant}};

use engines::{Engine, Fjall, Heed, Log, Redb};
use tokio::sync::oneshot;

const WRITERS: [usize; 3] = [1, 32, 256];
/// About what a pod is.
const VALUE_SIZE: usize = 2048;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "/var/tmp/store-engines".into()));
    let seconds = arguments.next().map_or(3.0, |text| text.parse().expect("seconds"));
    println!("{:<8}{:>10}{:>14}{:>10}{:>10}", "engine", "writers", "writes/s", "p50 µs", "p99 µs");
    for writers in WRITERS {
        for name in ["redb", "fjall", "heed", "log"] {
            let directory = directory.join(name);
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => std::fs::create_dir_all(&directory).expect("create the directory"),
            }
            let engine: Box<dyn Engine> = match name {
                "redb" => Box::new(Redb::open(&directory)),
                "fjall" => Box::new(Fjall::open(&directory)),
                "heed" => Box::new(Heed::open(&directory)),
                _ => Box::new(Log::open(&directory)),
            };
            let mut latencies = run(engine, writers, Duration::from_secs_f64(seconds));
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

fn run(mut engine: Box<dyn Engine>, writers: usize, time: Duration) -> Vec<Duration> {
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
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("runtime");
    let latencies = runtime.block_on(async {
        let end = Instant::now() + time;
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while Instant::now() < end {
                        let start = Instant::now();
                        let key = format!("/registry/pods/default/pod-{writer}-{}", latencies.len());
                        let (done, durable) = oneshot::channel();
                        sender.send(Write { key, value: vec![b'x'; VALUE_SIZE], done }).expect("committer");
                        durable.await.expect("committer");
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
    });
    drop(sender);
    committer.join().expect("committer");
    latencies
}
