//! The L4 balancer beside its peers: requests a second over *direct*, by wrk, and the cost of a packet.
//!
//! Every way goes from the same client to the same nginx processes. *Direct* is routed to one of them by a host that does
//! nothing else; each balancer stands on a host of its own with the same links, so nobody pays for another one's rules. Each
//! measurement lies between two of *direct*, whose mean it is compared to; every other round goes the other way round.

mod case;
mod dnat;
mod ours;
mod proxy;
mod series;
mod way;
mod wires;

use std::time::Duration;

use anyhow::Result;

use self::case::{CASES, Case};
use self::dnat::Dnat;
use self::ours::Ours;
use self::proxy::Proxy;
use self::series::Series;
use self::way::{Measured, Way};
use self::wires::Wires;
use super::packets;
use super::part::Part;
use super::row::Row;
use crate::progress::{Progress, check, step};

/// Measures all parts, or one.
pub(super) fn run(progress: &dyn Progress, part: Option<Part>, rounds: u32, seconds: u32) -> Result<Vec<Row>> {
    let wanted = |other| part.is_none_or(|part| part == other);
    let mut rows = Vec::new();
    if wanted(Part::Wire) {
        rows.extend(wire(progress, rounds, Duration::from_secs(u64::from(seconds)))?);
    }
    if wanted(Part::Packets) {
        rows.extend(packets::run(progress)?);
    }
    Ok(rows)
}

fn wire(progress: &dyn Progress, rounds: u32, time: Duration) -> Result<Vec<Row>> {
    let wires = step(progress, "a client, three hosts in the middle, two web servers", || Wires::create(progress))?;
    let _ours = step(progress, "foobar on its balancer and the web servers", || Ours::start(&wires))?;
    let _dnat = step(progress, "nftables", || Dnat::start(&wires))?;
    let _nginx = step(progress, "nginx stream", || Proxy::nginx(&wires))?;
    let _haproxy = step(progress, "HAProxy", || Proxy::haproxy(&wires))?;
    let mut rows = Vec::new();
    for case in &CASES {
        rows.extend(measured(&wires, case, progress, rounds, time)?);
    }
    Ok(rows)
}

/// All ways in one case.
fn measured(wires: &Wires, case: &Case, progress: &dyn Progress, rounds: u32, time: Duration) -> Result<Vec<Row>> {
    let mut all = Way::BALANCED.map(Series::new);
    for way in [Way::Direct].into_iter().chain(Way::BALANCED) {
        step(progress, &format!("{}, warm-up, {}", case.name, way.name()), || way.run(wires, case, WARM_UP))?;
    }
    for round in 0..rounds {
        let mut order: Vec<&mut Series> = all.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        step(progress, &format!("{}, round {} of {rounds}", case.name, round + 1), || {
            let mut before = Way::Direct.run(wires, case, time)?;
            for series in order {
                check(progress)?;
                let own = series.way.run(wires, case, time)?;
                let after = Way::Direct.run(wires, case, time)?;
                series.add(&own, &Measured::mean(&before, &after));
                before = after;
            }
            Ok(())
        })?;
    }
    for series in &all {
        progress.note(&format!("{}, {}", case.name, series.remark()));
    }
    if all.iter().any(Series::disturbed) {
        progress.note("other programs kept this machine busy: its CPU time a request is theirs, too; measure again");
    }
    Ok(all.iter().flat_map(|series| series.rows(case)).collect())
}

const WARM_UP: Duration = Duration::from_secs(1);
