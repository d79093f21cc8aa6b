//! All counters at one time, and how they differ.

use foobar_common::abi::{ConnectFailures, Counter, TUNNEL_WAYS, Traffic};
use foobar_common::verdict::{REASONS, Reason};

/// Every counter that a packet can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// By number of the reason.
    pub verdicts: Vec<Counter>,
    /// Put into tunnels, and taken out of them.
    pub tunnels: Vec<Counter>,
    /// By rule.
    pub rules: Vec<Counter>,
    /// By service slot.
    pub services: Vec<Traffic>,
    /// By backend slot.
    pub backends: Vec<Traffic>,
    /// Connections that each backend slot has not taken.
    pub failures: Vec<ConnectFailures>,
}

impl Counters {
    /// All zero.
    pub fn zero(rules: usize, services: usize, backends: usize) -> Self {
        Self {
            verdicts: vec![Counter::default(); REASONS as usize],
            tunnels: vec![Counter::default(); TUNNEL_WAYS as usize],
            rules: vec![Counter::default(); rules],
            services: vec![Traffic::default(); services],
            backends: vec![Traffic::default(); backends],
            failures: vec![ConnectFailures::default(); backends],
        }
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            verdicts: minus(&self.verdicts, &before.verdicts, counter),
            tunnels: minus(&self.tunnels, &before.tunnels, counter),
            rules: minus(&self.rules, &before.rules, counter),
            services: minus(&self.services, &before.services, traffic),
            backends: minus(&self.backends, &before.backends, traffic),
            failures: minus(&self.failures, &before.failures, failures),
        }
    }

    /// Whatever differs from `other`, in words.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for reason in Reason::ALL {
            let (a, b) = (self.verdicts[*reason as usize], other.verdicts[*reason as usize]);
            note(&mut found, &format!("reason {}", reason.label()), &a, &b);
        }
        each(&mut found, "tunnel", &self.tunnels, &other.tunnels);
        each(&mut found, "rule", &self.rules, &other.rules);
        each(&mut found, "service", &self.services, &other.services);
        each(&mut found, "backend", &self.backends, &other.backends);
        each(&mut found, "failures of backend", &self.failures, &other.failures);
        found
    }
}

fn each<T: PartialEq + std::fmt::Debug>(found: &mut Vec<String>, what: &str, a: &[T], b: &[T]) {
    for (slot, (a, b)) in a.iter().zip(b).enumerate() {
        note(found, &format!("{what} {slot}"), a, b);
    }
}

fn note<T: PartialEq + std::fmt::Debug>(found: &mut Vec<String>, what: &str, a: &T, b: &T) {
    if a != b {
        found.push(format!("{what}: {a:?} instead of {b:?}"));
    }
}

fn minus<T: Copy>(now: &[T], before: &[T], of: fn(T, T) -> T) -> Vec<T> {
    now.iter().zip(before).map(|(now, before)| of(*now, *before)).collect()
}

const fn counter(now: Counter, before: Counter) -> Counter {
    Counter { packets: now.packets - before.packets, bytes: now.bytes - before.bytes }
}

const fn traffic(now: Traffic, before: Traffic) -> Traffic {
    Traffic {
        connections: now.connections - before.connections,
        packets: now.packets - before.packets,
        bytes: now.bytes - before.bytes,
    }
}

/// A row that ends is less than it was: below zero.
const fn failures(now: ConnectFailures, before: ConnectFailures) -> ConnectFailures {
    ConnectFailures { total: now.total - before.total, row: now.row.wrapping_sub(before.row) }
}
