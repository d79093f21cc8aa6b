//! Sockets of this host that are connected to somebody who will never answer: they are ended, so that their programs learn it at once
//! and not by a timeout (`sock_diag(7)`, `SOCK_DESTROY`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `linux/netlink.h`.
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// States of TCP of which there is somebody who waits, as bits: all but `TIME_WAIT`, `CLOSE` and `LISTEN`.
const WAITING: u32 = 0xfff & !(1 << 6 | 1 << 7 | 1 << 10);
/// More than the kernel puts into one message.
const BUFFER: usize = 32 << 10;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Id {
    source_port: U16,
    destination_port: U16,
    source: [u8; 16],
    destination: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2` behind its header.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    extensions: u8,
    _pad: u8,
    states: u32,
    id: Id,
}

/// Begin of `struct inet_diag_msg`.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Found {
    family: u8,
    _state: [u8; 3],
    id: Id,
}

/// Ends every TCP connection of this network namespace to `peer`; returns how many there were.
///
/// # Errors
/// The kernel does not list them, or does not let them be ended (`CONFIG_INET_DIAG_DESTROY`).
pub fn end_connections_to(peer: SocketAddr) -> Result<usize> {
    end(|found| remote(found) == Some(peer))
}

/// Ends every TCP connection of this network namespace that was accepted on `port`, and those that outlive their program, too.
///
/// # Errors
/// As [`end_connections_to`].
pub fn end_connections_of(port: u16) -> Result<usize> {
    end(|found| found.id.source_port.get() == port)
}

fn end(is_meant: impl Fn(&Found) -> bool) -> Result<usize> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
        .context("cannot ask the kernel for its sockets")?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
    let mut ended = 0;
    // A socket of IPv6 may be connected to an IPv4 address.
    for family in [libc::AF_INET, libc::AF_INET6] {
        for found in list(&netlink, family as u8)?.iter().filter(|found| is_meant(found)) {
            ended += usize::from(destroy(&netlink, found)?);
        }
    }
    Ok(ended)
}

fn list(netlink: &OwnedFd, family: u8) -> Result<Vec<Found>> {
    let nobody = Id {
        source_port: U16::ZERO,
        destination_port: U16::ZERO,
        source: [0; 16],
        destination: [0; 16],
        interface: 0,
        cookie: [u32::MAX; 2],
    };
    ask(netlink, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, family, nobody)?;
    let mut all = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length =
            recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("the kernel lists no sockets")?;
        let mut rest = &buffer[..length];
        while let Ok((header, _)) = Header::read_from_prefix(rest) {
            let size = (header.length as usize).min(rest.len());
            let Some(body) = rest.get(size_of::<Header>()..size) else { bail!("the kernel's list is cut off") };
            match header.kind {
                NLMSG_DONE => return Ok(all),
                NLMSG_ERROR => fault(body).context("the kernel lists no sockets")?,
                _ => all.extend(Found::read_from_prefix(body).ok().map(|(found, _)| found)),
            }
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// Whether it was still there.
fn destroy(netlink: &OwnedFd, found: &Found) -> Result<bool> {
    ask(netlink, SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, found.family, found.id)?;
    let mut buffer = [0; 1024];
    let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("the kernel ends no socket")?;
    match fault(buffer.get(size_of::<Header>()..length).unwrap_or_default()) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(error).context("the kernel ends no socket: it needs CONFIG_INET_DIAG_DESTROY"),
    }
}

fn ask(netlink: &OwnedFd, kind: u16, flags: u16, family: u8, id: Id) -> Result<()> {
    let header = Header { length: size_of::<Request>() as u32, kind, flags, sequence: 1, port: 0 };
    let protocol = libc::IPPROTO_TCP as u8;
    let request = Request { header, family, protocol, extensions: 0, _pad: 0, states: WAITING, id };
    send(netlink.as_raw_fd(), request.as_bytes(), MsgFlags::empty()).context("cannot ask the kernel about sockets")?;
    Ok(())
}

/// What an error message says; 0 is no error.
fn fault(body: &[u8]) -> Result<(), Errno> {
    let code = i32::read_from_prefix(body).map_or(-libc::EBADMSG, |(code, _)| code);
    if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) }
}

fn remote(found: &Found) -> Option<SocketAddr> {
    let bytes = found.id.destination;
    let address = match i32::from(found.family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(address, found.id.destination_port.get()))
}

const _: () = assert!(size_of::<Id>() == 48 && size_of::<Request>() == 72 && size_of::<Found>() == 52);

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Root alone may end sockets.
    #[test]
    fn connections_to_one_end_are_ended_and_others_go_on() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root may end sockets");
            return;
        }
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (ended, kept) = (TcpListener::bind(address).unwrap(), TcpListener::bind(address).unwrap());
            let mut victim = TcpStream::connect(ended.local_addr().unwrap()).unwrap();
            let neighbour = TcpStream::connect(kept.local_addr().unwrap()).unwrap();
            assert_eq!(end_connections_to(ended.local_addr().unwrap()).unwrap(), 1);
            assert_eq!(victim.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
            neighbour.set_nonblocking(true).unwrap();
            assert_eq!((&neighbour).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(end_connections_to(ended.local_addr().unwrap()).unwrap(), 0);
        }
    }
}
