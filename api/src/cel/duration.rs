//! Lengths of time as Go writes them: `1h30m`, `1.5s`, `-2ms`.

use jiff::SignedDuration;

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a length of time; the error is Go's message.
pub fn parse(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (is_negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
            return Err(invalid());
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total = total.checked_add(whole.checked_mul(*nanos).ok_or_else(invalid)?).ok_or_else(invalid)?;
        let mut scale = *nanos;
        for digit in fraction.bytes() {
            scale /= 10;
            total += i128::from(digit - b'0') * scale;
        }
        rest = tail;
    }
    let total = if is_negative { -total } else { total };
    if i64::try_from(total).is_err() {
        return Err(invalid());
    }
    Ok(SignedDuration::new((total / 1_000_000_000) as i64, (total % 1_000_000_000) as i32))
}

/// A length of time in seconds, as expressions turn it into text.
pub(super) fn format(duration: SignedDuration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if nanos == 0 {
        return format!("{seconds}s");
    }
    let sign = if duration.is_negative() { "-" } else { "" };
    let fraction = format!("{:09}", nanos.unsigned_abs());
    format!("{sign}{}.{}s", seconds.unsigned_abs(), fraction.trim_end_matches('0'))
}

/// A length of time in nanoseconds as Go prints it: `1h1m1.5s`, `1.5ms`.
pub(crate) fn format_go(nanoseconds: i64) -> String {
    let (sign, total) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    let with_fraction = |number: u64, unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", number / unit, number % unit);
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    let text = match total {
        0 => "0s".into(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => with_fraction(total, 1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => with_fraction(total, 1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (total / 60_000_000_000, total % 60_000_000_000);
            let (hours, minutes) = (minutes / 60, minutes % 60);
            let seconds = with_fraction(rest, 1_000_000_000, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        assert_eq!(parse("1h30m").unwrap(), SignedDuration::from_secs(5400));
        assert_eq!(parse("1.5s").unwrap(), SignedDuration::from_millis(1500));
        assert_eq!(parse("-2ms").unwrap(), SignedDuration::from_millis(-2));
        assert_eq!(parse("0").unwrap(), SignedDuration::ZERO);
        for text in ["", "1", "x", "1d", ".", "-", "1h-", "99999999999h", "1..2s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(format(SignedDuration::from_millis(-1500)), "-1.5s");
        assert_eq!(format(SignedDuration::from_secs(90)), "90s");
        assert!(parse(&format_go(i64::MIN)).is_ok() && parse(&format_go(i64::MAX)).is_ok());
        for text in ["0s", "1ns", "1.5\u{b5}s", "20ms", "10s", "1m0.5s", "-1h0m0s", "100h10m10.000000001s"] {
            let nanoseconds = parse(text).unwrap().as_nanos() as i64;
            assert_eq!(format_go(nanoseconds), text);
        }
    }
}
