//! The name under which a client owns the fields that it writes.

use http::{HeaderMap, header};

use crate::request::{FIELD_MANAGER_LIMIT, Query};

/// What the client calls itself, by `fieldManager` or by the beginning of its `User-Agent`.
pub(super) fn name(verb: &str, query: &Query, headers: &HeaderMap) -> String {
    if !matches!(verb, "create" | "update" | "patch") {
        return String::new();
    }
    match query.get("fieldManager") {
        Some(name) => name.to_string(),
        None => of_agent(
            headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default(),
        ),
    }
}

/// `kubectl` of `kubectl/v1.37.0 (linux/amd64)`, as far as it can be shown and is not too long.
fn of_agent(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default();
    let mut short = String::new();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if short.len() + letter.len_utf8() > FIELD_MANAGER_LIMIT {
            break;
        }
        short.push(letter);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_the_beginning_of_their_agent() {
        assert_eq!(of_agent("kubectl/v1.37.0 (linux/amd64) kubernetes/abc"), "kubectl");
        assert_eq!(of_agent("Mozilla 5"), "Mozilla 5");
        assert_eq!(of_agent(""), "");
        assert_eq!(of_agent(&"x".repeat(500)).len(), 128);
    }
}
