//! The lines of a YAML document on which a map gets a key that it has already.
//!
//! The decoder tells lines only with its errors. So the document is read anew for each such key, with an error raised
//! where its value stands; this happens to bodies that are wrong, and not more than [`MOST`] times. Aliases are
//! followed, also in fields that the decoder skips: so all passes together have a budget.

use std::{collections::HashSet, fmt};

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::SCALAR_COST;

/// So many are told.
const MOST: usize = 10;

/// `line 4: key "a" already set in map` for each key that comes again, as far as the search gets; `None` when it does not
/// get to the first.
pub(super) fn keys(document: &[u8], budget: usize) -> Option<Vec<String>> {
    let mut search = Search { budget, left: 0, found: None };
    let mut lines = Vec::new();
    for number in 0..MOST {
        match search.nth(document, number) {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => return Some(lines),
            Err(_) => break,
        }
    }
    (!lines.is_empty()).then_some(lines)
}

struct Search {
    /// What all visits together may still cost, in the decoder's bytes.
    budget: usize,
    /// How many to pass over.
    left: usize,
    /// The key, as Go writes it.
    found: Option<String>,
}

impl Search {
    /// The line, or nothing when there are not so many. The error is what kept the search from the end.
    fn nth(&mut self, document: &[u8], number: usize) -> Result<Option<String>, serde_yaml::Error> {
        (self.left, self.found) = (number, None);
        let Some(document) = serde_yaml::Deserializer::from_slice(document).next() else { return Ok(None) };
        let Err(error) = Walk(self).deserialize(document) else { return Ok(None) };
        match (self.found.take(), error.location()) {
            (Some(key), Some(place)) => {
                Ok(Some(format!("line {}: key {key} already set in map", place.line())))
            }
            _ => Err(error),
        }
    }

    fn spend<E: de::Error>(&mut self, text: usize) -> Result<(), E> {
        let left = self.budget.checked_sub(SCALAR_COST + text);
        self.budget = left.ok_or_else(|| E::custom("the budget is used up"))?;
        Ok(())
    }
}

struct Walk<'a>(&'a mut Search);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.spend(0)?;
        let mut seen = HashSet::new();
        while let Some(Key(key)) = map.next_key()? {
            self.0.spend(key.len())?;
            if seen.contains(&key) {
                if self.0.left == 0 {
                    self.0.found = Some(key);
                    return map.next_value_seed(Raise);
                }
                self.0.left -= 1;
            } else {
                seen.insert(key);
            }
            map.next_value_seed(Walk(self.0))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.0.spend(0)?;
        while list.next_element_seed(Walk(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.0.spend(0)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.0.spend(0)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.0.spend(0)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.0.spend(0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.0.spend(text.len())
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        self.visit_unit()
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.0.spend(0)
    }
}

/// The error that knows its line.
struct Raise;

impl<'de> DeserializeSeed<'de> for Raise {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(Raise)
    }
}

impl<'de> Visitor<'de> for Raise {
    type Value = ();

    /// What every value but the one that cannot be leads to an error of this wording.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that comes once")
    }
}

/// A key in Go's notation: only texts have quotes.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(Key(format!("{key:?}")))
    }

    fn visit_bool<E>(self, key: bool) -> Result<Key, E> {
        Ok(Key(key.to_string()))
    }

    fn visit_i64<E>(self, key: i64) -> Result<Key, E> {
        Ok(Key(key.to_string()))
    }

    fn visit_u64<E>(self, key: u64) -> Result<Key, E> {
        Ok(Key(key.to_string()))
    }

    fn visit_f64<E>(self, key: f64) -> Result<Key, E> {
        Ok(Key(key.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Key, E> {
        Ok(Key("<nil>".into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Key, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Err(de::Error::custom("a list is no key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_that_comes_again_is_told_with_the_line_of_its_value() {
        let document = "\na: 1\nb:\n  c: 1\n  c: 2\nlist:\n- d: 1\n  d: {x: 1}\n1: x\n1: y\na:\n  e: 1\n";
        assert_eq!(
            keys(document.as_bytes(), usize::MAX).unwrap(),
            [
                "line 5: key \"c\" already set in map",
                "line 8: key \"d\" already set in map",
                "line 10: key 1 already set in map",
                "line 12: key \"a\" already set in map",
            ]
        );
        assert!(keys(b"a: 1\nb: 2\n", usize::MAX).unwrap().is_empty());
        assert_eq!(keys(br#"{"a":1,"a":2}"#, usize::MAX).unwrap(), ["line 1: key \"a\" already set in map"]);
    }

    #[test]
    fn what_all_visits_cost_is_bounded() {
        let ones = ["1"; 100].join(",");
        let document = format!("x: [&a [{ones}], {}]\ny: 1\ny: 1\ny: 1\n", ["*a"; 100].join(","));
        let keys = |budget| keys(document.as_bytes(), budget);
        // 101 lists of 100 numbers: so many visits lie before the key that comes again, on each of the passes.
        let pass = 101 * 101 * SCALAR_COST;
        assert_eq!(keys(pass), None);
        let lines = [3, 4].map(|line| format!("line {line}: key \"y\" already set in map"));
        assert_eq!(keys(pass + pass / 2).unwrap(), lines[..1]);
        assert_eq!(keys(usize::MAX).unwrap(), lines);
    }
}
