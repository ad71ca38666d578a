//! What the runtime says of itself, and what it tells those who ask for more than the plain answer.

use std::collections::HashMap;
use std::fs;

use cri::Error;
use cri::v1;
use serde_json::{Value, json};

use super::Shared;
use super::sandboxes::failed;
use super::state::{Container, ContainerState, Sandbox};
use crate::image::Image;
use crate::trace;

/// The map of a verbose answer: JSON documents by name, as crictl prints them.
pub(super) type Info = HashMap<String, String>;

impl Shared {
    /// Whether pods can be run, and what this runtime can do.
    pub(super) fn status(&self, verbose: bool) -> v1::StatusResponse {
        let conditions = vec![condition("RuntimeReady", None), self.network_condition()];
        v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            info: if verbose { self.runtime_info() } else { Info::new() },
            runtime_handlers: vec![v1::RuntimeHandler {
                name: String::new(),
                features: Some(v1::RuntimeHandlerFeatures {
                    recursive_read_only_mounts: true,
                    user_namespaces: true,
                }),
            }],
            features: Some(v1::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        }
    }

    /// Without a block of addresses only pods of the node's network can run.
    fn network_condition(&self) -> v1::RuntimeCondition {
        let fault = match &self.config.network {
            None => Some("this runtime was started without a pod network"),
            Some(network) if !network.is_up() => Some("the pod network has no pod CIDR yet"),
            Some(_) => None,
        };
        condition("NetworkReady", fault.map(|message| ("NetworkPluginNotReady", message)))
    }

    fn runtime_info(&self) -> Info {
        let config = &self.config;
        let network = config.network.as_ref().map(|network| {
            let config = network.config();
            json!({ "bridge": config.bridge, "clusterCIDR": config.cluster_cidr.to_string() })
        });
        document(
            "config",
            json!({
                "rootDir": config.root,
                "stateDir": config.state,
                "cgroupParent": config.cgroup_parent,
                "cgroupDriver": "cgroupfs",
                "cgroupVersion": if self.layout.is_unified() { 2 } else { 1 },
                "network": network,
            }),
        )
    }

    /// A pod's process, its group, and what was asked for.
    pub(super) fn sandbox_info(&self, sandbox: &Sandbox) -> Info {
        let record = sandbox.record();
        document(
            "info",
            json!({
                "pid": record.shim.filter(|_| sandbox.is_ready()),
                "processStatus": if sandbox.is_ready() { "running" } else { "stopped" },
                "cgroup": self.pod_group_path(sandbox),
                "runtimeHandler": sandbox.runtime_handler,
                "hostNetwork": sandbox.host_network(),
                "config": sandbox.current_config(),
            }),
        )
    }

    /// A container's process, where its files are, what was asked for and what it became.
    pub(super) fn container_info(&self, container: &Container) -> Result<Info, Error> {
        let pid = match container.state() {
            ContainerState::Running(started) => Some(started.pid),
            ContainerState::Created | ContainerState::Exited { .. } => None,
        };
        let spec = fs::read(container.directory.spec()).map_err(failed("read the container's spec"))?;
        let spec: Value = serde_json::from_slice(&spec)
            .map_err(|error| failed("read the container's spec")(error.into()))?;
        Ok(document(
            "info",
            json!({
                "sandboxID": container.sandbox.id,
                "pid": pid,
                "snapshot": self.images.snapshot_path(&container.id),
                "cgroup": container.record.cgroup,
                "config": container.config,
                "spec": spec,
                "trace": trace::read(&[container.sandbox.directory.trace(), container.directory.trace()])
                    .map_err(failed("read where the time went"))?,
            }),
        ))
    }
}

/// The layers and the configuration of an image.
pub(super) fn image_info(image: &Image) -> Info {
    document(
        "info",
        json!({
            "importedAt": image.imported_at,
            "imageSpec": image.config,
        }),
    )
}

fn document(name: &str, content: Value) -> Info {
    Info::from([(name.to_owned(), content.to_string())])
}

/// A condition that holds, or the reason and the message of why it does not.
fn condition(kind: &str, fault: Option<(&str, &str)>) -> v1::RuntimeCondition {
    let (reason, message) = fault.unwrap_or_default();
    v1::RuntimeCondition {
        r#type: kind.to_owned(),
        status: fault.is_none(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}
