//! The messages: `fields.txt`, one a line, which `scripts/protobuf-fields` makes.
//!
//! A field is `NUMBER:NAME:MARKS TYPE`: `?` zero values are meant, `^` the message's fields are the
//! parent's, `[` a list, `{` a map from text; then `s`tring, `b`ool, `i`nteger, `d`ouble, b`y`tes or
//! `M`essage with its name. Names without a dot are those whose JSON is no map of their fields.

use std::{cmp::Ordering, collections::HashMap, sync::LazyLock};

use super::special::Special;

static MESSAGES: LazyLock<Messages> = LazyLock::new(Messages::load);

struct Messages {
    all: Vec<Message>,
    by_name: HashMap<&'static str, usize>,
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Such as `core.v1.Pod`.
    pub(super) name: &'static str,
    /// By their numbers.
    pub(super) fields: Vec<Field>,
    /// Indices of `fields`, in the [`order`] of their JSON names; without those that are inlined.
    by_name: Vec<usize>,
    /// Indices of the fields whose fields are this message's in JSON.
    inline: Vec<usize>,
    /// Whether its JSON is that of one of its fields, as the JSON's type tells: a list in place of a message with
    /// one list.
    pub(super) is_choice: bool,
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) keeps_zero: bool,
    pub(super) is_inline: bool,
    pub(super) container: Container,
    pub(super) shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Container {
    One,
    List,
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    Text,
    Flag,
    Integer,
    Double,
    Bytes,
    Special(Special),
    /// With its index.
    Message(usize),
}

impl Message {
    /// The message of a kind, if it has one: its package is the first label of its group.
    pub fn of(api_version: &str, kind: &str) -> Option<&'static Message> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("core", api_version));
        let package = group.split('.').next().unwrap_or(group);
        let own = MESSAGES.by_name.get(format!("{package}.{version}.{kind}").as_str());
        // Options and Status belong to all groups.
        let general = || MESSAGES.by_name.get(format!("meta.v1.{kind}").as_str());
        own.or_else(general).map(|index| Message::at(*index))
    }

    pub(super) fn at(index: usize) -> &'static Message {
        &MESSAGES.all[index]
    }

    pub(super) fn numbered(&self, number: u32) -> Option<&Field> {
        let found = self.fields.binary_search_by_key(&number, |field| field.number);
        found.ok().map(|index| &self.fields[index])
    }

    pub(super) fn named(&self, name: &str) -> Option<&Field> {
        let found = self.by_name.binary_search_by(|index| order(self.fields[*index].name, name));
        found.ok().map(|index| &self.fields[self.by_name[index]])
    }

    pub(super) fn inlined(&self) -> impl Iterator<Item = &Field> {
        self.inline.iter().map(|index| &self.fields[*index])
    }

    fn parse(line: &'static str, indices: &HashMap<&'static str, usize>) -> Message {
        let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
        let mut fields: Vec<Field> =
            fields.split(' ').filter_map(|field| Field::parse(field, indices)).collect();
        fields.sort_by_key(|field| field.number);
        let (inline, mut by_name): (Vec<usize>, Vec<usize>) =
            (0..fields.len()).partition(|index| fields[*index].is_inline);
        by_name.sort_by(|a, b| order(fields[*a].name, fields[*b].name));
        let is_choice =
            name.ends_with(".ExtraValue") || name == "meta.v1.Verbs" || name.contains(".JSONSchemaPropsOr");
        Message { name, fields, by_name, inline, is_choice }
    }
}

/// By length first: most names differ in it, which is quickly seen.
fn order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

impl Messages {
    fn load() -> Messages {
        let lines: Vec<&str> = include_str!("fields.txt").lines().collect();
        let names = lines.iter().map(|line| line.split(' ').next().unwrap_or_default());
        let by_name: HashMap<&str, usize> = names.enumerate().map(|(index, name)| (name, index)).collect();
        let all = lines.into_iter().map(|line| Message::parse(line, &by_name)).collect();
        Messages { all, by_name }
    }
}

impl Field {
    /// `None` for fields of messages that are not served (alpha versions).
    fn parse(text: &'static str, indices: &HashMap<&'static str, usize>) -> Option<Field> {
        let mut parts = text.splitn(3, ':');
        let (number, name, code) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        let (keeps_zero, code) = code.strip_prefix('?').map_or((false, code), |code| (true, code));
        let (is_inline, code) = code.strip_prefix('^').map_or((false, code), |code| (true, code));
        let (container, code) = match code.as_bytes().first()? {
            b'[' => (Container::List, &code[1..]),
            b'{' => (Container::Map, &code[1..]),
            _ => (Container::One, code),
        };
        let shape = match code.as_bytes().first()? {
            b's' => Shape::Text,
            b'b' => Shape::Flag,
            b'i' => Shape::Integer,
            b'd' => Shape::Double,
            b'y' => Shape::Bytes,
            _ => match Special::named(&code[1..]) {
                Some(special) => Shape::Special(special),
                None => Shape::Message(*indices.get(&code[1..])?),
            },
        };
        Some(Field { number, name, keeps_zero, is_inline, container, shape })
    }
}

#[cfg(test)]
pub(super) fn all() -> &'static [Message] {
    &MESSAGES.all
}
