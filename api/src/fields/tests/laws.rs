//! What holds for all sets, objects and configurations.

use proptest::prelude::*;

use super::*;

fn any_element() -> impl Strategy<Value = Element> {
    prop_oneof![
        "[abc]".prop_map(Element::field),
        "[ab]".prop_map(|name| Element::Key(vec![("name".into(), name.into())])),
        (0..2i64).prop_map(|value| Element::Value(value.into())),
    ]
}

fn any_set() -> impl Strategy<Value = Set> {
    prop::collection::vec(prop::collection::vec(any_element(), 1..4), 0..8)
        .prop_map(|paths| paths.into_iter().collect())
}

fn any_data() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", "[xy]", 0..4).prop_map(|map| json!(map))
}

/// Pods' specs with maps, lists with keys and lists that are one whole.
fn any_containers() -> impl Strategy<Value = Value> {
    let container = (
        "[abc]",
        prop::option::of("[xy]"),
        prop::collection::vec(("[EF]", "[12]"), 0..3),
        prop::collection::vec("[pq]", 0..2),
    );
    prop::collection::vec(container, 1..4).prop_map(|list| {
        let mut seen = std::collections::BTreeSet::new();
        let list: Vec<Value> = list
            .into_iter()
            .filter(|(name, ..)| seen.insert(name.clone()))
            .map(|(name, image, env, args)| {
                let env: std::collections::BTreeMap<String, String> = env.into_iter().collect();
                let env: Vec<Value> =
                    env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                let mut container = json!({"name": name, "image": image.unwrap_or_default()});
                if !env.is_empty() {
                    container["env"] = env.into();
                }
                if !args.is_empty() {
                    container["args"] = args.into();
                }
                container
            })
            .collect();
        containers(list.into())
    })
}

const ANY_KEY: &str = "(apiVersion|metadata|managedFields|spec|containers|name|env|ports|containerPort|labels|finalizers|fieldsV1|f:spec|k:[{]|v:1|i:x|x)";

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i8>().prop_map(Value::from),
        "(Apply|Update|v1|FieldsV1|a)".prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(ANY_KEY, inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Object> {
    prop::collection::btree_map(ANY_KEY, any_json(), 0..5).prop_map(|map| object(json!(map)))
}

proptest! {
    #[test]
    fn nothing_that_clients_send_panics(live in any_object(), new in any_object()) {
        let story = Story { schema: POD, live: Some(live.clone()) };
        match story.try_apply("one", new.clone().into_value(), true) {
            Ok(applied) => prop_assert!(Managers::of(&applied).is_ok()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        let mut updated = new;
        update(&write(POD, "one", Operation::Update), Some(&live), &mut updated);
        compare(None, &live, &updated, &[]);
    }

    #[test]
    fn sets_obey_the_laws(a in any_set(), b in any_set(), c in any_set()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.intersection(&b).intersection(&c), a.intersection(&b.intersection(&c)));
        prop_assert_eq!(a.intersection(&b.union(&c)), a.intersection(&b).union(&a.intersection(&c)));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.difference(&b.union(&c)), a.difference(&b).difference(&c));
        prop_assert!(a.difference(&a).is_empty());
        prop_assert_eq!(a.recursive_difference(&b).difference(&a), Set::default());
        let mut members = Vec::new();
        a.for_each(&mut |path| members.push(path.to_vec()));
        prop_assert!(members.iter().all(|path| a.has(path)));
        prop_assert_eq!(members.iter().collect::<Set>(), a.clone());
        prop_assert_eq!(Set::from_json(&a.to_json()), Ok(a));
    }

    #[test]
    fn a_comparison_names_what_differs(old in any_containers(), new in any_containers()) {
        let schema = schema::by_name(POD);
        let (old, new) = (object(old), object(new));
        let comparison = compare(schema, &old, &new, &[]);
        prop_assert_eq!(comparison.is_empty() && old.list(&["spec", "containers"]).len() == new.list(&["spec", "containers"]).len(), same_but_for_order(&old, &new));
        let back = compare(schema, &new, &old, &[]);
        prop_assert_eq!(!comparison.removed.is_empty(), !back.changed.difference(&comparison.changed).is_empty());
        prop_assert!(comparison.changed.intersection(&comparison.removed).is_empty());
    }

    #[test]
    fn applying_twice_changes_nothing(live in any_containers(), config in any_containers()) {
        let story = Story::of(POD).update("one", live).force("two", config.clone());
        let again = story.try_apply("two", config, false).unwrap();
        prop_assert_eq!(Some(again), story.live);
    }

    #[test]
    fn who_applies_everything_has_it_his_way(live in any_containers(), config in any_containers()) {
        let story = Story::of(POD).update("one", live).force("two", config.clone());
        let left = compare(schema::by_name(POD), &object(config), &object(story.object()), &[]);
        // Nothing that was asked for is missing; what else is there belongs to others.
        prop_assert!(left.removed.is_empty());
        let owned: Vec<String> = story.owned("two");
        prop_assert!(paths(&left.changed).iter().all(|path| !owned.contains(path)));
    }

    #[test]
    fn appliers_come_in_any_order(one in any_data(), two in any_data()) {
        let disjoint: serde_json::Map<String, Value> = two.as_object().unwrap().iter().map(|(key, value)| (format!("{key}{key}"), value.clone())).collect();
        let disjoint = Value::Object(disjoint);
        let there = Story::of(CONFIG_MAP).apply("one", config_map(one.clone())).apply("two", config_map(disjoint.clone()));
        let back = Story::of(CONFIG_MAP).apply("two", config_map(disjoint)).apply("one", config_map(one));
        prop_assert_eq!(there.object(), back.object());
        prop_assert!(Managers::of(&there.live.unwrap()).unwrap().is_same_but_for_times(&Managers::of(&back.live.unwrap()).unwrap()));
    }

    #[test]
    fn who_leaves_takes_his_own_along(one in any_data(), two in any_data()) {
        let story = Story::of(CONFIG_MAP).apply("one", config_map(one)).force("two", config_map(two.clone())).apply("one", config_map(json!({})));
        let left = story.object().get("data").cloned().unwrap_or_else(|| json!({}));
        prop_assert_eq!(left, two);
    }
}

fn same_but_for_order(old: &Object, new: &Object) -> bool {
    let sorted = |object: &Object| {
        let mut list: Vec<String> =
            object.list(&["spec", "containers"]).iter().map(Value::to_string).collect();
        list.sort();
        list
    };
    sorted(old) == sorted(new)
}
