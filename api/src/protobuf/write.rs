//! JSON to messages, in one pass over the text and without a tree.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    EncodeError,
    messages::{Container, Field, Message, Shape},
    scan::Scanner,
    wire::Writer,
};

impl Message {
    /// Appends an object's message. Members that the message does not know (apiVersion and kind among them) are
    /// left out, so the message of a part can be written from the whole.
    pub fn encode(&self, json: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut writer = Writer::new(out);
        let mut json = Scanner::new(json);
        write(self, &mut json, &mut writer)?;
        json.end()
    }
}

fn write(message: &Message, json: &mut Scanner<'_>, out: &mut Writer<'_>) -> Result<(), EncodeError> {
    let start = json.clone();
    json.members(|name, json| match message.named(name) {
        Some(field) => field.write(json, out),
        None => json.skip(),
    })?;
    // What is inlined is the same JSON read as another message.
    for field in message.inlined() {
        let Shape::Message(index) = field.shape else { continue };
        out.nested_unless_empty(field.number, |out| write(Message::at(index), &mut start.clone(), out))?;
    }
    Ok(())
}

/// A message that is one of its fields in JSON.
fn write_choice(message: &Message, json: &mut Scanner<'_>, out: &mut Writer<'_>) -> Result<(), EncodeError> {
    let first = json.peek();
    let fits = |field: &&Field| match field.container {
        Container::List => first == Some(b'['),
        _ if matches!(field.shape, Shape::Flag) => matches!(first, Some(b't' | b'f')),
        _ => first == Some(b'{'),
    };
    let chosen = message.fields.iter().find(fits);
    let chosen = chosen.ok_or_else(|| EncodeError::new(format!("{} cannot be that", message.name)))?;
    // A schema of further properties allows them.
    if let (Some(b'{'), Some(allows)) =
        (first, message.fields.iter().find(|field| field.shape == Shape::Flag))
    {
        out.number(allows.number, 1);
    }
    chosen.write(json, out)
}

impl Field {
    fn write(&self, json: &mut Scanner<'_>, out: &mut Writer<'_>) -> Result<(), EncodeError> {
        if json.peek() == Some(b'n') {
            return json.skip();
        }
        match self.container {
            Container::One => self.write_value(self.number, json, out),
            Container::List => json.items(|json| self.write_value(self.number, json, out)),
            Container::Map => json.members(|name, json| {
                out.nested(self.number, |out| {
                    out.bytes(1, name.as_bytes());
                    self.write_value(2, json, out)
                })
            }),
        }
    }

    fn write_value(
        &self,
        number: u32,
        json: &mut Scanner<'_>,
        out: &mut Writer<'_>,
    ) -> Result<(), EncodeError> {
        if json.peek() == Some(b'n') {
            // Among others a null has its place, such as the zero time in a map.
            json.skip()?;
            match self.shape {
                Shape::Flag | Shape::Integer => out.number(number, 0),
                Shape::Double => out.double(number, 0.0),
                _ => out.bytes(number, b""),
            }
            return Ok(());
        }
        match self.shape {
            Shape::Text => out.bytes(number, json.text(self.name)?.as_bytes()),
            Shape::Flag => out.number(number, json.flag(self.name)?.into()),
            Shape::Integer => out.number(number, json.integer(self.name)?.cast_unsigned()),
            Shape::Double => out.double(number, json.double(self.name)?),
            Shape::Bytes => {
                let text = json.text(self.name)?;
                let bytes = BASE64_STANDARD.decode(text.as_bytes());
                let bytes = bytes.map_err(|error| EncodeError::new(format!("{}: {error}", self.name)))?;
                out.bytes(number, &bytes);
            }
            Shape::Special(special) => return out.nested(number, |out| special.write(self.name, json, out)),
            Shape::Message(index) => {
                let message = Message::at(index);
                let write = if message.is_choice { write_choice } else { write };
                return out.nested(number, |out| write(message, json, out));
            }
        }
        Ok(())
    }
}
