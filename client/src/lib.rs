//! How a component talks to the API: connections, caches kept by watching, and the shell that gives
//! controllers their turns.
//!
//! - [`connect`] makes a [`kube::Client`], in process or over TLS.
//! - [`Informers`] hands out one [`Cache`] for each kind and keeps it up to date.
//! - [`Runner`] gives a controller ([`Reconcile`]) its turns; [`Writer`] makes its writes; [`flight`] records both.
//! - [`events`] tells users what happened; [`lease`] keeps all but one of several replicas waiting.

pub mod cache;
pub mod connect;
pub mod events;
pub mod flight;
pub mod informer;
pub mod lease;
mod metrics;
mod object_key;
pub mod queue;
mod runner;
pub mod turn;
mod watching;
mod writer;

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

pub use cache::{Cache, Change};
pub use flight::FlightRecorder;
pub use informer::{Informers, Selection};
pub use kube::Error as ClientError;
pub use object_key::ObjectKey;
pub use queue::{Queue, Wake};
pub use runner::{Next, Reconcile, Runner};
pub use writer::{Tolerate, Writer, is_already_exists, is_conflict, is_not_found, message};

/// A kind known at compile time, with everything that caching and writing it takes.
pub trait ApiObject:
    kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> ApiObject for K where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}
