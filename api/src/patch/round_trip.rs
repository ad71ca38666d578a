//! A patch made from two objects turns the one into the other, whatever they are: the differences are made
//! here in the way in which clients make them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::schema;

const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn keys<'a>(old: &'a Map<String, Value>, new: &'a Map<String, Value>) -> BTreeSet<&'a String> {
    old.keys().chain(new.keys()).collect()
}

fn merge_difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in keys(old, new) {
        match (old.get(key), new.get(key)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                patch.insert(key.clone(), Value::Object(merge_difference(old, new)));
            }
            (_, new) => {
                patch.insert(key.clone(), new.cloned().unwrap_or_default());
            }
        }
    }
    patch
}

fn json_difference(path: &str, old: &Value, new: &Value, operations: &mut Vec<Value>) {
    let escaped = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for key in keys(old, new) {
                let path = escaped(key);
                match (old.get(key), new.get(key)) {
                    (Some(old), Some(new)) => json_difference(&path, old, new, operations),
                    (None, Some(new)) => operations.push(json!({"op": "add", "path": path, "value": new})),
                    _ => operations.push(json!({"op": "remove", "path": path})),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in (new.len()..old.len()).rev() {
                operations.push(json!({"op": "remove", "path": format!("{path}/{index}")}));
            }
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                json_difference(&format!("{path}/{index}"), old, new, operations);
            }
            for new in new.iter().skip(old.len()) {
                operations.push(json!({"op": "add", "path": format!("{path}/-"), "value": new}));
            }
        }
        (_, new) => operations.push(json!({"op": "replace", "path": path, "value": new})),
    }
}

/// As kubectl makes it: deletions and the order of lists are said by directives.
fn strategic_difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in keys(old, new) {
        match (old.get(key), new.get(key)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                patch.insert(key.clone(), Value::Object(strategic_difference(old, new)));
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) => match key.as_str() {
                "containers" | "env" | "volumes" => {
                    let order = new.iter().map(|item| json!({"name": item["name"]})).collect();
                    patch.insert(format!("$setElementOrder/{key}"), order);
                    patch.insert(key.clone(), item_differences(old, new, key == "volumes"));
                }
                "finalizers" => {
                    let without = |list: &[Value], other: &[Value]| -> Value {
                        list.iter().filter(|item| !other.contains(item)).cloned().collect()
                    };
                    patch.insert(format!("$setElementOrder/{key}"), new.clone().into());
                    patch.insert(format!("$deleteFromPrimitiveList/{key}"), without(old, new));
                    patch.insert(key.clone(), without(new, old));
                }
                _ => {
                    patch.insert(key.clone(), new.clone().into());
                }
            },
            (_, new) => {
                patch.insert(key.clone(), new.cloned().unwrap_or_default());
            }
        }
    }
    patch
}

fn item_differences(old: &[Value], new: &[Value], retains: bool) -> Value {
    let mut patch = Vec::new();
    for item in new.iter().filter_map(Value::as_object) {
        let Some(before) = old.iter().find(|old| old["name"] == item["name"]).and_then(Value::as_object)
        else {
            patch.push(Value::Object(item.clone()));
            continue;
        };
        let mut difference = strategic_difference(before, item);
        if !difference.is_empty() {
            difference.insert("name".into(), item["name"].clone());
            if retains {
                difference.insert("$retainKeys".into(), item.keys().cloned().collect());
            }
            patch.push(Value::Object(difference));
        }
    }
    let is_gone = |item: &&Value| !new.iter().any(|new| new["name"] == item["name"]);
    patch.extend(old.iter().filter(is_gone).map(|item| json!({"$patch": "delete", "name": item["name"]})));
    Value::Array(patch)
}

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
        let patch = merge_difference(&old, &new);
        let patched = merge_patch(&Value::Object(old), &Value::Object(patch.clone())).unwrap();
        prop_assert_eq!(&patched, &Value::Object(new));
        prop_assert_eq!(merge_patch(&patched, &Value::Object(patch)), Ok(patched));
    }

    #[test]
    fn json_patches(old in any_map(), new in any_map()) {
        let (old, new) = (Value::Object(old), Value::Object(new));
        let mut operations = Vec::new();
        json_difference("", &old, &new, &mut operations);
        prop_assert_eq!(json_patch(&old, &Value::Array(operations)), Ok(new));
    }

    #[test]
    fn strategic_merge_patches(old in any_pod_spec(), new in any_pod_spec()) {
        let patch = strategic_difference(&old, &new);
        let patched = strategic(POD_SPEC, &old, &patch).unwrap();
        prop_assert_eq!(&patched, &Value::Object(new));
        prop_assert_eq!(strategic(POD_SPEC, patched.as_object().unwrap(), &patch), Ok(patched));
    }

    #[test]
    fn strategic_merge_patches_of_sets(old in any_finalizers(), new in any_finalizers()) {
        let patch = strategic_difference(&old, &new);
        let patched = strategic(METADATA, &old, &patch).unwrap();
        prop_assert_eq!(&patched, &Value::Object(new));
        prop_assert_eq!(strategic(METADATA, patched.as_object().unwrap(), &patch), Ok(patched));
    }
}
