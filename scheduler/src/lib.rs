//! Gives every pod a node.
//!
//! [`schedule::schedule`] decides, from a [`snapshot::Snapshot`] of nodes and their pods, by the filters of
//! [`filter`] and the scores of [`score`]; [`preempt`] makes room; [`queue`] says which pod is next. All are
//! plain functions over data. [`run`] watches, asks them and carries out: one binding a pod.
//!
//! A pod that has been given a node counts there at once ("assumed"), before the binding is stored, so that the
//! next decision need not wait; should the binding fail, it is taken back.

pub mod filter;
pub mod label_index;
mod metrics;
pub mod model;
pub mod node_set;
pub mod preempt;
pub mod queue;
pub mod resources;
pub mod schedule;
pub mod score;
mod shell;
pub mod snapshot;
#[cfg(test)]
mod tests;

pub use shell::{Config, run};
