//! Who lacks acknowledged commits leads when an operator says so, and not before.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually::{eventually, pause};
use foobar_tests::failover::Failover;
use serde_json::Value;

use crate::PATIENCE;

/// Time in which nobody may lead unasked: several leases.
const NOBODY: Duration = Duration::from_secs(6);

#[test]
fn a_replica_that_lacks_commits_leads_when_it_is_told_to() -> Result<()> {
    let mut failover = Failover::start("degrade_after = \"2s\"")?;
    let writers = failover.writers("told")?;
    writers.written(50, PATIENCE)?;
    refused(&failover, &["--accept-loss"], "renews its lease")?;

    failover.kill_server("db2")?;
    let alone = |member: &Value| member["in_sync"] == false;
    eventually(PATIENCE, "the leader writes alone", || {
        Ok(failover.status("db1")?["members"].as_array().context("members")?.iter().all(alone))
    })?;
    writers.written(50, PATIENCE).context("alone")?;
    failover.kill_server("db1")?;
    failover.start_agent("db2")?;
    eventually(PATIENCE, "the stale replica runs", || {
        let status = failover.status("db2")?;
        let members = status["members"].as_array().context("members")?;
        Ok(members.iter().any(|member| member["server"] == "db2" && member["role"] == "replica"))
    })
    .with_context(|| failover.told())?;
    pause(NOBODY, || failover.leader_elsewhere("db1"));
    ensure!(!failover.leader_elsewhere("db1"), "a stale replica has taken the lease unasked");

    refused(&failover, &[], "say --accept-loss")?;
    let said = failover.cluster().ask("db2", &["db", "promote", "--accept-loss"]).with_context(|| failover.told())?;
    println!("{}", said.trim());
    writers.written(50, PATIENCE).context("after the promotion")?;

    // What only the old leader has is saved there before it follows.
    failover.start_agent("db1")?;
    failover.settled("db2").with_context(|| failover.told())?;
    let lost = writers.end()?.lost(&failover.present("db2")?).len();
    println!("{lost} acknowledged rows are lost, as was accepted");
    ensure!(lost > 0, "nothing was lost: this test is blind");
    let kept = fs::read_dir(failover.cluster().folder().join("state/db1/postgres"))?.filter_map(Result::ok);
    let names: Vec<String> = kept.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    ensure!(names.iter().any(|name| name.starts_with("diverged-")), "nothing is kept of them: {names:?}");
    eventually(PATIENCE, "both servers have the same rows", || Ok(failover.digest("db1")? == failover.digest("db2")?))
}

/// The promotion of db2 is refused for this reason, and db1 leads on if it did.
fn refused(failover: &Failover, options: &[&str], why: &str) -> Result<()> {
    let before = failover.status("db2")?["epoch"].clone();
    let said = failover.cluster().ask("db2", &[&["db", "promote"], options].concat());
    let refused = format!("{:#}", said.err().context("it was promoted")?);
    ensure!(refused.contains(why), "{refused}");
    ensure!(failover.status("db2")?["epoch"] == before, "the epoch has changed");
    Ok(())
}
