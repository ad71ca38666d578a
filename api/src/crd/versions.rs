//! The order of API versions: `v2`, `v1`, `v2beta1`, `v1beta2`, `v1alpha1`, then everything else by name.

use std::cmp::Ordering;

/// The preferred version first.
pub fn by_priority(one: &str, other: &str) -> Ordering {
    match (rank(one), rank(other)) {
        (Some(one), Some(other)) => other.cmp(&one),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => one.cmp(other),
    }
}

/// Stability, number, number within the stability.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(end);
    let major = number(major)?;
    if rest.is_empty() {
        return Some((3, major, 0));
    }
    let minor = |rest: &str, stability| Some((stability, major, number(rest)?));
    match rest.strip_prefix("beta") {
        Some(rest) => minor(rest, 2),
        None => minor(rest.strip_prefix("alpha")?, 1),
    }
}

fn number(digits: &str) -> Option<u64> {
    (!digits.starts_with('0')).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    #[test]
    fn stable_versions_come_first_and_larger_numbers_before_smaller_ones() {
        let mut versions = ["v1alpha1", "foo", "v1", "v11beta2", "v10", "v1beta1", "bar", "v2"];
        versions.sort_by(|one, other| super::by_priority(one, other));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v1beta1", "v1alpha1", "bar", "foo"]);
    }
}
