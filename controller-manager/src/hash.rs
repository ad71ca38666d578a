//! Short, stable names for pod templates.

use serde::Serialize;

/// A hash of a template that is safe in names and labels: no vowels, so no words. The same template gives the
/// same hash as long as `collisions` is the same; counting that up gives it another one.
pub fn of(template: &impl Serialize, collisions: Option<i32>) -> String {
    // A template came from JSON, so it can be written as such.
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    if let Some(collisions) = collisions {
        bytes.extend(collisions.to_le_bytes());
    }
    safe(&fnv_1a(&bytes).to_string())
}

fn fnv_1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn safe(text: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collision_changes_the_hash_and_nothing_else_does() {
        assert_eq!(of(&"template", None), of(&"template", None));
        assert_ne!(of(&"template", None), of(&"template", Some(1)));
        assert_ne!(of(&"template", None), of(&"other", None));
        assert!(of(&"template", None).bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
