//! What API Priority and Fairness costs: the same requests by two users who differ in nothing but that one is exempt.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    api_load::{self, Load},
    cluster::{Cluster, JSON, in_namespace},
    report::Table,
    server::Server,
};

const NAMESPACE: &str = "bench-fairness";
const SCHEMA: &str = "bench-fairness-exempt";
const BINDING: &str = "bench-fairness";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
/// The versions in which servers know flow schemas, the newest first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const USERS: [(&str, &str); 2] = [("with", "bench-limited"), ("without", "bench-exempt")];

/// How much load.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many gets of each user in a round.
    #[arg(long, default_value_t = 10_000)]
    gets: usize,
    /// How many creates of each user in a round.
    #[arg(long, default_value_t = 1000)]
    creates: usize,
    /// How many requests at a time.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// How many rounds; in each the users take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    server: Server,
}

/// Makes two service accounts that may do everything, exempts one, and has both ask for the same.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    let schemas = schemas(cluster).await?;
    let measured = in_namespace(cluster, NAMESPACE, measure(cluster, &args, &schemas)).await;
    cluster.delete_now(&format!("{schemas}/{SCHEMA}")).await?;
    cluster.delete_now(&format!("{BINDINGS}/{BINDING}")).await?;
    measured
}

/// Where the server has flow schemas.
async fn schemas(cluster: &Cluster) -> Result<String> {
    for version in VERSIONS {
        let path = format!("/apis/flowcontrol.apiserver.k8s.io/{version}/flowschemas");
        if cluster.get_text(&path).await.is_ok() {
            return Ok(path);
        }
    }
    anyhow::bail!("the server has no flow schemas in any of the versions {VERSIONS:?}")
}

async fn measure(cluster: &Cluster, args: &Args, schemas: &str) -> Result<Table> {
    cluster.post(schemas, &exemption(schemas)).await?;
    cluster.post(BINDINGS, &binding()).await?;
    let mut users = Vec::new();
    for (what, name) in USERS {
        users.push((what, user(cluster, name).await?));
    }
    let exempt = &users[1].1;
    let pods = &format!("/api/v1/namespaces/{NAMESPACE}/pods");
    cluster
        .until("the exemption to be in force", || async {
            let schema = cluster.get(&format!("{schemas}/{SCHEMA}")).await?;
            let answer = exempt.response(pods, JSON).await;
            let used = answer
                .ok()
                .and_then(|answer| answer.response.headers().get("x-kubernetes-pf-flowschema-uid").cloned());
            Ok(used.is_some_and(|used| schema["metadata"]["uid"] == used.to_str().unwrap_or_default()))
        })
        .await?;

    let mut load = Load { server: args.server, table: Table::of_times() };
    for round in 0..args.rounds {
        for (what, user) in &users {
            let name = |number: usize| format!("pod-{what}-{round}-{number}");
            load.row(&format!("create pod, {what} fairness"), args.creates, args.concurrency, |number| {
                let mut pod = api_load::pod(number);
                pod["metadata"]["name"] = name(number).into();
                async move { user.post(pods, &pod).await }
            })
            .await?;
            load.row(&format!("get pod, {what} fairness"), args.gets, args.concurrency, |number| {
                let path = format!("{pods}/{}", name(number % args.creates));
                async move { user.get_text(&path).await.map(drop) }
            })
            .await?;
        }
    }
    Ok(load.table)
}

/// A service account as a client with a token, once it is let in.
async fn user(cluster: &Cluster, name: &str) -> Result<Cluster> {
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    cluster.post(&accounts, &account).await?;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    });
    let answer = cluster.post_for(&format!("{accounts}/{name}/token"), &request).await?;
    let token = answer["status"]["token"].as_str().context("the server gave no token")?;
    let user = cluster.with_token(token.to_string()).await?;
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    user.until("the service account to be let in", || async { Ok(user.get_text(&pods).await.is_ok()) })
        .await?;
    Ok(user)
}

/// Sends the one user where nothing is queued.
fn exemption(schemas: &str) -> Value {
    let version = schemas.trim_start_matches("/apis/").trim_end_matches("/flowschemas");
    let subject = json!({
        "kind": "ServiceAccount",
        "serviceAccount": {"namespace": NAMESPACE, "name": USERS[1].1},
    });
    let rule = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
    json!({
        "apiVersion": version, "kind": "FlowSchema",
        "metadata": {"name": SCHEMA},
        "spec": {
            "priorityLevelConfiguration": {"name": "exempt"},
            "matchingPrecedence": 2,
            "rules": [{"subjects": [subject], "resourceRules": [rule]}],
        },
    })
}

fn binding() -> Value {
    let subject = |name: &str| json!({"kind": "ServiceAccount", "namespace": NAMESPACE, "name": name});
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": BINDING},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": USERS.map(|(_, name)| subject(name)),
    })
}
