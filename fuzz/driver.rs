//! Fuzzing within a test: every input that is kept, and for a bounded time what chance makes of them.
//!
//! Without instrumentation it finds less an hour than `cargo fuzz`, which runs the same targets, but it needs
//! nothing and runs with every test. `FUZZ_SECONDS` lets it run longer. An input that breaks the target is written
//! to `fuzz/artifacts`; once the target is mended it belongs into `fuzz/corpus`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Runs a target; panics with the path of the first input that the target does not take.
pub fn run(name: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let corpus = read(&folder.join("corpus").join(name));
    assert!(!corpus.is_empty(), "{name} has a corpus");
    let give = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            panic!("{name} does not take {}", keep(&folder.join("artifacts").join(name), input).display());
        }
    };
    corpus.iter().for_each(|input| give(input));
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut chance = Chance::new();
    while Instant::now() < end {
        let mut input = corpus[chance.below(corpus.len())].clone();
        for _ in 0..=chance.below(6) {
            let other = &corpus[chance.below(corpus.len())];
            change(&mut input, other, &mut chance);
        }
        give(&input);
    }
}

fn read(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

fn keep(folder: &Path, input: &[u8]) -> PathBuf {
    let sum = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let path = folder.join(format!("{sum:016x}"));
    fs::create_dir_all(folder).and_then(|()| fs::write(&path, input)).expect("the input can be kept");
    path
}

/// Numbers that programs stumble over.
const EDGES: [u64; 12] =
    [0, 1, 7, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

fn change(input: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    let at = chance.below(input.len() + 1);
    let longest = 1 << chance.below(9);
    let length = chance.below(longest).min(input.len() - at);
    match chance.below(9) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..at + length)),
        2 => {
            let copy = input[at..at + length].to_vec();
            input.splice(at..at, copy);
        }
        3 => {
            let from = chance.below(other.len() + 1);
            let piece = &other[from..(from + chance.below(1 << 9)).min(other.len())];
            input.splice(at..at + length, piece.iter().copied());
        }
        4 => {
            let bytes = EDGES[chance.below(EDGES.len())].to_be_bytes();
            let bytes = &bytes[8 - (1 << chance.below(4))..];
            input.splice(at..(at + bytes.len()).min(input.len()), bytes.iter().copied());
        }
        5 => input.insert(at, chance.next() as u8),
        _ if at == input.len() => input.push(chance.next() as u8),
        6 => input[at] = chance.next() as u8,
        7 => input[at] = input[at].wrapping_add(1),
        _ => input[at] ^= 1 << chance.below(8),
    }
    input.truncate(1 << 20);
}

/// Random numbers, other ones each time.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Chance(now.as_nanos() as u64 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound.max(1)
    }
}
