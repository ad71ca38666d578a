//! The lines of a YAML document on which a map gets a key that it has already.
//!
//! The decoder tells lines only with its errors. So the document is read anew for each such key, with an error raised
//! where its value stands; this happens to bodies that are wrong, and not more than [`MOST`] times.

use std::{collections::HashSet, fmt};

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// So many are told.
const MOST: usize = 10;

/// `line 4: key "a" already set in map` for each key that comes again.
pub(super) fn keys(document: &[u8]) -> Vec<String> {
    (0..MOST).map_while(|number| nth(document, number)).collect()
}

fn nth(document: &[u8], number: usize) -> Option<String> {
    let mut search = Search { left: number, found: None };
    let document = serde_yaml::Deserializer::from_slice(document).next()?;
    let error = Walk(&mut search).deserialize(document).err()?;
    Some(format!("line {}: key {} already set in map", error.location()?.line(), search.found?))
}

struct Search {
    /// How many to pass over.
    left: usize,
    /// The key, as Go writes it.
    found: Option<String>,
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
        let mut seen = HashSet::new();
        while let Some(Key(key)) = map.next_key()? {
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
        while list.next_element_seed(Walk(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
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
            keys(document.as_bytes()),
            [
                "line 5: key \"c\" already set in map",
                "line 8: key \"d\" already set in map",
                "line 10: key 1 already set in map",
                "line 12: key \"a\" already set in map",
            ]
        );
        assert!(keys(b"a: 1\nb: 2\n").is_empty());
        assert_eq!(keys(br#"{"a":1,"a":2}"#), ["line 1: key \"a\" already set in map"]);
    }
}
