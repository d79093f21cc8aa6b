//! Passive ejection: a backend that refuses connections is taken out for a while, whatever its checks say.
//!
//! The kernel counts for each backend the connections in a row that it has not taken. Here it is decided what follows: who
//! reaches the service's number of them is out, for a time that doubles when it is soon out again; then it is given
//! connections on trial for a minute, and is out again with the first that it does not take. Checks that connect to it take it back sooner,
//! the first time. At most half of a service's backends are out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::members;
use super::state::{BackendHealth, ServiceHealth};
use crate::plan::Eject;

/// Failures without another for so long are forgotten: a row of them grows while somebody connects.
const MEMORY: Duration = Duration::from_secs(10);
/// Who is out again within this time after its return stays out for longer.
const CALM: Duration = Duration::from_secs(60);
/// Times that the time is doubled, at the most.
const DOUBLINGS_MAX: u32 = 5;

/// Connections in a row that a backend's address has not taken, as the kernel has counted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures<'a> {
    /// The service.
    pub service: &'a str,
    /// The backend's server.
    pub server: &'a str,
    /// Its endpoint.
    pub address: SocketAddr,
    /// How many.
    pub row: u64,
}

/// What is remembered of one address of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row at the last look; `None`: nobody has looked yet, and what was before is not held against it.
    seen: Option<u64>,
    /// Those of them that are too old, or have been answered for.
    settled: u64,
    /// When they last became more.
    grown: Option<Instant>,
    /// Until when it is out.
    until: Option<Instant>,
    /// Checks in a row that have connected to it since.
    passed: u32,
    /// How often the time was doubled.
    doublings: u32,
    /// When it last came back.
    returned: Option<Instant>,
    /// Until when it is on trial: it has come back, and has not taken a connection since it was taken out.
    on_trial: Option<Instant>,
    /// Times that it was taken out.
    count: u64,
}

impl Ejection {
    /// Whether it is out now.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        self.until.is_some()
    }

    /// Times that it was taken out since the agent's start.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Takes what the kernel has counted; whether it has failed often enough to be taken out.
    fn look(&mut self, row: u64, rule: Eject, now: Instant) -> bool {
        let seen = self.seen.replace(row);
        match seen {
            None => self.settled = row,
            Some(seen) if row < seen => {
                // It has taken a connection in between.
                (self.settled, self.on_trial) = (0, None);
                self.grown = Some(now);
            }
            Some(seen) if row > seen => self.grown = Some(now),
            Some(_) if self.grown.is_none_or(|grown| now.saturating_duration_since(grown) > MEMORY) => {
                self.settled = row;
            }
            Some(_) => {}
        }
        let needed = if self.on_trial.is_some_and(|until| now < until) { 1 } else { rule.failures };
        self.until.is_none() && rule.failures != 0 && row.saturating_sub(self.settled) >= u64::from(needed)
    }

    /// Takes it out; for how long.
    fn take_out(&mut self, rule: Eject, now: Instant) -> Duration {
        let soon = self.returned.is_some_and(|returned| now.saturating_duration_since(returned) < CALM);
        self.doublings = if soon { (self.doublings + 1).min(DOUBLINGS_MAX) } else { 0 };
        let time = Duration::from_secs(u64::from(rule.time_s)) * (1 << self.doublings);
        (self.until, self.count, self.passed) = (Some(now + time), self.count + 1, 0);
        time
    }

    /// Takes the result of a check that connects to it; whether it comes back. A process that was started again needs no more
    /// than `rise` of them; who has failed on trial stays out for its time.
    pub(super) fn checked(&mut self, success: bool, rise: u32, now: Instant) -> bool {
        self.passed = if success { self.passed.saturating_add(1) } else { 0 };
        let back = self.is_out() && self.doublings == 0 && self.passed >= rise;
        if back {
            self.end(now);
        }
        back
    }

    /// Lets it come back: on trial, unless the last connection that it was given before it was taken out was taken after all.
    pub(super) fn end(&mut self, now: Instant) {
        if self.until.take().is_some() {
            self.settled = self.seen.unwrap_or(0);
            self.returned = Some(now);
            self.on_trial = (self.settled > 0).then_some(now + CALM);
        }
    }
}

/// Takes what the kernel has counted of a service's backends; whether its members may have changed.
pub(super) fn look(service: &mut ServiceHealth, failures: &[Failures<'_>], now: Instant) -> bool {
    let mut changed = false;
    for index in 0..service.backends.len() {
        let rule = service.eject;
        let backend = &mut service.backends[index];
        if backend.ejection.until.is_some_and(|until| until <= now || rule.failures == 0) {
            backend.ejection.end(now);
            backend.recovered = Some(now);
            changed = true;
            told(&service.name, backend, "is given connections again, on trial");
        }
        let of = |found: &&Failures<'_>| found.server == backend.server && found.address == backend.address;
        let Some(found) = failures.iter().find(of) else { continue };
        let row = found.row;
        if backend.ejection.look(row, rule, now) && may_go(service, index) {
            let backend = &mut service.backends[index];
            let time = backend.ejection.take_out(rule, now);
            changed = true;
            told(&service.name, backend, &format!("is taken out for {} s: it takes no connections", time.as_secs()));
        }
    }
    changed
}

/// Whether this backend takes part, and at least half of its peers stay when it goes.
fn may_go(service: &ServiceHealth, index: usize) -> bool {
    let backend = &service.backends[index];
    let peers = members::peers(service.select, &service.backends, backend);
    let out = peers.iter().filter(|peer| peer.ejection.is_out()).count();
    peers.iter().any(|peer| std::ptr::eq(*peer, backend)) && (out + 1) * 2 <= peers.len()
}

fn told(service: &str, backend: &BackendHealth, what: &str) {
    tracing::info!(service, server = backend.server, address = %backend.address, "backend {what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{PrimaryLog, Status};
    use crate::plan::Select;

    const RULE: Eject = Eject { failures: 5, time_s: 10 };

    fn service(count: u8) -> ServiceHealth {
        let backend = |number: u8| {
            let new = BackendHealth::new(format!("web{number}"), ([10, 0, 1, number], 80).into());
            BackendHealth { status: Status::Up, ..new }
        };
        let backends = (0..count).map(backend).collect();
        let (name, log) = ("www".into(), PrimaryLog::default());
        ServiceHealth { name, select: Select::Any, slow_start_s: 0, eject: RULE, log, backends }
    }

    /// A service and its clock.
    struct Bench {
        service: ServiceHealth,
        now: Instant,
    }

    impl Bench {
        fn new(count: u8) -> Self {
            let mut bench = Self { service: service(count), now: Instant::now() };
            bench.rows(&vec![0; usize::from(count)]);
            bench
        }

        fn rows(&mut self, rows: &[u64]) -> bool {
            let known: Vec<(String, SocketAddr)> =
                self.service.backends.iter().map(|backend| (backend.server.clone(), backend.address)).collect();
            let failures: Vec<Failures<'_>> = known
                .iter()
                .zip(rows)
                .map(|((server, address), row)| Failures { service: "www", server, address: *address, row: *row })
                .collect();
            look(&mut self.service, &failures, self.now)
        }

        fn after(&mut self, seconds: f64, rows: &[u64]) -> bool {
            self.now += Duration::from_secs_f64(seconds);
            self.rows(rows)
        }

        fn out(&self) -> Vec<usize> {
            let out = self.service.backends.iter().enumerate().filter(|(_, backend)| backend.ejection.is_out());
            out.map(|(index, _)| index).collect()
        }
    }

    #[test]
    fn so_many_failures_in_a_row_and_no_fewer() {
        let mut bench = Bench::new(3);
        assert!(!bench.after(0.2, &[4, 0, 0]));
        assert!(bench.after(0.2, &[5, 0, 0]));
        assert_eq!(bench.out(), [0]);
        assert_eq!(bench.service.members().len(), 2);
    }

    #[test]
    fn a_success_begins_the_row_anew() {
        let mut bench = Bench::new(3);
        bench.after(0.2, &[4, 0, 0]);
        assert!(!bench.after(0.2, &[1, 0, 0]));
        assert!(!bench.after(0.2, &[4, 0, 0]));
        assert!(bench.after(0.2, &[5, 0, 0]));
    }

    #[test]
    fn what_was_before_and_what_is_old_is_not_held_against_it() {
        let mut bench = Bench { service: service(3), now: Instant::now() };
        assert!(!bench.rows(&[100, 0, 0]));
        assert!(!bench.after(0.2, &[104, 0, 0]));
        assert!(!bench.after(11.0, &[104, 0, 0]));
        assert!(!bench.after(0.2, &[108, 0, 0]));
        assert!(bench.after(0.2, &[109, 0, 0]));
    }

    #[test]
    fn it_comes_back_on_trial_and_its_time_doubles() {
        let mut bench = Bench::new(3);
        bench.after(0.2, &[5, 0, 0]);
        for (time, row) in [(10.0, 6), (20.0, 7), (40.0, 8), (80.0, 9), (160.0, 10), (320.0, 11), (320.0, 12)] {
            assert!(!bench.after(time - 0.1, &[row - 1, 0, 0]), "{time}");
            assert!(bench.after(0.2, &[row - 1, 0, 0]), "{time}");
            assert!(bench.out().is_empty());
            assert!(bench.after(0.2, &[row, 0, 0]), "the first failure on trial");
            assert_eq!(bench.out(), [0]);
        }
        assert_eq!(bench.service.backends[0].ejection.count(), 8);
        // It takes a connection: the whole number of failures is needed again.
        bench.after(321.0, &[12, 0, 0]);
        bench.after(0.2, &[0, 0, 0]);
        assert!(!bench.after(0.2, &[4, 0, 0]));
        // After a calm time the first time is short again.
        bench.after(61.0, &[0, 0, 0]);
        assert!(bench.after(0.2, &[5, 0, 0]));
        assert!(!bench.after(9.9, &[5, 0, 0]));
        assert!(bench.after(0.2, &[5, 0, 0]));
    }

    #[test]
    fn a_trial_ends_with_its_reason() {
        // A late answer takes the connections of before: nothing is left to be tried.
        let mut bench = Bench::new(3);
        bench.after(0.2, &[5, 0, 0]);
        bench.after(5.0, &[0, 0, 0]);
        assert!(bench.after(5.1, &[0, 0, 0]));
        assert!(!bench.after(0.2, &[1, 0, 0]), "it has taken a connection since");
        assert!(bench.after(0.2, &[5, 0, 0]));
        // Nobody has connected for a calm while.
        let mut bench = Bench::new(3);
        bench.after(0.2, &[5, 0, 0]);
        assert!(bench.after(10.1, &[5, 0, 0]));
        assert!(!bench.after(61.0, &[6, 0, 0]), "it came back long ago");
        assert!(bench.after(0.2, &[10, 0, 0]));
    }

    #[test]
    fn at_most_half_are_out() {
        for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
            let mut bench = Bench::new(count);
            bench.after(0.2, &vec![9; usize::from(count)]);
            assert_eq!(bench.out().len(), most, "of {count}");
        }
    }

    #[test]
    fn who_is_down_or_drained_is_nobodys_peer() {
        let mut bench = Bench::new(3);
        bench.service.backends[1].status = Status::Down;
        bench.service.backends[2].order.weight = Some(0);
        bench.after(0.2, &[9, 9, 9]);
        assert!(bench.out().is_empty(), "the last one stays");
        bench.service.backends[1].status = Status::Up;
        bench.after(0.2, &[10, 9, 10]);
        assert_eq!(bench.out(), [0]);
        // The other one falls: better one that refuses than none.
        bench.service.backends[1].status = Status::Down;
        assert_eq!(bench.service.members().len(), 1);
    }

    #[test]
    fn families_keep_half_each() {
        let mut bench = Bench::new(4);
        bench.service.backends[2].address = "[fd00::1]:80".parse().unwrap();
        bench.service.backends[3].address = "[fd00::2]:80".parse().unwrap();
        bench.after(0.2, &[9, 9, 0, 0]);
        assert_eq!(bench.out(), [0]);
    }

    #[test]
    fn checks_that_find_it_up_again_take_it_back() {
        let mut bench = Bench::new(2);
        bench.after(0.2, &[5, 0]);
        bench.service.backends[0].ejection.end(bench.now);
        assert!(bench.out().is_empty());
        assert!(!bench.after(0.2, &[5, 0]));
        assert!(bench.after(0.2, &[6, 0]), "on trial");
    }

    #[test]
    fn checks_that_connect_take_it_back_once() {
        let mut bench = Bench::new(2);
        bench.after(0.2, &[5, 0]);
        let checked = |bench: &mut Bench, success| bench.service.backends[0].ejection.checked(success, 2, bench.now);
        assert_eq!([true, false, true, true].map(|success| checked(&mut bench, success)), [false, false, false, true]);
        assert!(bench.after(0.2, &[6, 0]), "on trial");
        assert_eq!([true; 3].map(|success| checked(&mut bench, success)), [false; 3]);
        assert_eq!(bench.out(), [0]);
    }

    #[test]
    fn nobody_is_taken_out_where_it_is_off() {
        let mut bench = Bench::new(3);
        bench.after(0.2, &[5, 0, 0]);
        bench.service.eject.failures = 0;
        assert!(bench.after(0.2, &[5, 0, 0]), "who is out comes back");
        assert!(!bench.after(0.2, &[99, 99, 99]));
    }
}
