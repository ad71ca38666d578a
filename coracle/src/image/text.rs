//! Tables, sizes and ages as docker prints them. Pure.

use jiff::Timestamp;
use runtime::image::Reference;

/// Columns as wide as their widest cell, three spaces apart.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut lines: Vec<Vec<String>> = vec![header.iter().map(|cell| (*cell).to_owned()).collect()];
    lines.extend(rows.iter().cloned());
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("   ").trim_end();
        text.push('\n');
    }
    text
}

/// Decimal units and three significant digits: `4.26MB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let digits = match value {
        _ if unit == "B" || value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    let number = format!("{value:.digits$}");
    let number = if digits > 0 { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{unit}")
}

/// How long ago something was, roughly: `3 weeks ago`.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, (seconds + 1800) / 3600, seconds / 86400);
    let text = match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..2700 => format!("{minutes} minutes"),
        2700..5400 => "About an hour".to_owned(),
        5400..172_800 => format!("{hours} hours"),
        172_800..1_209_600 => format!("{days} days"),
        1_209_600..5_184_000 => format!("{} weeks", days / 7),
        5_184_000..63_072_000 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    };
    format!("{text} ago")
}

/// A name as people write it: Docker Hub's is left out.
pub(super) fn familiar(name: &str) -> &str {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").filter(|_| short != name).unwrap_or(short)
}

/// The repository of a name, and its tag or digest.
pub(super) fn parts(name: &str) -> (String, String) {
    match Reference::parse(name) {
        Ok(reference) => (familiar(&reference.name()).to_owned(), reference.version().to_owned()),
        Err(_) => (name.to_owned(), String::new()),
    }
}

/// The first twelve digits of an id.
pub(super) fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let sizes = [0, 999, 1000, 4260, 1_240_000, 133_400_000, 999_600, 2_000_000_000];
        let texts = sizes.map(size);
        assert_eq!(texts, ["0B", "999B", "1kB", "4.26kB", "1.24MB", "133MB", "1MB", "2GB"]);
    }

    #[test]
    fn ages_are_rough() {
        let now = Timestamp::from_second(2_000_000_000).unwrap();
        let before = |seconds: i64| ago(Timestamp::from_second(2_000_000_000 - seconds).unwrap(), now);
        assert_eq!(before(0), "Less than a second ago");
        assert_eq!(before(90), "About a minute ago");
        assert_eq!(before(3600), "About an hour ago");
        assert_eq!(before(7300), "2 hours ago");
        assert_eq!(before(86400 * 20), "2 weeks ago");
        assert_eq!(before(86400 * 800), "2 years ago");
        assert_eq!(before(-50), "Less than a second ago", "clocks differ");
    }

    #[test]
    fn docker_hubs_names_are_short() {
        assert_eq!(familiar("docker.io/library/busybox:1"), "busybox:1");
        assert_eq!(familiar("docker.io/coracle/web:1"), "coracle/web:1");
        assert_eq!(familiar("registry.local/library/web:1"), "registry.local/library/web:1");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(parts(&format!("docker.io/library/a@{digest}")), ("a".to_owned(), digest));
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "longer".to_owned()], vec!["wide one".to_owned(), "b".to_owned()]];
        assert_eq!(table(&["NAME", "TAG"], &rows), "NAME       TAG\na          longer\nwide one   b\n");
    }
}
