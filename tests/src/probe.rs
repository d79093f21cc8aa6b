//! A connection attempt from a host: who gets in where.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::Namespace;

/// How a connection attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Connected.
    Open,
    /// Refused by the other kernel: the packet arrived and nobody listens.
    Refused,
    /// Nothing came back: what a firewall that drops looks like.
    Silent,
}

/// Tries to connect from `namespace` to `address` for `deadline`.
pub fn connect(namespace: &Namespace, address: SocketAddr, deadline: Duration) -> Result<Outcome> {
    namespace.run(|| match TcpStream::connect_timeout(&address, deadline) {
        Ok(_) => Ok(Outcome::Open),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Outcome::Refused),
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Ok(Outcome::Silent),
        Err(error) => Err(error).with_context(|| format!("cannot try to connect to {address}")),
    })?
}
