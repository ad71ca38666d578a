//! A patch made from two objects turns the one into the other, whatever they are.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::schema;

const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<u8>().prop_map(Value::from),
        "[a/~]{0,2}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c/~]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn any_map() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map("[a-c/~]", any_json(), 0..5).prop_map(|map| map.into_iter().collect())
}

/// Items with different names, in any order.
fn named(item: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<Value>> {
    prop::collection::btree_map("[a-e]", item, 0..5).prop_map(named_items).prop_shuffle()
}

fn named_items(items: BTreeMap<String, Value>) -> Vec<Value> {
    let with_name = |(name, mut item): (String, Value)| {
        item["name"] = name.into();
        item
    };
    items.into_iter().map(with_name).collect()
}

fn any_pod_spec() -> impl Strategy<Value = Map<String, Value>> {
    let env = named("[xy]".prop_map(|value| json!({"value": value})));
    let container = (env, "[xy]", prop::collection::vec("[pq]", 0..3)).prop_map(|(env, image, args)| {
        let mut container = json!({"image": image});
        if !env.is_empty() {
            container["env"] = env.into();
        }
        if !args.is_empty() {
            container["args"] = args.into();
        }
        container
    });
    let volume = prop_oneof![
        Just(json!({"emptyDir": {}})),
        "[xy]".prop_map(|path| json!({"hostPath": {"path": path}})),
        "[xy]".prop_map(|name| json!({"secret": {"secretName": name, "optional": true}})),
    ];
    let labels = prop::collection::btree_map("[ab]", "[xy]", 0..3);
    let tolerations = prop::collection::vec("[xy]", 0..3);
    (named(container), named(volume), labels, tolerations).prop_map(
        |(containers, volumes, labels, tolerations)| {
            let tolerations: Vec<Value> = tolerations.into_iter().map(|key| json!({"key": key})).collect();
            let fields = [
                ("containers", Value::from(containers)),
                ("volumes", Value::from(volumes)),
                ("nodeSelector", json!(labels)),
                ("tolerations", Value::from(tolerations)),
            ];
            let is_filled = |value: &Value| *value != json!([]) && *value != json!({});
            fields
                .into_iter()
                .filter(|(_, value)| is_filled(value))
                .map(|(key, value)| (key.to_string(), value))
                .collect()
        },
    )
}

fn any_finalizers() -> impl Strategy<Value = Map<String, Value>> {
    let list = prop::collection::btree_set("[a-e]", 1..5).prop_map(|set| set.into_iter().collect::<Vec<_>>());
    list.prop_shuffle().prop_map(|list| Map::from_iter([("finalizers".to_string(), json!(list))]))
}

fn strategic(
    definition: &str,
    old: &Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Value, Status> {
    let schema = schema::by_name(definition).unwrap();
    strategic_merge(schema, &Value::Object(old.clone()), &Value::Object(patch.clone()))
}

proptest! {
    #[test]
    fn merge_patches(old in any_map(), new in any_map()) {
        let patch = difference::merge(&old, &new);
        let patched = merge_patch(&Value::Object(old), &Value::Object(patch.clone())).unwrap();
        prop_assert_eq!(&patched, &Value::Object(new));
        prop_assert_eq!(merge_patch(&patched, &Value::Object(patch)), Ok(patched));
    }

    #[test]
    fn json_patches(old in any_map(), new in any_map()) {
        let (old, new) = (Value::Object(old), Value::Object(new));
        prop_assert_eq!(json_patch(&old, &difference::json(&old, &new)), Ok(new));
    }

    #[test]
    fn strategic_merge_patches(old in any_pod_spec(), new in any_pod_spec()) {
        let patch = difference::strategic(schema::by_name(POD_SPEC), &old, &new).unwrap();
        let patched = strategic(POD_SPEC, &old, &patch).unwrap();
        prop_assert_eq!(&patched, &Value::Object(new));
        prop_assert_eq!(strategic(POD_SPEC, patched.as_object().unwrap(), &patch), Ok(patched));
    }

    #[test]
    fn strategic_merge_patches_of_sets(old in any_finalizers(), new in any_finalizers()) {
        let patch = difference::strategic(schema::by_name(METADATA), &old, &new).unwrap();
        let patched = strategic(METADATA, &old, &patch).unwrap();
        prop_assert_eq!(&patched, &Value::Object(new));
        prop_assert_eq!(strategic(METADATA, patched.as_object().unwrap(), &patch), Ok(patched));
    }
}
