//! The edge as a process: the real binary, real TLS in both directions, real clients and backends, all on loopback.

mod backend;
mod bed;
mod client;
mod drain;
mod forwarding;
#[path = "../free_address/mod.rs"]
mod free_address;
mod limits;
mod pki;
mod process;
mod refusals;
mod upstream;
