//! The Container Runtime Interface, `runtime.v1`: messages, and the two services as Rust traits.
//!
//! This crate is the protocol alone. The kubelet calls [`RuntimeService`] and [`ImageService`];
//! the embedded runtime implements them in process, [`Remote`] carries them to containerd or CRI-O.
