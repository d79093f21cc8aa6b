//! Nanoseconds a packet: rules and sets of ours beside xdp-filter and the kernel's tries, in one interleaved run.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use foobar_common::rules::Action;
use ipnet::IpNet;

use super::addresses::{Cycle, Who, prefix};
use super::ours::{self, Ours};
use super::priority;
use super::programs;
use super::turns::{Index, Sources, Turns};
use super::xdpfilter::{Features, XdpFilter};
use crate::bench::lab::{self, Lab};
use crate::bench::row::{Measured, Row, Target};
use crate::bpf;
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
    let least =
        step(progress, "xdp-filter's least program", || filter_of(lab, &mut turns, Features::Addresses, THOUSAND))?;
    let tries = step(progress, "the kernel's tries", || tries(&mut turns))?;
    let sets = step(progress, "our sets", || ours_sets(&mut turns, &mut loaded))?;
    priority::first(0)?;
    let what = format!("{ROUNDS} rounds of {} programs", turns.count());
    step(progress, &what, || {
        (0..ROUNDS).try_for_each(|round| {
            check(progress)?;
            turns.round(round)
        })
    })?;
    Ok(rows(&turns, &Measurements { rules, filter, least, tries, sets }))
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
            let number = if count == 1 { "1 rule".to_owned() } else { format!("{} rules", people(count)) };
            for (action, word, verdict) in [(Action::Deny, "deny", DROP), (Action::Allow, "allow", PASS)] {
                let mut ours = Ours::load(&ours::tuples(count, action, &ours::tcp()))?;
                let program = ours.program()?;
                loaded.push(ours);
                let one = turns.add(&format!("{word}, {number}, one source"), &program, last(count), verdict)?;
                let name = format!("{word}, {number}, their sources in turn");
                let all = turns.add(&name, &program, in_turn(count, Who::Members), verdict)?;
                if action == Action::Deny {
                    rules.deny.push([one, all]);
                    let name = format!("no match, {number}, 65,536 sources in turn");
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
    ENTRIES.iter().map(|count| filter_of(lab, turns, Features::All, *count)).collect()
}

fn filter_of(lab: &Lab, turns: &mut Turns, features: Features, count: u32) -> Result<Asked> {
    let pins = lab.pins()?.join(format!("{features:?}-{count}"));
    let filter = XdpFilter::load(&pins, lab.run().folder(), EGRESS, features, count)?;
    // What is timed is held; the interface is wanted for the next one.
    XdpFilter::unload(&pins, lab.run().folder(), EGRESS)?;
    Asked::add(turns, "xdp-filter", &filter.program, count)
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
        let mut ours = Ours::with_set(count, ours::service())?;
        let program = ours.program()?;
        loaded.push(ours);
        sets.push(Asked::add(turns, &format!("set of {}", people(count)), &program, count)?);
    }
    Ok(sets)
}

/// Everything that was measured.
struct Measurements {
    rules: Rules,
    /// xdp-filter by [`ENTRIES`], and its least program with 1,000.
    filter: Vec<Asked>,
    least: Asked,
    /// By [`SETS`]; ours as far as there are any.
    tries: Vec<Asked>,
    sets: Vec<Asked>,
}

fn rows(turns: &Turns, measured: &Measurements) -> Vec<Row> {
    let row = |ours: Index, name: &'static str, peer: Index, target: Option<Target>| {
        let samples = turns.samples(peer);
        let peer = Measured { name, samples: &samples };
        Row::new(("firewall", "ns/packet"), turns.name(ours), &turns.samples(ours), peer, target)
    };
    let mut rows = Vec::new();
    for Pair { ours, name, peer, target } in measured.of_rules().into_iter().chain(measured.of_sets()) {
        rows.push(row(ours, name, peer, target));
    }
    rows
}

/// A row to be.
struct Pair {
    ours: Index,
    name: &'static str,
    peer: Index,
    target: Option<Target>,
}

const fn pair(ours: Index, name: &'static str, peer: Index, target: Option<Target>) -> Pair {
    Pair { ours, name, peer, target }
}

impl Measurements {
    /// More rules beside one; one and 1,000 beside as many entries of xdp-filter.
    fn of_rules(&self) -> Vec<Pair> {
        let Rules { deny, allow, none } = &self.rules;
        let mut pairs = Vec::new();
        for (index, count) in COUNTS.iter().enumerate().skip(1) {
            let target = Some(Target::AtMost(1.1)).filter(|_| *count == THOUSAND);
            for many in [deny, allow].map(|way| (way[index][0], way[0][0])).into_iter().chain([(none[index], none[0])])
            {
                pairs.push(pair(many.0, "1 rule", many.1, target));
            }
        }
        let target = Some(Target::AtMost(1.0));
        for (index, filter) in [(0, &self.filter[0]), (COUNTS.len() - 1, &self.filter[1])] {
            for ours in [deny[index], allow[index]] {
                pairs.push(pair(ours[0], "xdp-filter", filter.hit, target));
                pairs.push(pair(ours[1], "xdp-filter", filter.hits, target));
            }
        }
        let most = deny[COUNTS.len() - 1];
        pairs.push(pair(most[0], LEAST_FILTER, self.least.hit, None));
        pairs.push(pair(most[1], LEAST_FILTER, self.least.hits, None));
        pairs
    }

    /// Each set beside a trie of the same prefixes, and beside xdp-filter with as many addresses.
    fn of_sets(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for ((count, ours), peer) in SETS.iter().zip(&self.sets).zip(&self.tries) {
            let target = Some(Target::AtMost(0.15)).filter(|_| *count == MILLION);
            pairs.push(pair(ours.hit, TRIE, peer.hit, None));
            pairs.push(pair(ours.miss, TRIE, peer.miss, None));
            pairs.push(pair(ours.hits, TRIE, peer.hits, target));
            pairs.push(pair(ours.misses, TRIE, peer.misses, target));
        }
        for (ours, peer) in self.sets.iter().zip(&self.filter) {
            pairs.push(pair(ours.hit, "xdp-filter", peer.hit, None));
            pairs.push(pair(ours.hits, "xdp-filter", peer.hits, None));
            pairs.push(pair(ours.misses, "xdp-filter", peer.misses, None));
        }
        // Where we have no set yet, the peers are still shown.
        for peer in self.tries.iter().skip(self.sets.len()) {
            for peer in [peer.hit, peer.hits, peer.misses] {
                pairs.push(pair(peer, "xdp-filter, 1", self.filter[0].hit, None));
            }
        }
        pairs
    }
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
/// Four rounds go round all sources. Each run has the kernel patch its dispatcher and wait for all processors: some ms.
const ROUNDS: u32 = 24;
const TRIE: &str = "kernel's trie";
const LEAST_FILTER: &str = "xdp-filter, IPv4 alone";
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
