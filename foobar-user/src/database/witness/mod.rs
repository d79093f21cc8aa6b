//! The witness: the store in a balancer's agent. It keeps the state durably, compares before it swaps, and talks only to the
//! database servers, which prove who they are by the site's CA.
//!
//! A request is a line of JSON, and so is its answer. It has no clock and decides nothing.

mod client;
mod ledger;
mod server;
mod tls;
mod wire;

pub use client::Client;
pub use ledger::Ledger;
pub use server::{Server, WitnessSettings};
