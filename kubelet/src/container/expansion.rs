//! `$(NAME)` in commands, arguments and variables.

/// Replaces every `$(NAME)` for which `value` has an answer. What has none stays as it is, and `$$` is one
/// dollar sign that starts nothing.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        expanded.push_str(&rest[..position]);
        let after = &rest[position + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            expanded.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> String {
        expand(text, |name| match name {
            "A" => Some("1".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn names_that_are_known_are_replaced() {
        assert_eq!(expanded("a=$(A) e=$(EMPTY)."), "a=1 e=.");
        assert_eq!(expanded("$(A)$(A)"), "11");
    }

    #[test]
    fn names_that_are_not_known_stay() {
        assert_eq!(expanded("$(B) $A $(A"), "$(B) $A $(A");
    }

    #[test]
    fn two_dollars_are_one_and_start_nothing() {
        assert_eq!(expanded("$$(A) $$$(A) $$$$(A) cost $"), "$(A) $1 $$(A) cost $");
    }
}
