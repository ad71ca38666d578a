//! Talking to running pods: logs, exec, attach, cp, port-forward.

use std::io::{BufRead, BufReader, Read, Write};

use e2e::{Cluster, eventually};

const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: talker
      image: busybox:1.35
      command: [sh, -c, "for i in 1 2 3; do echo line $i; done; echo oops >&2; while true; do [ -e /tmp/more ] && { echo more; rm /tmp/more; }; sleep 0.1; done"]
    - {name: other, image: "busybox:1.35", command: [sh, -c, "echo other; exec sleep 1000"]}
"#;

fn talker() -> Cluster {
    let cluster = Cluster::start();
    cluster.apply(TALKER);
    cluster.kubectl("wait --for=condition=Ready pod/talker --timeout=60s").ok();
    cluster
}

#[test]
fn logs_are_read_followed_cut_and_stamped() {
    let cluster = talker();
    let all = eventually("everything is said", || {
        let out = cluster.kubectl("logs talker -c talker").out;
        if out.contains("oops") { Ok(out) } else { Err(out) }
    });
    assert!(all.starts_with("line 1\nline 2\nline 3\n"), "{all}");
    assert_eq!(cluster.kubectl("logs talker -c talker --tail=2").ok().lines().count(), 2);
    assert_eq!(cluster.kubectl("logs talker -c talker --since=1h").ok(), all);
    let stamped = cluster.kubectl("logs talker -c talker --timestamps").ok();
    assert!(stamped.lines().all(|line| line.starts_with("20") && line.contains("Z ")), "{stamped}");
    assert!(
        cluster.kubectl("logs talker --all-containers --prefix").ok().contains("[pod/talker/other] other")
    );

    // From the start, not from the end: the new line may be written before kubectl has begun to follow.
    let mut follow = cluster.kubectl_child(&["logs", "-f", "talker", "-c", "talker"]);
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    cluster.kubectl("exec talker -c talker -- touch /tmp/more").ok();
    let new = lines.map(Result::unwrap).nth(all.lines().count());
    assert_eq!(new.as_deref(), Some("more"));
    follow.kill().unwrap();
    follow.wait().unwrap();

    let wrong = cluster.kubectl("logs talker -c nobody").fails();
    assert!(wrong.contains("container nobody is not valid for pod talker"), "{wrong}");
}

#[test]
fn exec_passes_input_output_and_the_exit_code() {
    let cluster = talker();
    assert_eq!(cluster.kubectl("exec talker -- echo hello").ok(), "hello\n");
    let failed =
        cluster.kubectl_with(&["exec", "talker", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], "");
    assert_eq!((failed.code, failed.out.as_str()), (7, "out\n"));
    assert!(failed.err.contains("err\n"), "{}", failed.err);
    let large: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    let echoed = cluster.kubectl_with(&["exec", "-i", "talker", "--", "cat"], &large).ok();
    assert_eq!(echoed.len(), large.len(), "no byte is lost at the end");
    assert_eq!(echoed, large);
    let missing = cluster.kubectl("exec talker -- no-such-program");
    assert_ne!(missing.code, 0);
    assert!(missing.err.contains("no-such-program"), "{}", missing.err);
    // A terminal: `script` gives kubectl one.
    let path = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".into());
    let tty = format!(
        "KUBECONFIG={}/kubeconfig script -qec '{path} exec -it talker -- sh -c \"tty; stty size\"' /dev/null </dev/null",
        cluster.data_dir().display()
    );
    let said = cluster.machine.sh(&tty);
    assert!(said.out.contains("/dev/pts/"), "{said:?}");
}

#[test]
fn attach_joins_a_running_container() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: echo, image: "busybox:1.35", stdin: true, command: [sh, -c, "while read line; do echo got $line; done"]}]
"#,
    );
    cluster.kubectl("wait --for=condition=Ready pod/echo --timeout=60s").ok();
    let mut attach = cluster.kubectl_child(&["attach", "-i", "echo"]);
    attach.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    let mut lines = BufReader::new(attach.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "got one");
    attach.kill().unwrap();
    attach.wait().unwrap();
}

#[test]
fn files_are_copied_both_ways() {
    let cluster = talker();
    let (from, back) = (cluster.dir().join("from"), cluster.dir().join("back"));
    let contents: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(&from, &contents).unwrap();
    cluster.kubectl(&format!("cp {} talker:/tmp/copy", from.display())).ok();
    cluster.kubectl(&format!("cp talker:/tmp/copy {}", back.display())).ok();
    assert_eq!(std::fs::read(back).unwrap(), contents);
}

#[test]
fn a_port_is_forwarded() {
    let cluster = Cluster::start();
    cluster.apply(&crate::rollout::web("web", 1));
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    let mut forward = cluster.kubectl_child(&["port-forward", "deployment/web", "18080:8080"]);
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("Forwarding from 127.0.0.1:18080"));
    for _ in 0..3 {
        assert!(cluster.fetch("http://127.0.0.1:18080/").unwrap().starts_with("web-"));
    }
    forward.kill().unwrap();
    let mut rest = String::new();
    forward.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    forward.wait().unwrap();
    assert!(!rest.contains("error"), "{rest}");
}
