use serde_json::json;

use super::*;

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

#[test]
fn every_message_that_is_named_is_there() {
    for field in MESSAGES.values().flatten() {
        if let Shape::Message(name) = field.shape {
            let is_special = !name.contains('.');
            assert!(is_special || name.contains("v1alpha") || MESSAGES.contains_key(name), "{name}");
        }
    }
    // What can only be read is never sent.
    // What extends the server travels as JSON alone.
    let travels = |kind: &&crate::Kind| {
        kind.verbs != crate::Verbs::Read
            && !matches!(kind.plural, "customresourcedefinitions" | "apiservices")
    };
    for kind in crate::kinds::KINDS.iter().filter(travels) {
        let name = message_of(&kind.api_version(), kind.kind);
        assert!(name.is_some(), "{} {}", kind.api_version(), kind.kind);
    }
}

#[test]
fn nonsense_is_an_error_and_no_more() {
    let whole = body("apps/v1", "Deployment", field(1, field(1, "web")));
    for end in 0..whole.len() {
        // Cut anywhere: an error or an object with less in it, never a panic.
        drop(decode(&whole[..end]));
    }
    let mut noise = whole;
    for index in 4..noise.len() {
        noise[index] ^= 0x55;
        drop(decode(&noise));
    }
    assert!(decode(b"{}").is_err());
    assert!(decode(&body("v9", "Unicorn", Vec::new())).is_err());
    let mut nested = Vec::new();
    for _ in 0..10_000 {
        nested = field(1, nested);
    }
    drop(decode(&body("v1", "Pod", nested)));
}
