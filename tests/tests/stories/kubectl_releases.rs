//! kubectl of two releases, an old one and the current one: both find what they find at upstream's server.

use e2e::{Cluster, Kubectl, eventually, kubectl::CURRENT};

const OLD: &str = "29";

/// One of each of the kinds that people write most.
const OBJECTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
data: {password: aHVudGVyMg==}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 0
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: "busybox:1.35"}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: yearly}
spec:
  schedule: "0 0 1 1 *"
  timeZone: Europe/Berlin
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: "busybox:1.35"}]}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 1, selector: {matchLabels: {app: nobody}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: quiet}
spec: {podSelector: {matchLabels: {app: nobody}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {rules: [{host: shop.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: manual, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: some}
spec: {hard: {pods: "10", requests.cpu: "4"}}
---
apiVersion: v1
kind: LimitRange
metadata: {name: small}
spec: {limits: [{type: Container, defaultRequest: {cpu: 10m}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: gpu}
spec: {devices: {requests: [{name: one, exactly: {deviceClassName: gpu.example.com, allocationMode: ExactCount, count: 1}}]}}
"#;

/// Everything that can be listed, for one table each.
fn listable(kubectl: &Kubectl) -> String {
    let names = kubectl.run("api-resources --verbs=list -o name").ok();
    names.lines().collect::<Vec<_>>().join(",")
}

fn reads_and_writes(release: &str) {
    let cluster = Cluster::start();
    let kubectl = Kubectl::new(&cluster, release);
    assert!(kubectl.run("version").ok().contains("Server Version: v1.37"));
    assert!(kubectl.run("cluster-info").ok().contains("Kubernetes control plane"));
    assert_eq!(kubectl.run("auth can-i create pods").ok(), "yes\n");
    assert!(kubectl.run("auth can-i --list").ok().contains("[*]"));
    let explained = kubectl.run("explain deployment.spec.strategy.rollingUpdate").ok();
    assert!(explained.contains("FIELD: rollingUpdate <RollingUpdateDeployment>"), "{explained}");
    assert!(explained.contains("maxSurge"), "{explained}");
    assert!(kubectl.run("explain resourceclaims.spec.devices --recursive").ok().contains("deviceClassName"));

    // Declared, looked at in every way, the same when declared again.
    let applied = kubectl.with("apply -f -", OBJECTS).ok();
    assert_eq!(applied.matches(" created").count(), OBJECTS.matches("\nkind: ").count(), "{applied}");
    let described = kubectl.with("describe -f -", OBJECTS).ok();
    for said in ["hunter2", "0 0 1 1 *", "Min replicas:", "Except: 10.1.0.0/16", "shop.example.com"] {
        assert_eq!(described.contains(said), said != "hunter2", "{said}: {described}");
    }
    assert!(kubectl.with("get -o wide -f -", OBJECTS).ok().contains("NAME"));
    assert_eq!(kubectl.with("diff -f -", OBJECTS).code, 0);
    assert_eq!(kubectl.with("diff -f -", &OBJECTS.replace("blue", "red")).code, 1);
    let again = kubectl.with("apply -f -", &OBJECTS.replace("blue", "red")).ok();
    assert!(again.contains("configmap/settings configured\n"), "{again}");
    // kubectl patches a budget's selector whether or not it differs.
    assert_eq!(again.matches(" configured").count(), 2, "{again}");
    kubectl.with("apply --server-side --force-conflicts -f -", OBJECTS).ok();
    kubectl.with("replace --force -f -", OBJECTS).ok();
    let all = kubectl.run(&format!("get {} -A -o wide --show-labels", listable(&kubectl)));
    assert!(all.out.contains("resourceclaim.resource.k8s.io/gpu"), "{}{}", all.out, all.err);
    assert_eq!(all.code, 0, "{}", all.err);

    // Something that runs.
    kubectl.run("create deployment web --image=busybox:1.35 -- sleep 1000").ok();
    kubectl.run("rollout status deployment/web --timeout=60s").ok();
    kubectl.run("set env deployment/web COLOR=red").ok();
    kubectl.run("rollout status deployment/web --timeout=60s").ok();
    kubectl.run("rollout undo deployment/web").ok();
    kubectl.run("rollout status deployment/web --timeout=60s").ok();
    assert!(kubectl.run("rollout history deployment/web").ok().contains("REVISION"));
    assert_eq!(kubectl.run("exec deploy/web -- echo hello").ok(), "hello\n");
    assert!(kubectl.run("events --for deployment/web").ok().contains("ScalingReplicaSet"));
    assert!(kubectl.run("describe pods -l app=web").ok().contains("Started"));
    eventually("what pods use is known", || {
        let said = kubectl.run("top pods --containers");
        if said.out.contains("busybox") { Ok(()) } else { Err(said.out + &said.err) }
    });
    let nodes = kubectl.run("top nodes").ok();
    assert!(
        nodes.starts_with("NAME") && nodes.lines().count() == 2 && !nodes.contains("<unknown>"),
        "{nodes}"
    );
    kubectl.run("delete deployment/web --timeout=60s").ok();
    kubectl.with("delete -f -", OBJECTS).ok();
}

#[test]
fn an_old_kubectl_is_at_home() {
    reads_and_writes(OLD);
}

#[test]
fn the_current_kubectl_is_at_home() {
    reads_and_writes(CURRENT);
}

#[test]
fn the_current_kubectl_describes_an_object_of_every_kind() {
    let cluster = Cluster::start();
    let kubectl = Kubectl::new(&cluster, CURRENT);
    let made = kubectl.with("create -f -", include_str!("data/every-kind.yaml")).ok();
    let made = made.lines().filter(|line| line.ends_with(" created")).count();
    assert!(made > 40, "{made}");
    kubectl.run("wait --for=condition=Established --timeout=30s crd/everies.example.com").ok();
    let custom = "{apiVersion: example.com/v1, kind: Every, metadata: {name: every}, spec: {a: [b]}}";
    kubectl.with("create -f -", custom).ok();
    let described = kubectl.run(&format!("describe -A {}", listable(&kubectl)));
    let faults: Vec<&str> = described.err.lines().filter(|line| !line.starts_with("Warning: v1 ")).collect();
    assert!(faults.is_empty(), "{faults:?}");
    let text = described.clone().ok();
    let is_ours =
        |line: &&str| line.strip_prefix("Name:").is_some_and(|name| name.trim().starts_with("ever"));
    let shown = text.lines().filter(is_ours).count();
    assert!(shown > made, "of {made} objects and one, {shown} were described:\n{text}");
}
