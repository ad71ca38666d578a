//! Networks and ports.

use crate::world::{IMAGE, in_world, shell};

#[test]
fn containers_reach_each_other_and_ports_lead_in() {
    in_world(|world| {
        let serve = "while true; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nserved' | nc -l -p 80; done";
        let id = world.detached(&["--name", "server", "-p", "18080:80"], serve);
        let known: serde_json::Value = serde_json::from_str(&world.ok(&["inspect", &id])).unwrap();
        let address = known[0]["NetworkSettings"]["IPAddress"].as_str().unwrap().to_owned();
        let fetch = format!("wget -q -O - http://{address}/");
        world.until("an answer", || world.run(&["run", "--rm", IMAGE, "sh", "-c", &fetch]).out == "served\n");
        assert_eq!(world.ok(&["port", "server"]), "80/tcp -> 0.0.0.0:18080\n");
        assert_eq!(world.ok(&["port", "server", "80"]), "0.0.0.0:18080\n");
        assert!(world.ok(&["ps"]).contains("0.0.0.0:18080->80/tcp"));
        let gateway = known[0]["NetworkSettings"]["Gateway"].as_str().unwrap();
        let fetch = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {gateway} 18080");
        world.until("an answer by the port", || {
            shell(&fetch).ends_with(
                "served
",
            )
        });
        let taken = world.run(&["run", "--rm", "-p", "18080:81", IMAGE, "true"]);
        assert_eq!(taken.code, 125);
        assert!(taken.err.contains("Bind for 0.0.0.0:18080 failed: port is already allocated"), "{taken:?}");
        // Another one in the same network has the same address, and its own life.
        let joined = [
            "run",
            "--rm",
            "--network",
            "container:server",
            IMAGE,
            "sh",
            "-c",
            "ip addr show eth0; hostname",
        ];
        assert!(world.ok(&joined).contains(&address));
        world.ok(&["rm", "-f", "server"]);
        assert!(!shell("iptables-save").contains("18080"));
        // All that the image exposes, at ports of our choice.
        world.detached(&["-P", "--name", "exposed"], "sleep 1000");
        assert!(world.ok(&["port", "exposed"]).starts_with("80/tcp -> 0.0.0.0:"));
    });
}

#[test]
fn a_container_may_have_the_machines_network_or_none() {
    in_world(|world| {
        let script = "ls /sys/class/net; readlink /proc/self/ns/net";
        let host = world.ok(&["run", "--rm", "--network", "host", IMAGE, "sh", "-c", script]);
        let here = shell("readlink /proc/self/ns/net");
        assert!(host.ends_with(&here), "{host} is not {here}");
        let none = world.ok(&[
            "run",
            "--rm",
            "--network",
            "none",
            IMAGE,
            "sh",
            "-c",
            "ip -o link | wc -l; ip -o addr | grep -c eth0 || true",
        ]);
        assert!(none.ends_with("0\n"), "{none}");
    });
}
