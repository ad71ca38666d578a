//! What every long-running process shares: logs, metrics, health, names of hosts, taking and forwarding connections.

pub mod health;
pub mod listen;
pub mod logs;
pub mod metrics;
pub mod proxy;
pub mod resolve;
pub mod tls;
