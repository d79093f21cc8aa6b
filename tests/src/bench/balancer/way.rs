//! The ways of a request from the client to nginx, and one measurement of one.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::case::Case;
use super::wires::{PORT, WEBS, Wires, inside};
use super::{dnat, ours, proxy};
use crate::bench::cpu;
use crate::wrk::{self, Request};

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Routed to the first web server.
    Direct,
    /// foobar, `forward = "nat"`.
    Nat,
    /// foobar, `forward = "direct"`: answers do not come by the balancer.
    DirectReturn,
    /// foobar, `forward = "tunnel"`: the same answers, but requests travel in packets of their own.
    Tunnel,
    /// nftables' destination NAT.
    Dnat,
    /// nginx stream.
    Nginx,
    /// HAProxy in TCP mode.
    Haproxy,
}

impl Way {
    /// All that balance.
    pub(super) const BALANCED: [Self; 6] =
        [Self::Nat, Self::DirectReturn, Self::Tunnel, Self::Dnat, Self::Nginx, Self::Haproxy];

    /// Its name in tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct to one nginx",
            Self::Nat => "foobar nat",
            Self::DirectReturn => "foobar direct",
            Self::Tunnel => "foobar tunnel",
            Self::Dnat => "nftables DNAT",
            Self::Nginx => "nginx stream",
            Self::Haproxy => "HAProxy TCP",
        }
    }

    /// Whether it is ours.
    pub(super) const fn is_ours(self) -> bool {
        matches!(self, Self::Nat | Self::DirectReturn | Self::Tunnel)
    }

    fn address(self) -> SocketAddr {
        let (address, port) = match self {
            Self::Direct => (inside(WEBS[0].1), PORT),
            Self::Nat => (ours::NAT_VIP, PORT),
            Self::DirectReturn => (ours::DIRECT_VIP, PORT),
            Self::Tunnel => (ours::TUNNEL_VIP, PORT),
            Self::Dnat => (dnat::VIP, PORT),
            Self::Nginx => (proxy::ADDRESS, proxy::NGINX_PORT),
            Self::Haproxy => (proxy::ADDRESS, proxy::HAPROXY_PORT),
        };
        SocketAddr::from((address, port))
    }

    /// Measures once.
    pub(super) fn run(self, wires: &Wires, case: &Case, time: Duration) -> Result<Measured> {
        wires.set_offloads(case.offloads && !self.is_ours())?;
        let url = format!("http://{}/{}", self.address(), case.file);
        let request = Request { url: &url, connections: CONNECTIONS, keep_alive: case.keep_alive, time };
        let mut command = wrk::command(wires.lab().run().folder(), &request)?;
        let before = (cpu::machine_us()?, cpu::group_us(wires.cgroup())?);
        let figures = wrk::figures(&wires.run("client", &mut command)?)?;
        let after = (cpu::machine_us()?, cpu::group_us(wires.cgroup())?);
        ensure!(figures.requests > 0, "{}, {}: not one answer", case.name, self.name());
        ensure!(
            figures.errors * MAX_ERRORS_OF < figures.requests,
            "{}, {}: {} errors beside {} answers",
            case.name,
            self.name(),
            figures.errors,
            figures.requests
        );
        let machine = after.0 - before.0;
        Ok(Measured {
            rps: figures.rps,
            p99_ms: figures.p99_ms,
            machine_us: machine / figures.requests as f64,
            own_part: (after.1 - before.1) / machine,
        })
    }
}

/// What one run has shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Requests a second.
    pub(super) rps: f64,
    /// 99th percentile of the latency, milliseconds.
    pub(super) p99_ms: f64,
    /// CPU time of the whole machine for one request, microseconds.
    pub(super) machine_us: f64,
    /// Part of it that the bench's processes have used.
    pub(super) own_part: f64,
}

impl Measured {
    /// Between two.
    pub(super) fn mean(one: &Self, other: &Self) -> Self {
        Self {
            rps: f64::midpoint(one.rps, other.rps),
            p99_ms: f64::midpoint(one.p99_ms, other.p99_ms),
            machine_us: f64::midpoint(one.machine_us, other.machine_us),
            own_part: f64::midpoint(one.own_part, other.own_part),
        }
    }
}

const CONNECTIONS: u32 = 64;
/// One error among so many answers makes a measurement worthless.
const MAX_ERRORS_OF: u64 = 1000;
