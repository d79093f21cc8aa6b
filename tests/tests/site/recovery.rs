//! A web server dies under load: a second of failures at most, none after, and it comes back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use foobar_tests::client::Target;
use foobar_tests::load::{Load, Report, Shape};
use foobar_tests::{Bed, Silent, eventually};

/// web1 with its agent and all its processes is killed while both paths are under load.
pub(crate) fn web_server(bed: &Bed) -> Result<()> {
    let client = bed.host("client")?;
    let loads = [Load::start(client, &shape(bed.plain()))?, Load::start(client, &shape(bed.https()?))?];
    more(&loads, 100)?;
    let killed = Instant::now();
    bed.kill_server("web1")?;
    let outcome = through_death(bed, &loads, killed);
    // Whatever was seen, the next check needs web1.
    bed.start_agent("web1")?;
    bed.ready("web1", &Silent)?;
    let down = outcome?;
    eventually(RETURN, "web1 is in rotation again", || {
        Ok(bed.get(&bed.plain(), "/small.txt")?.header("x-served-by") == "web1")
    })?;
    bed.settled(&Silent)?;
    more(&loads, 100)?;
    for load in loads {
        judge(&load.stop()?, killed)?;
    }
    ensure!(down <= DETECTION, "web1 was taken out only after {down:?}");
    Ok(())
}

/// web1's nginx alone is killed: its kernel refuses connections, and the agent there starts it again.
pub(crate) fn nginx(bed: &Bed) -> Result<()> {
    let client = bed.host("client")?;
    let of = |target: Target, keep_alive| Shape { keep_alive, ..shape(target) };
    let shapes = [of(bed.plain(), false), of(bed.plain(), true), of(bed.https()?, false), of(bed.https()?, true)];
    let loads = shapes.iter().map(|shape| Load::start(client, shape)).collect::<Result<Vec<_>>>()?;
    more(&loads, 100)?;
    let before: Vec<u64> = loads.iter().map(Load::good).collect();
    let killed = Instant::now();
    bed.kill_process("web1", "nginx")?;
    // As much again as is needed to see that nothing fails any more.
    eventually(RETURN, "the window is over", || Ok(killed.elapsed() > DETECTION))?;
    let window: Vec<u64> = loads.iter().zip(&before).map(|(load, before)| load.good() - before).collect();
    more(&loads, 200)?;
    bed.ready("web1", &Silent)?;
    bed.settled(&Silent)?;
    more(&loads, 100)?;
    for ((load, shape), window) in loads.into_iter().zip(&shapes).zip(window) {
        let report = load.stop()?;
        let last =
            report.failures.last().map_or(Duration::ZERO, |failure| failure.at.saturating_duration_since(killed));
        let what = if shape.keep_alive { "kept connections" } else { "new connections" };
        println!(
            "{what} to {}: {} good, {window} of them in the window; {} failed, the last {} ms after the death",
            shape.target.address,
            report.good,
            report.failures.len(),
            last.as_millis()
        );
        judge(&report, killed)?;
        // Round robin gives the dead one every other connection, until it is out.
        let most = shape.connections as u64 + window;
        ensure!(report.failures.len() as u64 <= most, "{} failures, where {most} are in flight", report.failures.len());
    }
    Ok(())
}

/// Waits until web1 is out and the other has carried the load for a while; returns how long it took.
fn through_death(bed: &Bed, loads: &[Load], killed: Instant) -> Result<Duration> {
    eventually(RETURN, "web1 is taken out", || Ok(up(bed, "plain")? == 1.0 && up(bed, "www")? == 1.0))?;
    let down = killed.elapsed();
    more(loads, 200)?;
    Ok(down)
}

/// Failures belong to the time until web1 was taken out.
fn judge(report: &Report, killed: Instant) -> Result<()> {
    let late = report.failures.iter().find(|failure| failure.at > killed + DETECTION);
    if let Some(failure) = late {
        let after = failure.at - killed;
        anyhow::bail!("a request failed {after:?} after the death: {}", failure.why);
    }
    let early = report.failures.iter().find(|failure| failure.at < killed);
    ensure!(early.is_none(), "a request failed before the death: {early:?}");
    Ok(())
}

fn up(bed: &Bed, service: &str) -> Result<f64> {
    Ok(bed.metrics("lb1")?.sum("foobar_backend_up", &[("service", service)]))
}

fn more(loads: &[Load], answers: u64) -> Result<()> {
    for load in loads {
        let goal = load.good() + answers;
        eventually(RETURN, "the load goes on", || Ok(load.good() >= goal))?;
    }
    Ok(())
}

fn shape(target: Target) -> Shape {
    let paths = vec!["/small.txt".to_owned()];
    Shape { target, paths, connections: 4, keep_alive: false, pause: Duration::from_millis(5) }
}

/// A second to notice, and what a loaded machine needs to tell.
const DETECTION: Duration = Duration::from_millis(1300);
const RETURN: Duration = Duration::from_secs(30);
