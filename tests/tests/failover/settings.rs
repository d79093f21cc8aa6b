//! Settings that are changed in the site file: in force at once where PostgreSQL can, and told until the restart where it cannot.

use std::fs;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::failover::{DATABASES, Failover};
use serde_json::json;

use crate::PATIENCE;

const METRIC: &str = "foobar_postgres_pending_restart";

#[test]
fn a_setting_is_in_force_at_once_or_told_until_the_restart() -> Result<()> {
    let failover = Failover::start("settings = { work_mem = \"5MB\", max_connections = \"100\" }")?;
    let site = failover.cluster().folder().join("site.toml");
    let text = fs::read_to_string(&site)?;
    fs::write(&site, text.replace("\"5MB\"", "\"6MB\"").replace("\"100\"", "\"123\""))?;
    for server in DATABASES {
        failover.cluster().ask(server, &["reload"])?;
    }
    for server in DATABASES {
        eventually(PATIENCE, "memory is in force", || Ok(show(&failover, server, "work_mem")? == "6MB"))?;
        eventually(PATIENCE, "connections are told", || told(&failover, server, true))?;
        ensure!(show(&failover, server, "max_connections")? == "100", "{server} was restarted");
    }
    // Replicas first, where it is raised: a leader that allows more than its replica stops it.
    restart(&failover, "db2")?;
    eventually(PATIENCE, "connections are in force", || Ok(show(&failover, "db2", "max_connections")? == "123"))?;
    eventually(PATIENCE, "they are told no more", || told(&failover, "db2", false))?;
    ensure!(told(&failover, "db1", true)?, "the leader has still to be restarted");
    failover.settled("db1").with_context(|| failover.told())?;
    failover.cluster().ask("db1", &["db", "switchover", "--to", "db2"])?;
    // It was stopped and started as a replica.
    failover.settled("db2").with_context(|| failover.told())?;
    eventually(PATIENCE, "connections are in force", || Ok(show(&failover, "db1", "max_connections")? == "123"))?;
    eventually(PATIENCE, "they are told no more", || told(&failover, "db1", false))
}

fn show(failover: &Failover, server: &str, name: &str) -> Result<String> {
    Ok(failover.psql(server, &format!("show {name}"))?.trim().to_owned())
}

fn restart(failover: &Failover, server: &str) -> Result<()> {
    failover.cluster().ask(server, &["process", "restart", "postgres"]).map(drop)
}

/// Whether everything tells that this waits for a restart, or nothing does.
fn told(failover: &Failover, server: &str, pending: bool) -> Result<bool> {
    let cluster = failover.cluster();
    let status =
        failover.status(server)?["pending_restart"] == if pending { json!(["max_connections"]) } else { json!([]) };
    let says = |arguments: &[&str], what: &str| Ok::<_, anyhow::Error>(cluster.ask(server, arguments)?.contains(what));
    let metrics = cluster.metrics(server)?;
    let mut samples = metrics.find(METRIC, &[]).map(|sample| sample.value > 0.0);
    let all = [
        status,
        says(&["db", "status"], "PostgreSQL here needs a restart")? == pending,
        says(&["process", "list"], "max_connections")? == pending,
    ];
    Ok(all == [true; 3] && samples.next() == Some(pending))
}
