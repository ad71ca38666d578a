//! CustomResourceDefinitions as users handle them.

use e2e::{Cluster, eventually};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct]}
  versions:
    - name: v1
      served: true
      storage: true
      subresources:
        status: {}
        scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.labelSelector}
      additionalPrinterColumns:
        - {name: Schedule, type: string, jsonPath: .spec.cronSpec}
        - {name: Replicas, type: integer, jsonPath: .spec.replicas}
        - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
      schema:
        openAPIV3Schema:
          type: object
          description: A command that is run at given times.
          properties:
            spec:
              type: object
              description: What is wanted.
              required: [cronSpec]
              x-kubernetes-validations:
                - {rule: self.replicas <= 5, message: at most five replicas}
              properties:
                cronSpec: {type: string, pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'}
                replicas: {type: integer, minimum: 0, default: 1, description: How many run at once.}
                image: {type: string}
                notify:
                  type: object
                  description: Who is told.
                  properties: {mail: {type: string, description: An address.}}
            status:
              type: object
              properties: {replicas: {type: integer}, labelSelector: {type: string}}
"#;

fn cron_tab(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// What `kubectl apply` says about something bad.
fn apply_fails(cluster: &Cluster, yaml: &str) -> String {
    cluster.kubectl_with(&["apply", "-f", "-"], yaml).fails()
}

#[test]
fn a_definition_is_used_like_a_built_in_kind() {
    let cluster = Cluster::start();
    cluster.apply(DEFINITION);
    cluster.kubectl("wait --for=condition=Established --timeout=30s crd/crontabs.stable.example.com").ok();
    let definitions = cluster.kubectl("get crd").ok();
    assert!(definitions.contains("NAME") && definitions.contains("CREATED AT"), "{definitions}");
    let known = cluster.kubectl("api-resources --api-group=stable.example.com").ok();
    assert!(known.contains("crontabs") && known.contains("ct") && known.contains("CronTab"), "{known}");

    let explained = cluster.kubectl("explain crontab.spec").ok();
    assert!(
        explained.contains("What is wanted.") && explained.contains("How many run at once."),
        "{explained}"
    );
    let nested = cluster.kubectl("explain ct.spec.notify.mail").ok();
    assert!(nested.contains("An address."), "{nested}");

    assert_eq!(
        cluster.apply(&cron_tab("backup", "cronSpec: '* * * * */5', image: x")).trim(),
        "crontab.stable.example.com/backup created"
    );
    assert_eq!(
        cluster.apply(&cron_tab("backup", "cronSpec: '* * * * */5', image: x")).trim(),
        "crontab.stable.example.com/backup unchanged"
    );
    let table = cluster.kubectl("get ct").ok();
    let cells: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells[0], ["NAME", "SCHEDULE", "REPLICAS", "AGE"], "{table}");
    assert_eq!((cells[1][0], cells[1][6]), ("backup", "1"), "{table}");

    cluster.kubectl("scale ct/backup --replicas=3").ok();
    assert_eq!(cluster.get("ct backup")["spec"]["replicas"], 3);
    let refused = cluster.kubectl("scale ct/backup --replicas=9").fails();
    assert!(refused.contains("at most five replicas"), "{refused}");
    cluster.kubectl(r#"patch ct backup --type=merge -p {"spec":{"image":"y"}}"#).ok();
    cluster.kubectl(r#"patch ct backup --subresource=status --type=merge -p {"status":{"replicas":3}}"#).ok();
    assert_eq!(cluster.get("ct backup")["status"]["replicas"], 3);
    let refused = apply_fails(&cluster, &cron_tab("wrong", "cronSpec: often"));
    assert!(refused.contains("spec.cronSpec in body should match"), "{refused}");
    let strict = apply_fails(&cluster, &cron_tab("wrong", "cronSpec: '* * * * *', nope: 1"));
    assert!(strict.contains(r#"unknown field "spec.nope""#), "{strict}");

    cluster.kubectl("delete ct backup").ok();
    assert!(cluster.kubectl("get ct").ok().is_empty());
}

#[test]
fn custom_resources_go_with_their_namespace_their_owner_and_their_definition() {
    let cluster = Cluster::start();
    cluster.apply(DEFINITION);
    cluster.kubectl("wait --for=condition=Established --timeout=30s crd/crontabs.stable.example.com").ok();
    cluster.kubectl("create namespace doomed").ok();
    let there = cron_tab("there", "cronSpec: '* * * * *'")
        .replace("{name: there}", "{name: there, namespace: doomed}");
    cluster.apply(&there);
    cluster.kubectl("delete namespace doomed --timeout=60s").ok();
    assert!(!cluster.kubectl("get ct -A").ok().contains("there"));

    cluster.apply(&cron_tab("owner", "cronSpec: '* * * * *'"));
    let uid = cluster.get("ct owner")["metadata"]["uid"].as_str().unwrap().to_string();
    cluster.apply(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: owned, ownerReferences: [{{apiVersion: stable.example.com/v1, kind: CronTab, name: owner, uid: {uid}}}]}}\n"
    ));
    cluster.kubectl("delete ct owner").ok();
    eventually("what it owned is gone", || {
        let left = cluster.kubectl("get configmap owned --ignore-not-found");
        if left.out.is_empty() && left.code == 0 { Ok(()) } else { Err(left.out) }
    });

    cluster.apply(&cron_tab("last", "cronSpec: '* * * * *'"));
    cluster.kubectl("delete crd crontabs.stable.example.com --timeout=60s").ok();
    // kubectl may remember the kind for a while; the server does not.
    let gone = cluster.kubectl("get crontabs").fails();
    assert!(gone.contains("NotFound") || gone.contains("doesn't have a resource type"), "{gone}");
}

#[test]
fn roles_say_who_may_do_what_with_custom_resources() {
    let cluster = Cluster::start();
    cluster.apply(DEFINITION);
    cluster.kubectl("wait --for=condition=Established --timeout=30s crd/crontabs.stable.example.com").ok();
    cluster.apply(&cron_tab("backup", "cronSpec: '* * * * *'"));
    let refused = cluster.kubectl("get crontabs --as=alice").fails();
    assert!(
        refused.contains(
            r#"User "alice" cannot list resource "crontabs" in API group "stable.example.com" in the namespace "default""#
        ),
        "{refused}"
    );
    cluster.kubectl("create role reader --verb=get,list --resource=crontabs.stable.example.com").ok();
    cluster.kubectl("create rolebinding alice --role=reader --user=alice").ok();
    assert!(cluster.kubectl("get crontabs --as=alice").ok().contains("backup"));
    let refused = cluster.kubectl("delete crontab backup --as=alice").fails();
    assert!(refused.contains(r#"cannot delete resource "crontabs""#), "{refused}");
    assert!(cluster.kubectl("get crontabs -A --as=alice").fails().contains("at the cluster scope"));

    // What a role gives to all who may edit, it gives to them.
    cluster.apply(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: crontabs-edit, labels: {rbac.authorization.k8s.io/aggregate-to-edit: 'true'}}
rules: [{apiGroups: [stable.example.com], resources: [crontabs], verbs: ['*']}]
",
    );
    cluster.kubectl("create rolebinding bob --clusterrole=edit --user=bob").ok();
    cluster.kubectl("delete crontab backup --as=bob").ok();
    let status = "auth can-i update crontabs.stable.example.com --subresource=status --as=bob";
    assert_eq!(cluster.kubectl(status).out.trim(), "no");
}
