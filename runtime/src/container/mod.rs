//! A container from its description to its first instruction.
//!
//! [`plan`] makes a [`Spec`] of what CRI and the image say; [`setup`] makes the list of steps of it;
//! [`carry_out`] takes them one by one in the process that becomes the container. All but the last are
//! plain functions.

pub mod capabilities;
pub mod carry_out;
pub mod cdi;
pub mod devices;
pub mod ids;
pub mod label;
pub mod plan;
pub mod seccomp;
pub mod setup;
pub mod spec;
pub mod sysctl;
pub mod user;

pub use plan::{PlanError, Planned};
pub use setup::{SetupStep, container_setup, process_setup};
pub use spec::Spec;
