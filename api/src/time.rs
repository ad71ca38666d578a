//! Points in time as the API writes them.

use jiff::{Timestamp, Unit};

/// RFC 3339 in UTC with whole seconds (`metav1.Time`): `2026-01-02T03:04:05Z`. Fractions are cut off.
pub fn format(time: Timestamp) -> String {
    rounded_down(time, Unit::Second, 1_000_000_000).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 in UTC with microseconds (`metav1.MicroTime`): `2026-01-02T03:04:05.000678Z`.
pub fn format_micro(time: Timestamp) -> String {
    rounded_down(time, Unit::Microsecond, 1_000).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// What either form, or RFC 3339 with any offset, stands for; the error is upstream's message.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    let is_rfc3339 = text.len() >= "2006-01-02T15:04:05Z".len()
        && text.as_bytes().get(10) == Some(&b'T')
        && !text.contains('[');
    let parsed = if is_rfc3339 { text.parse().ok() } else { None };
    parsed.ok_or_else(|| {
        format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"")
    })
}

/// The last whole unit before `time`, also before 1970.
fn rounded_down(time: Timestamp, unit: Unit, nanoseconds: i128) -> Timestamp {
    let floor = time.as_nanosecond().div_euclid(nanoseconds) * nanoseconds;
    Timestamp::from_nanosecond(floor).or_else(|_| time.round(unit)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_upstream_writes_them() {
        let time: Timestamp = "2026-01-02T03:04:05.999678123Z".parse().unwrap();
        assert_eq!(format(time), "2026-01-02T03:04:05Z");
        assert_eq!(format_micro(time), "2026-01-02T03:04:05.999678Z");
        assert_eq!(format_micro("1969-12-31T23:59:59Z".parse().unwrap()), "1969-12-31T23:59:59.000000Z");
    }

    #[test]
    fn any_offset_is_read() {
        assert_eq!(format(parse("2026-01-02T03:04:05+02:00").unwrap()), "2026-01-02T01:04:05Z");
        for text in ["", "2026-01-02", "yesterday", "2026-01-02 03:04:05Z", "2026-13-02T03:04:05Z"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
