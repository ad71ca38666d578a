//! Lifecycle hooks: what a container wants to have done right after its start and before its end.

use std::net::IpAddr;
use std::time::Duration;

use cri::RuntimeService;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::pod::backoff::go_duration;
use crate::probe::check::{Answer, exec, http_get};

/// Hooks that ask over HTTP get this long.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a hook to its end. An error says why it failed.
pub async fn run(
    runtime: &dyn RuntimeService,
    hook: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: Option<IpAddr>,
    limit: Duration,
) -> Result<(), String> {
    let work = async {
        if let Some(action) = &hook.exec {
            outcome(exec(runtime, action, container_id, limit).await)
        } else if let Some(action) = &hook.http_get {
            let Some(pod_ip) = pod_ip else { return Err("the pod has no address".to_string()) };
            outcome(http_get(action, container, pod_ip, limit.min(HTTP_TIMEOUT)).await)
        } else if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            Ok(())
        } else {
            Err("invalid handler: no action in it".to_string())
        }
    };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("hook did not end within {}", go_duration(limit))),
    }
}

fn outcome(answer: Answer) -> Result<(), String> {
    match answer {
        Answer::Success | Answer::Warning(_) => Ok(()),
        Answer::Failure(message) | Answer::Unknown(message) => Err(message),
    }
}
