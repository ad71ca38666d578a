//! A real API server on an in-memory store, asked by plain HTTP requests without sockets.
#![allow(clippy::unwrap_used)]

mod addresses;
mod aggregation;
mod at_rest;
mod audit;
mod bad_input;
mod client;
mod cluster;
mod collections;
mod conversion;
mod credentials;
mod custom_resources;
mod deletion;
mod documents;
mod extension;
mod fairness;
mod formats;
mod identity;
mod kubelet;
mod lifecycle;
mod network;
mod ownership;
mod permissive;
mod plug_ins;
mod policies;
mod protection;
mod remote;
mod subresources;
mod verbs;
mod watches;
mod webhooks;
