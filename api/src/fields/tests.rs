mod laws;

use serde_json::json;

use super::*;
use crate::schema;

const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const POD: &str = "io.k8s.api.core.v1.Pod";
const NAMESPACE: &str = "io.k8s.api.core.v1.Namespace";
const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn write(schema: &str, name: &str, operation: Operation) -> Write<'static> {
    let schema = schema::by_name(schema);
    assert!(schema.is_some());
    let api_version = if schema.unwrap().name == DEPLOYMENT { "apps/v1" } else { "v1" };
    let manager =
        Manager { name: name.into(), operation, api_version: api_version.into(), subresource: String::new() };
    Write { manager, now: "2026-01-01T00:00:00Z".into(), schema, reset: &["status"], versions: &OneVersion }
}

/// A history of one object, as its clients make it.
struct Story {
    schema: &'static str,
    live: Option<Object>,
}

impl Story {
    fn of(schema: &'static str) -> Story {
        Story { schema, live: None }
    }

    fn update(mut self, name: &str, value: Value) -> Story {
        let mut new = object(value);
        update(&write(self.schema, name, Operation::Update), self.live.as_ref(), &mut new);
        self.live = Some(new);
        self
    }

    fn try_apply(&self, name: &str, config: Value, force: bool) -> Result<Object, ApplyError> {
        apply(&write(self.schema, name, Operation::Apply), self.live.as_ref(), &object(config), force)
    }

    #[track_caller]
    fn apply(mut self, name: &str, config: Value) -> Story {
        self.live = Some(self.try_apply(name, config, false).unwrap());
        self
    }

    fn force(mut self, name: &str, config: Value) -> Story {
        self.live = Some(self.try_apply(name, config, true).unwrap());
        self
    }

    #[track_caller]
    fn conflicts(&self, name: &str, config: Value) -> String {
        match self.try_apply(name, config, false).unwrap_err() {
            ApplyError::Conflicts(conflicts) => conflicts.to_string(),
            other => panic!("{other}"),
        }
    }

    /// The object without its entries.
    fn object(&self) -> Value {
        bare(self.live.as_ref().unwrap()).into_value()
    }

    /// What a manager owns, as paths.
    fn owned(&self, name: &str) -> Vec<String> {
        let managers = Managers::of(self.live.as_ref().unwrap()).unwrap();
        let entries = managers.0.iter().filter(|entry| entry.manager.name == name);
        entries.flat_map(|entry| paths(&entry.fields)).collect()
    }

    fn managers(&self) -> Vec<String> {
        let managers = Managers::of(self.live.as_ref().unwrap()).unwrap();
        managers.0.into_iter().map(|entry| entry.manager.name).collect()
    }
}

fn paths(set: &Set) -> Vec<String> {
    let mut paths = Vec::new();
    set.for_each(&mut |path| paths.push(path.iter().map(ToString::to_string).collect()));
    paths
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}, "data": data})
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "b"}, "spec": spec})
}

fn containers(containers: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": containers}})
}

#[test]
fn a_creation_is_attributed_as_upstream_writes_it() {
    let spec = json!({
        "replicas": 2,
        "selector": {"matchLabels": {"app": "a"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "template": {
            "metadata": {"labels": {"app": "a"}},
            "spec": {
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}],
                "securityContext": {},
            },
        },
    });
    let mut deployment = deployment(spec);
    deployment["metadata"]["labels"] = json!({"app": "a"});
    deployment["status"] = json!({"replicas": 3});
    let story = Story::of(DEPLOYMENT).update("kubectl", deployment);
    let entry = &story.live.unwrap().list(&["metadata", "managedFields"])[0].clone();
    let expected = json!({
        "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "manager": "kubectl", "operation": "Update",
        "time": "2026-01-01T00:00:00Z",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {
                            "k:{\"name\":\"c\"}": {
                                ".": {},
                                "f:image": {},
                                "f:name": {},
                                "f:ports": {
                                    ".": {},
                                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
                                },
                                "f:resources": {},
                            },
                        },
                        "f:securityContext": {},
                    },
                },
            },
        },
    });
    assert_eq!(*entry, expected);
}

#[test]
fn an_update_takes_what_it_changes() {
    let story = Story::of(CONFIG_MAP)
        .update("one", config_map(json!({"x": "1", "y": "1"})))
        .update("two", config_map(json!({"x": "1", "y": "2", "z": "2"})));
    assert_eq!(story.owned("one"), [".data", ".data.x"]);
    assert_eq!(story.owned("two"), [".data.y", ".data.z"]);
    let story = story.update("three", config_map(json!({"z": "2"})));
    assert_eq!(story.managers(), ["one", "two"]);
    assert_eq!(story.owned("one"), [".data"]);
    let story =
        story.update("three", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    assert!(story.live.unwrap().at(&["metadata", "managedFields"]).is_none());
}

#[test]
fn a_write_that_changes_nothing_leaves_the_entries_alone() {
    let story = Story::of(CONFIG_MAP).update("one", config_map(json!({"x": "1"})));
    let before = story.live.clone().unwrap();
    let mut again = bare(&before);
    let later = Write { now: "2030-01-01T00:00:00Z".into(), ..write(CONFIG_MAP, "two", Operation::Update) };
    update(&later, Some(&before), &mut again);
    assert_eq!(again, before);
}

#[test]
fn clients_may_reset_the_entries_and_cannot_break_them() {
    let story = Story::of(CONFIG_MAP).update("one", config_map(json!({"x": "1"})));
    for reset in [json!([]), json!([{}])] {
        let mut sent = config_map(json!({"x": "2"}));
        sent["metadata"]["managedFields"] = reset;
        let reset = Story { live: story.live.clone(), ..story }.update("two", sent);
        assert_eq!(reset.managers(), [""; 0]);
        // Nobody owns anything until somebody applies.
        let after = reset.update("two", config_map(json!({"x": "3"})));
        assert_eq!(after.managers(), [""; 0]);
        let after = after.apply("three", config_map(json!({"y": "1"})));
        assert_eq!(after.owned("before-first-apply"), [".data", ".data.x"]);
    }
    for broken in [
        json!([{"manager": "x"}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV2"}]),
        json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}]),
    ] {
        let mut sent = config_map(json!({"x": "1"}));
        sent["metadata"]["managedFields"] = broken;
        let mut new = object(sent);
        update(&write(CONFIG_MAP, "two", Operation::Update), story.live.as_ref(), &mut new);
        assert_eq!(Some(new), story.live);
    }
}

#[test]
fn the_oldest_of_many_managers_become_one() {
    let mut story = Story::of(CONFIG_MAP).update("m00", config_map(json!({"k00": "0"})));
    let mut data = json!({"k00": "0"});
    for index in 1..14 {
        data[format!("k{index:02}")] = "0".into();
        story = story.update(&format!("m{index:02}"), config_map(data.clone()));
    }
    let managers = story.managers();
    assert_eq!(managers.len(), 10);
    assert!(managers.contains(&"ancient-changes".into()), "{managers:?}");
    assert!(story.owned("ancient-changes").contains(&".data.k00".into()));
}

#[test]
fn appliers_share_a_map_and_conflict_about_a_value() {
    let story = Story::of(CONFIG_MAP)
        .apply("one", config_map(json!({"x": "1"})))
        .apply("two", config_map(json!({"y": "2"})));
    assert_eq!(story.object()["data"], json!({"x": "1", "y": "2"}));
    assert_eq!(
        story.conflicts("two", config_map(json!({"x": "3"}))),
        "Apply failed with 1 conflict: conflict with \"one\": .data.x"
    );
    // To say the same is to share.
    let story = story.apply("two", config_map(json!({"x": "1", "y": "2"})));
    assert_eq!(
        (story.owned("one"), story.owned("two")),
        (vec![".data.x".into()], vec![".data.x".into(), ".data.y".into()])
    );
    let story = story.force("two", config_map(json!({"x": "3"})));
    assert_eq!(story.managers(), ["two"]);
    assert_eq!(story.object()["data"], json!({"x": "3"}));
}

#[test]
fn conflicts_are_reported_in_upstreams_words() {
    let story = Story::of(DEPLOYMENT)
        .update("kubectl-client-side-apply", deployment(json!({"replicas": 1, "paused": true})));
    let conflicts = story.conflicts("kubectl", deployment(json!({"replicas": 2})));
    assert_eq!(
        conflicts,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let story =
        story.update("controller", deployment(json!({"replicas": 1, "paused": true, "minReadySeconds": 1})));
    let config = object(deployment(json!({"replicas": 2, "paused": false, "minReadySeconds": 2})));
    let error = apply(&write(DEPLOYMENT, "kubectl", Operation::Apply), story.live.as_ref(), &config, false)
        .unwrap_err();
    let ApplyError::Conflicts(conflicts) = error else { panic!("{error}") };
    let status = conflicts.into_status();
    assert_eq!(
        status.message,
        "Apply failed with 3 conflicts: conflicts with \"controller\" using apps/v1:\n- .spec.minReadySeconds\nconflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    assert_eq!((status.code, status.reason), (409, "Conflict"));
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"controller\" using apps/v1", "field": ".spec.minReadySeconds"});
    assert!(status.details.unwrap()["causes"].as_array().unwrap().contains(&cause));
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_has_it() {
    let story = Story::of(CONFIG_MAP)
        .apply("one", config_map(json!({"x": "1", "y": "1", "z": "1"})))
        .apply("two", config_map(json!({"y": "1"})))
        .update("three", config_map(json!({"x": "1", "y": "1", "z": "3"})))
        .apply("one", config_map(json!({})));
    assert_eq!(story.object()["data"], json!({"y": "1", "z": "3"}));
    // Who applied what was there already has never changed anything: an entry without a time.
    assert_eq!(story.managers(), ["two", "one", "three"]);
    let story =
        story.apply("two", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    assert_eq!(story.object()["data"], json!({"z": "3"}));
}

#[test]
fn defaults_belong_to_nobody_and_stay() {
    // The server has filled in what the first apply left out.
    let mut story = Story::of(POD)
        .apply("one", containers(json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}])));
    let live = story.live.as_mut().unwrap();
    let mut defaulted = live.clone().into_value();
    defaulted["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP".into();
    defaulted["spec"]["restartPolicy"] = "Always".into();
    story.live = Some(object(defaulted));
    let story = story
        .apply("one", containers(json!([{"name": "c", "image": "j", "ports": [{"containerPort": 80}]}])));
    let expected = json!([{"name": "c", "image": "j", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]);
    assert_eq!(story.object()["spec"]["containers"], expected);
    assert_eq!(story.object()["spec"]["restartPolicy"], "Always");
    // A port with another protocol is another port.
    let story = story.apply(
        "two",
        containers(json!([{"name": "c", "ports": [{"containerPort": 80, "protocol": "UDP"}]}])),
    );
    assert_eq!(story.object()["spec"]["containers"][0]["ports"].as_array().unwrap().len(), 2);
    let story = story.apply("two", containers(json!([{"name": "c"}])));
    assert_eq!(story.object()["spec"]["containers"], expected);
}

#[test]
fn items_with_keys_have_owners_of_their_own() {
    let story = Story::of(POD)
        .apply("one", containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])))
        .apply("two", containers(json!([{"name": "c", "image": "2"}, {"name": "a", "tty": true}])));
    let names = |story: &Story| -> Vec<String> {
        let list = story.object()["spec"]["containers"].as_array().unwrap().clone();
        list.iter().map(|item| item["name"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(names(&story), ["c", "a", "b"]);
    assert_eq!(story.object()["spec"]["containers"][1], json!({"name": "a", "image": "1", "tty": true}));
    let story = story.apply("one", containers(json!([{"name": "b", "image": "1"}])));
    assert_eq!(names(&story), ["c", "a", "b"]);
    assert_eq!(story.object()["spec"]["containers"][1], json!({"name": "a", "tty": true}));
    let story = story.apply("two", containers(json!([])));
    assert_eq!(names(&story), ["b"]);
}

#[test]
fn sets_unite_and_atomic_lists_are_replaced() {
    let finalized = |finalizers: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "finalizers": finalizers}});
    let story = Story::of(NAMESPACE)
        .apply("one", finalized(json!(["a/x", "b/x"])))
        .apply("two", finalized(json!(["c/x", "b/x"])));
    assert_eq!(story.object()["metadata"]["finalizers"], json!(["a/x", "c/x", "b/x"]));
    assert_eq!(story.owned("two"), [".metadata.finalizers[=\"b/x\"]", ".metadata.finalizers[=\"c/x\"]"]);
    let story = story.apply("one", finalized(json!(["b/x"])));
    assert_eq!(story.object()["metadata"]["finalizers"], json!(["c/x", "b/x"]));

    let args = |args: Value| containers(json!([{"name": "a", "args": args}]));
    let story = Story::of(POD).apply("one", args(json!(["1", "2"])));
    assert_eq!(
        story.conflicts("two", args(json!(["3"]))),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.containers[name=\"a\"].args"
    );
    assert_eq!(
        story.force("two", args(json!(["3"]))).object()["spec"]["containers"][0]["args"],
        json!(["3"])
    );
}

#[test]
fn kubectl_may_change_what_its_client_side_apply_has_set() {
    let spec = json!({"replicas": 1, "paused": true});
    let mut live = deployment(spec.clone());
    live["metadata"]["annotations"] = json!({LAST_APPLIED: deployment(json!({"replicas": 1})).to_string()});
    let story = Story::of(DEPLOYMENT).update("kubectl-client-side-apply", live);
    assert!(story.try_apply("other", deployment(json!({"replicas": 2})), false).is_err());
    assert_eq!(
        story.conflicts("kubectl", deployment(json!({"replicas": 2, "paused": false}))),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.paused"
    );
    let story = story.apply("kubectl", deployment(json!({"replicas": 2})));
    assert_eq!(story.object()["spec"]["replicas"], 2);
    let memory = story.object()["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap().to_string();
    assert_eq!(serde_json::from_str::<Value>(&memory).unwrap(), deployment(json!({"replicas": 2})));
}

#[test]
fn a_configuration_that_does_not_fit_its_type_is_refused() {
    let refused = |schema: &'static str, config: Value| {
        Story::of(schema).try_apply("one", config, false).unwrap_err().to_string()
    };
    assert_eq!(
        refused(DEPLOYMENT, deployment(json!({"replica": 1}))),
        "failed to create typed patch object (b/a; apps/v1, Kind=Deployment): .spec.replica: field not declared in schema"
    );
    assert_eq!(
        refused(DEPLOYMENT, deployment(json!({"replicas": "1"}))),
        "failed to create typed patch object (b/a; apps/v1, Kind=Deployment): .spec.replicas: expected numeric (int or float), got string"
    );
    assert_eq!(
        refused(POD, containers(json!([{"name": "c"}, {"name": "c"}]))),
        "failed to create typed patch object (/a; /v1, Kind=Pod): .spec.containers: duplicate entries for key [name=\"c\"]"
    );
    assert_eq!(
        refused(POD, containers(json!([{"image": "c"}]))),
        "failed to create typed patch object (/a; /v1, Kind=Pod): .spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)"
    );
    let mut own = config_map(json!({}));
    own["metadata"]["managedFields"] = json!([]);
    assert_eq!(refused(CONFIG_MAP, own), "metadata.managedFields must be nil");
}

/// A made-up older version in which `data` is called `items`.
struct Renamed;

impl Versions for Renamed {
    fn converted(&self, object: &Object, api_version: &str) -> Option<(Object, Option<&'static Schema>)> {
        let (from, to) = match api_version {
            "v1" => ("items", "data"),
            "old/v1" => ("data", "items"),
            _ => return None,
        };
        let mut object = object.clone();
        if let Some(value) = object.0.remove(from) {
            object.0.insert(to.into(), value);
        }
        object.set(&["apiVersion"], api_version);
        Some((object, None))
    }

    fn is_known(&self, api_version: &str) -> bool {
        api_version == "far/v1"
    }
}

#[test]
fn owners_in_a_version_that_only_others_can_convert_to_stay() {
    let entry = |version: &str| json!({"manager": version, "operation": "Update", "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:x": {}}}});
    let live = object(json!({"apiVersion": "v1", "kind": "K", "data": {"x": 1},
        "metadata": {"name": "a", "managedFields": [entry("far/v1"), entry("gone/v1")]}}));
    let write = |operation| Write {
        manager: Manager {
            name: "me".into(),
            operation,
            api_version: "v1".into(),
            subresource: String::new(),
        },
        now: "2026-01-01T00:00:00Z".into(),
        schema: None,
        reset: &[],
        versions: &Renamed,
    };
    let names = |object: &Object| -> Vec<String> {
        Managers::of(object).unwrap().0.iter().map(|entry| entry.manager.name.clone()).collect()
    };
    let config =
        object(json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a"}, "data": {"y": 1}}));
    let applied = apply(&write(Operation::Apply), Some(&live), &config, false).unwrap();
    assert_eq!(names(&applied), ["me", "far/v1"]);
    let mut updated = live.clone();
    updated.set(&["data", "y"], 2);
    update(&write(Operation::Update), Some(&live), &mut updated);
    assert_eq!(names(&updated), ["far/v1", "me"]);
}

#[test]
fn managers_name_fields_in_versions_of_their_own() {
    let versioned = |name: &str, version: &str| {
        let manager = Manager {
            name: name.into(),
            operation: Operation::Apply,
            api_version: version.into(),
            subresource: String::new(),
        };
        Write { manager, now: "2026-01-01T00:00:00Z".into(), schema: None, reset: &[], versions: &Renamed }
    };
    let of = |version: &str, field: &str, value: Value| {
        object(json!({"apiVersion": version, "kind": "K", "metadata": {"name": "a"}, field: value}))
    };
    let old =
        apply(&versioned("one", "old/v1"), None, &of("old/v1", "items", json!({"x": 1, "y": 1})), false)
            .unwrap();
    let mut live = Renamed.converted(&old, "v1").unwrap().0;
    let error =
        apply(&versioned("two", "v1"), Some(&live), &of("v1", "data", json!({"x": 2})), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .items.x");
    live = apply(&versioned("two", "v1"), Some(&live), &of("v1", "data", json!({"x": 1})), false).unwrap();
    // The first manager goes over to the new version and gives up one field and keeps none.
    live = apply(&versioned("one", "v1"), Some(&live), &of("v1", "data", json!({})), false).unwrap();
    assert_eq!(live.at(&["data"]), Some(&json!({"x": 1})));
    // A version that nobody serves any more has no managers.
    let mut gone = live.clone().into_value();
    gone["metadata"]["managedFields"][1]["apiVersion"] = "gone/v1".into();
    let after =
        apply(&versioned("two", "v1"), Some(&object(gone)), &of("v1", "data", json!({"x": 3})), false)
            .unwrap();
    let managers = Managers::of(&after).unwrap();
    let names: Vec<&str> = managers.0.iter().map(|entry| entry.manager.name.as_str()).collect();
    assert_eq!(names, ["two"]);
}

#[test]
fn elements_are_written_and_read() {
    let key = Element::Key(vec![("containerPort".into(), json!(80)), ("protocol".into(), json!("TCP"))]);
    let table = [
        (Element::field("replicas"), "f:replicas", ".replicas"),
        (key, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}", "[containerPort=80,protocol=\"TCP\"]"),
        (Element::Value(json!("a")), "v:\"a\"", "[=\"a\"]"),
        (Element::Index(3), "i:3", "[3]"),
    ];
    for (element, encoded, shown) in table {
        assert_eq!((element.encoded().as_str(), element.to_string().as_str()), (encoded, shown));
        assert_eq!(Element::decoded(encoded), Ok(Some(element)));
    }
    assert_eq!(Element::decoded("z:later"), Ok(None));
    let quoted = Element::Key(vec![("a\"\\b".into(), json!("c"))]);
    assert_eq!(Element::decoded(&quoted.encoded()), Ok(Some(quoted)));
    for wrong in ["", "f", "é", "ff:", "k:{", "i:x"] {
        assert!(Element::decoded(wrong).is_err(), "{wrong}");
    }
}
