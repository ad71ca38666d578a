//! The pod network against the real kernel, in a network namespace of the test's own.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{collections::HashSet, fs::File, net::Ipv4Addr, process::Command};

use net::{Chains, Config, PodNetwork, PortMapping, Protocol};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` on a thread in a fresh network namespace; says so aloud where the machine forbids that.
fn in_own_namespace(test: impl AsyncFnOnce(PodNetwork) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: cannot make a network namespace: {error}");
            return;
        }
        let config = Config {
            bridge: "coracle0".into(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            state_dir: dir.path().join("addresses"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let network = PodNetwork::new(config).unwrap();
            network.set_pod_cidr("10.244.0.0/24".parse().unwrap()).await.unwrap();
            test(network).await;
        });
    });
    thread.join().unwrap();
}

/// A network namespace that lives as long as the descriptor.
fn new_namespace() -> File {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap()
}

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn run_in(namespace: &File, command: &str) -> bool {
    let namespace = namespace.try_clone().unwrap();
    let command = command.to_string();
    std::thread::spawn(move || {
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        Command::new("sh").args(["-c", &command]).output().unwrap().status.success()
    })
    .join()
    .unwrap()
}

#[test]
fn the_next_pod_with_an_address_is_reached_at_once() {
    in_own_namespace(async |network| {
        // A block with room for one pod.
        network.set_pod_cidr("10.244.1.0/30".parse().unwrap()).await.unwrap();
        for sandbox in ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"] {
            let namespace = new_namespace();
            let pod = network.attach(sandbox, &namespace, Vec::new()).await.unwrap();
            assert_eq!(pod.ip, Ipv4Addr::new(10, 244, 1, 2));
            // A neighbour that is remembered wrongly is not reached for eight seconds and more.
            let said = run(&format!("busybox ping -c3 -W1 {}", pod.ip));
            assert!(!said.contains(" 0 packets received"), "{sandbox}: {said}");
            network.detach(sandbox).await.unwrap();
        }
        network.cleanup().await.unwrap();
    });
}

#[test]
fn two_pods_get_addresses_reach_each_other_and_leave_nothing() {
    in_own_namespace(async |network| {
        let (a, b) = (new_namespace(), new_namespace());
        let first = network.attach("aaaaaaaaaaaaaaaa", &a, Vec::new()).await.unwrap();
        let second = network.attach("bbbbbbbbbbbbbbbb", &b, Vec::new()).await.unwrap();
        assert_eq!(first.ip, Ipv4Addr::new(10, 244, 0, 2));
        assert_eq!(second.ip, Ipv4Addr::new(10, 244, 0, 3));
        let again = network.attach("aaaaaaaaaaaaaaaa", &a, Vec::new()).await;
        assert_eq!(again.unwrap().ip, first.ip, "a repeat keeps the address");

        let listen = "busybox nc -l -p 8080 -e echo hello >/dev/null 2>&1 &";
        assert!(run_in(&b, listen));
        let fetch = format!(
            "for i in 1 2 3 4 5 6 7 8 9 10; do busybox nc -w 1 {} 8080 </dev/null | grep -q hello && exit 0; done; exit 1",
            second.ip
        );
        assert!(run_in(&a, &fetch), "a pod cannot reach its neighbour");
        assert!(run_in(&a, &format!("busybox ping -c1 -W1 {}", first.gateway)));

        network.retain(&HashSet::from(["bbbbbbbbbbbbbbbb".to_string()])).await.unwrap();
        assert!(!run("ip -br link").contains("vethaaaaaaaaaaa"));
        network.cleanup().await.unwrap();
        assert!(!run("ip -br link").contains("coracle0"), "{}", run("ip -br link"));
        assert!(!run("iptables-save").contains("IP-MASQ-AGENT"));
    });
}

#[test]
fn addresses_in_use_are_known_after_a_restart() {
    in_own_namespace(async |network| {
        let namespace = new_namespace();
        let first = network.attach("cccccccccccccccc", &namespace, Vec::new()).await.unwrap();
        let config = network.config().clone();
        drop(network);
        let restarted = PodNetwork::new(config).unwrap();
        restarted.set_pod_cidr("10.244.0.0/24".parse().unwrap()).await.unwrap();
        let other = new_namespace();
        let second = restarted.attach("dddddddddddddddd", &other, Vec::new()).await.unwrap();
        assert_ne!(first.ip, second.ip);
    });
}

#[test]
fn a_pod_that_comes_before_the_nodes_block_waits_for_it() {
    in_own_namespace(async |network| {
        let mut config = network.config().clone();
        config.state_dir.push("early");
        let early = PodNetwork::new(config).unwrap();
        let namespace = new_namespace();
        let cidr = "10.244.1.0/24".parse().unwrap();
        let attached =
            tokio::join!(early.attach("eeeeeeeeeeeeeeee", &namespace, Vec::new()), early.set_pod_cidr(cidr))
                .0;
        assert_eq!(attached.unwrap().ip, Ipv4Addr::new(10, 244, 1, 2));
    });
}

#[test]
fn two_processes_hand_out_one_block() {
    in_own_namespace(async |_cluster| {
        let dir = tempfile::tempdir().unwrap();
        let chains = Chains { masquerade: "T-MASQ", host_ports: "T-PORTS", forward: "T-FORWARD" };
        let open = async || {
            let config = Config {
                bridge: "test0".into(),
                cluster_cidr: "10.3.0.0/24".parse().unwrap(),
                state_dir: dir.path().join("addresses"),
            };
            let network = PodNetwork::shared(config, chains).unwrap();
            network.set_pod_cidr("10.3.0.0/24".parse().unwrap()).await.unwrap();
            network
        };
        let (one, two) = (open().await, open().await);
        let port = |container_port| {
            let protocol = net::Protocol::Tcp;
            vec![PortMapping { protocol, host_port: 8080, container_port, host_ip: None }]
        };
        let first = one.attach("aaaaaaaaaaaa", &new_namespace(), port(80)).await.unwrap();
        let second = two.attach("bbbbbbbbbbbb", &new_namespace(), Vec::new()).await.unwrap();
        assert_ne!(first.ip, second.ip);
        let taken = two.attach("cccccccccccc", &new_namespace(), port(81)).await.unwrap_err();
        assert_eq!(taken.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
        // Either gives up what the other handed out.
        two.detach("aaaaaaaaaaaa").await.unwrap();
        two.attach("cccccccccccc", &new_namespace(), port(81)).await.unwrap();
        one.detach("bbbbbbbbbbbb").await.unwrap();
        let rules = run("iptables-save");
        assert!(rules.contains("-A T-PORTS -p tcp -m tcp --dport 8080 -j DNAT"), "{rules}");
        assert!(rules.contains(":KUBE-HOSTPORTS"), "the cluster's chains stay: {rules}");
        one.cleanup().await.unwrap();
        let left = run("iptables-save; ip link");
        assert!(!left.contains("T-") && !left.contains("test0"), "{left}");
    });
}

#[test]
fn the_loopback_reaches_host_ports_and_is_not_reached_by_pods() {
    in_own_namespace(async |network| {
        let pod = new_namespace();
        run("ip link set lo up");
        let (protocol, container_port) = (Protocol::Tcp, 8080);
        let ports = vec![PortMapping { protocol, host_port: 8081, container_port, host_ip: None }];
        let address = network.attach("aaaaaaaaaaaaaaaa", &pod, ports).await.unwrap();
        let ask = |port: u16| format!("busybox nc -w 1 127.0.0.1 {port} </dev/null 2>&1 | grep -q hello");
        let wait =
            |port: u16| run(&format!("timeout 10 sh -c 'until {}; do :; done' && echo hello", ask(port)));
        assert!(run_in(&pod, "timeout 20 busybox nc -ll -p 8080 -e echo hello >/dev/null 2>&1 &"));
        assert_eq!(wait(8081), "hello\n");

        // A pod that has taken its own loopback away sends what is meant for it to the node.
        let gateway = address.gateway;
        let pretend = "ip addr del 127.0.0.1/8 dev lo && echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet";
        assert!(run_in(&pod, &format!("{pretend} && ip route add 127.0.0.1 via {gateway}")));
        run("timeout 20 busybox nc -ll -p 8082 -e echo hello >/dev/null 2>&1 &");
        assert_eq!(wait(8082), "hello\n");
        assert!(!run_in(&pod, &ask(8082)), "a service on the node's loopback is open to pods");
        run("iptables -F CORACLE-FORWARD");
        assert!(run_in(&pod, &ask(8082)), "the rule is what stops it");
        network.cleanup().await.unwrap();
    });
}
