use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    messages::{Container, Shape},
    special::Special,
    *,
};
use crate::{kinds, schema};

mod round_trip;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(number: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn number(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn body(api_version: &str, kind: &str, object: Vec<u8>) -> Vec<u8> {
    let type_meta = [field(1, api_version), field(2, kind)].concat();
    [MAGIC.to_vec(), field(1, type_meta), field(2, object), field(3, ""), field(4, "")].concat()
}

#[test]
fn an_object_is_read_as_json() {
    let label = [field(1, "app"), field(2, "web")].concat();
    let metadata = [field(1, "web"), field(2, ""), field(8, ""), field(11, label)].concat();
    let probe_port = [number(1, 0), number(2, 8080), field(3, "")].concat();
    let probe = [field(1, field(2, [field(1, "/"), field(2, probe_port)].concat())), number(2, 5)].concat();
    let quantity = [field(1, "cpu"), field(2, field(1, "100m"))].concat();
    let container = [field(1, "c"), field(8, field(1, quantity)), field(10, probe)].concat();
    let volume = [field(1, "v"), field(2, field(2, ""))].concat();
    let spec = [field(1, volume), field(2, container), number(4, 0), number(11, 0)].concat();
    let template = field(2, spec);
    let deployment = [field(1, metadata), field(2, [number(1, 0), field(3, template)].concat())].concat();
    let object = decode(&body("apps/v1", "Deployment", deployment)).unwrap();
    assert_eq!(
        object.into_value(),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"replicas": 0, "template": {"spec": {
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{
                    "name": "c",
                    "resources": {"limits": {"cpu": "100m"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": 8080}, "initialDelaySeconds": 5},
                }],
                "terminationGracePeriodSeconds": 0,
            }}},
        })
    );
}

#[test]
fn bytes_and_lists_of_text_have_their_json_forms() {
    let data = [field(1, "k"), field(2, b"\x00\xff")].concat();
    let secret = decode(&body("v1", "Secret", [field(2, data), field(3, "Opaque")].concat())).unwrap();
    assert_eq!(secret.at(&["data", "k"]), Some(&json!("AP8=")));
    let extra = [field(1, "x"), field(2, [field(1, "a"), field(1, "b")].concat())].concat();
    let review =
        decode(&body("authorization.k8s.io/v1", "SubjectAccessReview", field(2, field(5, extra)))).unwrap();
    assert_eq!(review.at(&["spec", "extra", "x"]), Some(&json!(["a", "b"])));
    let options = decode(&body("policy/v1", "DeleteOptions", number(1, 0))).unwrap();
    assert_eq!(options.number(&["gracePeriodSeconds"]), Some(0));
}

/// Every field that the JSON schema knows has its place in the message, and with the right type.
#[test]
fn messages_and_schemas_agree_on_every_kind() {
    let (mut seen, mut faults) = (HashSet::new(), Vec::new());
    for kind in kinds::KINDS {
        let api_version = kind.api_version();
        let Some(message) = Message::of(&api_version, kind.kind) else {
            faults.push(format!("{api_version} {} has no message", kind.kind));
            continue;
        };
        if kind.verbs.can_write() && Message::of(&api_version, &kind.list_kind()).is_none() {
            faults.push(format!("{api_version} {} has no message", kind.list_kind()));
        }
        if let Some(schema) = schema::of(kind) {
            compare(kind.kind, message, schema, &mut seen, &mut faults);
        }
    }
    assert_eq!(faults, [""; 0]);
}

fn compare(
    path: &str,
    message: &'static Message,
    schema: &'static schema::Schema,
    seen: &mut HashSet<(&'static str, &'static str)>,
    faults: &mut Vec<String>,
) {
    if message.is_choice || !seen.insert((message.name, schema.name)) {
        return;
    }
    for known in schema.fields() {
        let path = format!("{path}.{}", known.name);
        let Some(field) = field_named(message, known.name) else {
            // What an object is has its place in the envelope, or is known.
            if !matches!(known.name, "apiVersion" | "kind") {
                faults.push(format!("{path} is no field of {}", message.name));
            }
            continue;
        };
        let (container, value) = match known.schema.shape {
            schema::Shape::List(item) if !is_choice(field.shape) => (Container::List, item),
            schema::Shape::Map(value) => (Container::Map, value),
            _ => (Container::One, known.schema),
        };
        let fits = match (&value.shape, field.shape) {
            (schema::Shape::Boolean, shape) => shape == Shape::Flag,
            (schema::Shape::Int32 | schema::Shape::Int64, shape) => shape == Shape::Integer,
            (schema::Shape::Number, shape) => shape == Shape::Double,
            (schema::Shape::Text, shape) => matches!(shape, Shape::Text | Shape::Special(Special::Duration)),
            (schema::Shape::Bytes, shape) => shape == Shape::Bytes,
            (schema::Shape::Time, shape) => shape == Shape::Special(Special::Time),
            (schema::Shape::MicroTime, shape) => shape == Shape::Special(Special::MicroTime),
            (schema::Shape::Quantity, shape) => shape == Shape::Special(Special::Quantity),
            (schema::Shape::IntOrString, shape) => shape == Shape::Special(Special::IntOrString),
            (schema::Shape::Any, shape) => shape == Shape::Special(Special::Raw),
            (schema::Shape::Object(_), Shape::Message(_)) => true,
            // Any object.
            (schema::Shape::Object(_), shape) => shape == Shape::Special(Special::Raw),
            (_, shape) => is_choice(shape),
        };
        if field.container != container || !fits {
            faults.push(format!("{path}: {:?} and {:?} {:?}", value.shape, field.container, field.shape));
        }
        if let Some(message) = inner(field.shape) {
            compare(&path, message, value, seen, faults);
        }
    }
}

/// A field of the message, or of one that is inlined.
fn field_named(message: &'static Message, name: &str) -> Option<&'static messages::Field> {
    message.named(name).or_else(|| message.inlined().find_map(|field| field_named(inner(field.shape)?, name)))
}

fn inner(shape: Shape) -> Option<&'static Message> {
    match shape {
        Shape::Message(index) => Some(Message::at(index)),
        _ => None,
    }
}

fn is_choice(shape: Shape) -> bool {
    inner(shape).is_some_and(|message| message.is_choice)
}

/// What kubectl 1.37 sends for `kubectl create`, which the fuzzer starts from, too.
#[test]
fn what_go_has_written_is_read() {
    let read = |body: &[u8]| decode(body).unwrap().into_value();
    let selector = json!({"matchLabels": {"a": "b"}});
    assert_eq!(
        read(include_bytes!("../../../fuzz/corpus/protobuf/poddisruptionbudget")),
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "p"},
            "spec": {"minAvailable": "50%", "selector": selector},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
        })
    );
    assert_eq!(
        read(include_bytes!("../../../fuzz/corpus/protobuf/resourcequota")),
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
            "spec": {"hard": {"cpu": "1", "pods": "2"}}, "status": {},
        })
    );
    let ingress = read(include_bytes!("../../../fuzz/corpus/protobuf/ingress"));
    let path = json!({"path": "/bar", "pathType": "Prefix",
        "backend": {"service": {"name": "svc1", "port": {"number": 8080}}}});
    assert_eq!(ingress["spec"]["rules"], json!([{"host": "foo.com", "http": {"paths": [path]}}]));
}

/// A running pod as Google's protoc wrote it, by upstream's .proto files and from what it had read of our bytes.
#[test]
fn what_protoc_has_written_is_the_same() {
    let json = include_str!("golden/pod.json");
    let mut golden: Value = serde_json::from_str(json).unwrap();
    let pod = Message::of("v1", "Pod").unwrap();
    let read = |bytes: &[u8]| {
        let mut map = Map::new();
        read::message(pod, bytes, &mut map, 0).unwrap();
        Value::Object(map)
    };
    let bytes = include_bytes!("golden/pod.pb");
    let mut written = Vec::new();
    pod.encode(json.as_bytes(), &mut written).unwrap();
    // The same fields in another order.
    golden.as_object_mut().unwrap().retain(|key, _| !["apiVersion", "kind"].contains(&key.as_str()));
    assert_eq!(read(bytes), golden);
    assert_eq!(read(&written), golden);
    assert_eq!(written.len(), bytes.len());
}

#[test]
fn an_object_is_written_field_by_field() {
    let json = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"app": "\u{e9}\n"}},
        "data": {"k": "AP8="}, "immutable": false,
    });
    let label = [field(1, "app"), field(2, "\u{e9}\n")].concat();
    let data = [field(1, "k"), field(2, b"\x00\xff")].concat();
    let metadata = [field(11, label), field(1, "s")].concat();
    let secret = [field(2, data), number(5, 0), field(1, metadata)].concat();
    let written = document(json.to_string().as_bytes()).unwrap().unwrap();
    assert_eq!(written, body("v1", "Secret", secret));
    assert_eq!(decode(&written).unwrap().into_value(), json);
}

#[test]
fn numbers_may_come_one_by_one_or_packed_or_packed_without_any() {
    let read = |groups: Vec<u8>| {
        let body = body("v1", "Pod", field(2, field(14, groups)));
        decode(&body).unwrap().into_value()["spec"]["securityContext"].clone()
    };
    assert_eq!(read([number(4, 7), number(4, 8)].concat()), json!({"supplementalGroups": [7, 8]}));
    assert_eq!(read(field(4, [7, 8])), json!({"supplementalGroups": [7, 8]}));
    assert_eq!(read(field(4, "")), json!({}));
}

#[test]
fn what_is_inlined_is_one_message() {
    let json = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": {"ephemeralContainers": [
            {"name": "e", "image": "i", "targetContainerName": "t", "livenessProbe": {"exec": {}, "periodSeconds": 3}},
        ]},
    });
    let probe = [number(4, 3), field(1, field(1, ""))].concat();
    // The JSON is in alphabetical order.
    let common = [field(2, "i"), field(10, probe), field(1, "e")].concat();
    let container = [field(2, "t"), field(1, common)].concat();
    let written = document(json.to_string().as_bytes()).unwrap().unwrap();
    assert_eq!(written, body("v1", "Pod", field(2, field(34, container))));
    assert_eq!(decode(&written).unwrap().into_value(), json);
}

#[test]
fn the_message_of_a_part_is_written_from_the_whole() {
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n"}, "metadata": {"name": "p"}});
    let mut written = Vec::new();
    let partial = Message::of("meta.k8s.io/v1", "PartialObjectMetadata").unwrap();
    partial.encode(pod.to_string().as_bytes(), &mut written).unwrap();
    assert_eq!(written, field(1, field(1, "p")));
}

#[test]
fn a_watch_event_is_framed() {
    let status = document(br#"{"apiVersion":"v1","kind":"Status","code":410,"details":{"causes":[]}}"#);
    let status = status.unwrap().unwrap();
    let event = event("ERROR", &status);
    let expected = [field(1, "ERROR"), field(2, field(1, &status))].concat();
    assert_eq!(event[..4], (expected.len() as u32).to_be_bytes());
    assert_eq!(event[4..], expected);
    let pod = field(1, field(1, "a".repeat(200)));
    let framed = framed("ADDED", "v1", "Pod", &pod);
    assert_eq!(framed.bytes[framed.message], pod);
    assert_eq!(framed.bytes[framed.document], body("v1", "Pod", pod));
}

#[test]
fn a_list_is_its_parts() {
    let pods = [field(1, field(1, "a")), field(1, field(1, "b".repeat(200)))];
    let length = pods.iter().map(|pod| item_length(pod.len())).sum();
    let parts = list_parts("v1", "PodList", br#"{"resourceVersion":"7"}"#, length).unwrap();
    let mut written = parts.head;
    pods.iter().for_each(|pod| write_item(parts.item, pod, &mut written));
    written.extend_from_slice(parts.tail);
    let list = [field(1, field(2, "7")), field(2, &pods[0]), field(2, &pods[1])].concat();
    assert_eq!(written, body("v1", "PodList", list));
    let read = decode(&written).unwrap();
    assert_eq!(read.list(&["items"]).len(), 2);
    assert_eq!(read.resource_version(), "7");
}

#[test]
fn the_older_list_of_metadata_has_its_numbers_the_other_way_round() {
    let item = field(1, field(1, "a"));
    let (version, kind) = ("meta.k8s.io/v1beta1", "PartialObjectMetadataList");
    let parts = list_parts(version, kind, br#"{"resourceVersion":"7"}"#, item_length(item.len())).unwrap();
    let mut written = parts.head;
    write_item(parts.item, &item, &mut written);
    written.extend_from_slice(parts.tail);
    assert_eq!(written, body(version, kind, [field(2, field(2, "7")), field(1, &item)].concat()));
    assert_eq!(decode(&written).unwrap().list(&["items"])[0]["metadata"]["name"], "a");
}

#[test]
fn json_that_does_not_fit_is_an_error() {
    for json in [
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":3}}"#,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":"#,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}} x"#,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"\ud800"}}"#,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"creationTimestamp":"yesterday"}}"#,
        r#"{"apiVersion":"v1","kind":"Pod","spec":{"terminationGracePeriodSeconds":1.5}}"#,
        r#"{"apiVersion":"v1","kind":"Secret","data":{"a":"%"}}"#,
        r#"["#,
        "",
    ] {
        assert!(document(json.as_bytes()).is_err(), "{json}");
    }
    assert_eq!(document(br#"{"apiVersion":"example.com/v1","kind":"Unicorn"}"#), Ok(None));
}

#[test]
fn what_is_nested_as_deep_as_json_may_be_is_read() {
    let around = json!({"versions": [{"schema": {"openAPIV3Schema": {"type": "string"}}}]});
    let kind = kinds::find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    for word in ["not", "items", "additionalProperties"] {
        let nested = (0..114).fold(json!({"type": "string"}), |inner, _| json!({word: inner}));
        let mut spec = around.clone();
        spec["versions"][0]["schema"]["openAPIV3Schema"] = nested;
        let crd = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "spec": spec});
        let read = crate::decode::check(crd.clone(), schema::of(kind)).unwrap();
        assert_eq!(read.object.into_value(), crd);
        let written = document(crd.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(decode(&written).unwrap().into_value(), crd, "{word}");
    }
}

#[test]
fn nonsense_is_an_error_and_no_more() {
    let whole = body("apps/v1", "Deployment", field(1, field(1, "web")));
    for end in 0..whole.len() {
        // Cut anywhere: an error or an object with less in it, never a panic.
        crate::fuzz::protobuf(&whole[..end]);
    }
    let mut noise = whole;
    for index in 4..noise.len() {
        noise[index] ^= 0x55;
        crate::fuzz::protobuf(&noise);
    }
    assert!(decode(b"{}").is_err());
    assert!(decode(&body("v9", "Unicorn", Vec::new())).is_err());
    let mut nested = Vec::new();
    for _ in 0..10_000 {
        nested = field(1, nested);
    }
    drop(decode(&body("v1", "Pod", nested)));
}
