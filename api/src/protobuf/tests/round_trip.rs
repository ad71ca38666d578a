//! Any object of any message, written and read again, is the same.

use proptest::prelude::*;
use serde_json::{Map, Number, Value};

use super::super::messages::{self, Field};
use super::*;

/// Where the choices come from; zero when it is used up, which leaves things out.
struct Tape<'a>(std::slice::Iter<'a, u8>);

impl Tape<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.next() % bound
    }
}

const TEXTS: [&str; 7] = ["a", "web-0", "\"quoted\\\" {text}\n", "é€🦀", "\u{0}\u{1f}", "x,]}:", " "];

/// An object in the form that upstream's JSON has: without what is empty and left out.
fn object(message: &Message, tape: &mut Tape<'_>, depth: usize) -> Map<String, Value> {
    let mut map = Map::new();
    for field in &message.fields {
        // The deeper, the less.
        if tape.below(2 + depth as u8) != 1 {
            continue;
        }
        if let (true, Shape::Message(index)) = (field.is_inline, field.shape) {
            map.extend(object(Message::at(index), tape, depth + 1));
            continue;
        }
        let value = match field.container {
            Container::One => value(field, tape, depth, !field.keeps_zero),
            Container::List => (0..=tape.below(3)).map(|_| value(field, tape, depth, false)).collect(),
            Container::Map => {
                let entries = (0..=tape.below(3)).map(|_| {
                    (TEXTS[usize::from(tape.below(7))].to_string(), value(field, tape, depth, false))
                });
                Value::Object(entries.collect())
            }
        };
        map.insert(field.name.to_string(), value);
    }
    map
}

fn value(field: &Field, tape: &mut Tape<'_>, depth: usize, not_zero: bool) -> Value {
    let number = i64::from_le_bytes(std::array::from_fn(|_| tape.next())) >> (tape.next() % 64);
    let number = if not_zero && number == 0 { -7 } else { number };
    match field.shape {
        Shape::Text if !not_zero && number % 5 == 0 => "".into(),
        Shape::Text | Shape::Special(Special::Quantity) => TEXTS[usize::from(tape.below(7))].into(),
        Shape::Flag => (not_zero || number % 2 == 0).into(),
        Shape::Integer => number.into(),
        Shape::Double if number % 2 == 0 => (number >> 14).max(1).into(),
        Shape::Double => Number::from_f64((number >> 14) as f64 + 0.5).map_or(Value::Null, Value::Number),
        Shape::Bytes => base64_of(number.to_le_bytes().as_slice()),
        Shape::Special(Special::Time) => crate::time::format(moment(number)).into(),
        Shape::Special(Special::MicroTime) => crate::time::format_micro(moment(number)).into(),
        Shape::Special(Special::Duration) => crate::cel::duration::format_go(number).into(),
        Shape::Special(Special::IntOrString) if number % 2 == 0 => (number as i32).into(),
        Shape::Special(Special::IntOrString) => "50%".into(),
        Shape::Special(Special::Raw) => json!({"f:metadata": {"k:{\"a\":1}": [TEXTS[2], number, null]}}),
        Shape::Message(index) if Message::at(index).is_choice => choice(Message::at(index), tape, depth),
        Shape::Message(_) if depth > 20 => json!({}),
        Shape::Message(index) => Value::Object(object(Message::at(index), tape, depth + 1)),
    }
}

fn choice(message: &Message, tape: &mut Tape<'_>, depth: usize) -> Value {
    let field = &message.fields[usize::from(tape.next()) % message.fields.len()];
    match field.container {
        Container::List => (0..=tape.below(3)).map(|_| value(field, tape, depth + 1, false)).collect(),
        _ => value(field, tape, depth + 1, false),
    }
}

fn base64_of(bytes: &[u8]) -> Value {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(bytes).into()
}

fn moment(number: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(number.rem_euclid(253_402_000_000_000_000)).unwrap()
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(index in 0..messages::all().len(), tape in prop::collection::vec(any::<u8>(), 0..3000)) {
        let message = &messages::all()[index];
        let original = object(message, &mut Tape(tape.iter()), 0);
        let json = serde_json::to_vec(&original).unwrap();
        let mut written = Vec::new();
        message.encode(&json, &mut written).unwrap();
        let mut read = Map::new();
        read::message(message, &written, &mut read, 0).unwrap();
        prop_assert_eq!(read, original);
    }

    #[test]
    fn white_space_means_nothing(tape in prop::collection::vec(any::<u8>(), 0..3000)) {
        let message = Message::of("v1", "Pod").unwrap();
        let original = object(message, &mut Tape(tape.iter()), 0);
        let (mut plain, mut spaced) = (Vec::new(), Vec::new());
        // Embedded JSON is kept as it stands.
        let is_embedded = |json: &str| json.contains("f:metadata");
        let json = serde_json::to_string(&original).unwrap();
        prop_assume!(!is_embedded(&json));
        message.encode(json.as_bytes(), &mut plain).unwrap();
        message.encode(serde_json::to_string_pretty(&original).unwrap().as_bytes(), &mut spaced).unwrap();
        prop_assert_eq!(plain, spaced);
    }

    #[test]
    fn any_json_is_taken_or_refused(json in ".*", cut in any::<prop::sample::Index>()) {
        let pod = Message::of("v1", "Pod").unwrap();
        let whole = r#"{"metadata":{"name":"a","labels":{"x\n":"y"}},"spec":{"containers":[{"ports":[{"containerPort":80}]}]}}"#;
        let at = cut.index(whole.len() + 1);
        for text in [json.clone(), whole[..at].to_string(), format!("{}{json}{}", &whole[..at], &whole[at..])] {
            let _may_fail = pod.encode(text.as_bytes(), &mut Vec::new()).is_err();
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..kinds::KINDS.len()) {
        let kind = &kinds::KINDS[kind];
        crate::fuzz::protobuf(&envelope::document_of(&kind.api_version(), kind.kind, &bytes));
    }
}
