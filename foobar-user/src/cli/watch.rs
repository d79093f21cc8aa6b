//! `foobar watch`.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::Args;
use foobar_user::agent::control::{self, Command};
use foobar_user::agent::{Event, Told};
use foobar_user::frame::summary::{detail, ends, protocol_name};

use super::{ServerArguments, runtime};

#[derive(Debug, Args)]
pub(super) struct WatchArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Only events of this rule.
    #[arg(long)]
    rule: Option<String>,
    /// Print JSON, one line an event.
    #[arg(long)]
    json: bool,
}

pub(super) fn watch(arguments: &WatchArguments) -> Result<()> {
    let WatchArguments { server, rule, json } = arguments;
    let mut out = io::stdout().lock();
    if !json {
        writeln!(
            out,
            "{}",
            row(["time (UTC)", "verdict", "rule", "reason", "on", "protocol", "from → to", "", "bytes"])
        )?;
    }
    let item = |item: serde_json::Value| {
        if *json {
            return Ok(writeln!(out, "{item}")?);
        }
        let line = match serde_json::from_value(item)? {
            Told::Event(event) => line(&event),
            Told::LostByWatcher(count) => format!("… {count} events lost: this terminal is too slow for them"),
            Told::LostByKernel(count) => format!("… {count} events lost: the kernel's buffer was full"),
        };
        Ok(writeln!(out, "{line}")?)
    };
    runtime()?.block_on(control::stream(&server.run_dir, &server.server, &Command::Watch { rule: rule.clone() }, item))
}

/// Columns as wide as mostly needed: events come one by one.
fn row([time, verdict, rule, reason, interface, protocol, ends, detail, length]: [&str; 9]) -> String {
    format!(
        "{time:<12}  {verdict:<10}  {rule:<20}  {reason:<14}  {interface:<8}  {protocol:<8}  {ends:<44}  {detail:<8}  {length}"
    )
}

fn line(event: &Event) -> String {
    let protocol = event.protocol.map_or_else(|| "-".to_owned(), protocol_name);
    let (ends, detail) = match (event.protocol, event.source, event.destination) {
        (Some(protocol), Some(from), Some(to)) => (
            ends(from, event.source_port, to, event.destination_port, protocol),
            detail(protocol, event.detail, event.detail),
        ),
        _ => ("headers that cannot be read".to_owned(), String::new()),
    };
    row([
        &time_of_day(event.time_ms),
        &event.verdict,
        event.rule.as_deref().unwrap_or("-"),
        &event.reason,
        &event.interface,
        &protocol,
        &ends,
        &detail,
        &event.length.to_string(),
    ])
}

/// Hours to milliseconds, UTC.
fn time_of_day(ms: u64) -> String {
    let seconds = ms / 1000;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_stand_below_their_heads() {
        let event = Event {
            time_ms: 1_763_936_101_042,
            verdict: "drop".to_owned(),
            rule: Some("no-ssh".to_owned()),
            reason: "rule".to_owned(),
            interface: "eth0".to_owned(),
            protocol: Some(6),
            source: Some("203.0.113.9".parse().unwrap()),
            source_port: 40_000,
            destination: Some("10.0.1.41".parse().unwrap()),
            destination_port: 22,
            detail: 2,
            length: 54,
        };
        let told = line(&event);
        assert!(told.starts_with("22:15:01.042  drop        no-ssh  "), "{told}");
        assert!(
            told.contains("tcp       203.0.113.9:40000 → 10.0.1.41:22") && told.ends_with("syn       54"),
            "{told}"
        );
        let broken = line(&Event { protocol: None, rule: None, source: None, ..event });
        assert!(broken.contains("headers that cannot be read"), "{broken}");
    }
}
