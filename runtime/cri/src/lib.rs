//! The Container Runtime Interface, `runtime.v1`: messages, and the two services as Rust traits.
//!
//! This crate is the protocol alone. The kubelet calls [`RuntimeService`] and [`ImageService`];
//! the embedded runtime implements them in process, [`Remote`] carries the calls to containerd or
//! CRI-O, and [`serve`] offers any implementation on a Unix socket, for crictl and critest.

mod defaults;
mod error;
mod remote;
mod serve;
mod service;
mod socket;

pub use defaults::{MASKED_PATHS, READONLY_PATHS};
pub use error::{Code, Error};
pub use remote::Remote;
pub use serve::serve;
pub use service::{EventStream, ImageService, RuntimeService};
pub use socket::Socket;

/// Lists of many pods are larger than gRPC's default of 4 MiB; upstream's kubelet uses this too.
const MESSAGE_LIMIT: usize = 16 << 20;

/// The messages of `runtime.v1`, with the wire's names in Rust casing.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}
