//! Times as people read them: `5s`, `3m20s`, `47h`, `2d4h`.

use jiff::Timestamp;

use crate::time;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A number of seconds, the shorter the more exactly.
pub fn human_duration(seconds: i64) -> String {
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(), // clocks may differ a little
        seconds if seconds < 2 * MINUTE => format!("{seconds}s"),
        seconds if seconds < 10 * MINUTE => two(seconds, MINUTE, "m", 1, "s"),
        seconds if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        seconds if seconds < 8 * HOUR => two(seconds, HOUR, "h", MINUTE, "m"),
        seconds if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        seconds if seconds < 8 * DAY => two(seconds, DAY, "d", HOUR, "h"),
        seconds if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        seconds if seconds < 8 * YEAR => two(seconds, YEAR, "y", DAY, "d"),
        seconds => format!("{}y", seconds / YEAR),
    }
}

/// A number of seconds in two units, the smaller left out when it is nothing.
fn two(seconds: i64, large: i64, large_word: &str, small: i64, small_word: &str) -> String {
    match seconds % large / small {
        0 => format!("{}{large_word}", seconds / large),
        rest => format!("{}{large_word}{rest}{small_word}", seconds / large),
    }
}

/// The time since a moment that the API wrote down; `<unknown>` when there is none.
pub fn since(moment: &str, now: Timestamp) -> String {
    match time::parse(moment) {
        Ok(then) => human_duration(whole_seconds(now.as_nanosecond() - then.as_nanosecond())),
        Err(_) => "<unknown>".into(),
    }
}

/// The time between two moments; empty unless both are there.
pub(super) fn between(start: &str, end: &str) -> String {
    match (time::parse(start), time::parse(end)) {
        (Ok(start), Ok(end)) => human_duration(whole_seconds(end.as_nanosecond() - start.as_nanosecond())),
        _ => String::new(),
    }
}

fn whole_seconds(nanoseconds: i128) -> i64 {
    i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_as_exactly_as_people_need() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 5 * MINUTE, "3h5m"),
            (8 * HOUR, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + 4 * HOUR, "2d4h"),
            (8 * DAY + HOUR, "8d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + 3 * DAY, "2y3d"),
            (9 * YEAR, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
