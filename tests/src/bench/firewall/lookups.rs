//! Nanoseconds a packet: rules and sets of ours beside xdp-filter and the kernel's tries, in one interleaved run.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use foobar_common::rules::Action;
use ipnet::IpNet;

use super::addresses::{Cycle, Who, prefix};
use super::ours::{self, Ours};
use super::programs;
use super::turns::{Index, Sources, Turns};
use super::xdpfilter::XdpFilter;
use crate::bench::bpf;
use crate::bench::lab::{self, Lab};
use crate::bench::row::{Measured, Row, Target};
use crate::progress::{Progress, check, step};

/// Loads everything, measures, and removes it.
pub(super) fn run(progress: &dyn Progress) -> Result<Vec<Row>> {
    let lab = Lab::with_pins(progress)?;
    let place = lab.namespace("lookups", &[], CABLES)?;
    place.run(|| inside(&lab, progress))?
}

fn inside(lab: &Lab, progress: &dyn Progress) -> Result<Vec<Row>> {
    let ingress = lab::index(INGRESS)?;
    let mut turns = Turns::new(ingress)?;
    let reference = programs::reference()?;
    // A test run wants an interface whose queues know XDP.
    let _attached = bpf::attach(reference.as_fd(), ingress)?;
    let mut loaded = Vec::new();
    let rules = step(progress, "our rules", || Rules::add(&mut turns, &mut loaded))?;
    let filter = step(progress, "xdp-filter", || filters(lab, &mut turns))?;
    let tries = step(progress, "the kernel's tries", || tries(&mut turns))?;
    let sets = step(progress, "our sets", || ours_sets(&mut turns, &mut loaded))?;
    let what = format!("{ROUNDS} rounds of {} programs", turns.count());
    step(progress, &what, || {
        (0..ROUNDS).try_for_each(|round| {
            check(progress)?;
            turns.round(round)
        })
    })?;
    Ok(rows(&turns, &rules, &filter, &tries, &sets))
}

/// Our subjects with rules, by number of rules.
struct Rules {
    /// Denied, allowed: one source; then all of the rules' sources in turn.
    deny: Vec<[Index; 2]>,
    allow: Vec<[Index; 2]>,
    /// No rule matches: 65,536 sources in turn.
    none: Vec<Index>,
}

impl Rules {
    fn add(turns: &mut Turns, loaded: &mut Vec<Ours>) -> Result<Self> {
        let mut rules = Self { deny: Vec::new(), allow: Vec::new(), none: Vec::new() };
        for count in COUNTS {
            let number = people(count);
            for (action, word, verdict) in [(Action::Deny, "deny", DROP), (Action::Allow, "allow", PASS)] {
                let mut ours = Ours::load(&ours::tuples(count, action, &ours::tcp()))?;
                let program = ours.program()?;
                loaded.push(ours);
                let one = turns.add(&format!("{word}, {number} rules, one source"), &program, last(count), verdict)?;
                let name = format!("{word}, {number} rules, their sources in turn");
                let all = turns.add(&name, &program, in_turn(count, Who::Members), verdict)?;
                if action == Action::Deny {
                    rules.deny.push([one, all]);
                    let name = format!("no match, {number} rules, 65,536 sources in turn");
                    rules.none.push(turns.add(&name, &program, in_turn(CYCLE, Who::Strangers), DROP)?);
                } else {
                    rules.allow.push([one, all]);
                }
            }
        }
        Ok(rules)
    }
}

/// The four ways of asking a table: hit and miss, one source and many.
struct Asked {
    hit: Index,
    miss: Index,
    hits: Index,
    misses: Index,
}

impl Asked {
    fn add(turns: &mut Turns, name: &str, program: &OwnedFd, count: u32) -> Result<Self> {
        let mut add = |what: &str, sources, verdict| turns.add(&format!("{name}, {what}"), program, sources, verdict);
        let cycle = count.min(CYCLE);
        Ok(Self {
            hit: add("hit, one source", last(count), DROP)?,
            miss: add("miss, one source", Sources::One(Who::Strangers, count - 1), PASS)?,
            hits: add(&format!("hit, {} in turn", people(cycle)), in_turn(cycle, Who::Members), DROP)?,
            misses: add("miss, 65,536 in turn", in_turn(CYCLE, Who::Strangers), PASS)?,
        })
    }
}

fn filters(lab: &Lab, turns: &mut Turns) -> Result<Vec<Asked>> {
    let load = |count: &u32| {
        let pins = lab.pins()?.join(format!("entries-{count}"));
        let filter = XdpFilter::load(&pins, lab.run().folder(), EGRESS, *count)?;
        // What is timed is held; the interface is wanted for the next one.
        XdpFilter::unload(&pins, lab.run().folder(), EGRESS)?;
        Asked::add(turns, &format!("xdp-filter, {}", people(*count)), &filter.program, *count)
    };
    ENTRIES.iter().map(load).collect()
}

fn tries(turns: &mut Turns) -> Result<Vec<Asked>> {
    let load = |count: &u32| {
        let prefixes: Vec<IpNet> = (0..*count).map(prefix).collect();
        Asked::add(turns, &format!("trie of {}", people(*count)), &programs::trie(&prefixes)?, *count)
    };
    SETS.iter().map(load).collect()
}

fn ours_sets(turns: &mut Turns, loaded: &mut Vec<Ours>) -> Result<Vec<Asked>> {
    let mut sets = Vec::new();
    for count in SETS {
        let Some(mut ours) = Ours::with_set(count, ours::service())? else { break };
        let program = ours.program()?;
        loaded.push(ours);
        sets.push(Asked::add(turns, &format!("set of {}", people(count)), &program, count)?);
    }
    Ok(sets)
}

fn rows(turns: &Turns, rules: &Rules, filters: &[Asked], tries: &[Asked], sets: &[Asked]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |ours: Index, peer_name: &'static str, peer: Index, target: Option<Target>| {
        let samples = turns.samples(peer);
        let peer = Measured { name: peer_name, samples: &samples };
        rows.push(Row::new(("firewall", "ns/packet"), turns.name(ours), &turns.samples(ours), peer, target));
    };
    let flat = Some(Target::AtMost(1.1));
    for (index, count) in COUNTS.iter().enumerate() {
        let target = flat.filter(|_| *count == THOUSAND);
        row(rules.deny[index][0], "1 rule", rules.deny[0][0], target);
        row(rules.allow[index][0], "1 rule", rules.allow[0][0], target);
        row(rules.none[index], "1 rule", rules.none[0], target);
    }
    // The peers' tables of 1 and 1,000 come first; each of ours beside one as large.
    let at_most_filter = Some(Target::AtMost(1.0));
    for (index, filter) in [(0, &filters[0]), (3, &filters[1])] {
        for ours in [rules.deny[index], rules.allow[index]] {
            row(ours[0], "xdp-filter", filter.hit, at_most_filter);
            row(ours[1], "xdp-filter", filter.hits, at_most_filter);
        }
    }
    for (index, (ours, peer)) in sets.iter().zip(tries).enumerate() {
        let target = Some(Target::AtMost(0.15)).filter(|_| SETS[index] == MILLION);
        for (ours, peer, target) in [
            (ours.hit, peer.hit, None),
            (ours.miss, peer.miss, None),
            (ours.hits, peer.hits, target),
            (ours.misses, peer.misses, target),
        ] {
            row(ours, "kernel's trie", peer, target);
        }
    }
    for (ours, peer) in sets.iter().zip(filters) {
        row(ours.hit, "xdp-filter", peer.hit, None);
        row(ours.hits, "xdp-filter", peer.hits, None);
        row(ours.misses, "xdp-filter", peer.misses, None);
    }
    for peers in tries.iter().skip(sets.len()) {
        for peer in [peers.hit, peers.hits, peers.misses] {
            row(peer, "xdp-filter, 1", filters[0].hit, None);
        }
    }
    rows
}

fn last(count: u32) -> Sources {
    Sources::One(Who::Members, count - 1)
}

fn in_turn(period: u32, who: Who) -> Sources {
    Sources::Many(Cycle { period, who })
}

/// A number as people write it.
fn people(number: u32) -> String {
    let digits = number.to_string();
    let (first, rest) = digits.split_at((digits.len() - 1) % 3 + 1);
    rest.as_bytes().chunks(3).fold(first.to_owned(), |text, group| text + "," + &String::from_utf8_lossy(group))
}

/// Numbers of rules; of xdp-filter's entries; of a set's prefixes.
const COUNTS: [u32; 4] = [1, 10, 100, THOUSAND];
const ENTRIES: [u32; 3] = [1, THOUSAND, 100_000];
const SETS: [u32; 4] = [1, THOUSAND, 100_000, MILLION];
const THOUSAND: u32 = 1000;
const MILLION: u32 = 1_000_000;
/// Sources in turn, where there are as many.
const CYCLE: u32 = 65_536;
const ROUNDS: u32 = 64;
/// `XDP_DROP` and `XDP_PASS`.
const DROP: u32 = 1;
const PASS: u32 = 2;
const INGRESS: &str = "in0";
const EGRESS: &str = "out0";
const CABLES: &str = "\
link add in0 type veth peer name in1
link add out0 type veth peer name out1
link set in0 up
link set in1 up
link set out0 up
link set out1 up
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        assert_eq!(
            [1, 10, 100, 1000, 65_536, 1_000_000].map(people),
            ["1", "10", "100", "1,000", "65,536", "1,000,000"]
        );
    }
}
