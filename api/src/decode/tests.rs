use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{kinds, schema};

fn deployment() -> Option<&'static Schema> {
    schema::by_name("io.k8s.api.apps.v1.Deployment")
}

fn pod() -> Option<&'static Schema> {
    schema::by_name("io.k8s.api.core.v1.Pod")
}

fn decoded(body: &str) -> Decoded {
    decode(body.as_bytes(), "application/json", deployment()).unwrap()
}

fn refusal(body: &str, schema: Option<&Schema>) -> String {
    let status = decode(body.as_bytes(), "application/json", schema).unwrap_err();
    assert_eq!((status.code, status.reason), (400, "BadRequest"));
    status.message
}

#[test]
fn a_good_object_passes_unchanged() {
    let body = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"a": "b"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": 1, "memory": "1.5Gi"}}}]}}},
    });
    let Decoded { object, faults } = decoded(&body.to_string());
    assert_eq!(faults, Faults::default());
    let mut expected = Object::from_value(body).unwrap();
    expected.remove(&["spec", "template", "metadata", "creationTimestamp"]);
    let containers = &mut expected.map_mut(&["spec", "template", "spec"])["containers"];
    containers[0]["resources"]["limits"] = json!({"cpu": "1", "memory": "1536Mi"});
    assert_eq!(object, expected);
}

#[test]
fn zero_is_as_good_as_nothing_unless_a_field_tells_them_apart() {
    let body = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {}, "annotations": {"a": ""}, "finalizers": []},
        "spec": {"replicas": 0, "paused": false, "minReadySeconds": 0, "selector": {}, "strategy": {"type": ""}, "template": {
            "metadata": {}, "spec": {
                "restartPolicy": "", "nodeSelector": {}, "tolerations": [], "affinity": {}, "hostNetwork": false,
                "enableServiceLinks": false, "containers": [{"name": "", "env": [{"name": "A", "value": ""}],
                    "resources": {"limits": {}}, "securityContext": {"privileged": false}}]}}},
    });
    let Decoded { object, faults } = decoded(&body.to_string());
    assert_eq!(faults, Faults::default());
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {"a": ""}},
        "spec": {"replicas": 0, "selector": {}, "strategy": {}, "template": {
            "metadata": {}, "spec": {
                "affinity": {}, "enableServiceLinks": false,
                "containers": [{"name": "", "env": [{"name": "A"}], "resources": {},
                    "securityContext": {"privileged": false}}]}}},
    });
    assert_eq!(object.into_value(), expected);
    let twice = decoded(r#"{"spec":{"paused":false,"paused":true}}"#);
    assert_eq!(twice.faults.warnings(), ["duplicate field \"spec.paused\""]);
    // Not so in what is applied: who says it owns it.
    let kept = configuration(body.clone(), deployment()).unwrap().object.into_value();
    assert_eq!(kept, body);
}

#[test]
fn unknown_and_duplicate_fields_are_reported_and_pruned() {
    let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","foo":1,"spec":{"replicas":1,"replicas":2,
        "template":{"spec":{"containers":[{"name":"a"},{"name":"b","imagee":"x","env":[{"nam":"A"}]}]}}},
        "metadata":{"labels":{"a":"1","a":"2"}}}"#;
    let Decoded { object, faults } = decoded(body);
    assert_eq!(
        faults.warnings(),
        [
            "unknown field \"foo\"",
            "duplicate field \"spec.replicas\"",
            "unknown field \"spec.template.spec.containers[1].imagee\"",
            "unknown field \"spec.template.spec.containers[1].env[0].nam\"",
            "duplicate field \"metadata.labels.a\"",
        ]
    );
    assert_eq!(object.number(&["spec", "replicas"]), Some(2));
    assert_eq!(object.text(&["metadata", "labels", "a"]), "2");
    assert!(object.at(&["foo"]).is_none());
}

#[test]
fn a_fault_is_mentioned_once() {
    let Decoded { faults, .. } = decoded(r#"{"foo":1,"foo":2}"#);
    assert_eq!(faults.warnings(), ["unknown field \"foo\""]);
}

#[test]
fn wrong_types_are_refused_in_upstreams_words() {
    let table = [
        (
            json!({"spec": {"replicas": "3"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 3_000_000_000_u32}}),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"metadata": {"labels": {"a": true}}}),
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": {}}}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"env": [{"value": 1}]}]}}}}),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            json!({"spec": []}),
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": true}}}}),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            json!({"spec": {"template": {"spec": {"overhead": {"cpu": "much"}}}}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"metadata": {"creationTimestamp": "now"}}),
            "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\"",
        ),
    ];
    for (mut body, expected) in table {
        body["apiVersion"] = "apps/v1".into();
        body["kind"] = "Deployment".into();
        let expected = format!("Deployment in version \"v1\" cannot be handled as a Deployment: {expected}");
        assert_eq!(refusal(&body.to_string(), deployment()), expected);
    }
    let secret = schema::by_name("io.k8s.api.core.v1.Secret");
    assert_eq!(
        refusal(r#"{"data":{"a":"%"}}"#, secret),
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0"
    );
}

#[test]
fn what_is_no_json_is_refused_in_upstreams_words() {
    let table = [
        ("", "unexpected end of JSON input (<empty>)"),
        ("{", "unexpected end of JSON input ({)"),
        ("kind: Pod", "invalid character 'k' looking for beginning of value (6b696e643a20506f64)"),
        (
            "{\"kind\":\"Pod\",\"metadata\":{\"name\":}}",
            "invalid character '}' looking for beginning of value ({\"kind\":\"Pod\",\"metadata\":{\"nam ...)",
        ),
    ];
    for (body, expected) in table {
        let expected = format!(
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: {expected}"
        );
        assert_eq!(refusal(body, pod()), expected);
    }
    assert!(refusal("[1]", pod()).contains("json: cannot unmarshal array into Go value of type struct"));
}

#[test]
fn depth_is_limited() {
    for body in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        "- ".repeat(20_000),
        format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("{{\"spec\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000)),
        format!("{{\"x\":{}}}", "{\"x\":".repeat(5_000) + "1" + &"}".repeat(5_000)),
    ] {
        for schema in [None, pod()] {
            for format in ["application/json", "application/yaml"] {
                let answer = decode(body.as_bytes(), format, schema);
                // Below an unknown field the schema lets nothing in, however deep.
                assert!(
                    answer.is_ok_and(|decoded| decoded.object.0.is_empty())
                        || answer_is_400(&body, format, schema)
                );
            }
        }
    }
    assert!(
        refusal(&format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500)), None)
            .contains("exceeded max depth")
    );
}

fn answer_is_400(body: &str, format: &str, schema: Option<&Schema>) -> bool {
    decode(body.as_bytes(), format, schema).is_err_and(|status| status.code == 400)
}

#[test]
fn yaml_is_read_like_json() {
    let body = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {1: one, true: yes}\nspec:\n  hostnam: x\n  containers:\n  - name: c\n    args: [\"1\", ~]\n";
    let Decoded { object, faults } =
        decode(body.as_bytes(), "application/yaml; charset=utf-8", pod()).unwrap();
    assert_eq!(faults.warnings(), ["unknown field \"spec.hostnam\""]);
    assert_eq!(object.labels().map(|labels| json!(labels)), Some(json!({"1": "one", "true": "yes"})));
    assert_eq!(object.at(&["spec", "containers"]), Some(&json!([{"name": "c", "args": ["1", ""]}])));
    let status = decode(b"a: b: c", "application/yaml", pod()).unwrap_err();
    assert_eq!(
        status.message,
        "the object provided is unrecognized (must be of type Pod): error converting YAML to JSON: yaml: line 1: mapping values are not allowed in this context (613a20623a2063)"
    );
}

#[test]
fn what_comes_twice_in_yaml_is_told_by_its_line() {
    let body =
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  name: q\nspec:\n  color: red\n  color: blue\n";
    let pod = schema::of(kinds::find("", "v1", "pods").unwrap());
    let Decoded { object, faults } = decode(body.as_bytes(), "application/yaml", pod).unwrap();
    assert_eq!(object.name(), "q");
    let lines = ["line 5: key \"name\" already set in map", "line 8: key \"color\" already set in map"];
    assert_eq!(
        faults.to_string(),
        format!("yaml: unmarshal errors:\n  {}\n  {}, unknown field \"spec.color\"", lines[0], lines[1])
    );
    assert_eq!(faults.warnings(), [lines[0], lines[1], "unknown field \"spec.color\""]);
}

#[test]
fn a_yaml_bomb_does_not_go_off() {
    let mut body = String::from("a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]\n");
    for level in 1..30 {
        let before = format!("*a{},", level - 1).repeat(10);
        body += &format!("a{level}: &a{level} [{before}]\n");
    }
    let status = decode(body.as_bytes(), "application/yaml", None).unwrap_err();
    assert_eq!(status.code, 400);
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(1000));
    let status = decode(long.as_bytes(), "application/yaml", None).unwrap_err();
    assert!(status.message.contains("document contains excessive aliasing"), "{}", status.message);
    // Numbers are counted like text.
    let many = format!("a: &a [{}]\nb: [{}]\n", "1,".repeat(2000), "*a,".repeat(2000));
    let status = decode(many.as_bytes(), "application/yaml", None).unwrap_err();
    assert!(status.message.contains("document contains excessive aliasing"), "{}", status.message);
}

#[test]
fn a_key_that_comes_again_is_a_fault_also_where_its_line_is_too_far_to_seek() {
    // What is left of the budget after reading does not take the search through this once more.
    let ones = "1,".repeat(1200);
    let body = format!("x: [&a [{ones}], {}]\nspec: {{}}\nspec: {{}}\n", "*a,".repeat(1200));
    let decoded = decode(body.as_bytes(), "application/yaml", pod()).unwrap();
    assert_eq!(decoded.faults.warnings(), ["unknown field \"x\"", "duplicate field \"spec\""]);
}

#[test]
fn keys_of_a_patch_that_come_twice_are_told() {
    let (value, repeated) = patch(br#"[{"op": "add", "op": "test", "value": {"a": 1, "a": 2}}]"#).unwrap();
    assert_eq!(value, json!([{"op": "test", "value": {"a": 2}}]));
    assert_eq!(repeated, ["duplicate field \"[0].op\"", "duplicate field \"[0].value.a\""]);
    assert_eq!(patch(br#"{"spec": {"a": 1}}"#).unwrap().1, [""; 0]);
    assert!(patch(b"{").unwrap_err().contains("unexpected end of JSON input"));
}

#[test]
fn what_an_unknown_field_holds_is_read_as_well() {
    let body = "x:\n  a: 1\n  b: [{c: 1, c: 2}]\n  a: 2\nspec:\n  y: {d: 1, d: 2}\n";
    let decoded = decode(body.as_bytes(), "application/yaml", pod()).unwrap();
    assert_eq!(
        decoded.faults.warnings(),
        [
            "line 3: key \"c\" already set in map",
            "line 4: key \"a\" already set in map",
            "line 6: key \"d\" already set in map",
            "unknown field \"x\"",
            "unknown field \"spec.y\"",
        ]
    );
    // In JSON, what nobody reads is nobody's fault.
    let decoded = decode(br#"{"x": {"a": 1, "a": 2}}"#, "application/json", pod()).unwrap();
    assert_eq!(decoded.faults.warnings(), ["unknown field \"x\""]);
    // What JSON has no form for is no body.
    assert_eq!(decode(b"x: {[1]: 2}\n", "application/yaml", pod()).unwrap_err().code, 400);
}

#[test]
fn other_media_types_are_refused() {
    let status = decode(b"{}", "text/plain", pod()).unwrap_err();
    assert_eq!((status.code, status.reason), (415, "UnsupportedMediaType"));
    assert_eq!(
        status.message,
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    assert_eq!(media_type("Application/JSON; charset=utf-8"), Ok(Format::Json));
}

#[test]
fn the_kind_is_filled_in_and_checked() {
    let kind = kinds::find("apps", "v1", "deployments").unwrap();
    let mut object = Object::default();
    expect_kind(&mut object, kind).unwrap();
    assert_eq!((object.api_version(), object.kind()), ("apps/v1", "Deployment"));
    let refusal = |api_version: &str, name: &str| {
        let mut object = Object::default();
        object.set(&["apiVersion"], api_version);
        object.set(&["kind"], name);
        expect_kind(&mut object, kind).unwrap_err().message
    };
    assert_eq!(
        refusal("v1", "Pod"),
        "Pod in version \"v1\" cannot be handled as a Deployment: converting (v1.Pod) to (v1.Deployment): unknown conversion"
    );
    assert_eq!(
        refusal("extensions/v1beta1", "Deployment"),
        "Deployment in version \"v1beta1\" cannot be handled as a Deployment: no kind \"Deployment\" is registered for version \"extensions/v1beta1\""
    );
    let events = kinds::find("", "v1", "events").unwrap();
    let mut event = Object::default();
    event.set(&["apiVersion"], "events.k8s.io/v1");
    event.set(&["kind"], "Event");
    assert_eq!(
        expect_kind(&mut event, events).unwrap_err().message,
        "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)"
    );
}

const ANY_KEY: &str = "(spec|metadata|name|containers|labels|replicas|template|env|[a-z]{1,3})";

fn any_object() -> impl Strategy<Value = Value> {
    prop::collection::hash_map(ANY_KEY, any_json(), 0..5)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 4.0)),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(ANY_KEY, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_body_panics(body in any::<Vec<u8>>(), text in "[\\[\\]{}\",:a-z0-9&*!|> \n-]{0,60}") {
        for body in [body.as_slice(), text.as_bytes()] {
            for format in ["application/json", "application/yaml"] {
                if let Err(status) = decode(body, format, pod()) {
                    prop_assert_eq!(status.code, 400);
                }
            }
        }
    }

    #[test]
    fn without_a_schema_nothing_is_lost(value in any_object()) {
        let body = value.to_string();
        prop_assert_eq!(decode(body.as_bytes(), "", None).unwrap().object.into_value(), value.clone());
        prop_assert_eq!(check(value.clone(), None).unwrap().object.into_value(), value);
    }

    #[test]
    fn reading_twice_changes_nothing(value in any_object()) {
        let body = value.to_string();
        if let Ok(first) = decode(body.as_bytes(), "", deployment()) {
            let again = check(first.object.clone().into_value(), deployment()).unwrap();
            prop_assert_eq!(again, Decoded { object: first.object, faults: Faults::default() });
        }
    }
}
