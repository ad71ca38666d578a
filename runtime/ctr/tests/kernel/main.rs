//! `ctr` as its users meet it: the program, real images, the kernel.
//!
//! Needs root. Each test has its own mount and network namespace, its own folder and its own control group, and
//! asserts that nothing of it is left.

#![allow(clippy::unwrap_used)] // A test may end where it is.

mod files;
mod interaction;
mod lifecycle;
mod network;
mod refusals;
mod survival;
mod world;
