//! Forgets old history, every five minutes.
//!
//! Everybody who works on the cluster tries; a key that counts the turns, the one that upstream's API
//! server uses too, lets one of them do it and tells the others how far it went.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Error, KvClient, Txn, TxnOp, TxnOpResponse};

/// How long history is kept.
const INTERVAL: Duration = Duration::from_secs(300);

/// Upstream's name; its version is the turn, its value the revision that was current then.
const TURN_KEY: &str = "compact_rev_key";

/// Where the store stood at some turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    number: i64,
    revision: i64,
}

/// Compacts until it is aborted.
pub(super) async fn run(mut client: KvClient) {
    let mut last = Turn::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match take_turn(&mut client, last).await {
            Ok(turn) => last = turn,
            // It is tried again; until then history only grows.
            Err(error) => tracing::warn!(%error, "etcd's history could not be compacted"),
        }
    }
}

/// Forgets what was before `last`, if nobody else has since; returns where the store stands now.
async fn take_turn(client: &mut KvClient, last: Turn) -> Result<Turn, Error> {
    let mine = Compare::version(TURN_KEY, CompareOp::Equal, last.number);
    let transaction = Txn::new()
        .when([mine])
        .and_then([TxnOp::put(TURN_KEY, last.revision.to_string(), None)])
        .or_else([TxnOp::get(TURN_KEY, None)]);
    let response = client.txn(transaction).await?;
    let revision = response.header().map_or(0, |header| header.revision());
    if !response.succeeded() {
        let found = response.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(found) => found.kvs().first().map(|found| found.version()),
            _ => None,
        });
        return Ok(Turn { number: found.unwrap_or_default(), revision });
    }
    if last.revision != 0 {
        client.compact(last.revision, None).await?;
    }
    Ok(Turn { number: last.number + 1, revision })
}
