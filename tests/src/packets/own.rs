//! Connections of the balancer's own: real sockets in the namespace, and the tuples of what they are sent.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use super::frame::{ACK, Frame, Transport};
use super::hosts::{LB1, LB1_TOO, WEB1};
use super::shell::Key;
use crate::eventually;

/// The namespace's routes stand still within this, or never.
const READY: Duration = Duration::from_secs(5);
/// Port of the balancer's end of its TCP connection.
pub const LOCAL: u16 = 40_001;
/// Port at which the balancer listens, and where the connection goes.
pub const REMOTE: u16 = 9001;
/// Port of the connected UDP socket.
pub const ASKING: u16 = 40_053;
/// Port of the unconnected UDP socket.
pub const OPEN: u16 = 40_054;
/// Port that the UDP socket is connected to.
pub const DNS: u16 = 5353;

/// What the connection's other end sends.
pub fn tcp_reply(v6: bool) -> Frame {
    Frame::new(v6, LB1_TOO, LB1, Transport::Tcp(REMOTE, LOCAL, ACK))
}

/// What the peer of the connected UDP socket sends.
pub fn udp_reply(v6: bool) -> Frame {
    Frame::new(v6, WEB1, LB1, Transport::Udp(DNS, ASKING))
}

/// Tuples of packets that belong to a connection of the balancer: the TCP connection has both its ends here.
pub fn connections() -> Vec<Key> {
    frames().iter().map(Key::of).collect()
}

/// The same as protocol, source and destination.
pub fn ends() -> Vec<(u8, End, End)> {
    let end = |frame: &Frame| {
        let (source, destination) = frame.ports();
        (frame.protocol(), (frame.source, source), (frame.destination, destination))
    };
    frames().iter().map(end).collect()
}

/// One end of a connection.
pub type End = (IpAddr, u16);

fn frames() -> Vec<Frame> {
    [false, true]
        .iter()
        .flat_map(|v6| {
            let other_end = Frame::new(*v6, LB1, LB1_TOO, Transport::Tcp(LOCAL, REMOTE, ACK));
            [tcp_reply(*v6), udp_reply(*v6), other_end]
        })
        .collect()
}

/// The sockets, open as long as this lives.
#[derive(Debug)]
pub struct Sockets {
    _connected: Vec<OwnedFd>,
    _accepted: Vec<TcpStream>,
    _listening: Vec<TcpListener>,
    _datagram: Vec<UdpSocket>,
}

impl Sockets {
    /// Opens and connects all of them, in the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let mut sockets =
            Self { _connected: Vec::new(), _accepted: Vec::new(), _listening: Vec::new(), _datagram: Vec::new() };
        for v6 in [false, true] {
            let at = |host: super::hosts::Host, port| SocketAddr::new(host.address(v6), port);
            let listener = TcpListener::bind(at(LB1_TOO, REMOTE)).context("cannot listen in the namespace")?;
            let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
            let client = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            bind(client.as_raw_fd(), &SockaddrStorage::from(at(LB1, LOCAL)))?;
            // A link that has just been switched on takes its routes away and gives them back once.
            eventually(READY, "a connection in the namespace", || {
                connect(client.as_raw_fd(), &SockaddrStorage::from(at(LB1_TOO, REMOTE)))?;
                Ok(true)
            })?;
            sockets._accepted.push(listener.accept()?.0);
            sockets._connected.push(client);
            sockets._listening.push(listener);
            let asking = UdpSocket::bind(at(LB1, ASKING))?;
            asking.connect(at(WEB1, DNS))?;
            sockets._datagram.extend([asking, UdpSocket::bind(at(LB1, OPEN))?]);
        }
        Ok(sockets)
    }
}
