//! What single kinds do differently: defaults, preparation, validation and warnings, one file a kind or
//! family of kinds. The rules of pod specs stand once, in [`pod_spec`], for pods and all templates.
//!
//! Field paths, messages and the choice of reason are upstream's.

pub mod address;
pub mod admission_policy;
pub mod admission_rules;
pub mod api_service;
pub mod certificate_signing_request;
pub mod certificates;
pub mod check;
pub mod config_map;
pub mod coordination;
pub mod cron_job;
pub mod custom_resource_definition;
pub mod daemon_set;
pub mod deployment;
pub mod device;
pub mod endpoints;
pub mod event;
pub mod fill;
pub mod flow_control;
pub mod horizontal_pod_autoscaler;
pub mod horizontal_pod_autoscaler_v1;
pub mod ingress;
pub mod job;
mod job_policy;
pub mod label_selector;
pub mod limits;
mod load_balancer;
pub mod namespace;
pub mod network_policy;
pub mod node;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod plain;
pub mod pod;
pub mod pod_spec;
pub mod pod_template;
pub mod policy;
pub mod ports;
pub mod rbac;
pub mod replica_set;
pub mod resources;
pub mod service;
pub mod stateful_set;
mod status;
pub mod storage;
pub mod warnings;
pub mod webhook;
pub mod webhook_configuration;

#[cfg(test)]
mod tests;
