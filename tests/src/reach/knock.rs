//! Knocking: all doors at once, each until it answers or the common deadline has passed.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::door::{Door, Knock};
use crate::namespace::Namespace;
use crate::probe::Outcome;
use crate::process::raise_file_limit;

/// Knocks at all `doors` from `namespace`, and waits for `deadline` for each.
pub fn knock_all(namespace: &Namespace, doors: &[Door], deadline: Duration) -> Result<Vec<(Door, Outcome)>> {
    raise_file_limit()?;
    namespace.block_on(|| async {
        let end = Instant::now() + deadline;
        let mut knocks = JoinSet::new();
        for door in doors.iter().copied() {
            knocks.spawn(async move { (door, knock(door, end).await) });
        }
        let mut outcomes = Vec::with_capacity(doors.len());
        while let Some(knocked) = knocks.join_next().await {
            let (door, outcome) = knocked.context("a knock panicked")?;
            outcomes.push((door, outcome.with_context(|| format!("cannot knock at {door}"))?));
        }
        Ok(outcomes)
    })?
}

async fn knock(door: Door, end: Instant) -> io::Result<Outcome> {
    let outcome = match door.knock {
        Knock::Tcp(port) => timeout_at(end, connect(SocketAddr::new(door.address, port))).await,
        Knock::Udp(port) => {
            let any = if door.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let datagram = UdpSocket::bind(any)?;
            timeout_at(end, ask(datagram, SocketAddr::new(door.address, port), b"knock")).await
        }
        Knock::Echo => {
            let (socket, request) = echo(door.address)?;
            timeout_at(end, ask(socket, SocketAddr::new(door.address, 0), &request)).await
        }
    };
    match outcome.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
        Ok(()) => Ok(Outcome::Open),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Outcome::Refused),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(Outcome::Silent),
        Err(error) => Err(error),
    }
}

async fn connect(address: SocketAddr) -> io::Result<()> {
    TcpStream::connect(address).await.map(drop)
}

/// Sends until something comes back: the first datagram may be lost while the neighbour is looked for.
async fn ask(socket: UdpSocket, address: SocketAddr, request: &[u8]) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    loop {
        socket.send(request).await?;
        if let Ok(answer) = timeout(AGAIN, socket.recv(&mut [0; 64])).await {
            return answer.map(drop);
        }
    }
}

/// A socket of the kernel's own ping (it adds identifier and checksum, and gives back replies only), and a request.
fn echo(address: IpAddr) -> io::Result<(UdpSocket, [u8; 8])> {
    let (family, protocol, kind) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    Ok((UdpSocket::from(socket), [kind, 0, 0, 0, 0, 0, 0, 1]))
}

const AGAIN: Duration = Duration::from_millis(500);
