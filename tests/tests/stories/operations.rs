//! What operators do with kubectl: drain a node, hold a rollout, wait for this and that, look into pods and nodes,
//! hand out rights.

use e2e::{Cluster, Kubectl, eventually, kubectl::CURRENT};

fn node_of(cluster: &Cluster) -> String {
    cluster.kubectl("get nodes -o jsonpath={.items[0].metadata.name}").ok()
}

#[test]
fn a_node_is_drained_as_far_as_budgets_allow() {
    let cluster = Cluster::start();
    let kubectl = Kubectl::new(&cluster, CURRENT);
    let node = node_of(&cluster);
    kubectl.run("create deployment web --image=busybox:1.35 --replicas=2 -- sleep 1000").ok();
    kubectl.run("run alone --image=busybox:1.35 -- sleep 1000").ok();
    kubectl.run("wait --for=condition=Ready pod/alone --timeout=60s").ok();
    let dry = kubectl.run(&format!("drain {node} --force --ignore-daemonsets --dry-run=server")).ok();
    assert!(dry.contains("drained (server dry run)"), "{dry}");
    assert!(!kubectl.run("get nodes").ok().contains("SchedulingDisabled"));
    kubectl.run("create pdb web --selector=app=web --min-available=2").ok();
    kubectl.run("wait --for=jsonpath={.status.currentHealthy}=2 pdb/web --timeout=60s").ok();

    let careless = kubectl.run(&format!("drain {node} --ignore-daemonsets")).fails();
    assert!(careless.contains("cannot delete Pods that declare no controller"), "{careless}");
    let drain = format!("drain {node} --force --ignore-daemonsets --grace-period=1");
    let stopped = kubectl.run(&format!("{drain} --timeout=2s")).fails();
    assert!(
        stopped.contains("Cannot evict pod as it would violate the pod's disruption budget."),
        "{stopped}"
    );
    kubectl.run("wait --for=delete pod/alone --timeout=60s").ok();
    assert!(kubectl.run("get nodes").ok().contains("SchedulingDisabled"));
    assert_eq!(kubectl.run("get pods -l app=web -o name").ok().lines().count(), 2);

    kubectl.run("delete pdb web").ok();
    let drained = kubectl.run(&format!("{drain} --timeout=60s")).ok();
    assert!(drained.ends_with(&format!("node/{node} drained\n")), "{drained}");
    kubectl.run(&format!("uncordon {node}")).ok();
    kubectl.run("wait --for=condition=Available deployment/web --timeout=60s").ok();
}

#[test]
fn a_rollout_is_held_waited_for_and_looked_into() {
    let cluster = Cluster::start();
    let kubectl = Kubectl::new(&cluster, CURRENT);
    let node = node_of(&cluster);

    // A pod for one command, which goes with it.
    let told =
        kubectl.run("run once --rm -i --quiet --restart=Never --image=busybox:1.35 -- echo from the pod");
    assert!(told.clone().ok().contains("from the pod"), "{told:?}");
    assert!(kubectl.run("get pod once").fails().contains("not found"));

    // Waiting for what is not there yet, and for what is not there any more.
    let mut waiting = kubectl.child("wait --for=create deployment/web --timeout=60s");
    kubectl.run("create deployment web --image=busybox:1.35 -- sleep 1000").ok();
    assert!(waiting.wait().unwrap().success());
    kubectl.run("wait --for=jsonpath={.status.readyReplicas}=1 deployment/web --timeout=60s").ok();
    kubectl.run("wait --for=delete pod/nobody --timeout=5s").ok();
    let late = kubectl.run("wait --for=condition=Never deployment/web --timeout=1s").fails();
    assert!(late.contains("timed out waiting for the condition on deployments/web"), "{late}");

    // A held rollout changes nothing until it goes on.
    kubectl.run("rollout pause deployment/web").ok();
    kubectl.run("rollout restart deployment/web").fails();
    kubectl.run("set env deployment/web COLOR=red").ok();
    eventually("the change has been seen", || {
        let web = cluster.get("deployment web");
        let is_seen = web["status"]["observedGeneration"] == web["metadata"]["generation"];
        if is_seen { Ok(()) } else { Err(web["status"].to_string()) }
    });
    assert_eq!(kubectl.run("get rs -l app=web -o name").ok().lines().count(), 1);
    kubectl.run("rollout resume deployment/web").ok();
    kubectl.run("rollout status deployment/web --timeout=60s").ok();
    assert_eq!(kubectl.run("get rs -l app=web -o name").ok().lines().count(), 2);
    let second = kubectl.run("rollout history deployment/web --revision=2").ok();
    assert!(second.contains("COLOR:"), "{second}");

    // A copy of the pod, and the node, with other commands.
    let pod = kubectl.run("get pods -l app=web -o name --sort-by=.metadata.creationTimestamp").ok();
    let pod = pod.lines().last().unwrap();
    let copied = kubectl.run(&format!("debug {pod} --copy-to=copy --container=busybox -- sleep 500"));
    assert_eq!(copied.code, 0, "{copied:?}");
    kubectl.run("wait --for=condition=Ready pod/copy --timeout=60s").ok();
    assert!(kubectl.run("exec copy -- env").ok().contains("COLOR=red\n"));
    let hosts = std::fs::read_to_string("/etc/passwd").unwrap();
    let root = hosts.lines().next().unwrap();
    let seen = kubectl.run(&format!(
        "debug node/{node} --image=busybox:1.35 --attach --quiet -- head -n1 /host/etc/passwd"
    ));
    assert!(seen.clone().ok().contains(root), "{seen:?}");
}

#[test]
fn rights_limits_and_tokens_are_handed_out_by_command() {
    let cluster = Cluster::start();
    let kubectl = Kubectl::new(&cluster, CURRENT);
    let rights = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: looker, namespace: default}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lookers, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: looker}
subjects: [{kind: User, name: bob, apiGroup: rbac.authorization.k8s.io}]
"#;
    kubectl.run("create role looker --verb=list --resource=services").ok();
    assert_eq!(kubectl.run("auth can-i get pods --as=bob").code, 1);
    let made = kubectl.with("auth reconcile -f -", rights);
    assert!(made.err.contains("missing rules added"), "{made:?}");
    let rules = cluster.get("role looker")["rules"].to_string();
    assert!(rules.contains("services") && rules.contains("pods"), "the old ones stay: {rules}");
    let again = kubectl.with("auth reconcile -f -", rights);
    assert!(again.code == 0 && !again.err.contains("missing"), "{again:?}");
    assert_eq!(kubectl.run("auth can-i get pods --as=bob").ok(), "yes\n");
    let list = kubectl.run("auth can-i --list --as=bob").ok();
    assert!(list.lines().any(|line| line.starts_with("pods ") && line.ends_with("[get]")), "{list}");

    for made in [
        "role r --verb=get --resource=pods,pods/log",
        "clusterrole c --verb=get --non-resource-url=/x",
        "rolebinding b --role=r --serviceaccount=default:me",
        "clusterrolebinding cb --clusterrole=c --group=x",
        "serviceaccount me",
        "quota some --hard=pods=20",
        "priorityclass low --value=5",
        "pdb all --selector=app=web --max-unavailable=1",
        "ingress shop --rule=a.example.com/x=web:80",
        "cronjob yearly --image=busybox:1.35 --schedule=@yearly -- date",
        "service nodeport open --tcp=80",
        "secret docker-registry own --docker-username=a --docker-password=b",
        "job once --image=busybox:1.35 -- true",
        "namespace other",
        "deployment web --image=busybox:1.35 -- sleep 1000",
    ] {
        let said = kubectl.run(&format!("create {made}"));
        assert!(said.clone().ok().contains(" created"), "{made}: {said:?}");
    }
    let token = kubectl.run("create token me --duration=20m --audience=own").ok();
    assert_eq!(token.matches('.').count(), 2, "{token}");
    let short = kubectl.run("create token me --duration=1m").fails();
    assert!(short.contains("may not specify a duration less than 10 minutes"), "{short}");
    kubectl.run("autoscale deployment web --max=3 --cpu=50%").ok();
    kubectl.run("annotate deployment web seen=yes").ok();
    kubectl.run("patch deployment web --subresource=scale --type=merge -p {\"spec\":{\"replicas\":0}}").ok();
    assert_eq!(kubectl.run("get deployment web -o jsonpath={.spec.replicas}").ok(), "0");
    let expected = kubectl.run("scale deployment web --replicas=1 --current-replicas=5").fails();
    assert!(expected.contains("Expected replicas to be 5, was 0"), "{expected}");

    let dump = kubectl.run("cluster-info dump --namespaces=default").ok();
    for part in ["\"kind\": \"NodeList\"", "\"kind\": \"DeploymentList\"", "\"seen\": \"yes\""] {
        assert!(dump.contains(part), "{part}");
    }
    let wide = kubectl.run("api-resources -o wide --api-group=apps").ok();
    assert!(wide.contains("create,delete,deletecollection,get,list,patch,update,watch"), "{wide}");
}
