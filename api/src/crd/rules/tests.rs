//! What upstream says of rules, and what they may cost.

use serde_json::{Value, json};

use super::*;

fn schema(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

/// What is said of a definition with one rule on `spec`.
fn refused(spec: Value) -> Vec<String> {
    let source = schema(spec);
    let props = Props::read(&source).unwrap();
    validate_schema_rules(&props, &source, "s").iter().map(ToString::to_string).collect()
}

fn with_rules(spec: Value, rules: Value) -> Value {
    let mut spec = spec;
    spec["x-kubernetes-validations"] = rules;
    spec
}

fn verdict(spec: Value, value: Value, old: Option<Value>) -> Verdict {
    let props = Props::read(&schema(spec)).unwrap();
    let rules = Rules::of(&props).unwrap();
    let whole = |spec: Value| json!({"spec": spec});
    judge(&whole(value), old.map(whole).as_ref(), &rules, &props)
}

fn texts(faults: &[FieldError]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

const RULES: &str = "s.properties[spec].x-kubernetes-validations";

#[test]
fn a_rule_says_what_is_wrong_with_it() {
    let text = json!({"type": "string", "maxLength": 10});
    let cases = [
        (json!({"rule": " "}), ".rule: Required value: rule is not specified"),
        (
            json!({"rule": "true", "message": " "}),
            ".message: Invalid value: \" \": message must be non-empty if specified",
        ),
        (
            json!({"rule": "true", "messageExpression": " "}),
            ".messageExpression: Required value: messageExpression must be non-empty if specified",
        ),
        (
            json!({"rule": "true", "fieldPath": ".nowhere"}),
            ".fieldPath: Invalid value: \".nowhere\": must be a valid path",
        ),
        (
            json!({"rule": "self == 'a'", "optionalOldSelf": true}),
            ".optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
        (
            json!({"rule": "true", "reason": "Because"}),
            ".reason: Unsupported value: \"Because\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
    ];
    for (rule, expected) in cases {
        let told = refused(with_rules(text.clone(), json!([rule])));
        assert_eq!(told, [format!("{RULES}[0]{expected}")]);
    }
    let told = refused(with_rules(text, json!([{"rule": "size(self)"}])));
    assert!(told.len() == 1 && told[0].ends_with(": cel expression must evaluate to a bool"), "{told:?}");
}

#[test]
fn items_that_cannot_be_found_again_have_no_past() {
    let item = with_rules(json!({"type": "string", "maxLength": 5}), json!([{"rule": "self == oldSelf"}]));
    let list = json!({"type": "array", "maxItems": 5, "items": item});
    assert_eq!(
        refused(list),
        [
            "s.properties[spec].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec]"
        ]
    );
    let item = with_rules(
        json!({"type": "object", "properties": {"n": {"type": "string", "maxLength": 5}}}),
        json!([{"rule": "self.n == oldSelf.n"}]),
    );
    let map = json!({"type": "array", "maxItems": 5, "items": item,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]});
    assert_eq!(refused(map), [""; 0]);
}

#[test]
fn what_may_cost_too_much_is_refused_by_rule_and_in_all() {
    let list = json!({"type": "array", "items": {"type": "string"}});
    let dear = json!({"rule": "self.all(x, self.all(y, x != y))"});
    let told = refused(with_rules(list.clone(), json!([dear])));
    let budget = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    let expected = format!(
        "{RULES}[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {budget}"
    );
    assert_eq!(told[0], expected);
    let contributed = format!(
        "{RULES}[0].rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
    );
    assert_eq!(told[1], contributed);
    assert_eq!(
        told[2],
        format!(
            "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x {budget}"
        )
    );
    assert_eq!(told.len(), 3);
}

#[test]
fn a_value_is_shown_unless_it_is_made_of_others() {
    let text = with_rules(json!({"type": "string"}), json!([{"rule": "self == 'a'"}]));
    assert_eq!(
        texts(&verdict(text, json!("b"), None).faults),
        ["spec: Invalid value: \"b\": failed rule: self == 'a'"]
    );
    let map = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let map = with_rules(map, json!([{"rule": "self.n > 0", "message": "more"}]));
    assert_eq!(texts(&verdict(map, json!({"n": 0}), None).faults), ["spec: Invalid value: more"]);
}

#[test]
fn what_was_broken_before_is_tolerated_where_nothing_has_changed() {
    let small = with_rules(json!({"type": "integer"}), json!([{"rule": "self < 10"}]));
    let object = json!({"type": "object", "properties": {"a": small, "b": small,
        "l": {"type": "array", "items": small}}});
    let old = json!({"a": 20, "b": 5, "l": [30]});
    let same_list = verdict(object.clone(), json!({"a": 20, "b": 30, "l": [30]}), Some(old.clone()));
    assert_eq!(texts(&same_list.faults), ["spec.b: Invalid value: 30: failed rule: self < 10"]);
    assert_eq!(
        texts(&same_list.tolerated),
        [
            "spec.a: Invalid value: 20: failed rule: self < 10",
            "spec.l[0]: Invalid value: 30: failed rule: self < 10"
        ]
    );
    // The items of such a list have no past of their own: they are as new as the list.
    let longer = verdict(object, json!({"a": 20, "b": 5, "l": [30, 1]}), Some(old));
    assert_eq!(texts(&longer.faults), ["spec.l[0]: Invalid value: 30: failed rule: self < 10"]);
}

#[test]
fn rules_about_the_past_are_asked_also_when_nothing_changed() {
    let grows = |optional: bool| {
        let rule = if optional { "!oldSelf.hasValue() || self > oldSelf.value()" } else { "self > oldSelf" };
        with_rules(json!({"type": "integer"}), json!([{"rule": rule, "optionalOldSelf": optional}]))
    };
    for optional in [false, true] {
        assert!(verdict(grows(optional), json!(1), None).faults.is_empty());
        assert!(verdict(grows(optional), json!(2), Some(json!(1))).faults.is_empty());
        assert_eq!(verdict(grows(optional), json!(1), Some(json!(1))).faults.len(), 1);
    }
}

#[test]
fn the_budget_of_a_call_and_of_an_object_end_the_check() {
    let list = json!({"type": "array", "items": {"type": "integer"}});
    let quadratic = json!({"rule": "self.all(x, self.all(y, x + y >= 0))"});
    let items: Vec<i64> = (0..1000).collect();
    let told = texts(
        &verdict(with_rules(list.clone(), json!([quadratic, {"rule": "false"}])), json!(items), None).faults,
    );
    assert_eq!(told.len(), 1, "no further rule is run: {told:?}");
    assert!(
        told[0].ends_with("'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: self.all(x, self.all(y, x + y >= 0))"),
        "{told:?}"
    );
    // Each alone is cheap enough; together they are not.
    let linear = json!({"rule": "self.all(x, x + x >= 0)"});
    let whole = json!({"spec": (0..100).collect::<Vec<i64>>()});
    let props = Props::read(&schema(with_rules(list, json!([linear, linear, linear])))).unwrap();
    let rules = Rules::of(&props).unwrap();
    let run = |budget: u64| {
        let mut check = Check { budget, verdict: Verdict::default() };
        check.node(&whole, Before { counterpart: None, is_same: false }, &rules, &props, "");
        (texts(&check.verdict.faults), budget - check.budget)
    };
    let (faults, spent) = run(OBJECT_BUDGET);
    assert!(faults.is_empty());
    let (faults, _) = run(spent - 1);
    assert_eq!(
        faults,
        [
            r#"spec: Invalid value: "array": validation failed due to running out of cost budget, no further validation rules will be run"#
        ]
    );
}
