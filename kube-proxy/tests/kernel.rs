//! The rules against the real kernel, in a network namespace of the test's own.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{net::Ipv4Addr, process::Command, time::Duration};

use kube_proxy::{
    ruleset::{self, ruleset},
    services::{ExternalIp, Port, Protocol, Target},
};
use net::iptables;
use nix::sched::{CloneFlags, unshare};

/// Runs `test` on a thread in a fresh network namespace; says so aloud where the machine forbids that.
fn in_own_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: cannot make a network namespace: {error}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    thread.join().unwrap();
}

/// Every combination of what rules depend on.
fn all_sorts_of_ports() -> Vec<Port> {
    let target = |index: u8| Target {
        ip: Ipv4Addr::new(10, 244, 0, index),
        port: 8080,
        is_local: index.is_multiple_of(2),
    };
    (0..64_u8)
        .map(|variant| Port {
            name: format!("shop/web-{variant}:http"),
            protocol: if variant & 1 == 0 { Protocol::Tcp } else { Protocol::Udp },
            cluster_ip: Ipv4Addr::new(10, 96, 1, variant),
            port: 80,
            node_port: (variant & 2 != 0).then_some(30_000 + u16::from(variant)),
            external_ips: vec![ExternalIp {
                ip: Ipv4Addr::new(192, 0, 2, variant),
                kind: "loadbalancer IP",
                source_ranges: vec!["203.0.113.0/24".into()],
            }],
            affinity: (variant & 4 != 0).then_some(Duration::from_secs(600)),
            external_local: variant & 8 != 0,
            internal_local: variant & 16 != 0,
            endpoints: if variant & 32 != 0 { (2..5).map(target).collect() } else { Vec::new() },
        })
        .collect()
}

#[test]
fn the_kernel_takes_every_sort_of_rule_twice_and_gives_all_of_them_back() {
    in_own_namespace(async || {
        let rules = ruleset(&all_sorts_of_ports(), "10.244.0.0/16");
        for _ in 0..2 {
            let own = rules.chains.iter().map(String::as_str);
            iptables::restore(&rules.restore_input(own)).await.unwrap();
            for (table, chain, rule) in ruleset::jumps() {
                iptables::ensure_first(table, chain, &rule).unwrap();
            }
        }
        let saved = iptables::save("nat").await.unwrap();
        let declared = iptables::chains(&saved).filter(|chain| ruleset::is_service_chain(chain)).count();
        assert_eq!(declared, rules.chains.len());

        let none = ruleset(&[], "10.244.0.0/16");
        iptables::restore(&none.restore_input(rules.chains.iter().map(String::as_str))).await.unwrap();
        let saved = iptables::save("nat").await.unwrap();
        assert_eq!(iptables::chains(&saved).filter(|chain| ruleset::is_service_chain(chain)).count(), 0);

        kube_proxy::cleanup().await.unwrap();
        let output = Command::new("iptables-save").output().unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains("KUBE-"));
    });
}
