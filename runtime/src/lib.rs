//! The embedded container runtime: images, sandboxes and containers behind the CRI.
//!
//! [`Runtime`] answers the calls of [`cri::RuntimeService`] and [`cri::ImageService`]. It keeps nothing
//! alone in memory that matters: images live in an [`image::Store`], pods in a directory each, with a
//! [`shim`] that holds their namespaces and processes and outlives the server. [`container`] decides how
//! a container is set up, [`cgroup`] limits it, [`streaming`] connects clients to it; system calls are
//! in `sys` alone.

pub mod cgroup;
pub mod container;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod image;
mod service;
pub mod shim;
pub mod streaming;
pub mod sys;
pub mod trace;

pub use container::spec::LogLimit;
pub use service::{
    Config, Daemonless, Ended, Engine, Runtime, RuntimeError, ShimCommand, read_in_layers, reset, reset_pods,
};
