//! Who lacks acknowledged commits leads when an operator says so, and not before; what the others had is kept.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually::{eventually, pause};
use foobar_tests::failover::{Failover, Shape, THREE};
use serde_json::Value;

use crate::{PATIENCE, is_whole, kept};

/// Time in which nobody may lead unasked: several leases.
const NOBODY: Duration = Duration::from_secs(6);

#[test]
fn a_replica_that_lacks_commits_leads_when_it_is_told_to() -> Result<()> {
    let mut failover = Failover::start("degrade_after = \"2s\"")?;
    let writers = failover.writers("told")?;
    writers.written(50, PATIENCE)?;
    replica_runs(&failover)?;
    refused(&failover, &["--accept-loss"], "renews its lease")?;

    failover.kill_server("db2")?;
    writes_without(&failover, &["db2"])?;
    writers.written(50, PATIENCE).context("alone")?;
    failover.kill_server("db1")?;
    failover.start_agent("db2")?;
    replica_runs(&failover)?;
    pause(NOBODY, || failover.leader_elsewhere("db1"));
    ensure!(!failover.leader_elsewhere("db1"), "a stale replica has taken the lease unasked");

    refused(&failover, &[], "say --accept-loss")?;
    let said = failover.cluster().ask("db2", &["db", "promote", "--accept-loss"]).with_context(|| failover.told())?;
    println!("{}", said.trim());
    writers.written(50, PATIENCE).context("after the promotion")?;

    // What only the old leader has is saved there before it follows.
    failover.start_agent("db1")?;
    failover.settled("db2").with_context(|| failover.told())?;
    let lost = writers.end()?.lost(&failover.present("db2")?);
    println!("{} acknowledged rows are lost, as was accepted", lost.len());
    ensure!(!lost.is_empty(), "nothing was lost: this test is blind");
    kept::has_rows(&failover, "db1", &lost)?;
    eventually(PATIENCE, "both servers have the same rows", || Ok(failover.digest("db1")? == failover.digest("db2")?))
}

#[test]
fn a_replica_that_has_what_the_new_leader_lacks_keeps_its_data() -> Result<()> {
    if !is_whole() {
        return Ok(());
    }
    let shape = Shape { databases: &THREE, settings: "degrade_after = \"2s\"", ..Shape::default() };
    let mut failover = Failover::start_as(&shape)?;
    failover.kill_server("db2")?;
    writes_without(&failover, &["db2"])?;
    failover.sql("db1", "insert into acknowledged values (0, 1)")?;
    // In order: what a replica was killed on, nothing rewinds.
    failover.cluster().ask("db3", &["process", "stop", "postgres"])?;
    writes_without(&failover, &["db2", "db3"])?;
    failover.kill_server("db3")?;
    failover.kill_server("db1")?;
    failover.start_agent("db2")?;
    replica_runs(&failover)?;
    failover.cluster().ask("db2", &["db", "promote", "--accept-loss"])?;
    failover.sql("db2", "insert into acknowledged values (0, 2)")?;

    failover.start_agent("db3")?;
    eventually(PATIENCE, "it is started again", || {
        Ok(failover.cluster().ask("db3", &["process", "start", "postgres"]).is_ok())
    })
    .with_context(|| failover.told())?;
    failover.settled_with("db2", &["db3"])?;
    let summary = kept::aside_and_told(&failover, "db3")?;
    ensure!(summary["transactions"] == 1, "{summary}");
    Ok(())
}

/// Waits until db1 leads without these in sync.
fn writes_without(failover: &Failover, others: &[&str]) -> Result<()> {
    eventually(PATIENCE, "the leader does not wait for them", || {
        let status = failover.status("db1")?;
        let mut members = status["members"].as_array().context("members")?.iter();
        let is_one = |member: &Value| member["server"].as_str().is_some_and(|server| others.contains(&server));
        Ok(status["open"] == true && members.all(|member| !is_one(member) || member["in_sync"] == false))
    })
}

/// Waits until db2 knows itself as a replica that runs.
fn replica_runs(failover: &Failover) -> Result<()> {
    eventually(PATIENCE, "the replica runs", || {
        let status = failover.status("db2")?;
        let members = status["members"].as_array().context("members")?;
        Ok(members.iter().any(|member| member["server"] == "db2" && member["role"] == "replica"))
    })
    .with_context(|| failover.told())
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
