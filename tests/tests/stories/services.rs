//! Services in every way they can be reached.

use std::{net::UdpSocket, path::Path, time::Duration};

use e2e::{Cluster, eventually, machine::ADDRESS};

use crate::rollout::web;

const CLIENT: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: client, image: "busybox:1.35", command: [sleep, "10000"]}]
"#;

fn ready_client(cluster: &Cluster) {
    cluster.apply(CLIENT);
    cluster.kubectl("wait --for=condition=Ready pod/client --timeout=60s").ok();
}

/// What a command in the client pod prints, once it succeeds.
#[track_caller]
fn from_pod(cluster: &Cluster, command: &str) -> String {
    eventually(command, || {
        let said = cluster.kubectl_with(&["exec", "client", "--", "sh", "-c", command], "");
        if said.code == 0 { Ok(said.out) } else { Err(format!("{said:?}")) }
    })
}

#[test]
fn the_guestbook_answers_by_address_by_node_port_and_by_name() {
    let cluster = Cluster::start();
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/guestbook");
    cluster.kubectl(&format!("apply -f {}", manifests.display())).ok();
    for what in ["deployment/backend", "deployment/frontend", "daemonset/visitor"] {
        cluster.kubectl(&format!("-n guestbook rollout status {what} --timeout=60s")).ok();
    }
    let page = |url: String| eventually(&url, || cluster.fetch(&url));
    let address =
        cluster.get("service frontend -n guestbook")["spec"]["clusterIP"].as_str().unwrap().to_string();
    assert!(page(format!("http://{address}/")).contains("<h1>Guestbook</h1>"));
    assert!(page(format!("http://{ADDRESS}:30080/")).contains("<h1>Guestbook</h1>"));
    assert!(page("http://127.0.0.1:30080/".to_string()).contains("<h1>Guestbook</h1>"));
    eventually("the visitor has signed", || {
        let page = cluster.fetch(&format!("http://{ADDRESS}:30080/"))?;
        if page.contains("was here") { Ok(()) } else { Err(page) }
    });
    let by_name = "wget -q -O - http://frontend.guestbook.svc.cluster.local/";
    let said = cluster.kubectl(&format!("-n guestbook exec deployment/backend -- {by_name}")).ok();
    assert!(said.contains("<h1>Guestbook</h1>"), "{said}");
}

#[test]
fn a_service_on_an_added_range_is_reached_and_holds_the_range() {
    let cluster = Cluster::start();
    cluster.apply(
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: more}\nspec: {cidrs: [203.0.113.0/24]}\n",
    );
    cluster.kubectl("wait --for=condition=Ready servicecidr/more --timeout=60s").ok();
    cluster.apply(&web("web", 1));
    cluster.kubectl("expose deployment web --port=80 --target-port=http --cluster-ip=203.0.113.10").ok();
    ready_client(&cluster);
    assert!(!from_pod(&cluster, "wget -q -O - http://203.0.113.10/").is_empty());
    assert_eq!(cluster.get("ipaddress 203.0.113.10")["spec"]["parentRef"]["name"], "web");

    cluster.kubectl("delete servicecidr more --wait=false").ok();
    cluster.wait_for("servicecidr/more", "{.status.conditions[0].reason}", "Terminating");
    cluster.kubectl("delete service web").ok();
    cluster.kubectl("wait --for=delete servicecidr/more --timeout=60s").ok();
    let left = cluster.get("ipaddresses");
    assert!(!left.to_string().contains("203.0.113."), "{left}");
}

#[test]
fn connections_are_shared_out_stick_when_asked_to_and_come_back_to_the_pod_itself() {
    let cluster = Cluster::start();
    cluster.apply(&web("web", 3));
    cluster.kubectl("expose deployment web --port=80 --target-port=http").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    ready_client(&cluster);
    let ask = "wget -q -O - http://web";
    from_pod(&cluster, ask);
    let many = format!("for i in $(seq 60); do {ask}; done | sort -u | wc -l");
    assert_eq!(from_pod(&cluster, &many).trim(), "3", "sixty connections reach all three pods");

    let sticky = r#"{"spec":{"sessionAffinity":"ClientIP"}}"#;
    cluster.kubectl_with(&["patch", "service", "web", "-p", sticky], "").ok();
    eventually("one client sees one pod", || {
        let pods = from_pod(&cluster, &many);
        if pods.trim() == "1" { Ok(()) } else { Err(pods) }
    });

    cluster.kubectl("scale deployment/web --replicas=1").ok();
    eventually("one endpoint is left", || {
        let slices = cluster.kubectl("get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[*].addresses}").out;
        if slices.matches('[').count() == 1 { Ok(()) } else { Err(slices) }
    });
    let hairpin = "exec deployment/web -- wget -q -O - http://web";
    eventually("a pod reaches itself through its Service", || {
        let said = cluster.kubectl(hairpin);
        if said.code == 0 { Ok(()) } else { Err(said.err) }
    });
}

#[test]
fn a_service_without_endpoints_refuses_and_leaves_no_rule_when_it_is_gone() {
    let cluster = Cluster::start();
    cluster.kubectl("create service clusterip nobody --tcp=80").ok();
    let address = cluster.get("service nobody")["spec"]["clusterIP"].as_str().unwrap().to_string();
    eventually("connections are refused, not dropped", || {
        let said = cluster.machine.sh(&format!("busybox wget -q -O - http://{address}/"));
        if said.err.contains("refused") { Ok(()) } else { Err(format!("{said:?}")) }
    });
    assert!(cluster.machine.sh("iptables-save").out.contains("default/nobody"));
    cluster.kubectl("delete service nobody").ok();
    eventually("its rules are gone", || {
        let rules = cluster.machine.sh("iptables-save").out;
        if rules.contains("default/nobody") { Err(rules) } else { Ok(()) }
    });
}

#[test]
fn names_of_every_form_are_answered() {
    let cluster = Cluster::start();
    cluster.apply(&web("web", 1));
    cluster
        .kubectl("expose deployment web --port=80 --target-port=http --cluster-ip=None --name=headless")
        .ok();
    cluster.kubectl("create service externalname outside --external-name=db.example.com").ok();
    cluster.kubectl("rollout status deployment/web --timeout=60s").ok();
    ready_client(&cluster);
    let pod_ip = cluster.get("pods -l app=web")["items"][0]["status"]["podIP"].as_str().unwrap().to_string();
    let lookup = |name: &str, kind: &str| from_pod(&cluster, &format!("nslookup -type={kind} {name}"));
    assert!(lookup("headless.default.svc.cluster.local", "a").contains(&pod_ip));
    assert!(lookup("kubernetes.default.svc.cluster.local", "a").contains("10.96.0.1"));
    assert!(lookup("outside.default.svc.cluster.local", "cname").contains("db.example.com"));
    let dashed = pod_ip.replace('.', "-");
    assert!(lookup(&format!("{dashed}.default.pod.cluster.local"), "a").contains(&pod_ip));
    let located = lookup("_https._tcp.kubernetes.default.svc.cluster.local", "srv");
    assert!(located.contains("443 kubernetes.default.svc.cluster.local"), "{located}");
    // The search list of resolv.conf makes short names work.
    assert!(from_pod(&cluster, "wget -q -O - http://headless:8080").contains("web"));
}

#[test]
fn udp_reaches_endpoints_that_were_named_by_hand() {
    let cluster = Cluster::start();
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{ports: [{{port: 53, targetPort: 5353, protocol: UDP}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: echo, labels: {{kubernetes.io/service-name: echo}}}}
addressType: IPv4
ports: [{{port: 5353, protocol: UDP}}]
endpoints: [{{addresses: ["{ADDRESS}"]}}]
"#
    ));
    let address = cluster.get("service echo")["spec"]["clusterIP"].as_str().unwrap().to_string();
    cluster.machine.on_its_network(|| {
        let server = UdpSocket::bind((ADDRESS, 5353)).unwrap();
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        }
        client.connect((address.as_str(), 53)).unwrap();
        eventually("the answer comes back from the Service's address", || {
            client.send(b"ping").map_err(|error| error.to_string())?;
            let mut buffer = [0; 16];
            let (length, from) = server.recv_from(&mut buffer).map_err(|error| error.to_string())?;
            server.send_to(&buffer[..length], from).map_err(|error| error.to_string())?;
            client.recv(&mut buffer).map(drop).map_err(|error| error.to_string())
        });
    });
}

#[test]
fn a_host_port_leads_to_its_pod() {
    let cluster = Cluster::start();
    cluster.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: direct}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: tcp
      image: busybox:1.35
      command: [sh, -c, "mkdir /www; echo direct >/www/index.html; exec httpd -f -p 8080 -h /www"]
      ports: [{containerPort: 8080, hostPort: 8088}]
"#,
    );
    for address in [ADDRESS, "127.0.0.1"] {
        let url = format!("http://{address}:8088/");
        assert_eq!(eventually(&url, || cluster.fetch(&url)), "direct\n");
    }
}
