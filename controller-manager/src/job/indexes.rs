//! Sets of completion indexes as the API writes them: `1,3-5,7`.

use std::collections::BTreeSet;

/// Reads such a text; what is malformed, or not below `completions`, is left out.
pub fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    indexes
}

/// Writes such a text; three or more in a row become a range.
pub fn render(indexes: &BTreeSet<i32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|next| *next == last + 1) {
            last = next;
        }
        parts.push(match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let indexes = BTreeSet::from([0, 1, 3, 4, 5, 9]);
        assert_eq!(render(&indexes), "0,1,3-5,9");
        assert_eq!(parse("0,1,3-5,9", 10), indexes);
        assert_eq!(parse("0,1,3-5,9,x", 5), BTreeSet::from([0, 1, 3, 4]));
        assert_eq!(render(&BTreeSet::new()), "");
    }
}
