//! How fast events are written: a rush of pods is served first, what is told about it follows.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Upstream's `--event-qps` and `--event-burst`.
const INTERVAL: Duration = Duration::from_millis(20);
const BURST: u32 = 100;

/// When the next event may be written.
#[derive(Default)]
pub(super) struct Pace {
    /// When as many may be written at once as ever; `None` before the first.
    rested: Option<Instant>,
}

impl Pace {
    /// Returns when the next event may be written.
    pub(super) async fn wait(&mut self) {
        let now = Instant::now();
        let at = self.take(now);
        if at > now {
            sleep_until(at).await;
        }
    }

    /// Takes one event's place. Returns when it may be written, which is now or later.
    fn take(&mut self, now: Instant) -> Instant {
        let debt = self.rested.map_or(Duration::ZERO, |rested| rested.saturating_duration_since(now));
        self.rested = Some(now + debt + INTERVAL);
        now + debt.saturating_sub(INTERVAL * (BURST - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_one_after_the_other() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..100 {
            assert_eq!(pace.take(start), start);
        }
        assert_eq!(pace.take(start), start + Duration::from_millis(20));
        assert_eq!(pace.take(start), start + Duration::from_millis(40));
        let later = start + Duration::from_secs(1);
        for _ in 0..48 {
            assert_eq!(pace.take(later), later, "fifty have been saved up, and two are spent");
        }
        assert_eq!(pace.take(later), later + Duration::from_millis(20));
        let rested = start + Duration::from_secs(60);
        assert_eq!((0..200).filter(|_| pace.take(rested) == rested).count(), 100);
    }
}
