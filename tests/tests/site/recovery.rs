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
