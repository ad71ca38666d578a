//! Reads the text form of label selectors as upstream's parser does, its errors included.

use std::{iter::Peekable, vec};

use super::label::{Operator, Requirement, check_key};

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";
const SPECIAL: &str = "=!(),<>";

/// The requirements of a selector.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let mut tokens = Tokens(scan(text).into_iter().peekable());
    let mut requirements = Vec::new();
    loop {
        match tokens.peek() {
            "" => return Ok(requirements),
            token if token == "!" || is_word(token) => {}
            other => return Err(format!("found '{other}', expected: !, identifier, or 'end of string'")),
        }
        let requirement =
            tokens.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
        requirements.push(requirement);
        match tokens.next().as_str() {
            "" => return Ok(requirements),
            "," => {
                let next = tokens.peek();
                if next != "!" && !is_word(next) {
                    return Err(format!("found '{next}', expected: identifier after ','"));
                }
            }
            other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
        }
    }
}

/// Tokens yet to be read; the empty token stands for the end.
struct Tokens(Peekable<vec::IntoIter<String>>);

impl Tokens {
    fn peek(&mut self) -> &str {
        self.0.peek().map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        self.0.next().unwrap_or_default()
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut key = self.next();
        let is_negated = key == "!";
        if is_negated {
            key = self.next();
        }
        if !is_word(&key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        check_key(&key)?;
        if is_negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), "" | ",") {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let (operator, values) = match self.next().as_str() {
            "in" => (Operator::In, self.listed_values()?),
            "notin" => (Operator::NotIn, self.listed_values()?),
            "=" | "==" => (Operator::In, self.single_value()?),
            "!=" => (Operator::NotIn, self.single_value()?),
            ">" => (Operator::GreaterThan, self.single_value()?),
            "<" => (Operator::LessThan, self.single_value()?),
            other => return Err(format!("found '{other}', expected: {OPERATORS}")),
        };
        Requirement::new(&key, operator, values)
    }

    fn single_value(&mut self) -> Result<Vec<String>, String> {
        match self.peek() {
            "" | "," => Ok(vec![String::new()]),
            word if is_word(word) => Ok(vec![self.next()]),
            other => Err(format!("found '{other}', expected: identifier")),
        }
    }

    /// `(a,b)`; an empty place between commas is the empty value.
    fn listed_values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        let mut values = Vec::new();
        if self.peek() == ")" {
            self.next();
            return Ok(vec![String::new()]);
        }
        if self.peek() != "," && !is_word(self.peek()) {
            return Err(format!("found '{}', expected: ',', ')' or identifier", self.peek()));
        }
        loop {
            match self.peek() {
                "," | ")" => values.push(String::new()),
                word if is_word(word) => values.push(self.next()),
                other => return Err(format!("found '{other}', expected: ',', or identifier")),
            }
            match self.next().as_str() {
                ")" => return Ok(values),
                "," => {}
                other => return Err(format!("found '{other}', expected: ',' or ')'")),
            }
        }
    }
}

/// Words and operators; of adjacent special characters the longest operator is taken.
fn scan(text: &str) -> Vec<String> {
    let is_end = |c: char| c.is_ascii_whitespace() || SPECIAL.contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if SPECIAL.contains(first) {
            if rest.starts_with("==") || rest.starts_with("!=") { 2 } else { 1 }
        } else {
            rest.find(is_end).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(length.max(1));
        tokens.push(token.to_string());
        rest = after.trim_start();
    }
    tokens
}

fn is_word(token: &str) -> bool {
    !token.is_empty() && !token.contains(|c| SPECIAL.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_upstream() {
        let table = [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a==!", "unable to parse requirement: found '!', expected: identifier"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
        ];
        for (text, error) in table {
            assert_eq!(requirements(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(requirements("a in ()").unwrap(), requirements("a in (,)").unwrap());
        let long = requirements("-a=b").unwrap_err();
        assert!(
            long.starts_with("unable to parse requirement: key: Invalid value: \"-a\": name part must"),
            "{long}"
        );
    }
}
