//! What a database server finds when it starts and cannot go on with: it says so, leaves everything as it is, and goes on when it may.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually::{eventually, pause};
use foobar_tests::failover::{Failover, Keeping, Shape};
use foobar_tests::process::run;
use nix::unistd::User;

use crate::PATIENCE;

/// Time in which nobody may lead.
const NOBODY: Duration = Duration::from_secs(4);

#[test]
fn the_data_of_another_site_is_refused_and_left_as_it_is() -> Result<()> {
    let mut failover = Failover::start("")?;
    let writers = failover.writers("foreign")?;
    failover.kill_server("db2")?;
    let folder = failover.cluster().folder().join("state/db2/postgres");
    let (data, own, foreign) = (folder.join("data"), folder.join("own"), folder.join("foreign"));
    fs::rename(&data, &own)?;
    let identity = initdb(&data)?;
    failover.start_agent("db2")?;
    eventually(PATIENCE, "the foreign cluster is refused", || {
        let Ok(status) = failover.status("db2") else { return Ok(false) };
        Ok(status["note"].as_str().is_some_and(|note| note.contains("another cluster")))
    })
    .with_context(|| failover.told())?;
    writers.written(50, PATIENCE).context("while the other server is refused")?;
    ensure!(identifier(&data)? == identity, "the foreign data was touched");

    // It is moved away by whoever it belongs to, as the message says.
    fs::rename(&data, &foreign)?;
    failover.settled("db1").with_context(|| failover.told())?;
    ensure!(identifier(&foreign)? == identity, "the foreign data was touched");
    ensure!(identifier(&data)? == identifier(&own)?, "another cluster than the site's was copied");
    failover.judge(&writers.end()?, "db1")
}

#[test]
fn an_etcd_that_is_away_at_the_start_is_waited_for() -> Result<()> {
    let mut failover = Failover::start_as(&Shape { keeping: Keeping::Etcd, ..Shape::default() })?;
    failover.etcd()?.0.kill_all()?;
    for server in ["db1", "db2"] {
        failover.kill_server(server)?;
        failover.start_agent(server)?;
    }
    for server in ["db1", "db2"] {
        eventually(PATIENCE, "the agents say that etcd does not answer", || {
            let Ok(status) = failover.status(server) else { return Ok(false) };
            ensure!(status["held"] == false, "{server} has a lease: {status}");
            Ok(status["store_fault"].as_str().is_some_and(|fault| fault.contains("etcd")))
        })
        .with_context(|| failover.told())?;
    }
    pause(NOBODY, || failover.leader_elsewhere(""));
    ensure!(!failover.leader_elsewhere(""), "somebody leads without a lease");
    let (etcd, cluster) = failover.etcd()?;
    etcd.start_missing(cluster)?;
    eventually(PATIENCE, "somebody leads", || Ok(failover.leader().is_ok()))?;
    let leader = failover.leader()?;
    failover.settled(leader).with_context(|| failover.told())
}

/// Makes a cluster of PostgreSQL in a folder; its identifier.
fn initdb(data: &Path) -> Result<String> {
    let account = User::from_name("postgres")?.context("no account `postgres`")?;
    fs::DirBuilder::new().mode(0o700).create(data)?;
    chown(data, Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
    let program = "/usr/lib/postgresql/15/bin/initdb";
    run(Command::new("setpriv")
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", program, "-D"])
        .arg(data))?;
    identifier(data)
}

/// What tells a cluster from every other one.
fn identifier(data: &Path) -> Result<String> {
    let said = run(Command::new("/usr/lib/postgresql/15/bin/pg_controldata").arg(data).env("LC_ALL", "C"))?;
    let line = said.lines().find(|line| line.starts_with("Database system identifier"));
    Ok(line.context("no identifier")?.to_owned())
}
