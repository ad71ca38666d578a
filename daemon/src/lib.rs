//! What every long-running process shares: logs, metrics, health, an orderly stop.

pub mod health;
pub mod logs;
pub mod metrics;
pub mod proxy;
