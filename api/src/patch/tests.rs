use proptest::prelude::*;

use super::*;
use crate::schema;

fn strategic(original: Value, patch: Value) -> Value {
    try_strategic(original, patch).unwrap()
}

fn try_strategic(original: Value, patch: Value) -> Result<Value, Status> {
    strategic_merge(schema::by_name("io.k8s.api.core.v1.PodSpec").unwrap(), &original, &patch)
}

#[test]
fn a_merge_patch_follows_the_examples_of_its_rfc() {
    let table = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ];
    for (original, patch, expected) in table {
        assert_eq!(merge_patch(&original, &patch), Ok(expected), "{patch}");
    }
    let status = merge_patch(&json!({}), &json!([])).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (400, "Invalid JSON Patch"));
}

#[test]
fn a_json_patch_is_carried_out_operation_by_operation() {
    let original = json!({"a": {"b": [1, 2]}, "c/d": "x"});
    let patch = json!([
        {"op": "test", "path": "/a/b/0", "value": 1},
        {"op": "test", "path": "/none", "value": null},
        {"op": "add", "path": "/a/b/-", "value": 3},
        {"op": "remove", "path": "/a/b/0"},
        {"op": "replace", "path": "/c~1d", "value": "y"},
        {"op": "copy", "from": "/a/b", "path": "/e"},
        {"op": "move", "from": "/a", "path": "/f"},
    ]);
    let expected = json!({"c/d": "y", "e": [2, 3], "f": {"b": [2, 3]}});
    assert_eq!(json_patch(&original, &patch), Ok(expected));
}

#[test]
fn a_json_patch_that_fails_is_answered_as_upstream_does() {
    let original = json!({"a": 1});
    let code = |patch: Value| json_patch(&original, &patch).unwrap_err();
    for patch in [
        json!([{"op": "test", "path": "/a", "value": 2}]),
        json!([{"op": "remove", "path": "/b"}]),
        json!([{"op": "replace", "path": "/b", "value": 1}]),
        json!([{"op": "add", "path": "/b/c", "value": 1}]),
        json!([{"op": "dance", "path": "/a"}]),
        json!([{"op": "add", "value": 1}]),
        json!([{"op": "add", "path": "no-slash", "value": 1}]),
    ] {
        let status = code(patch);
        assert_eq!((status.code, status.reason), (422, "Invalid"));
        assert_eq!(status.message, "the server rejected our request due to an error in our request");
    }
    assert_eq!(
        code(json!({})).message,
        "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
    );
    assert_eq!(code(json!({})).code, 400);
    assert_eq!(code(json!([1])).code, 400);
    let many = Value::Array(vec![json!({"op": "test", "path": "/a", "value": 1}); 10_001]);
    assert_eq!(
        (code(many.clone()).code, code(many).message.as_str()),
        (413, "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001")
    );
}

#[test]
fn a_json_patch_cannot_grow_without_limit() {
    let double = json!({"op": "copy", "from": "", "path": "/a/0"});
    let wide = json!({"a": ["x".repeat(1000)]});
    let status = json_patch(&wide, &Value::Array(vec![double; 100])).unwrap_err();
    assert_eq!(status.code, 422);
    let deepen = json!({"op": "copy", "from": "", "path": "/a"});
    let status = json_patch(&json!({"a": 1}), &Value::Array(vec![deepen; 300])).unwrap_err();
    assert_eq!(status.code, 422);
}

#[test]
fn lists_with_a_key_are_merged_item_by_item() {
    let original = json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]});
    let patch = json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]});
    let expected = json!({"containers": [
        {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
        {"name": "b", "image": "1"},
    ]});
    assert_eq!(strategic(original, patch), expected);
}

#[test]
fn new_items_come_first_and_old_ones_keep_their_order() {
    let original = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
    let names = |value: Value| -> Vec<String> {
        let items = value["containers"].as_array().unwrap().iter();
        items.map(|item| item["name"].as_str().unwrap().to_string()).collect()
    };
    let patch = json!({"containers": [{"name": "d"}]});
    assert_eq!(names(strategic(original.clone(), patch)), ["d", "a", "b", "c"]);
    let patch = json!({"containers": [{"name": "b", "image": "x"}, {"name": "d"}]});
    assert_eq!(names(strategic(original.clone(), patch)), ["a", "b", "d", "c"]);
    let patch = json!({
        "$setElementOrder/containers": [{"name": "c"}, {"name": "d"}, {"name": "a"}],
        "containers": [{"name": "d"}, {"name": "b", "$patch": "delete"}],
    });
    assert_eq!(names(strategic(original.clone(), patch)), ["c", "d", "a"]);
    let patch = json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]});
    assert_eq!(names(strategic(original, patch)), ["b", "c", "a"]);
}

#[test]
fn lists_without_a_key_are_replaced_and_sets_united() {
    let original = json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1"]}]});
    let patch = json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["2"]}]});
    assert_eq!(strategic(original, patch.clone()), patch);
    let meta = schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
    let merged =
        strategic_merge(meta, &json!({"finalizers": ["a", "b"]}), &json!({"finalizers": ["c", "b"]}));
    assert_eq!(merged.unwrap(), json!({"finalizers": ["c", "a", "b"]}));
    let removed = json!({"$deleteFromPrimitiveList/finalizers": ["a"]});
    assert_eq!(
        strategic_merge(meta, &json!({"finalizers": ["a", "b"]}), &removed),
        Ok(json!({"finalizers": ["b"]}))
    );
}

#[test]
fn directives_delete_replace_and_retain() {
    let original = json!({
        "securityContext": {"runAsUser": 1, "fsGroup": 2},
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}],
        "nodeSelector": {"a": "b"},
    });
    let patch = json!({
        "securityContext": {"$patch": "replace", "runAsUser": 3},
        "volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}, {"$patch": "delete", "name": "w"}],
        "nodeSelector": {"$patch": "delete"},
        "hostAliases": [{"$patch": "replace"}, {"ip": "1.1.1.1"}],
    });
    let expected = json!({
        "securityContext": {"runAsUser": 3},
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
        "nodeSelector": {},
        "hostAliases": [{"ip": "1.1.1.1"}],
    });
    assert_eq!(strategic(original, patch), expected);
    let original = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let patch = json!({"containers": [{"$patch": "replace"}, {"name": "c"}, {"name": "b"}]});
    assert_eq!(strategic(original, patch), json!({"containers": [{"name": "c"}, {"name": "b"}]}));
}

#[test]
fn nulls_remove_and_are_never_stored() {
    let original = json!({"hostname": "a", "nodeSelector": {"x": "y"}});
    let patch = json!({"hostname": null, "subdomain": null, "nodeSelector": {"x": null}, "securityContext": {"fsGroup": null}});
    assert_eq!(strategic(original, patch), json!({"nodeSelector": {}, "securityContext": {}}));
}

#[test]
fn a_strategic_patch_that_makes_no_sense_is_refused() {
    let original = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v"}]});
    let refused = |patch: Value| try_strategic(original.clone(), patch).unwrap_err();
    let table = [
        (
            json!({"containers": [{"image": "x"}]}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (json!({"$patch": "dance"}), "unknown patch type: dance in map: map[$patch:dance]"),
        (
            json!({"containers": [{"name": "a", "$patch": "merge"}]}),
            "merging lists cannot yet be specified in the patch",
        ),
        (json!({"$retainKeys": "x"}), "invalid patch format of retainKeys"),
        (json!({"$retainKeys": ["a"], "hostname": "b"}), "invalid patch format of retainKeys"),
        (json!({"$setElementOrder/containers": 1}), "invalid patch format of setElementOrder list"),
        (json!({"$deleteFromPrimitiveList/x": 1}), "invalid patch format of primitive list"),
        (
            json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "c"}]}),
            "The order in patch list:\n[map[name:c]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n",
        ),
    ];
    for (patch, message) in table {
        let status = refused(patch);
        assert_eq!((status.code, status.message.as_str()), (400, message));
    }
    assert_eq!(refused(json!({"containers": [[1]]})).code, 422);
}

const ANY_KEY: &str =
    "(name|containers|volumes|env|nodeSelector|\\$patch|\\$retainKeys|\\$setElementOrder/containers|a|b)";

fn any_object() -> impl Strategy<Value = Value> {
    prop::collection::hash_map(ANY_KEY, any_value(), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!("delete")),
        Just(json!("replace")),
        "[ab]".prop_map(Value::from),
        any::<u8>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(ANY_KEY, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_patch_panics(original in any_value(), patch in any_value()) {
        for answer in [json_patch(&original, &patch), merge_patch(&original, &patch), try_strategic(original.clone(), patch)] {
            if let Err(status) = answer {
                prop_assert!([400, 413, 422].contains(&status.code));
            }
        }
    }

    #[test]
    fn merging_twice_changes_nothing(original in any_object(), patch in any_object()) {
        let once = merge_patch(&original, &patch).unwrap();
        prop_assert_eq!(merge_patch(&once, &patch), Ok(once));
    }

    #[test]
    fn an_empty_patch_changes_nothing(original in any_object()) {
        prop_assert_eq!(json_patch(&original, &json!([])), Ok(original.clone()));
        prop_assert_eq!(merge_patch(&original, &json!({})), Ok(original.clone()));
        prop_assert_eq!(try_strategic(original.clone(), json!({})), Ok(original));
    }
}
