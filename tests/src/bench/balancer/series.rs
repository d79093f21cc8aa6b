//! What was measured on one way in one case, round by round, beside direct.

use super::case::Case;
use super::way::{Measured, Way};
use crate::bench::row::{self, Row, Target};
use crate::bench::samples::Samples;

/// The measurements of a way.
#[derive(Debug)]
pub(super) struct Series {
    /// The way.
    pub(super) way: Way,
    own: Figures,
    /// Before and after each.
    direct: Figures,
}

#[derive(Debug, Default)]
struct Figures {
    rps: Samples,
    p99: Samples,
    machine: Samples,
    own_part: Samples,
}

impl Figures {
    fn add(&mut self, measured: &Measured) {
        self.rps.add(measured.rps);
        self.p99.add(measured.p99_ms);
        self.machine.add(measured.machine_us);
        self.own_part.add(measured.own_part);
    }
}

impl Series {
    /// No measurement yet.
    pub(super) fn new(way: Way) -> Self {
        Self { way, own: Figures::default(), direct: Figures::default() }
    }

    /// Adds one of it, and what direct was meanwhile.
    pub(super) fn add(&mut self, own: &Measured, direct: &Measured) {
        self.own.add(own);
        self.direct.add(direct);
    }

    /// Its rows: requests, latency, CPU time.
    pub(super) fn rows(&self, case: &Case) -> [Row; 3] {
        let name = format!("{}, {}", self.way.name(), case.name);
        let row = |unit, own: &Samples, direct: &Samples, target| {
            let peer = row::Measured { name: Way::Direct.name(), samples: direct };
            Row::new(("balancer", unit), &name, own, peer, target)
        };
        let target = self.way.is_ours().then_some(Target::AtLeast(case.target));
        [
            row("requests/s", &self.own.rps, &self.direct.rps, target),
            row("ms, p99", &self.own.p99, &self.direct.p99, None),
            row("µs CPU/request, machine", &self.own.machine, &self.direct.machine, None),
        ]
    }

    /// Whether others used so much of the machine that its CPU time says little about this.
    pub(super) fn disturbed(&self) -> bool {
        self.own.own_part.median() < QUIET || self.direct.own_part.median() < QUIET
    }

    /// What helps to judge the figures.
    pub(super) fn remark(&self) -> String {
        let part = self.own.own_part.median() * 100.0;
        format!("{}: of the machine's CPU time {part:.0} % was the bench's", self.way.name())
    }
}

/// Part of the machine's CPU time that is the bench's when nothing else runs.
const QUIET: f64 = 0.85;
