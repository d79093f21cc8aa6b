//! `foobar watch` shows what a rule logs, and ends with either side.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::lone::LoneServer;
use foobar_tests::process::Process;
use nix::sys::signal::Signal;

use super::{DEADLINE, PORT, with_rule};

#[test]
fn a_rule_that_logs_is_seen_and_the_agent_s_end_ends_it() -> Result<()> {
    let server = LoneServer::new(&with_rule("noted", "deny", "any", "log = true"))?;
    let mut agent = server.running()?;
    let log = server.folder().join("watched.txt");
    let mut command = server.command(&["watch", "--rule", "noted", "--json"])?;
    command.stdout(std::fs::File::create(&log)?).stderr(Stdio::null());
    let mut watch = Process::spawn("foobar watch", &mut command)?;
    eventually(DEADLINE, "the event is seen", || {
        server.knock("lb1", PORT)?;
        Ok(BufReader::new(std::fs::File::open(&log)?).lines().count() > 0)
    })?;
    let text = std::fs::read_to_string(&log)?;
    let event: serde_json::Value = serde_json::from_str(text.lines().next().context("an event")?)?;
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

#[test]
fn a_rule_that_does_not_exist_is_refused() -> Result<()> {
    let server = LoneServer::new(&with_rule("noted", "deny", "any", "log = true"))?;
    let _agent = server.running()?;
    let refusal = server.refusal(&["watch", "--rule", "notes"])?;
    ensure!(refusal.contains("no rule `notes`"), "{refusal}");
    Ok(())
}
