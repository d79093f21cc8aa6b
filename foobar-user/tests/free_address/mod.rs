//! An address for a program that cannot choose a port itself.

use std::net::{SocketAddr, TcpListener};

/// One on loopback that nobody listened at a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port")
}
