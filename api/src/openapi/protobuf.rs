//! OpenAPI v2 as protobuf: the messages of gnostic's `OpenAPIv2.proto`, as far as our documents use them.
//!
//! The numbers below are that file's field numbers. Each value is encoded on its own and appended, so that
//! the document never exists as a tree.

use std::collections::BTreeMap;

use serde_json::Value;

/// The whole document.
pub(super) fn document(
    info: &Value,
    paths: BTreeMap<String, Value>,
    definitions: impl Iterator<Item = (String, Value)>,
) -> Vec<u8> {
    let mut document = Message::default();
    document.text(1, "2.0");
    document.message(2, Message::default().with_text(1, info, "title").with_text(2, info, "version"));
    let mut encoded = Message::default();
    for (path, item) in paths {
        encoded.message(2, named(&path, path_item(&item)));
    }
    document.message(8, encoded);
    let mut encoded = Message::default();
    for (name, definition) in definitions {
        encoded.message(1, named(&name, schema(&definition)));
    }
    document.message(9, encoded);
    document.0
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    let methods =
        [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    for (method, field) in methods {
        if let Some(operation) = item.get(method) {
            message.message(field, self::operation(operation));
        }
    }
    for parameter in list(item, "parameters") {
        message.message(9, self::parameter(parameter));
    }
    message
}

fn operation(operation: &Value) -> Message {
    let mut message = Message::default()
        .with_texts(1, operation, "tags")
        .with_text(3, operation, "description")
        .with_text(5, operation, "operationId")
        .with_texts(6, operation, "produces")
        .with_texts(7, operation, "consumes");
    for parameter in list(operation, "parameters") {
        message.message(8, self::parameter(parameter));
    }
    let mut responses = Message::default();
    for (code, response) in entries(operation, "responses") {
        let mut value = Message::default().with_text(1, response, "description");
        if let Some(answer) = response.get("schema") {
            value.message(2, wrapped(1, schema(answer)));
        }
        responses.message(1, named(code, wrapped(1, value)));
    }
    message.message(9, responses);
    message.with_texts(10, operation, "schemes").with_extensions(13, operation)
}

/// A `ParametersItem` with a `Parameter` in it.
fn parameter(parameter: &Value) -> Message {
    let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
    let inner = match place {
        "body" => {
            let mut body = Message::default().with_text(2, parameter, "name").with_text(3, parameter, "in");
            body.flag(4, parameter, "required");
            if let Some(content) = parameter.get("schema") {
                body.message(5, schema(content));
            }
            wrapped(1, body)
        }
        _ => {
            let is_query = place == "query";
            // Only query parameters can be empty, which shifts the numbers behind that field.
            let (kind, unique, other) = if is_query { (6, 20, 3) } else { (5, 19, 4) };
            let mut message = Message::default();
            message.flag(1, parameter, "required");
            let mut message = message
                .with_text(2, parameter, "in")
                .with_text(3, parameter, "description")
                .with_text(4, parameter, "name")
                .with_text(kind, parameter, "type");
            message.flag(unique, parameter, "uniqueItems");
            wrapped(2, wrapped(other, message))
        }
    };
    wrapped(1, inner)
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default()
        .with_text(1, value, "$ref")
        .with_text(2, value, "format")
        .with_text(3, value, "title")
        .with_text(4, value, "description")
        .with_texts(19, value, "required");
    for choice in list(value, "enum") {
        message.message(20, any(choice));
    }
    match value.get("additionalProperties") {
        Some(Value::Bool(is_allowed)) => {
            let mut allowed = Message::default();
            allowed.number(2, u64::from(*is_allowed));
            message.message(21, allowed);
        }
        Some(values) => message.message(21, wrapped(1, schema(values))),
        None => {}
    }
    if value.get("type").is_some() {
        message.message(22, Message::default().with_text(1, value, "type"));
    }
    if let Some(items) = value.get("items") {
        message.message(23, wrapped(1, schema(items)));
    }
    for part in list(value, "allOf") {
        message.message(24, schema(part));
    }
    if value.get("properties").is_some() {
        let mut properties = Message::default();
        for (name, property) in entries(value, "properties") {
            properties.message(1, named(name, schema(property)));
        }
        message.message(25, properties);
    }
    message.with_extensions(31, value)
}

/// Any JSON, as the YAML that gnostic expects.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.text(2, &value.to_string());
    message
}

fn named(name: &str, value: Message) -> Message {
    let mut message = Message::default();
    message.text(1, name);
    message.message(2, value);
    message
}

fn wrapped(field: u32, inner: Message) -> Message {
    let mut message = Message::default();
    message.message(field, inner);
    message
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn entries<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// The bytes of a message under way.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u32, message: Message) {
        self.bytes(field, &message.0);
    }

    fn number(&mut self, field: u32, number: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(number);
    }

    fn flag(&mut self, field: u32, value: &Value, key: &str) {
        if value.get(key) == Some(&Value::Bool(true)) {
            self.number(field, 1);
        }
    }

    fn with_text(mut self, field: u32, value: &Value, key: &str) -> Message {
        if let Some(text) = value.get(key).and_then(Value::as_str) {
            self.text(field, text);
        }
        self
    }

    fn with_texts(mut self, field: u32, value: &Value, key: &str) -> Message {
        list(value, key).filter_map(Value::as_str).for_each(|text| self.text(field, text));
        self
    }

    fn with_extensions(mut self, field: u32, value: &Value) -> Message {
        for (name, extension) in value.as_object().into_iter().flatten() {
            if name.starts_with("x-") {
                self.message(field, named(name, any(extension)));
            }
        }
        self
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_encoded_field_by_field() {
        let message = schema(&json!({"type": "string", "description": "d", "x-a": [1]}));
        let expected = [
            &[0x22, 1, b'd'][..],
            &[0xb2, 0x01, 8, 0x0a, 6],
            b"string",
            &[0xfa, 0x01, 12, 0x0a, 3],
            b"x-a",
            &[0x12, 5, 0x12, 3],
            b"[1]",
        ];
        assert_eq!(message.0, expected.concat());
    }
}
