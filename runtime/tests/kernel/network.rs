//! Pods on the pod network.

use std::time::{Duration, Instant};

use cri::RuntimeService;
use cri::v1::*;

use crate::survival::shim_of;
use crate::world::{ADDRESSES, in_world};

#[test]
fn pods_have_addresses_and_reach_each_other() {
    in_world(|world| async move {
        let world = world.with_pod_network().await;
        let network = world.config.network.clone().unwrap();

        let server = world.sandbox().await;
        let request = PodSandboxStatusRequest { pod_sandbox_id: server.clone(), verbose: false };
        let ip = world.runtime.pod_sandbox_status(request).await.unwrap().status.unwrap().network.unwrap().ip;
        assert!(ip.starts_with("10.244.3."), "{ip}");
        world.run(&server, world.script("server", "while true; do echo hello | nc -l -p 80; done")).await;
        let client = world.sandbox().await;
        let script = format!("for i in $(seq 100); do nc {ip} 80 && exit 0; sleep 0.05; done; exit 1");
        let outcome = world.outcome(&client, world.script("client", &script)).await;
        assert!(outcome.1.ends_with("stdout F hello\n"), "{outcome:?}");
        assert_eq!(outcome.0, 0);

        // The address outlives the server, and is free when its pod is gone.
        let world = world.restart().await;
        let request = PodSandboxStatusRequest { pod_sandbox_id: server.clone(), verbose: false };
        let told = world.runtime.pod_sandbox_status(request).await.unwrap().status.unwrap();
        assert_eq!((told.network.unwrap().ip, told.state), (ip, PodSandboxState::SandboxReady as i32));
        for sandbox in [server, client] {
            world.runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: sandbox }).await.unwrap();
        }
        // The links go with the pods' namespaces, and then the addresses are free.
        let addresses = world.directory.path().join(ADDRESSES);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let links = std::process::Command::new("busybox").args(["ip", "-o", "link"]).output().unwrap();
            let links = String::from_utf8_lossy(&links.stdout).into_owned();
            let noted = std::fs::read_dir(&addresses).unwrap().count();
            // Only the bridge is there.
            if links.lines().filter(|line| line.contains("coracle0")).count() == 1 && noted == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{noted} addresses are noted: {links}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        network.cleanup().await.unwrap();
        world
    });
}

#[test]
fn one_pod_that_cannot_be_read_keeps_no_address_of_others_taken() {
    in_world(|world| async move {
        let addresses = world.directory.path().join(ADDRESSES);
        let world = world.with_pod_network().await;
        let network = world.config.network.clone().unwrap();
        let (bad, gone) = (world.sandbox().await, world.sandbox().await);
        let noted = |sandbox: &str| {
            let notes = std::fs::read_dir(&addresses).unwrap().flatten();
            notes
                .filter_map(|note| std::fs::read_to_string(note.path()).ok())
                .any(|note| note.contains(sandbox))
        };
        assert!(noted(&bad) && noted(&gone));
        let pods = world.config.state.join("pods");
        let (config, aside) = (pods.join(&bad).join("config.pb"), pods.join(&bad).join("config.aside"));
        let world = world
            .restart_after(|_| {
                let shim = shim_of(&gone);
                nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
                std::fs::remove_dir_all(pods.join(&gone)).unwrap();
                std::fs::rename(&config, &aside).unwrap();
                // What the system refuses to read.
                std::fs::create_dir(&config).unwrap();
            })
            .await;
        assert!(noted(&bad) && !noted(&gone));
        let world = world
            .restart_after(|_| {
                std::fs::remove_dir(&config).unwrap();
                std::fs::rename(&aside, &config).unwrap();
            })
            .await;
        let request = RemovePodSandboxRequest { pod_sandbox_id: bad };
        world.runtime.remove_pod_sandbox(request).await.unwrap();
        network.cleanup().await.unwrap();
        world
    });
}
