//! Expressions over an object.

use std::sync::LazyLock;

use serde_json::json;

use crate::cel::{self, Failure, ObjectType, Program, Type, Value};

/// More is not spent on one expression.
const LIMIT: u64 = 5_000;
/// What one step may cost before it is seen that there is not so much left: a stack, or a pattern.
const STEP: u64 = 2_000;

/// An expression: compiled with and without types, estimated, and run with little to spend. It costs no more than
/// what was estimated, the result is what its type says, and the same the second time.
pub fn cel(data: &[u8]) {
    let source = String::from_utf8_lossy(data);
    for kind in [&Type::Dyn, &*OBJECT] {
        let variables = [("self", kind.clone()), ("oldSelf", kind.clone())];
        if let Ok(program) = cel::compile(&source, &variables) {
            assert_eq!(program.source(), source);
            run(&program, kind, program.cost(&variables));
        }
    }
}

fn run(program: &Program, kind: &Type, estimate: u64) {
    let object = json!({
        "replicas": 3, "name": "web", "ratio": 0.5, "ready": true, "none": null,
        "ports": [{ "name": "http", "port": 80 }, { "name": "dns", "port": 53 }],
        "labels": { "app": "web", "tier": "front" },
        "at": "2026-01-02T03:04:05Z", "wait": "1h30m",
    });
    let evaluated = || {
        let of = || Value::from_json(&object, kind);
        let mut spent = 0;
        let result = program.run(&[("self", of()), ("oldSelf", of())], LIMIT, &mut spent);
        let shown = result.as_ref().map(|value| value.to_json()).map_err(Failure::clone);
        if let Ok(value) = &result {
            assert!(is_of(value, program.result()), "{value:?} is no {}", program.result());
        }
        (shown, spent)
    };
    let (result, spent) = evaluated();
    assert_eq!(evaluated(), (result.clone(), spent));
    match result {
        Err(Failure::TooExpensive) => {}
        _ => assert!(spent <= LIMIT + STEP, "it may not cost {spent}"),
    }
    if result.is_ok() {
        assert!(spent <= estimate.saturating_add(STEP), "it cost {spent} and not {estimate}");
    }
}

/// What all fields of the object are, and how large they may be.
static OBJECT: LazyLock<Type> = LazyLock::new(|| {
    let object = |name: &str, fields: &[(&str, Type)]| {
        let fields = fields.iter().map(|(name, kind)| (name.to_string(), (name.to_string(), kind.clone())));
        Type::Object(ObjectType { name: name.into(), fields: fields.collect() }.into())
    };
    let text = Type::Text(20);
    let port = object("port", &[("name", text.clone()), ("port", Type::Int)]);
    let fields = [
        ("replicas", Type::Int),
        ("name", text.clone()),
        ("ratio", Type::Double),
        ("ready", Type::Bool),
        ("none", Type::Dyn),
        ("ports", Type::List(port.into(), 3)),
        ("labels", Type::Map(text.clone().into(), text.into(), 3)),
        ("at", Type::Timestamp),
        ("wait", Type::Duration),
    ];
    object("object", &fields)
});

/// Whether a value may have come out where this type was foretold.
fn is_of(value: &Value<'_>, kind: &Type) -> bool {
    match kind {
        Type::Bool => matches!(value, Value::Bool(_) | Value::Null),
        Type::Int => matches!(value, Value::Int(_) | Value::Null),
        Type::Uint => matches!(value, Value::Uint(_) | Value::Null),
        Type::Double => matches!(value, Value::Double(_) | Value::Null),
        Type::Text(_) => matches!(value, Value::Text(_) | Value::Null),
        Type::Bytes(_) => matches!(value, Value::Bytes(_) | Value::Null),
        Type::Timestamp => matches!(value, Value::Timestamp(_) | Value::Null),
        Type::Duration => matches!(value, Value::Duration(_) | Value::Null),
        Type::List(..) => matches!(value, Value::List(_) | Value::JsonList(..) | Value::Null),
        Type::Map(..) => matches!(value, Value::Map(_) | Value::JsonMap(..) | Value::Null),
        Type::Optional(_) => matches!(value, Value::Optional(_) | Value::Null),
        Type::Null => matches!(value, Value::Null),
        _ => true,
    }
}
