//! Containers by hand (`coracle ctr`), without a cluster and beside one.

use e2e::{Cluster, Machine, cluster::IMAGE, eventually};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server}
spec:
  containers:
    - name: main
      image: busybox:1.35
      command: [sh, -c, "mkdir /www; echo of the cluster >/www/index.html; exec httpd -f -p 8080 -h /www"]
"#;

#[test]
fn containers_by_hand_live_before_beside_and_after_a_cluster() {
    let cluster = Cluster::prepared(Machine::new(), &[]);
    cluster.import_image();
    let ctr = |args: &[&str]| cluster.coracle("ctr", args);
    assert_eq!(ctr(&["run", "--rm", IMAGE, "echo", "alone"]).ok(), "alone\n");
    ctr(&["run", "-d", "--name", "mine", IMAGE, "sleep", "4321"]).ok();

    cluster.up().ok();
    cluster.apply(POD);
    cluster.kubectl("wait --for=condition=Ready pod/server --timeout=60s").ok();
    let address = cluster.get("pod server")["status"]["podIP"].as_str().unwrap().to_string();
    let fetch = format!("wget -q -O - http://{address}:8080/");
    eventually("the pod answers the container", || {
        let said = ctr(&["exec", "mine", "sh", "-c", &fetch]);
        if said.out == "of the cluster\n" { Ok(()) } else { Err(said.err) }
    });
    assert_eq!(ctr(&["run", "--rm", IMAGE, "echo", "beside"]).ok(), "beside\n");
    // Neither takes the other's for what nobody answers for.
    assert!(!cluster.kubectl("get pods -A").ok().contains("mine"));
    assert!(!ctr(&["ps", "-a"]).ok().contains("server"));

    cluster.coracle("down", &["--grace=0"]).ok();
    assert!(ctr(&["ps"]).ok().contains("mine"), "it is none of the cluster's");
    assert_eq!(ctr(&["exec", "mine", "echo", "after"]).ok(), "after\n");
    assert_eq!(ctr(&["run", "--rm", IMAGE, "sh", "-c", "exit 3"]).code, 3);

    cluster.coracle("reset", &[]).ok();
    assert_eq!(cluster.processes(), Vec::<String>::new());
    let left = cluster.machine.sh("ip link; iptables-save").ok();
    assert!(!left.contains("ctr0") && !left.contains("CORACLE-CTR"), "{left}");
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_dockers_code() {
    let cluster = Cluster::prepared(Machine::new(), &[]);
    let said = cluster.coracle("ctr", &["run", "--no-such-flag", IMAGE]);
    assert_eq!(said.code, 125);
    assert!(said.err.contains("--no-such-flag"), "{}", said.err);
    let help = cluster.coracle("ctr", &["run", "--help"]);
    assert!(help.code == 0 && help.out.contains("--publish-all"), "{}", help.out);
}
