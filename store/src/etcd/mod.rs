//! The etcd engine: any etcd v3 cluster.
//!
//! A write is one transaction that compares the key's modification revision, as upstream's API server
//! does it, so that both can work on the same cluster. History is compacted every five minutes,
//! whoever of them is first.

mod compactor;
mod lease;
mod watch;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, Identity,
    KvClient, PutOptions, ResponseHeader, TlsOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use tokio::task::AbortHandle;

use self::{lease::Leases, watch::EtcdWatch};
use crate::{KeyValue, RangeResult, ReadError, Revision, Store, Watch, WriteError};

/// How many keys are asked for at once.
const PAGE: usize = 2000;

/// How long a connection may take, and how long it may be silent before it is probed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long an answer may take. Without a limit a request would wait for as long as no server is up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A store in an etcd cluster.
pub struct Etcd {
    client: Client,
    leases: Leases,
    compactor: AbortHandle,
}

/// How to talk to etcd securely; everything is PEM.
#[derive(Clone)]
pub struct Tls {
    /// The certificates of the authorities that may have signed the servers' certificates.
    pub ca: Vec<u8>,
    /// Our certificate and its key, where the servers want to see one.
    pub identity: Option<TlsIdentity>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate chain.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

/// The cluster could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("failed to connect to etcd at {}", endpoints.join(", "))]
pub struct ConnectError {
    endpoints: Vec<String>,
    source: Error,
}

impl Etcd {
    /// Connects to a cluster and checks that it answers.
    pub async fn connect(endpoints: &[String], tls: Option<Tls>) -> Result<Etcd, ConnectError> {
        let failed = |source| ConnectError { endpoints: endpoints.to_vec(), source };
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(KEEP_ALIVE, CONNECT_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if let Some(Tls { ca, identity }) = tls {
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
            if let Some(TlsIdentity { certificate, key }) = identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        let client = Client::connect(endpoints, Some(options)).await.map_err(failed)?;
        answer(client.kv_client().get(PROBE, None)).await.map_err(failed)?;
        let leases = Leases::new(client.lease_client());
        let compactor = tokio::spawn(compactor::run(client.kv_client())).abort_handle();
        Ok(Etcd { client, leases, compactor })
    }

    fn kv(&self) -> KvClient {
        // A page of large objects exceeds the default of 4 MiB.
        self.client.kv_client().max_decoding_message_size(usize::MAX)
    }

    /// Does `write` if the key is at `expected` (zero: absent), else tells what is there.
    async fn write(&self, key: &str, expected: Revision, write: TxnOp) -> Result<TxnResponse, WriteError> {
        let unchanged = Compare::mod_revision(key, CompareOp::Equal, expected.0 as i64);
        let look = TxnOp::get(key, Some(GetOptions::new().with_keys_only()));
        let transaction = Txn::new().when([unchanged]).and_then([write]).or_else([look]);
        let response = answer(self.kv().txn(transaction)).await.map_err(|error| write_failed(key, error))?;
        if response.succeeded() {
            return Ok(response);
        }
        let found = response.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(found) => {
                found.kvs().first().map(|found| Revision(found.mod_revision() as u64))
            }
            _ => None,
        });
        let key = key.to_owned();
        Err(match found {
            Some(_) if expected == Revision(0) => WriteError::AlreadyExists { key },
            Some(actual) => WriteError::Conflict { key, expected, actual },
            None => WriteError::NotFound { key },
        })
    }

    async fn put_options(&self, key: &str, ttl: Option<Duration>) -> Result<Option<PutOptions>, WriteError> {
        let Some(ttl) = ttl else { return Ok(None) };
        let lease = answer(self.leases.obtain(ttl)).await.map_err(|error| write_failed(key, error))?;
        Ok(Some(PutOptions::new().with_lease(lease)))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.compactor.abort();
    }
}

/// A key that nobody has, to learn where the store stands.
const PROBE: &str = "\u{1}";

#[async_trait]
impl Store for Etcd {
    async fn revision(&self) -> Result<Revision, ReadError> {
        let options = GetOptions::new().with_count_only();
        let response = answer(self.kv().get(PROBE, Some(options))).await;
        let response = response.map_err(|error| read_failed("the current revision", None, error))?;
        Ok(revision(response.header()))
    }

    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<KeyValue>, ReadError> {
        let options = at.map(|at| GetOptions::new().with_revision(at.0 as i64));
        let response = answer(self.kv().get(key, options)).await;
        let mut response = response.map_err(|error| read_failed(key, at, error))?;
        response.take_kvs().pop().map(|found| key_value(found, key)).transpose()
    }

    async fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<RangeResult, ReadError> {
        let mut start = match after {
            Some(after) if after >= prefix => just_after(after),
            _ => prefix.to_owned(),
        };
        let mut found: Option<RangeResult> = None;
        loop {
            // All pages show the revision of the first.
            let at = found.as_ref().map(|found| found.revision).or(at);
            let wanted = if limit == 0 {
                PAGE
            } else {
                (limit - found.as_ref().map_or(0, |found| found.items.len())).min(PAGE)
            };
            let options = GetOptions::new()
                .with_range(prefix_end(prefix))
                .with_limit(wanted as i64)
                .with_revision(at.map_or(0, |at| at.0 as i64));
            // To etcd an empty key is none at all.
            let key = if start.is_empty() { "\0".to_owned() } else { start };
            let response = answer(self.kv().get(key, Some(options))).await;
            let mut response = response.map_err(|error| read_failed(prefix, at, error))?;
            let found = found.get_or_insert_with(|| RangeResult {
                items: Vec::new(),
                revision: at.filter(|at| at.0 != 0).unwrap_or(revision(response.header())),
                more: false,
                count: response.count() as u64,
            });
            found.more = response.more();
            for item in response.take_kvs() {
                found.items.push(key_value(item, prefix)?);
            }
            let last = found.items.last().map(|last| last.key.clone());
            match last {
                Some(last) if found.more && (limit == 0 || found.items.len() < limit) => {
                    start = just_after(&last)
                }
                _ => return Ok(found.clone()),
            }
        }
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Revision, WriteError> {
        let options = self.put_options(key, ttl).await?;
        let response = self.write(key, Revision(0), TxnOp::put(key, value, options)).await?;
        Ok(revision(response.header()))
    }

    async fn update(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Revision, WriteError> {
        if expected == Revision(0) {
            // Compared with zero, an absent key would be created.
            let found = self.get(key, None).await;
            return Err(match found {
                Ok(None) => WriteError::NotFound { key: key.to_owned() },
                Ok(Some(found)) => {
                    WriteError::Conflict { key: key.to_owned(), expected, actual: found.mod_revision }
                }
                Err(error) => WriteError::Unavailable { key: key.to_owned(), source: Box::new(error) },
            });
        }
        let options = self.put_options(key, ttl).await?;
        let options = options.unwrap_or_else(|| PutOptions::new().with_ignore_lease());
        let response = self.write(key, expected, TxnOp::put(key, value, Some(options))).await?;
        Ok(revision(response.header()))
    }

    async fn delete(
        &self,
        key: &str,
        expected: Option<Revision>,
    ) -> Result<(KeyValue, Revision), WriteError> {
        let options = DeleteOptions::new().with_prev_key();
        let (deleted, revision) = match expected {
            None => {
                let response = answer(self.kv().delete(key, Some(options))).await;
                let mut response = response.map_err(|error| write_failed(key, error))?;
                (response.take_prev_kvs().pop(), revision(response.header()))
            }
            Some(expected) => {
                let response = self.write(key, expected, TxnOp::delete(key, Some(options))).await?;
                let deleted = response.op_responses().into_iter().find_map(|response| match response {
                    TxnOpResponse::Delete(mut deleted) => deleted.take_prev_kvs().pop(),
                    _ => None,
                });
                (deleted, revision(response.header()))
            }
        };
        let deleted = deleted.ok_or_else(|| WriteError::NotFound { key: key.to_owned() })?;
        let deleted = key_value(deleted, key);
        let unavailable = |source| WriteError::Unavailable { key: key.to_owned(), source: Box::new(source) };
        Ok((deleted.map_err(unavailable)?, revision))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, ReadError> {
        if after != Revision(0) {
            // etcd would let us start where it has compacted, and leave out a deletion there.
            let options = GetOptions::new().with_count_only().with_revision(after.0 as i64);
            match self
                .kv()
                .get(PROBE, Some(options))
                .await
                .map_err(|error| read_failed(prefix, Some(after), error))
            {
                Ok(_) | Err(ReadError::Future { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let client = self.client.watch_client().max_decoding_message_size(usize::MAX);
        Ok(Box::new(EtcdWatch::start(client, prefix, after).await?))
    }

    /// Not with etcd 3.4, whose answer may overtake events, nor with its successors before they were
    /// repaired: a read of the store takes its place.
    async fn request_progress(&self, _prefix: &str) -> Result<Option<Revision>, ReadError> {
        Ok(None)
    }

    async fn compact(&self, revision: Revision) -> Result<(), ReadError> {
        let compacted = answer(self.kv().compact(revision.0 as i64, None)).await;
        compacted.map(drop).map_err(|error| read_failed("the history, to forget it", Some(revision), error))
    }
}

/// The answer of etcd, if it comes in time.
async fn answer<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Err(Error::Internal(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())));
    tokio::time::timeout(ANSWER_TIMEOUT, request).await.unwrap_or_else(late)
}

fn revision(header: Option<&ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| header.revision() as u64))
}

/// The first key after `key`.
fn just_after(key: &str) -> String {
    format!("{key}\0")
}

/// The first key after all those that start with `prefix`; etcd takes a lone zero byte for "no end".
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn key_value(found: etcd_client::KeyValue, what: &str) -> Result<KeyValue, ReadError> {
    let (created, modified) = (found.create_revision() as u64, found.mod_revision() as u64);
    let (key, value) = found.into_key_value();
    let key = String::from_utf8(key)
        .map_err(|source| ReadError::Unavailable { what: what.to_owned(), source: Box::new(source) })?;
    Ok(KeyValue {
        key: Arc::from(key),
        value: Bytes::from(value),
        create_revision: Revision(created),
        mod_revision: Revision(modified),
    })
}

fn write_failed(key: &str, source: Error) -> WriteError {
    WriteError::Unavailable { key: key.to_owned(), source: Box::new(source) }
}

/// etcd tells these two apart only by their words.
fn read_failed(what: &str, at: Option<Revision>, error: Error) -> ReadError {
    let message = match &error {
        Error::GRpcStatus(status) => status.message(),
        _ => "",
    };
    match at {
        Some(requested) if message.contains("has been compacted") => {
            ReadError::Compacted { requested, oldest: None }
        }
        Some(requested) if message.contains("is a future revision") => {
            ReadError::Future { requested, current: None }
        }
        _ => ReadError::Unavailable { what: what.to_owned(), source: Box::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(prefix_end("/registry/pods/"), b"/registry/pods0");
        assert_eq!(prefix_end(""), [0]);
    }
}
