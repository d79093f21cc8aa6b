//! Clients of services by UDP: what they are answered, and what they are told when nobody answers.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;

/// A question to the echo service, and its answer; the server's name.
///
/// # Errors
/// No answer from there.
pub fn word(vip: SocketAddr) -> Result<String> {
    let socket = connected(vip)?;
    socket.send(b"who")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).context("no answer")?;
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    let server = answer.strip_suffix(" who");
    server.map(str::to_owned).with_context(|| format!("the answer is {answer:?}"))
}

/// What a datagram's sender is told, who waits for an answer; `hops`: the datagram gets no further.
///
/// # Errors
/// Somebody has answered.
pub fn told(vip: SocketAddr, hops: Option<u32>) -> Result<ErrorKind> {
    let socket = connected(vip)?;
    if let Some(hops) = hops {
        let (level, name, errors) = if vip.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_RECVERR)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_RECVERR)
        };
        set(&socket, level, name, hops)?;
        // Who does not ask is not told of hops: they may be a passing trouble.
        set(&socket, level, errors, 1)?;
    }
    socket.send(b"anybody there?")?;
    let mut buffer = [0; 64];
    let error = socket.recv(&mut buffer).err().context("somebody has answered")?;
    Ok(error.kind())
}

fn set(socket: &UdpSocket, level: i32, name: i32, value: u32) -> Result<()> {
    // SAFETY: an open socket, and a value of four bytes that lives for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop).map_err(|error| Error::from(error).into())
}

/// A socket that hears of `to` alone.
fn connected(to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.connect(to)?;
    Ok(socket)
}

const ANSWER: Duration = Duration::from_secs(10);
