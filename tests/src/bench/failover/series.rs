//! What was measured of a contestant, event by event, and the rows that come of it.

use crate::bench::row::{Measured, Row};
use crate::bench::samples::Samples;

/// A leader's death: moments in microseconds of the boot-time clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    /// Everything on its server was killed.
    pub(super) at: i64,
    /// Its clients were fenced off, with nobody alive to do it.
    pub(super) fenced: Option<i64>,
    /// The other server took the lease.
    pub(super) taken: i64,
    /// Its PostgreSQL could be written.
    pub(super) writable: i64,
    /// The first row was acknowledged there.
    pub(super) written: i64,
}

impl Death {
    /// In words, with what was lost.
    pub(super) fn told(&self, lost: usize) -> String {
        let fence = self.fenced.map_or_else(|| "none".to_owned(), |fenced| format!("{:.0} ms", ms(self.at, fenced)));
        format!(
            "RTO {:.0} ms: detect {:.0}, promote {:.0}, route {:.0}; fence after {fence}; lost={lost}",
            ms(self.at, self.written),
            ms(self.at, self.taken),
            ms(self.taken, self.writable),
            ms(self.writable, self.written),
        )
    }
}

/// A switchover, in the same way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Switchover {
    /// It was ordered.
    pub(super) at: i64,
    /// The last row before the other server's first was acknowledged.
    pub(super) before: i64,
    /// The first row was acknowledged there.
    pub(super) written: i64,
}

impl Switchover {
    /// In words, with what was lost.
    pub(super) fn told(&self, lost: usize) -> String {
        let (whole, silent) = (ms(self.at, self.written), ms(self.before, self.written));
        format!("{whole:.0} ms from the order, {silent:.0} ms without writes; lost={lost}")
    }
}

/// All events of a contestant.
#[derive(Debug, Default)]
pub(super) struct Series {
    rto: Samples,
    detect: Samples,
    fence: Samples,
    promote: Samples,
    route: Samples,
    ordered: Samples,
    silent: Samples,
    acknowledged: usize,
    lost: usize,
}

impl Series {
    /// Adds a death, with how many rows were acknowledged around it and how many of them are lost.
    pub(super) fn add_death(&mut self, death: &Death, (acknowledged, lost): (usize, usize)) {
        self.rto.add(ms(death.at, death.written));
        self.detect.add(ms(death.at, death.taken));
        self.promote.add(ms(death.taken, death.writable));
        self.route.add(ms(death.writable, death.written));
        if let Some(fenced) = death.fenced {
            self.fence.add(ms(death.at, fenced));
        }
        self.acknowledged += acknowledged;
        self.lost += lost;
    }

    /// Adds a switchover, in the same way.
    pub(super) fn add_switchover(&mut self, switchover: &Switchover, (acknowledged, lost): (usize, usize)) {
        self.ordered.add(ms(switchover.at, switchover.written));
        self.silent.add(ms(switchover.before, switchover.written));
        self.acknowledged += acknowledged;
        self.lost += lost;
    }

    /// The whole of it in words.
    pub(super) fn remark(&self, name: &str) -> String {
        format!(
            "{name:<8} {} deaths: RTO median {:.0} ms, worst {:.0} ms; {} switchovers, worst {:.0} ms without writes; \
             {} rows acknowledged, lost={}",
            self.rto.count(),
            self.rto.median(),
            self.rto.max(),
            self.silent.count(),
            self.silent.max(),
            self.acknowledged,
            self.lost,
        )
    }
}

/// The rows of both.
pub(super) fn rows(ours: &Series, theirs: &Series, peer: &'static str) -> Vec<Row> {
    let row = |case, ours, theirs| timed(case, ours, theirs, peer);
    let (lost, their_lost) = (one(ours.lost as f64), one(theirs.lost as f64));
    vec![
        row("leader dies: RTO", &ours.rto, &theirs.rto),
        row("  the worst of them", &one(ours.rto.max()), &one(theirs.rto.max())),
        row("  detect, until the lease is taken", &ours.detect, &theirs.detect),
        row("  fence, within detect", &ours.fence, &theirs.fence),
        row("  promote, until it can be written", &ours.promote, &theirs.promote),
        row("  route, until a write is acknowledged", &ours.route, &theirs.route),
        row("switchover: from the order to a write", &ours.ordered, &theirs.ordered),
        row("switchover: without writes", &ours.silent, &theirs.silent),
        Row::new((BENCH, "rows"), "acknowledged and lost", &lost, Measured { name: peer, samples: &their_lost }, None),
    ]
}

/// What has one value for all rounds.
fn one(value: f64) -> Samples {
    let mut samples = Samples::default();
    samples.add(value);
    samples
}

fn timed(case: &str, ours: &Samples, theirs: &Samples, peer: &'static str) -> Row {
    Row::new((BENCH, "ms"), case, ours, Measured { name: peer, samples: theirs }, None)
}

/// Milliseconds between two moments.
fn ms(from: i64, to: i64) -> f64 {
    (to - from) as f64 / 1e3
}

const BENCH: &str = "failover";
