//! The ways of a request, and what was measured on each.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cpu::Usage;
use super::{haproxy, spent};
use crate::bed::Bed;
use crate::bench::samples::Samples;
use crate::host::{Host, VIP};
use crate::wrk::{self, Figures};

/// A way from the client to nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Routed by the balancer's kernel to the first web server, in the clear.
    Direct,
    /// Balanced by NAT in XDP, in the clear.
    L4,
    /// TLS to the edge, mutual TLS to nginx.
    Tls,
    /// TLS to HAProxy, mutual TLS to nginx.
    Haproxy,
}

impl Path {
    /// Every way.
    pub(super) const ALL: [Self; 4] = [Self::Direct, Self::L4, Self::Tls, Self::Haproxy];

    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct to one nginx",
            Self::L4 => "foobar L4",
            Self::Tls => "foobar TLS",
            Self::Haproxy => "HAProxy TLS",
        }
    }

    fn url(self) -> Result<String> {
        let vip = IpAddr::V4(VIP);
        Ok(match self {
            Self::Direct => format!("http://{}:8080{FILE}", Host::named(WEB).context("no such web server")?.v4()),
            Self::L4 => format!("http://{vip}:8080{FILE}"),
            Self::Tls => format!("https://{vip}{FILE}"),
            Self::Haproxy => format!("https://{vip}:{}{FILE}", haproxy::PORT),
        })
    }

    /// Fills pools and caches, and shows that the way works.
    pub(super) fn warm_up(self, bed: &Bed) -> Result<()> {
        self.run(bed, WARM_UP).map(drop)
    }

    fn run(self, bed: &Bed, time: Duration) -> Result<Figures> {
        let figures = wrk::measure(bed, "client", &self.url()?, CONNECTIONS, time)?;
        let Figures { requests, errors, .. } = figures;
        ensure!(requests > 0, "{}: not one answer", self.name());
        ensure!(errors * MAX_ERRORS_OF < requests, "{}: {errors} errors beside {requests} answers", self.name());
        Ok(figures)
    }
}

/// What was measured on one way, round by round.
#[derive(Debug)]
pub(super) struct Series {
    /// The way.
    pub(super) path: Path,
    /// Requests a second.
    pub(super) rps: Samples,
    /// Microseconds a request of the whole machine.
    pub(super) machine: Samples,
    /// Microseconds a request of the balancer's processes.
    pub(super) balancer: Samples,
    /// The site's part of what the machine did.
    site_part: Samples,
    /// The load generator's latencies, milliseconds.
    p50: Samples,
    p99: Samples,
    errors: u64,
}

impl Series {
    /// No measurement yet.
    pub(super) fn new(path: Path) -> Self {
        let none = Samples::default;
        let (rps, machine, balancer) = (none(), none(), none());
        Self { path, rps, machine, balancer, site_part: none(), p50: none(), p99: none(), errors: 0 }
    }

    /// Measures once.
    pub(super) fn measure(&mut self, bed: &Bed, time: Duration) -> Result<()> {
        let before = Usage::of(bed)?;
        let figures = self.path.run(bed, time)?;
        let spent = spent(&before, &Usage::of(bed)?, figures.requests);
        self.rps.add(figures.rps);
        self.machine.add(spent.machine_us);
        self.balancer.add(spent.balancer_us);
        self.site_part.add(spent.site_us / spent.machine_us);
        self.p50.add(figures.p50_ms);
        self.p99.add(figures.p99_ms);
        self.errors += figures.errors;
        Ok(())
    }

    /// Whether others used so much of the machine that its CPU time says little about the site.
    pub(super) fn disturbed(&self) -> bool {
        self.site_part.median() < QUIET
    }

    /// What helps to judge the figures.
    pub(super) fn remark(&self) -> String {
        format!(
            "{:<20} p50 {:.2} ms, p99 {:.2} ms, {} errors; of the machine's CPU time {:.0} % was the site's; \
             balancer {:.1} µs a request",
            self.path.name(),
            self.p50.median(),
            self.p99.median(),
            self.errors,
            self.site_part.median() * 100.0,
            self.balancer.median(),
        )
    }
}

/// The web server of the direct way.
pub(super) const WEB: &str = "web1";
const FILE: &str = "/small.txt";
const CONNECTIONS: u32 = 64;
const WARM_UP: Duration = Duration::from_secs(1);
/// Part of the machine's CPU time that is the site's when nothing else runs; 98 % and more were seen.
const QUIET: f64 = 0.9;
/// One error among so many answers makes a measurement worthless.
const MAX_ERRORS_OF: u64 = 1000;
