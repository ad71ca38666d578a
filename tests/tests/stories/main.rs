//! The shipped binary against the real kubectl, each story on a machine of its own.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod apply;
mod architecture;
mod bad_input;
mod by_hand;
mod clients;
mod command_line;
mod crash;
mod custom_resources;
mod debugging;
mod identity;
mod interaction;
mod kube_rs;
mod kubectl_releases;
mod kubelet_api;
mod node_pressure;
mod operations;
mod other_runtime;
mod own_servers;
mod own_users;
mod pod_images;
mod pods;
mod policies;
mod registry;
mod resizing;
mod rollout;
mod runtime_alone;
mod services;
mod volumes;
