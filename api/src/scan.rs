//! JSON as it stands: where things are in it, found without building any of it.
//!
//! For what is passed on as bytes. What is not well formed has nothing to be found.

use std::ops::Range;

/// Where the value starts that member names lead to from the object at the root; lists are not entered.
pub fn find(json: &[u8], path: &[&str]) -> Option<usize> {
    path.iter().try_fold(0, |start, name| Some(member(json, start, name)?.value))
}

/// Takes out the member at a path, if there is one.
pub fn cut(json: &mut Vec<u8>, path: &[&str]) {
    if let Some(range) = range(json, path) {
        json.drain(range);
    }
}

/// From the member at a path to its end, with one of the commas beside it.
fn range(json: &[u8], path: &[&str]) -> Option<Range<usize>> {
    let (name, parents) = path.split_last()?;
    let member = member(json, find(json, parents)?, name)?;
    let end = skip_space(json, value_end(json, member.value)?);
    Some(match (json.get(end), member.comma_before) {
        (Some(b','), _) => member.key..end + 1,
        (_, Some(comma)) => comma..end,
        (_, None) => member.key..end,
    })
}

/// A member of an object.
struct Member {
    /// The comma before it, unless it is the first.
    comma_before: Option<usize>,
    /// Where its key starts, quote included.
    key: usize,
    /// Where its value starts.
    value: usize,
}

/// The first member of a name in the object that starts at `start`.
fn member(json: &[u8], start: usize, name: &str) -> Option<Member> {
    let mut at = after(json, start, b'{')?;
    let mut comma_before = None;
    loop {
        let text = after(json, at, b'"')?;
        let text_end = string_end(json, text)?;
        let value = skip_space(json, after(json, text_end, b':')?);
        if &json[text..text_end - 1] == name.as_bytes() {
            return Some(Member { comma_before, key: text - 1, value });
        }
        let end = skip_space(json, value_end(json, value)?);
        comma_before = Some(end);
        at = after(json, end, b',')?;
    }
}

/// Behind an expected byte, with space before it.
fn after(json: &[u8], at: usize, expected: u8) -> Option<usize> {
    let at = skip_space(json, at);
    (json.get(at) == Some(&expected)).then_some(at + 1)
}

/// Behind the value that starts at `at`.
pub fn value_end(json: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match json.get(at)? {
            b'"' => at = string_end(json, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b',' | b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Behind the closing quote of the string whose text starts at `at`.
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match json.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while json.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const OWNERS: [&str; 3] = ["object", "metadata", "managedFields"];

    fn without_owners(line: &str) -> String {
        let mut line = line.as_bytes().to_vec();
        cut(&mut line, &OWNERS);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_member_is_cut_out_wherever_it_stands() {
        let owners = json!([{"manager": "a]}\\\"", "fieldsV1": {"f:x": {".": {}}}}]);
        for metadata in [
            json!({"managedFields": owners, "name": "a"}),
            json!({"labels": {"managedFields": "no"}, "managedFields": owners, "name": "a"}),
            json!({"labels": {"a": "\"managedFields\":["}, "managedFields": owners}),
            json!({"managedFields": owners}),
            json!({"name": "a"}),
        ] {
            let spec = json!({"metadata": {"managedFields": [1, {"kept": true}]}, "numbers": [1, 2.5, -3, null, true]});
            let event = json!({"type": "ADDED", "object": {"kind": "X", "metadata": metadata, "spec": spec}});
            let mut expected = event.clone();
            expected["object"]["metadata"].as_object_mut().unwrap().remove("managedFields");
            for text in [event.to_string(), serde_json::to_string_pretty(&event).unwrap()] {
                let left: Value = serde_json::from_str(&without_owners(&text)).unwrap();
                assert_eq!(left, expected, "{text}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_left_as_it_is() {
        for line in [
            "",
            "null",
            "{",
            r#"{"object":[]}"#,
            r#"{"object":{"metadata":{"managedFields":[{"a":"}]"#,
            r#"{"type":"ERROR","object":{"kind":"Status","metadata":{},"code":410}}"#,
        ] {
            assert_eq!(without_owners(line), line);
        }
    }

    #[test]
    fn a_value_is_found_where_it_stands() {
        let json = br#"{"a":{"b":"x\"{"},"n":[{"b":1}], "b" : {"c":[1,{}], "d":"e"} }"#;
        let found = |path: &[&str]| {
            let start = find(json, path)?;
            std::str::from_utf8(&json[start..value_end(json, start)?]).ok()
        };
        assert_eq!(found(&["b"]), Some(r#"{"c":[1,{}], "d":"e"}"#));
        assert_eq!(found(&["b", "c"]), Some("[1,{}]"));
        assert_eq!(found(&["b", "d"]), Some(r#""e""#));
        assert_eq!(found(&["a", "b"]), Some(r#""x\"{""#));
        for path in [&["c"][..], &["n", "b"], &["b", "d", "e"]] {
            assert_eq!(found(path), None, "{path:?}");
        }
    }
}
