//! `wrk`, Debian's load generator: started in a namespace, its figures read from a report of our own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::bed::Bed;

/// What one run of wrk measured.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Figures {
    /// Requests a second.
    pub rps: f64,
    /// Median of the latency, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the latency, milliseconds.
    pub p99_ms: f64,
    /// Answers.
    #[serde(skip_serializing)]
    pub requests: u64,
    /// Failed connections, reads, writes, time-outs and answers other than 2xx and 3xx.
    #[serde(skip_serializing)]
    pub errors: u64,
}

/// What wrk asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where to.
    pub url: &'a str,
    /// Connections at the same time.
    pub connections: u32,
    /// Whether a connection takes more than one request.
    pub keep_alive: bool,
    /// For how long; whole seconds.
    pub time: Duration,
}

/// Runs wrk on `host` of the bed against `url`.
pub fn measure(bed: &Bed, host: &str, url: &str, connections: u32, time: Duration) -> Result<Figures> {
    let mut command = command(bed.folder(), &Request { url, connections, keep_alive: true, time })?;
    figures(&bed.run(host, &mut command)?)
}

/// The command that sends `request`; its script is written into `folder`.
pub fn command(folder: &Path, request: &Request<'_>) -> Result<Command> {
    let script = folder.join("report.lua");
    fs::write(&script, REPORT).context("cannot write wrk's script")?;
    let mut command = Command::new("wrk");
    command.args(["--threads", "2", "--connections", &request.connections.to_string()]);
    command.arg("--duration").arg(format!("{}s", request.time.as_secs().max(1)));
    command.args(["--header", &format!("Host: {}", crate::host::DOMAIN)]);
    if !request.keep_alive {
        command.args(["--header", "Connection: close"]);
    }
    command.arg("--script").arg(&script).arg(request.url);
    Ok(command)
}

/// What such a command has measured, from its output.
pub fn figures(output: &str) -> Result<Figures> {
    let line = output.lines().find_map(|line| line.strip_prefix(MARK));
    let line = line.with_context(|| format!("wrk reported nothing:\n{output}"))?;
    serde_json::from_str(line).with_context(|| format!("cannot read wrk's report {line}"))
}

const MARK: &str = "report: ";

/// Latencies and the duration are microseconds.
const REPORT: &str = r#"done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'report: {"rps": %.1f, "p50_ms": %.3f, "p99_ms": %.3f, "requests": %d, "errors": %d}\n',
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_found_among_the_rest() {
        let output = "Running 1s test\nreport: {\"rps\": 10.5, \"p50_ms\": 1, \"p99_ms\": 2.5, \"requests\": 10, \"errors\": 0}\n";
        let figures = figures(output).expect("figures");
        assert_eq!((figures.rps, figures.requests, figures.errors), (10.5, 10, 0));
    }
}
