//! Custom resources by the thousand: creates, lists and the end of all of them with their definition.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    api_load::Load,
    cluster::{Cluster, JSON},
    report::{Samples, Table},
    server::{Server, megabytes},
};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME: &str = "widgets.bench.example.com";
const WIDGETS: &str = "/apis/bench.example.com/v1/namespaces/default/widgets";

/// How much load.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many objects are created and then listed.
    #[arg(long, default_value_t = 5000)]
    objects: usize,
    /// How many requests at a time.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// How many lists.
    #[arg(long, default_value_t = 20)]
    lists: usize,
    #[command(flatten)]
    server: Server,
}

/// Defines a kind, makes objects, and takes the definition away again, also when something fails.
pub async fn run(cluster: &Cluster, args: Args) -> Result<Table> {
    cluster.post(DEFINITIONS, &definition()).await?;
    let measured = measure(cluster, &args).await;
    let begin = Instant::now();
    let path = format!("{DEFINITIONS}/{NAME}");
    cluster.delete_now(&path).await?;
    cluster
        .until("the definition to go away", || async { Ok(cluster.get_text(&path).await.is_err()) })
        .await?;
    let removal: Samples = std::iter::once(begin.elapsed()).collect();
    let mut table = measured?;
    table.times(&format!("delete the definition with {} objects", args.objects), &removal, None);
    Ok(table)
}

async fn measure(cluster: &Cluster, args: &Args) -> Result<Table> {
    let begin = Instant::now();
    cluster.until("the kind to be served", || async { Ok(cluster.get_text(WIDGETS).await.is_ok()) }).await?;
    let served: Samples = std::iter::once(begin.elapsed()).collect();
    let mut load = Load { server: args.server, table: Table::of_times() };
    load.table.times("definition served", &served, None);

    let before = args.server.memory()?;
    load.row(
        &format!("create object, {} at a time", args.concurrency),
        args.objects,
        args.concurrency,
        |number| {
            let widget = widget(number);
            async move { cluster.post(WIDGETS, &widget).await }
        },
    )
    .await?;
    let after = args.server.memory()?;
    for (what, query) in [("cached", "?resourceVersion=0"), ("consistent", "")] {
        let path = &format!("{WIDGETS}{query}");
        load.row(&format!("list {} objects, {what}", args.objects), args.lists, 1, |_| async move {
            let length = cluster.get_length(path, JSON).await?;
            ensure!(length > args.objects, "the list is too short to be true");
            Ok(())
        })
        .await?;
    }
    if let Some((before, after)) = before.zip(after) {
        let (before, after) = (megabytes(before), megabytes(after));
        load.table.row(vec![format!("memory of the server: {before} before, {after} after")]);
    }
    Ok(load.table)
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": "bench.example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {
                    "type": "object",
                    "required": ["size"],
                    "x-kubernetes-validations": [{"rule": "self.size <= self.most"}],
                    "properties": {
                        "size": {"type": "integer", "minimum": 0},
                        "most": {"type": "integer", "default": 100},
                        "color": {"type": "string", "enum": ["red", "green", "blue"]},
                        "parts": {"type": "array", "maxItems": 20,
                            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {
                                "name": {"type": "string", "maxLength": 63}, "note": {"type": "string"}}}},
                    },
                }},
            }}}],
        },
    })
}

/// About 1 KB as stored.
fn widget(number: usize) -> Value {
    let parts: Vec<Value> =
        (0..5).map(|index| json!({"name": format!("part-{index}"), "note": "x".repeat(60)})).collect();
    json!({
        "apiVersion": "bench.example.com/v1",
        "kind": "Widget",
        "metadata": {"name": format!("widget-{number}"), "labels": {"number": number.to_string()}},
        "spec": {"size": number % 100, "color": "red", "parts": parts},
    })
}
