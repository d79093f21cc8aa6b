//! `foobar watch` shows what a rule logs, and ends with either side.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::flood::Kind;
use foobar_tests::lone::LoneServer;
use foobar_tests::process::Process;
use nix::sys::signal::Signal;

use super::{DEADLINE, PORT, with_rule};

#[test]
fn a_rule_that_logs_is_seen_and_the_agent_s_end_ends_it() -> Result<()> {
    let server = LoneServer::new(&with_rule("noted", "deny", "any", "log = true"))?;
    let mut agent = server.running()?;
    let (mut watch, event) = watched(&server)?;
    let event = &event["event"];
    ensure!(event["rule"] == "noted" && event["verdict"] == "drop" && event["reason"] == "rule", "{event}");
    ensure!(
        event["source"] == "10.0.1.1" && event["destination_port"] == PORT && event["interface"] == "eth0",
        "{event}"
    );
    agent.signal(Signal::SIGTERM)?;
    agent.wait(DEADLINE)?;
    watch.wait(DEADLINE)?;
    Ok(())
}

/// Nobody empties the ring while the agent stands still: events are lost and counted, each packet is judged and counted, and
/// what comes later is told again.
#[test]
fn a_full_ring_costs_events_and_no_verdict() -> Result<()> {
    let server = LoneServer::new(&with_rule("noted", "deny", "any", "log = 10000"))?;
    let mut agent = server.running()?;
    ensure!(server.metrics()?.sum("foobar_events_lost_total", &[]) == 0.0, "events were lost before");
    agent.signal(Signal::SIGSTOP)?;
    // Over some seconds, because a rule tells ten events at a tick of the clock: more than the ring has room for.
    let sent = server.flood(Kind::Syn, PORT, 60_000, 10_000)?.join()? as f64;
    agent.signal(Signal::SIGCONT)?;
    let metrics = server.metrics()?;
    let lost = metrics.sum("foobar_events_lost_total", &[]);
    ensure!(lost > 0.0, "no event was lost of {sent} packets");
    let denied = metrics.sum("foobar_verdict_packets_total", &[("verdict", "drop"), ("reason", "rule")]);
    // A packet that the cable has no room for is on its way no more.
    ensure!(denied <= sent && denied > 0.95 * sent, "{denied} of {sent} packets were denied");
    let (_watch, event) = watched(&server)?;
    ensure!(event["event"]["rule"] == "noted", "{event}");
    ensure!(server.metrics()?.sum("foobar_events_lost_total", &[]) == lost, "events are still lost");
    Ok(())
}

/// `foobar watch` of the rule that is noted, and the first line that it tells.
fn watched(server: &LoneServer) -> Result<(Process, serde_json::Value)> {
    let log = server.folder().join("watched.txt");
    let mut command = server.command(&["watch", "--rule", "noted", "--json"])?;
    command.stdout(std::fs::File::create(&log)?).stderr(Stdio::null());
    let watch = Process::spawn("foobar watch", &mut command)?;
    eventually(DEADLINE, "the event is seen", || {
        server.knock("lb1", PORT)?;
        Ok(BufReader::new(std::fs::File::open(&log)?).lines().count() > 0)
    })?;
    let text = std::fs::read_to_string(&log)?;
    Ok((watch, serde_json::from_str(text.lines().next().context("an event")?)?))
}

#[test]
fn a_rule_that_does_not_exist_is_refused() -> Result<()> {
    let server = LoneServer::new(&with_rule("noted", "deny", "any", "log = true"))?;
    let _agent = server.running()?;
    let refusal = server.refusal(&["watch", "--rule", "notes"])?;
    ensure!(refusal.contains("no rule `notes`"), "{refusal}");
    Ok(())
}
