//! The runtime against the real kernel: pods in namespaces of their own, images made of busybox.
//!
//! Needs root. Each test has its own mount and network namespace, its own directories and its own control
//! group, and asserts that nothing of it is left.

#![allow(clippy::unwrap_used)] // A test may end where it is.

mod census;
mod crashes;
mod escapes;
mod images;
mod layers;
mod lifecycle;
mod limits;
mod lives;
mod mounts;
mod namespaces;
mod neighbors;
mod network;
mod registry;
mod security;
mod sessions;
mod shims;
mod socket;
mod streaming;
mod survival;
mod world;
