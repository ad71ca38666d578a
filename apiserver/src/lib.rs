//! The API server: HTTP in front of the store, one generic path for every kind.
//!
//! A request passes these rooms, in this order: `server` (TLS, HTTP, limits), [`request`] (what is
//! asked), [`hooks`] (who asks), `fairness` (is it their turn), [`hooks`] (may they), `verbs` (get, list, watch, create, ...), `write`
//! (defaults, validation, admission), [`registry`] (watch cache and store), `answer` (the form of
//! the answer). What is special about a kind is in its row in `api::kinds`, never here.

pub mod admission;
mod aggregation;
pub mod alloc;
mod answer;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod cluster;
mod crd;
mod discovery;
pub mod encryption;
mod events;
mod fairness;
mod follow;
pub mod hooks;
mod path;
pub mod pki;
pub mod proxy;
pub mod registry;
mod remote;
pub mod request;
pub mod reviews;
mod server;
mod subresources;
mod usage;
mod verbs;
mod write;

pub use server::{ApiServer, Config, InProcess, Limits};
