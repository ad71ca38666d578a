//! The formats that texts may be asked to have. Unknown formats mean nothing, as upstream.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Whether a text has a format; `None` when the format is not one that is checked.
pub(super) fn check(format: &str, text: &str) -> Option<bool> {
    let plain = format.replace('-', "");
    Some(match plain.as_str() {
        "datetime" => is_date_time(text),
        "date" => is_date(text),
        "email" => is_email(text),
        "hostname" => is_host_name(text),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => crate::name::cidr(text).is_ok(),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "byte" => STANDARD.decode(text.replace(['\n', '\r'], "")).is_ok(),
        "uri" => is_uri(text),
        "duration" => crate::cel::duration::parse(text).is_ok(),
        "hexcolor" => is_hex_color(text),
        "creditcard" => is_credit_card(text),
        "isbn" => is_isbn(text, 10) || is_isbn(text, 13),
        "isbn10" => is_isbn(text, 10),
        "isbn13" => is_isbn(text, 13),
        "ssn" => is_grouped_number(text, &[3, 2, 4]),
        "rgbcolor" => is_rgb_color(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "k8sshortname" => crate::name::dns_label(text).is_ok(),
        "k8slongname" => crate::name::dns_subdomain(text).is_ok(),
        _ => return None,
    })
}

/// Whether a format means something for values of a type; no format does.
pub(crate) fn knows_format(kind: &str, format: &str) -> bool {
    match (kind, format) {
        (_, "") | ("" | "string", "password") => true,
        ("" | "string", format) => check(format, "").is_some(),
        ("integer", format) => matches!(format, "int32" | "int64"),
        ("number", format) => matches!(format, "float" | "double"),
        _ => false,
    }
}

fn digits(text: &str, count: usize) -> Option<u32> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    let clock_end = time.find(['Z', 'z', '+', '-', '.']).unwrap_or(time.len());
    let (clock, rest) = time.split_at(clock_end);
    let parts: Vec<&str> = clock.split(':').collect();
    let is_clock = match parts.as_slice() {
        [hour, minute, second] => {
            digits(hour, 2).is_some_and(|hour| hour < 24)
                && digits(minute, 2).is_some_and(|minute| minute < 60)
                && digits(second, 2).is_some_and(|second| second < 61)
        }
        _ => false,
    };
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
            if end == 0 {
                return false;
            }
            &fraction[end..]
        }
        None => rest,
    };
    let is_zone = match rest.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', zone @ ..] => {
            zone.len() == 5
                && zone[2] == b':'
                && digits(&rest[1..3], 2).is_some_and(|hours| hours < 24)
                && digits(&rest[4..6], 2).is_some_and(|minutes| minutes < 60)
        }
        _ => false,
    };
    is_date(date) && is_clock && is_zone
}

fn is_email(text: &str) -> bool {
    let Some((local, host)) = text.rsplit_once('@') else { return false };
    !local.is_empty() && !text.contains(char::is_whitespace) && is_host_name(host)
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte >= 0x80;
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 255 && text.split('.').all(is_label)
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let compact: String = text.chars().filter(|c| *c != '-').collect();
    compact.len() == 32
        && compact.bytes().all(|byte| byte.is_ascii_hexdigit())
        && version.is_none_or(|version| compact.chars().nth(12) == Some(version))
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return text.starts_with('/') };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme && !rest.is_empty() && !text.contains(char::is_whitespace)
}

fn is_hex_color(text: &str) -> bool {
    let hex = text.strip_prefix('#').unwrap_or(text);
    matches!(hex.len(), 3 | 6) && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_rgb_color(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|text| text.strip_suffix(')'));
    inner.is_some_and(|inner| {
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
    })
}

fn is_credit_card(text: &str) -> bool {
    let numbers: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let is_clean = text.chars().all(|c| c.is_ascii_digit() || c == '-' || c == ' ');
    let sum: u32 = numbers
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match (index % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    is_clean && (13..=19).contains(&numbers.len()) && sum.is_multiple_of(10)
}

fn is_isbn(text: &str, length: usize) -> bool {
    let compact: Vec<char> = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    if compact.len() != length {
        return false;
    }
    let value = |c: char, is_last: bool| match c {
        'X' | 'x' if is_last && length == 10 => Some(10),
        c => c.to_digit(10),
    };
    let Some(values) = compact
        .iter()
        .enumerate()
        .map(|(index, c)| value(*c, index + 1 == length))
        .collect::<Option<Vec<u32>>>()
    else {
        return false;
    };
    match length {
        10 => values.iter().zip((1..=10).rev()).map(|(digit, weight)| digit * weight).sum::<u32>() % 11 == 0,
        _ => values.iter().enumerate().map(|(index, digit)| digit * [1, 3][index % 2]).sum::<u32>() % 10 == 0,
    }
}

fn is_grouped_number(text: &str, groups: &[usize]) -> bool {
    let parts: Vec<&str> = text.split(['-', ' ']).collect();
    parts.len() == groups.len()
        && parts.iter().zip(groups).all(|(part, length)| digits(part, *length).is_some())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn formats_tell_right_from_wrong() {
        let right = [
            ("date-time", "2026-01-02T03:04:05Z"),
            ("date-time", "2026-01-02T03:04:05.123+01:00"),
            ("date", "2026-02-28"),
            ("email", "a@example.com"),
            ("ipv4", "192.0.2.1"),
            ("ipv6", "2001:db8::1"),
            ("cidr", "192.0.2.0/24"),
            ("uuid", "550e8400-e29b-41d4-a716-446655440000"),
            ("byte", "aGVsbG8="),
            ("uri", "https://example.com/x"),
            ("duration", "1h30m"),
            ("mac", "00:00:5e:00:53:01"),
            ("isbn", "978-0-306-40615-7"),
            ("k8s-short-name", "web"),
        ];
        for (format, text) in right {
            assert_eq!(check(format, text), Some(true), "{format} {text}");
        }
        let wrong = [
            ("date-time", "2026-01-02"),
            ("date-time", "2026-01-02 03:04:05Z"),
            ("date", "2026-02-30"),
            ("email", "nobody"),
            ("ipv4", "300.1.1.1"),
            ("byte", "!"),
            ("duration", "soon"),
            ("uuid4", "550e8400-e29b-11d4-a716-446655440000"),
            ("hostname", "-a"),
        ];
        for (format, text) in wrong {
            assert_eq!(check(format, text), Some(false), "{format} {text}");
        }
        assert_eq!(check("whatever", "x"), None);
    }
}
