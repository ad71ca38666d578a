//! Keeps the configuration in step with its objects, says of each schema whether it leads anywhere, and shares seats
//! out anew while they are short.

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::{Object, Status, time};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Fairness, config::Config, objects};
use crate::registry::{Registry, now};

/// How long to wait after a pass that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How often seats are shared out anew.
const PERIOD: Duration = Duration::from_secs(10);

/// Follows the objects for as long as the registry lives.
pub(super) fn start(fairness: &Arc<Fairness>, registry: &Arc<Registry>) {
    let stop = registry.stop().clone();
    let (following, lending, registry_of_task) = (fairness.clone(), fairness.clone(), registry.clone());
    let until = stop.clone();
    registry.tasks().spawn(async move {
        until.run_until_cancelled(follow_forever(&following, &registry_of_task)).await;
    });
    registry.tasks().spawn(async move {
        stop.run_until_cancelled(lend_forever(&lending)).await;
    });
}

async fn follow_forever(fairness: &Fairness, registry: &Registry) {
    loop {
        match follow(fairness, registry).await {
            Ok(never) => match never {},
            Err(status) => {
                tracing::warn!(%status, "cannot follow flow schemas and priority levels, trying again");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn follow(fairness: &Fairness, registry: &Registry) -> Result<Infallible, Status> {
    let mut schemas = registry.changes(objects::schema_kind()).await?;
    let mut levels = registry.changes(objects::level_kind()).await?;
    loop {
        schemas.mark_unchanged();
        levels.mark_unchanged();
        load(fairness, registry).await?;
        set_conditions(registry).await?;
        let woken = tokio::select! {
            woken = schemas.changed() => woken,
            woken = levels.changed() => woken,
        };
        woken.map_err(|_| Status::internal("the cache of flow schemas has ended"))?;
    }
}

async fn load(fairness: &Fairness, registry: &Registry) -> Result<(), Status> {
    let schemas = registry.list(objects::schema_kind(), None).await?;
    let levels = registry.list(objects::level_kind(), None).await?;
    fairness.change(|config| *config = Config::of(&schemas, &levels, fairness.seats, Some(config)));
    Ok(())
}

/// Tells of every schema whether its level is there.
pub(crate) async fn set_conditions(registry: &Registry) -> Result<(), Status> {
    let levels = registry.list(objects::level_kind(), None).await?;
    for schema in registry.list(objects::schema_kind(), None).await? {
        let level = schema.text(&["spec", "priorityLevelConfiguration", "name"]);
        let is_there = levels.iter().any(|known| known.name() == level);
        if conditions(&schema, is_there).is_none() {
            continue;
        }
        let set = |mut schema: Object| {
            if let Some(conditions) = conditions(&schema, is_there) {
                schema.set(&["status", "conditions"], conditions);
            }
            Ok(schema)
        };
        let written =
            registry.update_subresource(objects::schema_kind(), "status", "", schema.name(), set).await;
        match written {
            // It has gone meanwhile.
            Err(status) if status.code == 404 => {}
            written => drop(written?),
        }
    }
    Ok(())
}

/// The conditions that a schema should have; `None` when it has them.
fn conditions(schema: &Object, is_there: bool) -> Option<Vec<Value>> {
    let level = schema.text(&["spec", "priorityLevelConfiguration", "name"]);
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match is_there {
        true => ("False", "Found", format!("{about} and it exists")),
        false => ("True", "NotFound", format!("{about} but there is no such object")),
    };
    let present = schema.list(&["status", "conditions"]);
    let is_dangling = |condition: &&Value| condition["type"] == "Dangling";
    let before = present.iter().find(is_dangling);
    if before.is_some_and(|before| before["status"] == status && before["message"] == message.as_str()) {
        return None;
    }
    let since = before.filter(|before| before["status"] == status);
    let since =
        since.map_or_else(|| time::format(now()).into(), |before| before["lastTransitionTime"].clone());
    let condition = json!({
        "type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    let others = present.iter().filter(|condition| !is_dangling(condition)).cloned();
    Some(others.chain([condition]).collect())
}

/// Waits until seats are short, and shares them out until nobody asks for any.
async fn lend_forever(fairness: &Fairness) {
    loop {
        fairness.shortage.notified().await;
        fairness.change(|config| config.begin_period());
        loop {
            sleep(PERIOD).await;
            if !fairness.change(Config::lend) {
                break;
            }
        }
        fairness.change(Config::take_back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_told_once_whether_its_level_is_there() {
        let schema =
            json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "gone"}}});
        let mut schema = Object::from_value(schema).unwrap();
        let dangling = conditions(&schema, false).unwrap();
        assert_eq!((&dangling[0]["status"], &dangling[0]["reason"]), (&json!("True"), &json!("NotFound")));
        assert_eq!(
            dangling[0]["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"gone\" but there is no such object"
        );
        schema.set(&["status", "conditions"], dangling);
        assert_eq!(conditions(&schema, false), None);
        assert_eq!(conditions(&schema, true).unwrap()[0]["status"], "False");
    }
}
