//! What an upstream server was seen to refuse, and what it takes: an object that is well, one change to it, and the faults
//! that the change makes.

use serde_json::{Value, json};

use crate::{FieldError, Object, decode, kinds, schema};

/// Faults of an object as they are told, decoding and defaults included.
fn told(group: &str, plural: &str, object: &Value) -> Vec<String> {
    let version = if plural == "horizontalpodautoscalers" { "v2" } else { "v1" };
    let kind = kinds::find(group, version, plural).unwrap();
    let mut object: Object = decode::check(object.clone(), schema::of(kind)).unwrap().object;
    kind.strategy.set_defaults(&mut object);
    kind.strategy.validate(&object, None).iter().map(FieldError::to_string).collect()
}

/// `sound` has no faults, and with each change those that are listed.
#[track_caller]
fn check(group: &str, plural: &str, sound: Value, changes: &[(&str, Value, &[&str])]) {
    assert_eq!(told(group, plural, &sound), [""; 0], "{sound}");
    for (place, value, expected) in changes {
        let mut object = sound.clone();
        *object.pointer_mut(place).unwrap() = value.clone();
        assert_eq!(told(group, plural, &object), *expected, "{place} = {value}");
    }
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

#[test]
fn a_stateful_set_mounts_what_it_claims() {
    let sound = json!({
        "metadata": {"name": "db"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "serviceName": "db",
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]},
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    });
    check(
        "apps",
        "statefulsets",
        sound,
        &[
            (
                "/spec/template/spec/containers/0/volumeMounts/0/name",
                json!("other"),
                &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"other\""],
            ),
            (
                "/spec/volumeClaimTemplates/0/spec/accessModes",
                json!([]),
                &[
                    "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                ],
            ),
        ],
    );
}

#[test]
fn empty_texts_get_defaults() {
    let sound = json!({
        "metadata": {"name": "p"},
        "spec": {
            "restartPolicy": "", "dnsPolicy": "", "schedulerName": "", "nodeSelector": {}, "tolerations": [],
            "containers": [{
                "name": "c", "image": "i", "imagePullPolicy": "", "terminationMessagePolicy": "",
                "ports": [{"containerPort": 1, "protocol": "", "hostPort": 0}],
                "livenessProbe": {"httpGet": {"port": 1, "scheme": ""}, "successThreshold": 0},
            }],
        },
    });
    check("", "pods", sound, &[]);
    check(
        "",
        "services",
        json!({"spec": {"type": "", "sessionAffinity": "", "clusterIP": "", "ports": [
        {"port": 1, "protocol": ""}]}}),
        &[],
    );
}

#[test]
fn volumes_and_what_containers_see_of_them() {
    let sound = json!({
        "metadata": {"name": "p"},
        "spec": {
            "terminationGracePeriodSeconds": -1,
            "schedulerName": "Any thing",
            "dnsConfig": {"searches": ["_tcp.example.com.", "."]},
            "containers": [{
                "name": "c", "image": "i",
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}],
                "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}],
                "volumeMounts": [{"name": "all", "mountPath": "/all"}],
            }],
            "volumes": [
                {"name": "disk", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "all", "projected": {"sources": [
                    {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "b"}]}},
                ]}},
                {"name": "own", "downwardAPI": {"items": [
                    {"path": "a", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]}},
            ],
        },
    });
    check(
        "",
        "pods",
        sound,
        &[
            (
                "/spec/containers/0/env/0/valueFrom/fieldRef/fieldPath",
                json!("spec.nope"),
                &[
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting fieldPath: field label not supported: spec.nope",
                ],
            ),
            (
                "/spec/containers/0/volumeDevices/0/name",
                json!("all"),
                &[
                    "spec.containers[0].volumeDevices[0].name: Invalid value: \"all\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                    "spec.containers[0].volumeDevices[0].name: Invalid value: \"all\": must not already exist in volumeMounts",
                ],
            ),
            (
                "/spec/volumes/1/projected/sources/1/secret/items/0/path",
                json!("a"),
                &["spec.volumes[1].projected: Invalid value: \"s\": conflicting duplicate paths"],
            ),
            (
                "/spec/volumes/1/projected/sources/0/downwardAPI/items/0/fieldRef/fieldPath",
                json!("status.phase"),
                &[
                    "spec.volumes[1].projected.sources[0].downwardAPI.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
                ],
            ),
            (
                "/spec/volumes/2/downwardAPI/items/0/resourceFieldRef/divisor",
                json!("1m"),
                &[
                    "spec.volumes[2].downwardAPI.resourceFieldRef.divisor: Invalid value: \"limits.memory\": only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource",
                ],
            ),
            (
                "/spec/dnsConfig/searches/0",
                json!("-"),
                &[
                    "spec.dnsConfig.searches[0]: Invalid value: \"-\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
        ],
    );
}

#[test]
fn amounts_are_of_resources_that_there_are() {
    let sound = json!({"spec": {"hard": {"pods": "3", "count/jobs.batch": "1"}}});
    check(
        "",
        "resourcequotas",
        sound,
        &[(
            "/spec/hard/pods",
            json!("1500m"),
            &["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
        )],
    );
    let sound = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}});
    check(
        "",
        "limitranges",
        sound,
        &[(
            "/spec/limits/0",
            json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi", "bananas": "1"}}),
            &[
                "spec.limits[0].max[bananas]: Invalid value: \"bananas\": must be a standard resource type or fully qualified",
            ],
        )],
    );
    let sound = json!({"handler": "h", "overhead": {"podFixed": {"cpu": "1"}}, "scheduling": {"tolerations": [{"operator": "Exists"}]}});
    check(
        "node.k8s.io",
        "runtimeclasses",
        sound,
        &[
            (
                "/overhead/podFixed",
                json!({"example.com/gpu": "500m"}),
                &["overhead.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer"],
            ),
            (
                "/scheduling/tolerations",
                json!([{"key": "a", "operator": "Maybe"}]),
                &[
                    "scheduling.tolerations[0].operator: Unsupported value: \"Maybe\": supported values: \"Equal\", \"Exists\"",
                ],
            ),
        ],
    );
}

#[test]
fn what_points_elsewhere_points_somewhere() {
    let sound = json!({"spec": {"controller": "acme.io/foo", "parameters": {"apiGroup": "x.y", "kind": "K", "name": "n"}}});
    check(
        "networking.k8s.io",
        "ingressclasses",
        sound,
        &[
            (
                "/spec/controller",
                json!("acme.io/a b"),
                &[
                    r#"spec.controller: Invalid value: "a b": Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')"#,
                ],
            ),
            (
                "/spec/controller",
                json!("acme"),
                &[
                    r#"spec.controller: Invalid value: "acme": must be a domain-prefixed path (such as "acme.io/foo")"#,
                ],
            ),
            (
                "/spec/parameters/kind",
                json!("a/b"),
                &[r#"spec.parameters.kind: Invalid value: "a/b": may not contain '/'"#],
            ),
        ],
    );
    let sound =
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.1", "nodeName": "n"}], "ports": [{"port": 1}]}]});
    let node = format!("subsets[0].addresses[0].nodeName: Invalid value: \"N\": {SUBDOMAIN}");
    check(
        "",
        "endpoints",
        sound,
        &[
            ("/subsets/0/addresses/0/nodeName", json!("N"), &[&node]),
            (
                "/subsets/0/ports/0",
                json!({}),
                &["subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
        ],
    );
    let sound = json!({"provisioner": "a.b/c", "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]});
    check(
        "storage.k8s.io",
        "storageclasses",
        sound,
        &[(
            "/allowedTopologies/0/matchLabelExpressions/0/values",
            json!(["a", "a"]),
            &["allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\""],
        )],
    );
}

#[test]
fn a_volume_has_one_source() {
    let sound = json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}]},
    });
    check(
        "",
        "pods",
        sound,
        &[
            (
                "/spec/volumes/0",
                json!({"name": "v", "emptyDir": {}, "gcePersistentDisk": {"pdName": "d"}}),
                &["spec.volumes[0].gcePersistentDisk: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec/volumes/0",
                json!({"name": "v", "gcePersistentDisk": {"pdName": ""}}),
                &["spec.volumes[0].persistentDisk.pdName: Required value"],
            ),
        ],
    );
    let sound = json!({
        "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "csi": {"driver": "d", "volumeHandle": "h"}, "gcePersistentDisk": null},
    });
    check(
        "",
        "persistentvolumes",
        sound,
        &[(
            "/spec/gcePersistentDisk",
            json!({"pdName": "d"}),
            &["spec.gcePersistentDisk: Forbidden: may not specify more than 1 volume type"],
        )],
    );
}

#[test]
fn a_directory_is_put_together_of_certificates_too() {
    let faults = |sources: Value| {
        let volume = json!({"name": "v", "projected": {"sources": sources}});
        let spec = json!({"containers": [{"name": "c", "image": "i"}], "volumes": [volume]});
        told("", "pods", &json!({"metadata": {"name": "p"}, "spec": spec}))
    };
    let secret = json!({"secret": {"name": "s", "items": [{"key": "k", "path": "a"}]}});
    let one = json!({"clusterTrustBundle": {"name": "example.com:foo:v1", "path": "b"}});
    let all =
        json!({"clusterTrustBundle": {"signerName": "example.com/foo", "labelSelector": {}, "path": "c"}});
    let own = json!({"podCertificate": {
        "signerName": "example.com/foo", "keyType": "ED25519", "maxExpirationSeconds": 3600,
        "keyPath": "d", "certificateChainPath": "e", "userAnnotations": {"acme.io/foo": "a b"},
    }});
    assert_eq!(faults(json!([secret, one, all, own])), [""; 0]);

    let changed = |source: &Value, place: &str, value: Value| {
        let mut source = source.clone();
        let (key, place) = place.split_once('.').unwrap();
        source[key][place] = value;
        faults(json!([secret, source]))
    };
    let taken = r#"spec.volumes[0].projected: Invalid value: "a": conflicting duplicate paths"#;
    for (source, place) in [
        (&one, "clusterTrustBundle.path"),
        (&own, "podCertificate.credentialBundlePath"),
        (&own, "podCertificate.keyPath"),
    ] {
        assert_eq!(changed(source, place, json!("a")), [taken], "{place}");
    }
    for (source, place, value, expected) in [
        (&one, "clusterTrustBundle.path", json!(""), ".path: Required value"),
        (
            &one,
            "clusterTrustBundle.path",
            json!("..x"),
            r#".path: Invalid value: "..x": must not start with '..'"#,
        ),
        (
            &one,
            "clusterTrustBundle.name",
            json!("foo:v1:"),
            r#".name: Invalid value: "foo:v1:": not a valid clustertrustbundlename: a lowercase RFC 1123 subdomain"#,
        ),
        (
            &one,
            "clusterTrustBundle.name",
            json!(null),
            ": Required value: either name or signerName must be specified",
        ),
        (&one, "clusterTrustBundle.signerName", json!("a.b/c"), ": Invalid value: {"),
        (
            &one,
            "clusterTrustBundle.labelSelector",
            json!({"matchLabels": {"a": "b"}}),
            r#".labelSelector: Invalid value: {"matchLabels":{"a":"b"}}: labelSelector must be unset if name is specified"#,
        ),
        (
            &all,
            "clusterTrustBundle.signerName",
            json!("foo"),
            r#".signerName: Invalid value: "foo": must be a fully qualified domain"#,
        ),
        (
            &all,
            "clusterTrustBundle.labelSelector",
            json!({"matchLabels": {"a": "b c"}}),
            r#".labelSelector.matchLabels: Invalid value: "b c""#,
        ),
        (
            &own,
            "podCertificate.signerName",
            json!("foo"),
            r#".signerName: Invalid value: "foo": must be a fully qualified domain"#,
        ),
        (
            &own,
            "podCertificate.keyType",
            json!("RSA"),
            r#".keyType: Unsupported value: "RSA": supported values: "RSA3072","#,
        ),
        (
            &own,
            "podCertificate.maxExpirationSeconds",
            json!(60),
            ".maxExpirationSeconds: Invalid value: 60: if provided, maxExpirationSeconds must be >= 3600",
        ),
        (
            &own,
            "podCertificate.maxExpirationSeconds",
            json!(7_862_401),
            ".maxExpirationSeconds: Invalid value: 7862401: if provided, maxExpirationSeconds must be <= 7862400",
        ),
        (
            &own,
            "podCertificate.userAnnotations",
            json!({"foo": ""}),
            r#".userAnnotations: Invalid value: "foo": must be a domain-prefixed key"#,
        ),
        (
            &own,
            "podCertificate.keyPath",
            json!("/d"),
            r#".keyPath: Invalid value: "/d": must be a relative path"#,
        ),
    ] {
        let told = changed(source, place, value);
        let kind = place.split('.').next().unwrap();
        let expected = format!("spec.volumes[0].projected.sources[1].{kind}{expected}");
        assert!(told.len() == 1 && told[0].starts_with(&expected), "{place}: {told:?}");
    }
    let nowhere = json!({"podCertificate": {"signerName": "example.com/foo", "keyType": "ED25519"}});
    assert_eq!(
        faults(json!([nowhere])),
        [
            "spec.volumes[0].projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath"
        ]
    );
    let both = json!({"secret": {"name": "s"}, "podCertificate": own["podCertificate"]});
    assert_eq!(
        faults(json!([both])),
        [
            "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source"
        ]
    );
}

#[test]
fn a_flow_schema_speaks_of_requests_that_there_are() {
    let sound = json!({
        "metadata": {"name": "f"},
        "spec": {
            "priorityLevelConfiguration": {"name": "p"},
            "rules": [{
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "n"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a", "/b/*"]}],
                "resourceRules": [{"verbs": ["get"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["a"]}],
            }],
        },
    });
    let path = "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value";
    let told: Vec<String> = [
        ("x", "must start with slash"),
        ("/a*b", "wildcard can only do suffix matching"),
        ("//", "must not contain double slash"),
    ]
    .iter()
    .map(|(text, why)| format!("{path}: {text:?}: {why}"))
    .collect();
    check(
        "flowcontrol.apiserver.k8s.io",
        "flowschemas",
        sound,
        &[
            ("/spec/rules/0/nonResourceRules/0/nonResourceURLs/0", json!("x"), &[&told[0]]),
            ("/spec/rules/0/nonResourceRules/0/nonResourceURLs/0", json!("/a*b"), &[&told[1]]),
            ("/spec/rules/0/nonResourceRules/0/nonResourceURLs/0", json!("//"), &[&told[2]]),
            (
                "/spec/rules/0/resourceRules/0/verbs",
                json!(["x"]),
                &[
                    r#"spec.rules[0].resourceRules[0].verbs: Unsupported value: ["x"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch""#,
                ],
            ),
        ],
    );
}
