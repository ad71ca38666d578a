//! How long to wait before something that failed is tried again.

use std::time::Duration;

use jiff::Timestamp;

/// A delay that doubles with every attempt up to a limit and is forgotten after a quiet time of twice
/// the limit, as upstream's `flowcontrol.Backoff`.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    last: Option<(Timestamp, Duration)>,
}

impl Backoff {
    /// A delay that starts at `first` and never exceeds `limit`.
    pub const fn new(first: Duration, limit: Duration) -> Backoff {
        Backoff { first, limit, last: None }
    }

    /// Upstream's figures for containers that crash and images that cannot be pulled.
    pub const fn of_containers() -> Backoff {
        Backoff::new(Duration::from_secs(10), Duration::from_secs(300))
    }

    /// The time to wait for, when what ended or failed at `event` may not be tried again yet.
    pub fn until(&self, event: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let (at, delay) = self.last?;
        let expired = event > at + self.limit * 2;
        let until = event + delay;
        (!expired && now < until).then_some(until)
    }

    /// The delay in force.
    pub fn delay(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |(_, delay)| delay)
    }

    /// Records an attempt at `now`: the next one waits twice as long.
    pub fn advance(&mut self, now: Timestamp) {
        let delay = match self.last {
            Some((at, delay)) if now <= at + self.limit * 2 => (delay * 2).min(self.limit),
            _ => self.first,
        };
        self.last = Some((now, delay));
    }

    /// Forgets all failures.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

/// A duration as Go prints it (`1m20s`): upstream's messages carry them.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) if duration.subsec_millis() == 0 => format!("{rest}s"),
        (0, 0) if rest == 0 => format!("{}ms", duration.subsec_millis()),
        (0, 0) => format!("{}s", duration.as_millis() as f64 / 1000.0),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// Reads a duration as Go writes it: numbers with units, such as `1h30m` or `1.5s`; none below zero, nor more than Go's
/// 64 bits of nanoseconds.
pub fn parse_go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    loop {
        let number = rest.find(|next: char| !next.is_ascii_digit() && next != '.')?;
        let (number, after) = rest.split_at(number);
        let unit = after.find(|next: char| next.is_ascii_digit() || next == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        seconds += number.parse::<f64>().ok()? * factor;
        if after.is_empty() {
            let is_held = |read: &Duration| i64::try_from(read.as_nanos()).is_ok();
            return Duration::try_from_secs_f64(seconds).ok().filter(is_held);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_next_ones_wait_twice_as_long_each() {
        let mut backoff = Backoff::of_containers();
        assert_eq!(backoff.until(at(100), at(100)), None);
        let mut delays = Vec::new();
        for _ in 0..7 {
            backoff.advance(at(100));
            delays.push(backoff.delay().as_secs());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn the_wait_counts_from_the_end_of_the_container() {
        let mut backoff = Backoff::of_containers();
        backoff.advance(at(100));
        assert_eq!(backoff.until(at(105), at(106)), Some(at(115)));
        assert_eq!(backoff.until(at(105), at(115)), None);
    }

    #[test]
    fn ten_quiet_minutes_forget_the_failures() {
        let mut backoff = Backoff::of_containers();
        backoff.advance(at(0));
        backoff.advance(at(10));
        assert_eq!(backoff.until(at(700), at(700)), None);
        backoff.advance(at(700));
        assert_eq!(backoff.delay().as_secs(), 10);
    }

    #[test]
    fn durations_are_read_as_by_go() {
        let read = |text| parse_go_duration(text).map(|duration| duration.as_millis());
        assert_eq!(
            [read("1m30s"), read("1.5h"), read("90s"), read("20ms"), read("0")],
            [Some(90_000), Some(5_400_000), Some(90_000), Some(20), Some(0)]
        );
        assert_eq!(read("2562047h"), Some(9_223_369_200_000));
        for wrong in ["", "90", "1m30", "-1s", "1d", "s", "1.2.3s", "2562048h", "99999999999999h"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_print_as_in_go() {
        let text = |seconds| go_duration(Duration::from_secs(seconds));
        assert_eq!([text(10), text(80), text(300), text(3600)], ["10s", "1m20s", "5m0s", "1h0m0s"]);
        assert_eq!(go_duration(Duration::from_millis(1500)), "1.5s");
        assert_eq!(go_duration(Duration::from_millis(12)), "12ms");
    }
}
