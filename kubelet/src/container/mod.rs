//! Containers: how a container's spec becomes what the runtime is asked for.

pub mod config;
pub mod env;
pub mod expansion;
pub mod hash;
pub mod labels;
pub mod qos;
