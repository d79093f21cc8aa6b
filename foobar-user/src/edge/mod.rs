//! `foobar edge`: TLS termination and the HTTP proxy, an unprivileged child of the balancer's agent.
//!
//! The child (`serve`) has a thread a core, each with a runtime, `SO_REUSEPORT` listeners and backend connections of its own.
//! The parent's half (`Edge`) holds the listeners and starts children.

mod answer;
mod backend;
mod client_io;
mod config;
mod connect;
mod connection;
mod descend;
mod exchange;
mod exposition;
mod harden;
mod headers;
mod host;
mod launch;
mod limits;
mod listen;
mod metrics;
mod phase;
mod pool;
mod progress;
mod proxy;
mod redirect;
mod request_body;
mod response_body;
mod serve;
mod service;
mod tls;
mod worker;

pub use exposition::scrape;
pub use launch::{Edge, EdgeOptions};
pub use serve::serve;

/// Descriptor in which `foobar edge` finds its configuration.
pub const CONFIG_FD: std::os::fd::RawFd = descend::CONFIG_FD;
