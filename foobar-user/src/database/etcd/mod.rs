//! etcd as the store, by the JSON face of its v3 API, which every member has beside gRPC.
//!
//! Below a prefix are one key with the state and one for each server's word. A state's version is the cluster's identifier
//! with the revision that last changed the key: a renewal puts the same value and moves it, and revisions only grow.
//! Reads are linearizable: a member that is cut off from the others answers none.

mod client;
mod line;
mod wire;

pub use client::Client;
