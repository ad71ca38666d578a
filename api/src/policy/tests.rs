use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::json;

use super::*;
use crate::{
    Object,
    cel::{Authority, Question, Verdict},
    kinds, schema,
};

/// Knows what it has been told, and writes down what else it was asked.
#[derive(Debug, Default)]
struct Oracle {
    known: Mutex<BTreeMap<Question, Verdict>>,
    asked: Mutex<Vec<Question>>,
}

impl Authority for Oracle {
    fn decide(&self, question: &Question) -> Option<Verdict> {
        let known = self.known.lock().unwrap().get(question).cloned();
        if known.is_none() {
            self.asked.lock().unwrap().push(question.clone());
        }
        known
    }
}

fn request() -> Json {
    json!({
        "uid": "1", "operation": "CREATE", "name": "web", "namespace": "prod",
        "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "userInfo": {"username": "alice", "groups": ["dev"]}, "dryRun": false,
    })
}

fn deployment(replicas: i64) -> Json {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "prod"},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}},
    })
}

fn with<R>(object: &Json, params: &Json, oracle: &Arc<Oracle>, body: impl FnOnce(&Input<'_>) -> R) -> R {
    let (old, request) = (Json::Null, request());
    let namespace = json!({"metadata": {"name": "prod", "labels": {"tier": "gold"}}});
    body(&Input {
        object,
        old: &old,
        request: &request,
        params,
        namespace: &namespace,
        authority: oracle.clone(),
    })
}

fn messages(spec: Json, replicas: i64, params: Json) -> Vec<String> {
    let policy = Policy::compile(&spec);
    let validated =
        with(&deployment(replicas), &params, &Arc::default(), |input| policy.validate(input)).unwrap();
    validated.denials.into_iter().map(|denial| denial.message).collect()
}

#[test]
fn a_validation_that_does_not_hold_has_upstreams_message() {
    let rule = json!({"expression": "object.spec.replicas <= 5"});
    let cases = [
        (json!({}), "failed expression: object.spec.replicas <= 5"),
        (json!({"message": " too many "}), "too many"),
        (
            json!({"messageExpression": "'at most 5, not ' + string(object.spec.replicas)"}),
            "at most 5, not 7",
        ),
        (json!({"messageExpression": "'a\\nb'", "message": "plain"}), "plain"),
        (json!({"messageExpression": "object.spec.nope", "message": "plain"}), "plain"),
    ];
    for (more, expected) in cases {
        let mut rule = rule.clone();
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spec = json!({"validations": [rule]});
        assert_eq!(messages(spec.clone(), 7, Json::Null), [expected]);
        assert!(messages(spec, 5, Json::Null).is_empty());
    }
}

#[test]
fn expressions_see_parameters_variables_request_and_namespace() {
    let expressions = [
        "object.spec.replicas <= params.max",
        "variables.replicas == 3 && variables.twice == 6",
        "request.operation == 'CREATE' && request.userInfo.username == 'alice'",
        "namespaceObject.metadata.labels['tier'] == 'gold'",
        "oldObject == null && request.resource.resource == 'deployments'",
    ];
    let validations: Vec<Json> =
        expressions.iter().map(|expression| json!({"expression": expression})).collect();
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "twice", "expression": "variables.replicas * 2"},
        ],
        "validations": validations,
    });
    assert_eq!(messages(spec, 3, json!({"max": 5})), Vec::<String>::new());
}

#[test]
fn what_goes_wrong_denies_or_is_let_through_as_the_policy_says() {
    let mut spec = json!({"validations": [{"expression": "object.spec.nope == 1"}]});
    let expected = "expression 'object.spec.nope == 1' resulted in error: no such key: nope";
    assert_eq!(messages(spec.clone(), 1, Json::Null), [expected]);
    spec["failurePolicy"] = "Ignore".into();
    assert!(messages(spec, 1, Json::Null).is_empty());
}

#[test]
fn conditions_decide_whether_a_policy_is_meant() {
    let spec = |conditions: Json| {
        let conditions: Vec<Json> = conditions
            .as_array()
            .unwrap()
            .iter()
            .map(|expression| json!({"name": "c", "expression": expression}))
            .collect();
        json!({"matchConditions": conditions, "validations": [{"expression": "false", "message": "no"}]})
    };
    assert_eq!(messages(spec(json!(["true"])), 1, Json::Null), ["no"]);
    assert!(messages(spec(json!(["true", "false"])), 1, Json::Null).is_empty());
    // A condition that does not hold counts more than one that fails.
    assert!(messages(spec(json!(["object.nope", "false"])), 1, Json::Null).is_empty());
    let failed = messages(spec(json!(["object.nope == 1"])), 1, Json::Null);
    assert_eq!(failed, ["expression 'object.nope == 1' resulted in error: no such key: nope"]);
}

#[test]
fn the_authorizer_is_told_which_objects_are_meant() {
    let asked = |selector: &str| {
        let expression = format!("authorizer.group('').resource('pods').{selector}.check('list').allowed()");
        let policy = Policy::compile(&json!({"validations": [{"expression": expression}]}));
        let oracle = Arc::new(Oracle::default());
        let outcome = with(&deployment(1), &Json::Null, &oracle, |input| policy.validate(input));
        assert!(matches!(outcome, Err(Undecided)), "{outcome:?}");
        let asked = oracle.asked.lock().unwrap();
        asked[0].fields.clone()
    };
    assert_eq!(asked("fieldSelector('spec.nodeName=n1')"), "spec.nodeName=n1");
    assert_eq!(asked("labelSelector('app=web')"), "");
    assert_eq!(asked("fieldSelector('what')"), "");
}

#[test]
fn the_authorizer_is_asked_about_what_can_be() {
    let said = |expression: &str| {
        let policy = Policy::compile(&json!({"validations": [{"expression": expression}]}));
        let oracle = Arc::new(Oracle::default());
        let validated = with(&deployment(1), &Json::Null, &oracle, |input| policy.validate(input)).unwrap();
        validated.denials[0].message.rsplit_once("error: ").unwrap().1.to_string()
    };
    assert_eq!(said("authorizer.path(' ').check('get').allowed()"), "path must not be empty");
    assert_eq!(
        said("authorizer.group('').resource('').check('get').allowed()"),
        "resource must not be empty"
    );
    let account = |namespace: &str, name: &str| {
        said(&format!("authorizer.serviceAccount('{namespace}', '{name}').path('/').check('get').allowed()"))
    };
    assert_eq!(account("a.b", "c"), "Invalid service account namespace");
    assert_eq!(account("a", "c@"), "Invalid service account name");
}

#[test]
fn the_authorizer_is_asked_and_the_decision_made_again() {
    let expression = "authorizer.group('apps').resource('deployments').namespace('prod').name('web').check('scale').allowed() \
        && !authorizer.requestResource.check('delete').allowed() \
        && !authorizer.serviceAccount('a', 'b').path('/healthz').check('get').allowed()";
    let policy = Policy::compile(&json!({"validations": [{"expression": expression}]}));
    let oracle = Arc::new(Oracle::default());
    let (object, params) = (deployment(1), Json::Null);
    let mut rounds = 0;
    let validated = loop {
        match with(&object, &params, &oracle, |input| policy.validate(input)) {
            Ok(validated) => break validated,
            Err(Undecided) => {
                rounds += 1;
                for question in oracle.asked.lock().unwrap().drain(..) {
                    let verdict = Verdict { is_allowed: question.verb == "scale", ..Verdict::default() };
                    oracle.known.lock().unwrap().insert(question, verdict);
                }
            }
        }
    };
    // Three questions cost more than one expression may.
    assert_eq!(rounds, 2);
    let message = &validated.denials[0].message;
    assert!(
        message.ends_with("resulted in error: operation cancelled: actual cost limit exceeded"),
        "{message}"
    );
    let known = oracle.known.lock().unwrap();
    let first = known.keys().find(|question| question.verb == "scale").unwrap();
    assert_eq!((first.resource.as_str(), first.name.as_str()), ("deployments", "web"));
    let second = known.keys().find(|question| question.verb == "delete").unwrap();
    assert_eq!((second.group.as_str(), second.namespace.as_str()), ("apps", "prod"));
}

#[test]
fn annotations_for_the_audit_log_are_made() {
    let spec = json!({"auditAnnotations": [
        {"key": "replicas", "valueExpression": "'has ' + string(object.spec.replicas)"},
        {"key": "none", "valueExpression": "null"},
    ]});
    let policy = Policy::compile(&spec);
    let validated =
        with(&deployment(3), &Json::Null, &Arc::default(), |input| policy.validate(input)).unwrap();
    assert_eq!(validated.annotations, [("replicas".to_string(), "has 3".to_string())]);
}

fn mutated(mutations: Json) -> Result<Object, String> {
    let policy = Policy::compile(&json!({"mutations": mutations}));
    let schema = schema::of(kinds::find("apps", "v1", "deployments").unwrap());
    with(&deployment(1), &Json::Null, &Arc::default(), |input| policy.mutate(input, schema)).unwrap()
}

fn apply(expression: &str) -> Json {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn json_patch(expression: &str) -> Json {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

#[test]
fn a_configuration_is_laid_over_the_object() {
    let changed = mutated(json!([
        apply(
            "Object{spec: Object.spec{replicas: object.spec.replicas + 1, template: Object.spec.template{spec: \
             Object.spec.template.spec{containers: [Object.spec.template.spec.containers{name: 'side', image: 'y'}]}}}}"
        ),
        apply("Object{metadata: Object.metadata{labels: {'seen': string(object.spec.replicas)}, ?annotations: optional.none()}}"),
    ]))
    .unwrap();
    assert_eq!(changed.number(&["spec", "replicas"]), Some(2));
    assert_eq!(changed.list(&["spec", "template", "spec", "containers"]).len(), 2);
    assert_eq!(changed.text(&["metadata", "labels", "seen"]), "2");
    assert_eq!(changed.at(&["metadata", "annotations"]), None);
}

#[test]
fn a_json_patch_is_applied() {
    let changed = mutated(json!([json_patch(
        "[JSONPatch{op: 'test', path: '/spec/replicas', value: 1}, JSONPatch{op: 'add', path: '/metadata/labels', value: {}}, \
          JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'x'}]"
    )]))
    .unwrap();
    assert_eq!(changed.text(&["metadata", "labels", "a/b"]), "x");
}

#[test]
fn a_mutation_may_not_do_everything() {
    assert!(mutated(json!([apply("Object{metadata: Object.metadata{name: 'other'}}")])).is_err());
    assert!(mutated(json!([json_patch("[JSONPatch{op: 'remove', path: '/nope'}]")])).is_err());
    let wrong = mutated(json!([apply("Object{spec: Object.metadata{name: 'x'}}")])).unwrap_err();
    assert!(wrong.contains("expected type of field 'spec' is 'Object.spec'"), "{wrong}");
    // A list of which one manager has the whole is not merged item by item.
    let atomic = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{tolerations: [{'key': 'a'}]}}}}";
    let refused = mutated(json!([apply(atomic)])).unwrap_err();
    assert!(refused.contains("may not mutate atomic arrays, maps or structs"), "{refused}");
}

#[test]
fn a_chain_of_variables_is_as_deep_as_they_are_together() {
    let deep = format!("{}1{}", "(1 + ".repeat(60), ")".repeat(60));
    let variables: Vec<Json> = (0..10)
        .map(|index| {
            let before = if index > 0 { format!(" + variables.v{}", index - 1) } else { String::new() };
            json!({"name": format!("v{index}"), "expression": format!("{deep}{before}")})
        })
        .collect();
    let spec = json!({"variables": variables, "validations": [{"expression": "variables.v9 == 610"}]});
    let message = messages(spec, 1, Json::Null).remove(0);
    assert!(message.contains("recursion limit") || message.contains("no such key"), "{message}");
}

#[test]
fn variables_are_asked_for_by_name() {
    let spec = |variable: &str, rule: &str| {
        json!({"variables": [{"name": "b", "expression": "1"}, {"name": "a", "expression": variable}],
            "validations": [{"expression": rule}]})
    };
    assert!(messages(spec("variables.b", "has(variables.a) && variables.a == 1"), 1, Json::Null).is_empty());
    for variable in ["dyn(variables).a", "cel.bind(v, variables, v.b)"] {
        let mut scope = Scope::new(Names::default(), Type::Dyn);
        assert!(scope.add("b", "1").is_ok());
        let why = scope.add("a", variable).unwrap_err();
        assert_eq!(why, "variables can only be asked for by name");
        // Who names what did not compile hears that it is not there.
        assert!(messages(spec(variable, "variables.a == 1"), 1, Json::Null)[0].contains("no such key: a"));
    }
}

#[test]
fn there_are_so_many_variables_and_no_more() {
    let mut scope = Scope::new(Names::default(), Type::Dyn);
    for index in 0..MOST_VARIABLES {
        assert!(scope.add(&format!("v{index}"), "1").is_ok());
    }
    assert_eq!(scope.add("one", "1").unwrap_err(), "there are more than 1000 variables");
}

#[test]
fn what_a_mutation_makes_is_not_too_large() {
    let twice = |inner: &str| {
        let around = (0..35).fold(inner.to_string(), |body, _| format!("cel.bind(x, [x, x], {body})"));
        format!("cel.bind(x, [1], {around})")
    };
    let configuration =
        twice("Object{spec: Object.spec{template: x}}").replace("template: x", "template: dyn(x)");
    for mutation in
        [apply(&configuration), json_patch(&twice("[JSONPatch{op: 'add', path: '/spec/x', value: x}]"))]
    {
        assert_eq!(mutated(json!([mutation])).unwrap_err(), "the result is too large");
    }
}
