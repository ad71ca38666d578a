//! Who somebody is and what they may, as kubectl tells it: certificates by request, tokens, roles, and what is written down
//! about all that.

use e2e::{Cluster, eventually};
use serde_json::Value;

const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- {level: None}
";
const ENCRYPTION: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}
  - identity: {}
";

/// Asks for a certificate for `subject` with openssl and kubectl, has it approved, and returns the file with the
/// certificate.
fn certificate(cluster: &Cluster, name: &str, subject: &str) -> String {
    let dir = cluster.dir().display().to_string();
    let make = format!(
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '{subject}' -keyout {dir}/{name}.key -out {dir}/{name}.csr"
    );
    cluster.machine.sh(&make).ok();
    let request = cluster.machine.sh(&format!("base64 -w0 {dir}/{name}.csr")).ok();
    cluster.apply(&format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\n\
         spec: {{request: {request}, signerName: kubernetes.io/kube-apiserver-client, expirationSeconds: 86400, usages: [client auth]}}\n"
    ));
    cluster.kubectl(&format!("certificate approve {name}")).ok();
    let read = format!("get csr {name} -o jsonpath={{.status.certificate}}");
    eventually("the certificate is there", || match cluster.kubectl(&read).out {
        text if text.is_empty() => Err("no certificate".to_string()),
        text => {
            cluster.machine.sh(&format!("echo {text} | base64 -d > {dir}/{name}.crt")).ok();
            Ok(())
        }
    });
    format!("{dir}/{name}")
}

#[test]
fn a_certificate_by_request_makes_a_user_with_the_roles_of_its_groups() {
    let cluster = Cluster::start();
    let files = certificate(&cluster, "ann", "/O=dev/O=ops/CN=ann");
    let credentials = format!("--client-certificate={files}.crt --client-key={files}.key");
    cluster.kubectl(&format!("config set-credentials ann {credentials}")).ok();
    let own = cluster.kubectl("config view --minify -o jsonpath={.clusters[0].name}").ok();
    cluster.kubectl(&format!("config set-context ann --cluster={own} --user=ann")).ok();
    let as_ann = |words: &str| cluster.kubectl(&format!("--context=ann {words}"));
    let who: Value = serde_json::from_str(&as_ann("auth whoami -o json").ok()).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "ann");
    assert_eq!(
        who["status"]["userInfo"]["groups"],
        serde_json::json!(["dev", "ops", "system:authenticated"])
    );

    as_ann("get pods").fails();
    cluster.kubectl("create rolebinding readers --clusterrole=view --group=ops").ok();
    as_ann("get pods").ok();
    assert_eq!(as_ann("auth can-i get pods").ok().trim(), "yes");
    assert!(as_ann("auth can-i --list").ok().contains("selfsubjectreviews.authentication.k8s.io"));
    let refused = as_ann("create rolebinding more --clusterrole=admin --user=ann").fails();
    assert!(refused.contains("is forbidden"), "{refused}");

    assert_eq!(as_ann("auth can-i get secrets").out.trim(), "no");
    // A role that gathers others has their rules written into it.
    cluster.apply(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: secret-readers\n  labels: {rbac.authorization.k8s.io/aggregate-to-view: 'true'}\n\
         rules: [{apiGroups: [''], resources: [secrets], verbs: [get]}]\n",
    );
    assert_eq!(as_ann("auth can-i get secrets").out.trim(), "yes");
    eventually("the rule is written down", || {
        let view = cluster.kubectl("get clusterrole view -o yaml").ok();
        if view.contains("- secrets\n") { Ok(()) } else { Err(view) }
    });
}

#[test]
fn whoever_joins_finds_the_cluster_by_a_token() {
    let cluster = Cluster::start();
    cluster.apply(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: bootstrap-token-abcdef, namespace: kube-system}\n\
         type: bootstrap.kubernetes.io/token\nstringData: {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-signing: 'true'}\n",
    );
    let server = cluster.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}").ok();
    let read = format!("curl -sk {server}/api/v1/namespaces/kube-public/configmaps/cluster-info");
    let mut data = Value::Null;
    eventually("the token has signed", || {
        let info: Value = serde_json::from_str(&cluster.machine.sh(&read).ok()).map_err(|e| e.to_string())?;
        data = info["data"].clone();
        if data["jws-kubeconfig-abcdef"].is_string() { Ok(()) } else { Err(info.to_string()) }
    });
    let file = cluster.dir().join("kubeconfig.signed");
    std::fs::write(&file, data["kubeconfig"].as_str().unwrap()).unwrap();
    let signed = data["jws-kubeconfig-abcdef"].as_str().unwrap();
    let (header, signature) = signed.split_once("..").unwrap();
    let url = "tr '+/' '-_' | tr -d '=\\n'";
    let sign = format!(
        "printf '%s.%s' {header} $(base64 -w0 {} | {url}) | openssl dgst -sha256 -hmac 0123456789abcdef -binary | base64 -w0 | {url}",
        file.display()
    );
    assert_eq!(cluster.machine.sh(&sign).ok(), signature);
    // Without credentials there is little more to see.
    let refused = cluster.machine.sh(&format!("curl -sk {server}/api")).ok();
    assert!(refused.contains("system:anonymous"), "{refused}");
    cluster.kubectl("delete secret -n kube-system bootstrap-token-abcdef").ok();
    eventually("the signature goes with the token", || {
        let info = cluster.machine.sh(&read).ok();
        if info.contains("jws-kubeconfig") { Err(info) } else { Ok(()) }
    });
}

#[test]
fn a_secret_with_a_token_is_filled_in_encrypted_and_audited() {
    let cluster = Cluster::prepared(e2e::Machine::new(), &[]);
    let file = |name: &str, text: &str| {
        let path = cluster.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let audit_log = cluster.dir().join("audit.log");
    let flags = [
        format!("--audit-policy-file={}", file("policy.yaml", POLICY)),
        format!("--audit-log-path={}", audit_log.display()),
        format!("--encryption-provider-config={}", file("encryption.yaml", ENCRYPTION)),
        format!("--token-auth-file={}", file("tokens.csv", "by-hand,bob,7,\"system:masters\"\n")),
    ];
    cluster.coracle("up", &flags.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    cluster.apply(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: old, annotations: {kubernetes.io/service-account.name: default}}\n\
         type: kubernetes.io/service-account-token\n",
    );
    let mut token = String::new();
    eventually("the Secret is filled in", || {
        let secret = cluster.get("secret old");
        token = secret["data"]["token"].as_str().unwrap_or_default().to_string();
        if token.is_empty() { Err(secret.to_string()) } else { Ok(()) }
    });
    let token = cluster.machine.sh(&format!("echo {token} | base64 -d")).ok();
    // The administrator's certificate would come before a token.
    let server = cluster.kubectl("config view --minify -o jsonpath={.clusters[0].cluster.server}").ok();
    let with_token = |token: &str| {
        let url = format!("{server}/apis/authentication.k8s.io/v1/selfsubjectreviews");
        cluster.machine.sh(&format!(
            "curl -sk -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{{}}' {url}"
        ))
    };
    assert!(with_token(&token).ok().contains("system:serviceaccount:default:default"));
    assert!(with_token("by-hand").ok().contains("\"bob\""));
    // Without a body: it is refused before one is read, which not every curl takes well.
    let nobody = cluster.machine.sh(&format!("curl -sk -H 'Authorization: Bearer nonsense' {server}/api"));
    assert!(nobody.ok().contains("Unauthorized"));

    let create = ["create", "secret", "generic", "kept", "--from-literal=password=correct-horse"];
    cluster.kubectl_with(&create, "").ok();
    let encoded = "Y29ycmVjdC1ob3JzZQ==";
    assert!(cluster.get("secret kept").to_string().contains(encoded));
    let store = cluster.data_dir().join("store");
    let found = cluster.machine.sh(&format!("grep -rlaF -e {encoded} -e correct-horse {}", store.display()));
    assert_ne!(found.code, 0, "in clear in {}", found.out);
    cluster.machine.sh(&format!("grep -rqaF k8s:enc:aesgcm:v1:key1: {}", store.display())).ok();

    eventually("the creation is in the audit log", || {
        let log = std::fs::read_to_string(&audit_log).map_err(|error| error.to_string())?;
        assert!(!log.contains(encoded) && !log.contains("correct-horse"));
        let mut events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_creation = |event: &Value| event["verb"] == "create" && event["objectRef"]["name"] == "kept";
        let event = events.find(is_creation).ok_or("not yet")?;
        assert_eq!(
            (&event["stage"], &event["user"]["username"]),
            (&"ResponseComplete".into(), &"kubernetes-admin".into())
        );
        Ok(())
    });
}
