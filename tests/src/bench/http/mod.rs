//! Requests a second and CPU a request of one small file: direct, through our L4 path, through our TLS, through HAProxy's.
//!
//! All four go from the same client over the balancer's wires to the same nginx processes, with every firewall of the site
//! on: *direct* means that the balancer's kernel only routes, to one of the web servers, so that it differs from the other
//! ways by what balances and by nothing else. wrk keeps 64 connections; the paths are measured in turn, in every other
//! round in reverse.

mod cpu;
mod haproxy;
mod path;
mod rules;

use std::time::Duration;

use anyhow::Result;

use self::cpu::Usage;
use self::haproxy::Haproxy;
use self::path::{Path, Series};
use super::row::{Measured, Row, Target};
use super::samples::Samples;
use crate::bed::{Bed, Options};
use crate::progress::{Progress, check, step};

/// Sets the site and HAProxy up, measures, and removes everything.
pub(super) fn run(progress: &dyn Progress, rounds: u32, seconds: u32) -> Result<Vec<Row>> {
    let bed = Bed::start(&Options::find()?, progress)?;
    step(progress, "rules for the two other paths", || rules::open(&bed))?;
    let haproxy = step(progress, "HAProxy beside the edge", || Haproxy::start(&bed))?;
    let mut series = Path::ALL.map(Series::new);
    let time = Duration::from_secs(u64::from(seconds));
    for series in &series {
        step(progress, &format!("warm-up, {}", series.path.name()), || series.path.warm_up(&bed))?;
    }
    for round in 0..rounds {
        let mut order: Vec<&mut Series> = series.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for series in order {
            check(progress)?;
            let what = format!("round {} of {rounds}, {}", round + 1, series.path.name());
            step(progress, &what, || series.measure(&bed, time))?;
        }
    }
    drop(haproxy);
    for series in &series {
        progress.note(&series.remark());
    }
    if series.iter().any(Series::disturbed) {
        progress.note(
            "other programs kept this machine busy: the machine's CPU time a request is theirs, too; measure again",
        );
    }
    for left in bed.close() {
        progress.note(&format!("left behind: {left}"));
    }
    Ok(table(&series))
}

/// Everything beside direct; our TLS also beside HAProxy's.
fn table(series: &[Series; 4]) -> Vec<Row> {
    let [direct, l4, tls, haproxy] = series;
    let mut rows = Vec::new();
    for (ours, target) in [(l4, Some(Target::AtLeast(0.97))), (tls, None), (haproxy, None)] {
        rows.push(row("requests/s", (ours, &ours.rps), (direct, &direct.rps), target));
    }
    rows.push(row("requests/s", (tls, &tls.rps), (haproxy, &haproxy.rps), None));
    for ours in [l4, tls, haproxy] {
        rows.push(row(MACHINE, (ours, &ours.machine), (direct, &direct.machine), None));
    }
    rows.push(row(MACHINE, (tls, &tls.machine), (haproxy, &haproxy.machine), None));
    let target = Some(Target::AtMost(0.75));
    rows.push(row(BALANCER, (tls, &tls.balancer), (haproxy, &haproxy.balancer), target));
    rows
}

fn row(unit: &'static str, ours: (&Series, &Samples), peer: (&Series, &Samples), target: Option<Target>) -> Row {
    let measured = Measured { name: peer.0.path.name(), samples: peer.1 };
    Row::new(("http", unit), ours.0.path.name(), ours.1, measured, target)
}

const MACHINE: &str = "µs CPU/request, machine";
const BALANCER: &str = "µs CPU/request, balancer";

/// What one measurement cost, between two looks.
fn spent(before: &Usage, after: &Usage, requests: u64) -> Usage {
    let each = |before: f64, after: f64| (after - before) / requests.max(1) as f64;
    Usage {
        machine_us: each(before.machine_us, after.machine_us),
        site_us: each(before.site_us, after.site_us),
        balancer_us: each(before.balancer_us, after.balancer_us),
    }
}
