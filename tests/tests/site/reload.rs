//! A changed file: refused whole when it is bad, applied whole when it is good.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::host::Host;
use foobar_tests::probe::{Outcome, connect};
use foobar_tests::{Bed, eventually};
use nix::sys::signal::Signal;

/// An unknown key: refused with file, line and column; generation and firewall as before.
pub(crate) fn bad_file(bed: &Bed) -> Result<()> {
    let good = bed.site().text()?;
    let before = generation(bed)?;
    let bad = format!("{good}\n[[rule]]\nname = \"x\"\non = [\"app1\"]\nnonsense = 1\naction = \"allow\"\n");
    let line = bad.lines().position(|line| line == "nonsense = 1").context("the line")? + 1;
    bed.site().replace(&bad)?;
    let output = bed.agent("app1")?.ask("reload", &[]);
    bed.site().replace(&good)?;
    let output = output?;
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(!output.status.success(), "the bad file was taken: {told}");
    ensure!(told.contains(&format!("site.toml:{line}:1")), "not told where (line {line}): {told}");
    ensure!(generation(bed)? == before, "the generation changed");
    ensure!(monitor_knocks(bed)? == Outcome::Silent, "port {PORT} is open");
    Ok(())
}

/// A new rule opens a port after SIGHUP; without it the port is closed again after `foobar reload`.
pub(crate) fn changed_file(bed: &Bed) -> Result<()> {
    let good = bed.site().text()?;
    ensure!(monitor_knocks(bed)? == Outcome::Silent, "port {PORT} is open before");
    let rule = "[[rule]]\nname = \"extra\"\non = [\"app1\"]\nfrom = [\"monitor\"]\nprotocol = \"tcp\"\n";
    bed.site().replace(&format!("{good}\n{rule}ports = [\"{PORT}\"]\naction = \"allow\"\n"))?;
    let opened = bed.agent("app1")?.signal(Signal::SIGHUP).and_then(|()| {
        eventually(DEADLINE, "the new rule lets the monitor in", || Ok(monitor_knocks(bed)? == Outcome::Refused))
    });
    bed.site().replace(&good)?;
    let output = bed.agent("app1")?.ask("reload", &[])?;
    opened?;
    ensure!(output.status.success(), "reload: {}", String::from_utf8_lossy(&output.stderr));
    ensure!(monitor_knocks(bed)? == Outcome::Silent, "port {PORT} is still open");
    Ok(())
}

/// Nobody listens there: let through means refused.
fn monitor_knocks(bed: &Bed) -> Result<Outcome> {
    let app = Host::named("app1").context("a host")?;
    connect(bed.host("monitor")?, SocketAddr::from((app.v4(), PORT)), SILENCE)
}

fn generation(bed: &Bed) -> Result<f64> {
    Ok(bed.metrics("app1")?.sum("foobar_generation", &[]))
}

const PORT: u16 = 8123;
const SILENCE: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(5);
