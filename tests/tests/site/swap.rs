//! Rules change under load, again and again: no request fails, no packet is judged by a mix of two rule sets, and counters go
//! on, also when another agent takes over.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::host::Host;
use foobar_tests::load::{Load, Shape};
use foobar_tests::{Bed, Silent, eventually, is_long};
use foobar_user::agent::control::{self, Applied, Apply, Command};

use crate::markers::{Counts, MIXED, Markers, ORDERS, RIGHT, dropped, rules};

/// 100 reloads, or 1,000; in a minute.
pub(crate) fn never_a_mix(bed: &Bed) -> Result<()> {
    let good = bed.site().text()?;
    let outcome = watched(bed, &good);
    bed.site().replace(&good)?;
    reload(bed)?;
    outcome
}

fn watched(bed: &Bed, good: &str) -> Result<()> {
    let texts = ORDERS.map(|order| format!("{good}\n{}", rules(order, RIGHT)));
    bed.site().replace(&texts[0])?;
    reload(bed)?;
    let (before, lost) = (Counts::read(bed)?, dropped(bed)?);
    let (sent, mut counts) = Markers::during(bed, |markers| {
        let mut counts = swapped(bed, &texts, &before, markers)?;
        restarted(bed, markers, &mut counts)?;
        control(bed, good, &mut counts)?;
        Ok(counts)
    })?;
    // Every marker was judged by some generation, and none twice: nothing but a full cable explains one that is missing.
    eventually(DEADLINE, "all markers are counted", || {
        counts.later(bed)?;
        let (counted, sent, lost) = (counts.since(&before).total(), sent as f64, (dropped(bed)? - lost) as f64);
        ensure!(counted <= sent && counted >= sent - lost, "{counted} counted, {sent} sent, {lost} lost on cables");
        Ok(true)
    })
}

/// The reloads, and what was counted meanwhile.
fn swapped(bed: &Bed, texts: &[String; 2], before: &Counts, markers: &Markers) -> Result<Counts> {
    let loads = [load(bed, true)?, load(bed, false)?];
    let started = Instant::now();
    let mut counts = *before;
    let reloads = if is_long() { 1000 } else { 100 };
    let folder = bed.agent("lb1")?.run_folder();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for number in 1..=reloads {
        bed.site().replace(&texts[number % 2])?;
        runtime.block_on(put(&folder)).with_context(|| format!("reload {number}"))?;
        if number % (reloads / LOOKS) == 0 {
            counts.later(bed)?;
        }
    }
    let (took, sent) = (started.elapsed(), markers.sent() as f64);
    for load in loads {
        let report = load.stop()?;
        let first = report.failures.first().map(|failure| failure.why.as_str()).unwrap_or_default();
        ensure!(report.failures.is_empty(), "{} of {} requests failed: {first}", report.failures.len(), report.good);
        ensure!(report.good > 0, "the load has answered nothing");
    }
    let seen = counts.since(before);
    println!("\n  {reloads} reloads in {:.1} s, {sent} markers: {seen:?}", took.as_secs_f64());
    ensure!(seen.wrong() == 0.0, "{seen:?}: packets were judged by a mix");
    // What is on its way is not counted yet; the kinds are sent alike.
    ensure!(seen.allowed() > sent / 4.0 && seen.denied() > sent / 4.0, "{seen:?} of {sent} markers");
    ensure!(took <= Duration::from_secs(60), "{reloads} reloads took {took:?}");
    Ok(counts)
}

/// Another agent takes over, with what its predecessor's rules have counted, and what came when there was none.
fn restarted(bed: &Bed, markers: &Markers, counts: &mut Counts) -> Result<()> {
    bed.agent("lb1")?.kill()?;
    let sent = markers.sent();
    let alone = eventually(DEADLINE, "markers come without an agent", || Ok(markers.sent() >= sent + 1000));
    bed.start_agent("lb1")?;
    bed.ready("lb1", &Silent)?;
    bed.settled(&Silent)?;
    alone?;
    counts.later(bed)
}

/// Were there a mix, it would be seen: a rule set that is one.
fn control(bed: &Bed, good: &str, counts: &mut Counts) -> Result<()> {
    let before = *counts;
    bed.site().replace(&format!("{good}\n{}", rules(ORDERS[0], MIXED)))?;
    reload(bed)?;
    eventually(DEADLINE, "a mixed rule set is noticed", || {
        counts.later(bed)?;
        Ok(counts.since(&before).wrong() > 1.0)
    })
}

/// What `foobar reload` does, without a process for each.
async fn put(run_folder: &Path) -> Result<()> {
    let server = Host::named("lb1").context("a host")?.server;
    control::ask::<Applied>(run_folder, server, &Command::Apply(Apply::default())).await.map(drop)
}

fn reload(bed: &Bed) -> Result<()> {
    let output = bed.agent("lb1")?.ask("reload", &[])?;
    ensure!(output.status.success(), "refused: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn load(bed: &Bed, encrypted: bool) -> Result<Load> {
    let target = if encrypted { bed.https()? } else { bed.plain() };
    let (paths, pause) = (vec!["/small.txt".to_owned()], Duration::from_millis(5));
    Load::start(bed.host("client")?, &Shape { target, paths, connections: 4, keep_alive: !encrypted, pause })
}

/// Times that counters are looked at during the reloads.
const LOOKS: usize = 20;
const DEADLINE: Duration = Duration::from_secs(15);
