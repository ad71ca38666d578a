//! From what had been used up at two moments to what is being used. Pure.

use super::sample::Point;

/// A container that runs for less time than this says little.
const SHORTEST_LIFE: f64 = 1.0;

/// What is being used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Billionths of a processor.
    pub(super) nanocores: u64,
    pub(super) memory_bytes: u64,
    /// When the later of the two moments was, in seconds since 1970.
    pub(super) time: f64,
    /// How far they lie apart, in seconds.
    pub(super) window: f64,
}

/// What was used between two moments; `None` when they say nothing. What started in between is counted from its start.
pub(super) fn between(older: Option<&Point>, newer: &Point) -> Option<Rate> {
    let is_same = |older: &&Point| older.time > 0.0 && newer.start <= older.time;
    let (time, used) = match older.filter(is_same) {
        Some(older) => (older.time, older.cpu_seconds?),
        None if newer.start > 0.0 && newer.time - newer.start >= SHORTEST_LIFE => (newer.start, 0.0),
        None => return None,
    };
    let (window, used) = (newer.time - time, newer.cpu_seconds? - used);
    let is_sound = window > 0.0 && used >= 0.0;
    is_sound.then_some(Rate {
        nanocores: (used / window * 1e9) as u64,
        memory_bytes: newer.memory_bytes? as u64,
        time: newer.time,
        window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(time: f64, cpu: f64, start: f64) -> Point {
        Point { time, cpu_seconds: Some(cpu), memory_bytes: Some(4096.0), start }
    }

    #[test]
    fn half_a_processor_is_half_a_second_a_second() {
        let rate = between(Some(&point(100.0, 7.0, 50.0)), &point(110.0, 12.0, 50.0)).unwrap();
        assert_eq!(rate, Rate { nanocores: 500_000_000, memory_bytes: 4096, time: 110.0, window: 10.0 });
    }

    #[test]
    fn what_started_again_counts_from_its_start() {
        let again = point(110.0, 2.0, 106.0);
        assert_eq!(between(Some(&point(100.0, 70.0, 50.0)), &again).unwrap().nanocores, 500_000_000);
        assert_eq!(between(None, &again).unwrap().window, 4.0);
    }

    #[test]
    fn what_cannot_be_told_is_not_told() {
        assert_eq!(between(None, &point(110.0, 2.0, 0.0)), None);
        assert_eq!(between(None, &point(110.0, 2.0, 109.5)), None);
        let same = point(100.0, 7.0, 50.0);
        assert_eq!(between(Some(&same), &same), None);
        assert_eq!(between(Some(&point(100.0, 7.0, 50.0)), &point(110.0, 6.0, 50.0)), None);
    }
}
