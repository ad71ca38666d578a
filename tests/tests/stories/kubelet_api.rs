//! The kubelet's own port, as monitoring asks it: with a service account's token.

use e2e::{Cluster, eventually, machine::ADDRESS};

const ACCOUNTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: monitor}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: node-metrics}
rules: [{apiGroups: [""], resources: [nodes/metrics, nodes/stats], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: monitor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: node-metrics}
subjects: [{kind: ServiceAccount, name: monitor, namespace: default}]
---
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: c
      image: busybox:1.35
      command: [sleep, "1000"]
      readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
"#;

#[test]
fn a_token_opens_what_its_account_may_see_and_no_more() {
    let cluster = Cluster::start();
    cluster.apply(ACCOUNTS);
    cluster.kubectl("wait --for=condition=Ready pod/probed --timeout=60s").ok();
    let token = |account: &str| cluster.kubectl(&format!("create token {account}")).ok();
    let (monitor, nobody) = (token("monitor"), token("default"));
    let ask = |token: &str, path: &str| {
        let url = format!("https://{ADDRESS}:10250{path}");
        let header = format!("Authorization: Bearer {token}");
        cluster.machine.sh(&format!("curl -sk -m 5 -w '\\n%{{http_code}}' -H '{}' {url}", header.trim())).ok()
    };
    assert!(ask("", "/metrics").ends_with("Unauthorized\n\n401"), "{}", ask("", "/metrics"));
    assert!(ask("nonsense", "/metrics").ends_with("\n401"));
    let refused = ask(&nobody, "/metrics/resource");
    let user =
        "user=system:serviceaccount:default:default, verb=get, resource=nodes, subresource(s)=[metrics]";
    assert!(refused.contains(user) && refused.ends_with("\n403"), "{refused}");
    assert!(ask(&monitor, "/pods").ends_with("\n403"));

    let wanted = [
        ("/metrics/resource", "pod_memory_working_set_bytes{namespace=\"default\",pod=\"probed\"}"),
        (
            "/metrics/resource",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"default\",pod=\"probed\"}",
        ),
        ("/metrics/cadvisor", "image=\"busybox:1.35\""),
        ("/metrics/probes", "prober_probe_total{"),
        ("/stats/summary", "\"name\":\"probed\""),
    ];
    for (path, text) in wanted {
        eventually(&format!("{path} tells {text}"), || {
            let said = ask(&monitor, path);
            if said.contains(text) && said.ends_with("\n200") { Ok(()) } else { Err(said) }
        });
    }
}
