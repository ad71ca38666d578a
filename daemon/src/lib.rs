//! What every long-running process shares: logs, metrics, health, an orderly stop.

pub mod proxy;
