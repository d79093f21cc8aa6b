//! Packets a second that one processor drops: datagrams from an XDP generator on a cable, a firewall at its other end.
//!
//! What counts is the processor time of the kernel thread that receives for the interface, over the packets that it
//! received: neither the generator's speed nor other programs on the machine are in it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::addresses::{Cycle, Who};
use super::cable::{Cable, Received, SENDER};
use super::generator::Generator;
use super::guards::{Guard, Installed};
use super::napi::Napi;
use super::nft::{Form, Hook, Ruleset};
use super::ours;
use crate::bench::lab::{self, Lab};
use crate::bench::row::{Measured, Row, Target};
use crate::bench::samples::Samples;
use crate::eventually::obtained;
use crate::progress::{Progress, check, step};

/// Floods every firewall in turn.
pub(super) fn run(progress: &dyn Progress, rounds: u32, time: Duration) -> Result<Vec<Row>> {
    let lab = Lab::with_pins(progress)?;
    let mut sites = Vec::new();
    for (number, case) in cases().into_iter().enumerate() {
        let what = format!("flood, {}", case.name);
        sites.extend(step(progress, &what, || Site::build(&lab, number, case))?);
    }
    step(progress, &format!("floods, {rounds} rounds"), || {
        for round in 0..rounds {
            let mut order: Vec<&mut Site> = sites.iter_mut().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for site in order {
                check(progress)?;
                site.measure(time)?;
            }
        }
        Ok(())
    })?;
    Ok(rows(&sites))
}

/// A firewall with what it is flooded with.
struct Case {
    name: &'static str,
    kind: Kind,
    guard: Guard,
    /// So many sources in turn, all of which it knows.
    sources: u32,
}

/// What a firewall is compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ours with rules, with a set.
    Rules,
    Set,
    /// The peer that ours is to keep up with.
    Filter,
    /// nftables with sets before the stack: the peer to be 2.5 times as fast as.
    IngressSet,
    /// Others to show.
    Other,
}

/// A case on a cable.
struct Site {
    case: Case,
    cable: Cable,
    generator: Generator,
    napi: Napi,
    _installed: Installed,
    /// Packets a second of one processor.
    rate: Samples,
}

impl Site {
    fn build(lab: &Lab, number: usize, case: Case) -> Result<Option<Self>> {
        let cable = Cable::create(lab, number)?;
        cable.threaded()?;
        let Some(installed) = case.guard.install(lab, &cable)? else { return Ok(None) };
        let cycle = Cycle { period: case.sources, who: Who::Members };
        let generator = cable.sender.run(|| Generator::new(cycle, lab::index(SENDER)?))??;
        let napi = Napi::of(&cable.interface)?;
        let rate = Samples::default();
        let site = Self { case, cable, generator, napi, _installed: installed, rate };
        site.flood(WARM_UP)?;
        Ok(Some(site))
    }

    fn measure(&mut self, time: Duration) -> Result<()> {
        let ns = self.flood(time)?;
        self.rate.add(1e9 / ns);
        Ok(())
    }

    /// Nanoseconds a packet.
    fn flood(&self, time: Duration) -> Result<f64> {
        let (before, ran) = (self.cable.received()?, self.napi.ran_ns()?);
        self.cable.sender.run(|| self.generator.flood(time))??;
        let after = self.drained()?;
        let ran = self.napi.ran_ns()? - ran;
        let (packets, reached) = (after.packets - before.packets, after.reached - before.reached);
        ensure!(packets > LEAST, "{}: only {packets} packets came", self.case.name);
        if matches!(self.case.guard, Guard::Nothing) {
            ensure!(reached > packets / 100 * 99, "of {packets} packets only {reached} reached the closed port");
        } else {
            ensure!(reached == 0, "{}: {reached} of {packets} packets got through", self.case.name);
        }
        Ok(ran as f64 / packets as f64)
    }

    /// Waits until the cable is empty.
    fn drained(&self) -> Result<Received> {
        let mut last = self.cable.received()?;
        obtained(DRAINED, "an empty cable", || {
            let now = self.cable.received()?;
            let still = now == last;
            last = now;
            Ok(still.then_some(now))
        })
        .context("packets still come")
    }
}

fn cases() -> Vec<Case> {
    let case = |name, kind, guard, sources| Case { name, kind, guard, sources };
    let nft = |hook, form| Guard::Nft(Ruleset { hook, form, stateful: false });
    vec![
        // One rule more lets connections in: this host has a service.
        case("1,000 rules", Kind::Rules, Guard::Rules(THOUSAND, ours::udp()), THOUSAND - 1),
        case("set of 1,000,000", Kind::Set, Guard::Set(1_000_000), CYCLE),
        case("xdp-filter, 1,000", Kind::Filter, Guard::XdpFilter(THOUSAND), THOUSAND),
        case("xdp-filter, 100,000", Kind::Filter, Guard::XdpFilter(100_000), CYCLE),
        case("nft ingress, set of 10,000", Kind::IngressSet, nft(Hook::Ingress, Form::Set(TEN)), TEN),
        case("nft ingress, intervals of 10,000", Kind::IngressSet, nft(Hook::Ingress, Form::Intervals(TEN)), TEN),
        case("nft ingress, 1,000 rules", Kind::Other, nft(Hook::Ingress, Form::Linear(THOUSAND)), THOUSAND),
        case("nft input, set of 10,000", Kind::Other, nft(Hook::Input, Form::Set(TEN)), TEN),
        case("nft input, intervals of 10,000", Kind::Other, nft(Hook::Input, Form::Intervals(TEN)), TEN),
        case("nft input, 1,000 rules", Kind::Other, nft(Hook::Input, Form::Linear(THOUSAND)), THOUSAND),
        case("no firewall, closed port", Kind::Other, Guard::Nothing, TEN),
    ]
}

fn rows(sites: &[Site]) -> Vec<Row> {
    let mut rows = Vec::new();
    let ours = |site: &&Site| matches!(site.case.kind, Kind::Rules | Kind::Set);
    for own in sites.iter().filter(ours) {
        for peer in sites.iter().filter(|site| !ours(site)) {
            let target = match (own.case.kind, peer.case.kind) {
                (Kind::Rules, Kind::Filter) => Some(Target::AtLeast(1.0)),
                (_, Kind::IngressSet) => Some(Target::AtLeast(2.5)),
                _ => None,
            };
            let case = format!("flood dropped by {}", own.case.name);
            let measured = Measured { name: peer.case.name, samples: &peer.rate };
            rows.push(Row::new(("firewall", "packets/s, one CPU"), &case, &own.rate, measured, target));
        }
    }
    rows
}

const THOUSAND: u32 = 1000;
const TEN: u32 = 10_000;
const CYCLE: u32 = 65_536;
const WARM_UP: Duration = Duration::from_millis(50);
const DRAINED: Duration = Duration::from_secs(5);
/// Fewer packets than these would measure nothing.
const LEAST: u64 = 500;
