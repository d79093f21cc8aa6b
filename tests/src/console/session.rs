//! One run from set-up to removal.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use super::measure;
use super::report::{Report, Targets};
use super::screen::Screen;
use super::stop::Stop;
use super::view::View;
use crate::bed::{Bed, Options};
use crate::eventually::{obtained, pause};
use crate::host::{DOMAIN, VIP};
use crate::load::{Load, Shape};

/// Arguments of `foobar-bed run`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// End by itself after this time: 20s, 500ms, 2m
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Measure with wrk through TLS and through the plain L4 path; without --for, end afterwards
    #[arg(long)]
    bench: bool,
    /// Print one JSON object at the end; everything else goes to standard error
    #[arg(long)]
    json: bool,
    /// Write lines instead of drawing in place
    #[arg(long)]
    plain: bool,
}

/// Runs the site; the exit code tells whether every page came and nothing was left behind.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let stop = Stop::listen()?;
    let screen = Screen::new(arguments.json, arguments.plain, stop.clone());
    let bed = match Options::find().and_then(|options| Bed::start(&options, &screen)) {
        Ok(bed) => bed,
        Err(_) if stop.asked() => {
            screen.line("stopped; everything is removed");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Err(error) => return Err(error),
    };
    let mut report = Report::default();
    let lived = live(&bed, arguments, &screen, &stop, &mut report);
    screen.line("stopping the site");
    report.left_behind = bed.close();
    report.tell(&screen);
    if arguments.json {
        println!("{}", serde_json::to_string(&report).context("cannot write the report")?);
    }
    lived?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What happens while the site stands.
fn live(bed: &Bed, arguments: &Arguments, screen: &Screen, stop: &Stop, report: &mut Report) -> Result<()> {
    explain(bed, screen);
    if arguments.bench || arguments.json {
        let time = if arguments.bench { BENCH_TIME } else { BRIEF_TIME };
        measure::both(bed, screen, time, report)?;
        report.tell_figures(screen);
    }
    let end = match arguments.time {
        Some(time) => Some(Instant::now() + time),
        None if arguments.bench => Some(Instant::now()),
        None => None,
    };
    watch(bed, screen, stop, end, report)?;
    report.shares = bed.shares()?;
    report.prometheus = targets(bed, stop)?;
    Ok(())
}

/// Shows the site under a light load until `end` or until somebody asks to stop.
fn watch(bed: &Bed, screen: &Screen, stop: &Stop, end: Option<Instant>, report: &mut Report) -> Result<()> {
    let client = bed.host("client")?;
    let shape = |target, keep_alive| Shape {
        target,
        paths: vec!["/guestbook".to_owned(), "/".to_owned()],
        connections: 1,
        keep_alive,
        pause: LOAD_PAUSE,
    };
    let loads = [Load::start(client, &shape(bed.https()?, true))?, Load::start(client, &shape(bed.plain(), false))?];
    let mut view = View::new();
    while !stop.asked() && end.is_none_or(|end| Instant::now() < end) {
        let next = Instant::now() + REFRESH;
        pause(end.map_or(next, |end| next.min(end)) - Instant::now(), || stop.asked());
        let pages = loads.iter().map(Load::good).sum();
        let errors = loads.iter().map(|load| load.failed() as u64).sum();
        match view.look(bed, (pages, errors)) {
            Ok(snapshot) if screen.redraws() => screen.block(&snapshot.block()),
            Ok(snapshot) => screen.line(&format!("{}   drops: {}", snapshot.line(), snapshot.drops())),
            // Somebody may just be trying what happens when an agent is killed.
            Err(error) => screen.line(&format!("  no metrics: {error:#}")),
        }
    }
    for load in loads {
        let seen = load.stop()?;
        report.pages += seen.good;
        report.errors += seen.failures.len() as u64;
        for failure in seen.failures.iter().take(SHOWN_FAILURES) {
            screen.line(&format!("✗ a page failed: {}", failure.why));
        }
    }
    Ok(())
}

/// Prometheus' targets, as soon as all are up; those that never are, are told by the numbers.
fn targets(bed: &Bed, stop: &Stop) -> Result<Targets> {
    let prometheus = bed.prometheus()?;
    let mut last = Targets::default();
    let waited = obtained(PROMETHEUS_TIMEOUT, "every target of Prometheus is up", || {
        let seen = prometheus.targets()?;
        last = Targets { targets: seen.all.len(), up: seen.all.len() - seen.down.len() };
        Ok((stop.asked() || last.targets > 0 && last.up == last.targets).then_some(()))
    });
    if last.targets == 0 && !stop.asked() { waited.map(|()| last) } else { Ok(last) }
}

/// Addresses, and commands to try in another terminal.
fn explain(bed: &Bed, screen: &Screen) {
    let namespace = |host: &str| format!("/run/netns/{}-{host}", bed.network().run().name());
    let (folder, ca) = (bed.folder().display(), bed.site().pki().join("ca.pem"));
    let (client, ca, foobar) = (namespace("client"), ca.display(), bed.site().foobar().display());
    for line in [
        String::new(),
        format!("The site stands: {DOMAIN} at {VIP}, run {}, everything in {folder}. Try:", bed.id()),
        String::new(),
        format!("  nsenter --net={client} curl --cacert {ca} --resolve {DOMAIN}:443:{VIP} https://{DOMAIN}/guestbook"),
        format!("  nsenter --net={client} curl http://{VIP}:8080/guestbook.json"),
        format!("  nsenter --net={} curl http://10.0.1.1:9900/metrics", namespace("lb1")),
        format!("  nsenter --net={} curl 'http://10.0.1.41:9090/api/v1/query?query=up'", namespace("monitor")),
        format!("  {foobar} status --server lb1 --run-dir {folder}/run"),
        format!("  {foobar} plan --site {folder}/site/site.toml --server web1"),
        format!("  less {folder}/logs/lb1.log"),
        String::new(),
    ] {
        screen.line(&line);
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no time; write 20s, 500ms or 2m"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("{unit:?} is no unit of time; write 20s, 500ms or 2m")),
    }
}

const INTERRUPTED: u8 = 130;
const REFRESH: Duration = Duration::from_secs(1);
const LOAD_PAUSE: Duration = Duration::from_millis(250);
const BENCH_TIME: Duration = Duration::from_secs(8);
const BRIEF_TIME: Duration = Duration::from_secs(2);
const PROMETHEUS_TIMEOUT: Duration = Duration::from_secs(20);
const SHOWN_FAILURES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "20h", "-1s", "1.5s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
