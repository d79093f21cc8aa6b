//! The way to backends that are reached by tunnel: how much room it has, and that the kernel learns it from routers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context, Result};
use foobar_common::tunnel::{IPV4_IN, IPV6_IN, OUTER4, OUTER6};
use nix::errno::Errno;
use tracing::warn;

use crate::plan::{BackendPlan, Plan, Role, Scope};

/// What every IPv4 host takes (RFC 791), and what every link of IPv6 has room for (RFC 8200).
const LEAST: (u32, u32) = (576, 1280);

/// Sockets by which the kernel learns from routers how much room there is behind them: it looks at an ICMP error only when
/// somebody has the protocol of the packet that it is about. Nothing is ever read from them.
#[derive(Debug)]
pub struct Learner(#[expect(dead_code, reason = "what is open is what counts")] Vec<OwnedFd>);

impl Learner {
    /// Of a server's plan: there is something to learn where tunnels begin.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        if plan.role != Role::Balancer || !plan.services.iter().any(|service| service.scope == Scope::Tunnel) {
            return Self(Vec::new());
        }
        let families = [(libc::AF_INET, IPV4_IN), (libc::AF_INET6, IPV6_IN)];
        let open = |(family, protocol)| match raw(family, protocol) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!("routers that have less room than the next link for tunnels are not heard: {error:#}");
                None
            }
        };
        Self(families.into_iter().filter_map(open).collect())
    }
}

fn raw(family: libc::c_int, protocol: u8) -> Result<OwnedFd> {
    // SAFETY: a call without pointers.
    let socket = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol)) };
    let socket = Errno::result(socket).with_context(|| format!("cannot open a socket for protocol {protocol}"))?;
    // SAFETY: a descriptor that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    if family == libc::AF_INET6 {
        // Here the kernel looks only on behalf of sockets that are told of errors, too; their queue is bounded, and stays full.
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the kernel reads the bytes of one number.
        let result = unsafe {
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            let option = (libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
            libc::setsockopt(socket.as_raw_fd(), option.0, option.1, (&raw const on).cast(), length)
        };
        Errno::result(result).context("cannot have errors of IPv6 told")?;
    }
    Ok(socket)
}

/// Backends whose way has so little room that a packet which every host may send does not fit into the tunnel, and what to do.
#[must_use]
pub fn cramped(plan: &Plan) -> Vec<String> {
    let mut backends = Vec::new();
    for service in plan.services.iter().filter(|service| service.scope == Scope::Tunnel) {
        for backend in &service.backends {
            let reached = |a: &&SocketAddr| service.vips.iter().any(|vip| vip.is_ipv4() == a.is_ipv4());
            backends.extend(backend.addresses.iter().filter(reached).map(|address| (backend, address)));
        }
    }
    // No way at all is what health checks tell.
    let judged =
        |(backend, address): (&BackendPlan, &SocketAddr)| judge(&backend.server, address.ip(), mtu(address.ip()).ok()?);
    let mut messages: Vec<String> = backends.into_iter().filter_map(judged).collect();
    messages.sort_unstable();
    messages.dedup();
    messages
}

fn judge(server: &str, address: IpAddr, mtu: u32) -> Option<String> {
    let (header, least, family) = match address {
        IpAddr::V4(_) => (OUTER4 as u32, LEAST.0, "IPv4"),
        IpAddr::V6(_) => (OUTER6 as u32, LEAST.1, "IPv6"),
    };
    let room = mtu.saturating_sub(header);
    (room < least).then(|| {
        format!(
            "the way to {server} ({address}) takes packets of {mtu} bytes, which leaves {room} for what is in a tunnel, and \
             every {family} host may send {least}: raise the MTU of the links to it to {} or more",
            least + header
        )
    })
}

/// Longest packet to an address, in bytes, as far as the kernel knows.
fn mtu(to: IpAddr) -> Result<u32> {
    let (any, level, option) = match to {
        IpAddr::V4(_) => (IpAddr::from(Ipv4Addr::UNSPECIFIED), libc::IPPROTO_IP, libc::IP_MTU),
        IpAddr::V6(_) => (IpAddr::from(Ipv6Addr::UNSPECIFIED), libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    // Connecting a datagram socket sends nothing: it only asks for the route.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((to, 9))?;
    let mut mtu: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes no more than the bytes that it is given.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut mtu).cast(), &raw mut length) };
    Errno::result(result).with_context(|| format!("cannot ask how much room the way to {to} has"))?;
    u32::try_from(mtu).context("a negative MTU")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_host_may_send_has_to_fit() {
        let judged = |address: &str, mtu| judge("web1", address.parse().unwrap(), mtu);
        assert_eq!(judged("10.0.2.11", 596), None);
        assert_eq!(judged("fd00:2::11", 1320), None);
        let message = judged("10.0.2.11", 595).unwrap();
        assert!(message.contains("leaves 575") && message.contains("to 596 or more"), "{message}");
        let message = judged("fd00:2::11", 1319).unwrap();
        assert!(message.contains("leaves 1279") && message.contains("to 1320 or more"), "{message}");
    }

    #[test]
    fn the_kernel_knows_the_loopback() {
        assert!(mtu(Ipv4Addr::LOCALHOST.into()).unwrap() >= 1500);
    }
}
