//! Leases: how keys with a time to live expire in etcd.
//!
//! A lease of its own for each key would cost a write more each, so keys that are written about the
//! same time with the same time to live share one; they live a little longer than asked, 5 % at most.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use etcd_client::{Error, LeaseClient};
use parking_lot::Mutex;

/// How many keys share a lease: they are all deleted in one transaction.
const MOST_KEYS: usize = 1000;
/// How much longer than asked a key may live.
const MOST_EXTRA: Duration = Duration::from_secs(60);

/// The leases that are in use, by the time to live that they are for.
pub(super) struct Leases {
    client: LeaseClient,
    newest: Mutex<HashMap<Duration, Lease>>,
}

struct Lease {
    id: i64,
    /// Until when a key may still join.
    open_until: Instant,
    keys: usize,
}

impl Leases {
    pub fn new(client: LeaseClient) -> Leases {
        Leases { client, newest: Mutex::new(HashMap::new()) }
    }

    /// A lease that lives for at least `ttl` from now.
    pub async fn obtain(&self, ttl: Duration) -> Result<i64, Error> {
        if let Some(id) = self.join(ttl, Instant::now()) {
            return Ok(id);
        }
        let extra = (ttl / 20).min(MOST_EXTRA);
        let seconds = (ttl + extra).as_secs_f64().ceil() as i64;
        let now = Instant::now();
        let id = self.client.clone().grant(seconds.max(1), None).await?.id();
        let mut newest = self.newest.lock();
        newest.retain(|_, lease| lease.open_until >= now);
        newest.insert(ttl, Lease { id, open_until: now + extra, keys: 1 });
        Ok(id)
    }

    fn join(&self, ttl: Duration, now: Instant) -> Option<i64> {
        let mut newest = self.newest.lock();
        let lease = newest.get_mut(&ttl)?;
        let joins = now < lease.open_until && lease.keys < MOST_KEYS;
        lease.keys += usize::from(joins);
        joins.then_some(lease.id)
    }
}
