//! One of several replicas acts, the others wait: a claim on a `Lease`, renewed while it is held.
//!
//! Needed only where a component is run more than once; a process that has everything in it does without.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{ClientError, writer::Tolerate};

/// Who claims which Lease, with upstream's periods.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Namespace of the Lease, normally `kube-system`.
    pub namespace: String,
    /// Name of the Lease, normally the component's.
    pub name: String,
    /// Who claims it; must differ between replicas.
    pub identity: String,
    /// A claim that was not renewed for so long is void.
    pub duration: Duration,
    /// How often it is renewed, and how often others look.
    pub retry: Duration,
}

impl Claim {
    /// A claim with upstream's periods (15 s and 2 s).
    pub fn new(name: &str, identity: &str) -> Claim {
        Claim {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            retry: Duration::from_secs(2),
        }
    }

    /// Waits until the claim is granted. The returned token is cancelled when it is lost: whoever holds it must
    /// stop acting then. The claim is renewed until `stop`, then given up so that a successor need not wait.
    pub async fn acquire(self, client: Client, stop: CancellationToken) -> Option<CancellationToken> {
        let leases: Api<Lease> = Api::namespaced(client, &self.namespace);
        let mut watched = Watched::default();
        loop {
            match self.attempt(&leases, &mut watched).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(lease = self.name, error = crate::message(&error), "cannot claim")
                }
            }
            stop.run_until_cancelled(tokio::time::sleep(self.retry)).await?;
        }
        tracing::info!(lease = self.name, identity = self.identity, "holds the lease");
        let held = CancellationToken::new();
        tokio::spawn(self.keep(leases, watched, held.clone(), stop));
        Some(held)
    }

    async fn keep(
        self,
        leases: Api<Lease>,
        mut watched: Watched,
        held: CancellationToken,
        stop: CancellationToken,
    ) {
        let mut renewed = Instant::now();
        // As upstream, the holder gives in before others may take over.
        let deadline = self.duration * 2 / 3;
        while stop.run_until_cancelled(tokio::time::sleep(self.retry)).await.is_some() {
            match self.attempt(&leases, &mut watched).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => break,
                Err(error) if renewed.elapsed() > deadline => {
                    tracing::error!(lease = self.name, error = crate::message(&error), "lost the lease");
                    break;
                }
                Err(_) => {}
            }
        }
        held.cancel();
        if stop.is_cancelled()
            && let Err(error) = self.release(&leases).await
        {
            tracing::debug!(lease = self.name, error = crate::message(&error), "could not give up the lease");
        }
    }

    /// Whether the claim is ours now.
    async fn attempt(&self, leases: &Api<Lease>, watched: &mut Watched) -> Result<bool, ClientError> {
        let now = Timestamp::now();
        let Some(mut lease) = leases.get(&self.name).await.or_not_found()? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None, now)) };
            return Ok(leases.create(&PostParams::default(), &lease).await.or_already_exists()?.is_some());
        };
        let spec = lease.spec.take().unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(&self.identity);
        if !ours && !watched.is_void(&spec) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(Some(&spec), now));
        let stored = leases.replace(&self.name, &PostParams::default(), &lease).await.or_conflict()?;
        Ok(stored.is_some())
    }

    async fn release(&self, leases: &Api<Lease>) -> Result<(), ClientError> {
        let mut lease = leases.get(&self.name).await?;
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_deref() == Some(&self.identity)
        {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            leases.replace(&self.name, &PostParams::default(), &lease).await.or_conflict()?;
        }
        Ok(())
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.duration.as_secs().try_into().unwrap_or(i32::MAX)),
            acquire_time: before
                .filter(|_| ours)
                .and_then(|spec| spec.acquire_time.clone())
                .or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions + i32::from(before.is_some() && !ours)),
            ..LeaseSpec::default()
        }
    }
}

/// What we last saw of somebody else's claim. Only our own clock is asked how long that is ago, as the clocks
/// of two machines may differ.
#[derive(Default)]
struct Watched {
    spec: Option<(LeaseSpec, Instant)>,
}

impl Watched {
    fn is_void(&mut self, spec: &LeaseSpec) -> bool {
        if spec.holder_identity.as_deref().unwrap_or_default().is_empty() {
            return true;
        }
        let duration =
            Duration::from_secs(spec.lease_duration_seconds.unwrap_or(15).max(0).unsigned_abs().into());
        match &self.spec {
            Some((seen, since)) if seen == spec => since.elapsed() >= duration,
            _ => {
                self.spec = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(identity: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(identity.into()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_void_once_it_stood_still_for_its_duration() {
        let mut watched = Watched::default();
        assert!(!watched.is_void(&held_by("other")));
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(!watched.is_void(&held_by("other")));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(watched.is_void(&held_by("other")));
        assert!(watched.is_void(&held_by("")), "given up");
    }

    #[test]
    fn taking_over_counts_a_transition_and_renewing_does_not() {
        let claim = Claim::new("scheduler", "me");
        let taken = claim.spec(Some(&held_by("other")), Timestamp::UNIX_EPOCH);
        assert_eq!(taken.lease_transitions, Some(1));
        let renewed = claim.spec(Some(&taken), Timestamp::from_second(60).unwrap());
        assert_eq!((renewed.lease_transitions, renewed.acquire_time), (Some(1), taken.acquire_time));
    }
}
