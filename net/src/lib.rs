//! The pod network of one node: a bridge, an address for each pod, masquerading to the outside, host ports.
//!
//! [`PodNetwork`] is the shell; the decisions are plain functions: [`ipam`] chooses addresses, [`rules`]
//! renders packet filter rules. Links, addresses and routes are set by rtnetlink ([`link`]), rules by
//! `iptables-restore` transactions ([`iptables`], which the service proxy uses too).
//!
//! What is handed out is written below `state_dir` before it is used, one file an address, so that a
//! restarted process knows every address in use, and [`PodNetwork::retain`] frees what nobody holds.

pub mod cidr;
pub mod ipam;
pub mod iptables;
pub mod link;
mod network;
pub mod rules;

pub use cidr::Cidr;
pub use network::{Config, NetworkError, PodAddress, PodNetwork};
pub use rules::{Chains, PortMapping, Protocol};
