//! A replica that cannot start on what it has: mended from its leader by itself, with the old data kept; a leader's data is left alone.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::failover::Failover;

use crate::{PATIENCE, is_whole, kept};

/// Time for several tries to start, and the pauses between them.
const HEALS: Duration = Duration::from_secs(180);

#[test]
fn a_replica_that_cannot_start_is_copied_anew_and_a_leader_never() -> Result<()> {
    if !is_whole() {
        return Ok(());
    }
    let mut failover = Failover::start("")?;
    failover.sql("db1", "create table kept as select 1 as n")?;

    stop(&failover, "db2")?;
    spoil(&failover, "db2")?;
    start(&failover, "db2");
    healed(&failover, 1)?;

    // Log that it needs to start, and that its leader has no longer.
    failover.psql("db1", "checkpoint")?;
    failover.sql("db1", "insert into kept values (2)")?;
    eventually(
        PATIENCE,
        "the replica has all",
        || Ok(failover.sql("db2", "select count(*) from kept")?.trim() == "2"),
    )?;
    for _ in 0..8 {
        failover.switch_log("db1")?;
    }
    stop(&failover, "db2")?;
    failover.psql("db1", "checkpoint")?;
    for path in log_files(&failover, "db2")? {
        fs::remove_file(path)?;
    }
    start(&failover, "db2");
    healed(&failover, 2)?;
    ensure!(failover.sql("db2", "select count(*) from kept")?.trim() == "2", "rows are missing");

    // The leader has what nobody else has: it is not copied over, however often it fails.
    failover.kill_server("db2")?;
    let alone = || {
        let status = failover.status("db1")?;
        let members = status["members"].as_array().context("members")?;
        Ok(status["open"] == true && members.iter().all(|member| member["in_sync"] == false))
    };
    eventually(PATIENCE, "the leader writes alone", alone)?;
    failover.sql("db1", "insert into kept values (3)")?;
    stop(&failover, "db1")?;
    let data = failover.postgres_folder("db1").join("data");
    let (inode, before) = (fs::metadata(&data)?.ino(), spoil(&failover, "db1")?);
    failover.start_agent("db2")?;
    start(&failover, "db1");
    let restarts = || Ok(process(&failover, "db1")?["restarts"].as_u64().is_some_and(|restarts| restarts >= 7));
    eventually(HEALS, "it fails again and again", restarts)?;
    ensure!(
        fs::metadata(&data)?.ino() == inode && kept::aside(&failover, "db1")?.is_empty(),
        "the leader's data was replaced"
    );
    ensure!(failover.leader()? == "db1", "another server leads");
    write_control(&failover, "db1", &before)?;
    failover.settled("db1").with_context(|| failover.told())?;
    ensure!(failover.sql("db1", "select count(*) from kept")?.trim() == "3", "rows are missing");
    Ok(())
}

#[test]
fn a_replica_whose_settings_are_at_fault_keeps_its_data() -> Result<()> {
    if !is_whole() {
        return Ok(());
    }
    let failover = Failover::start("settings = { work_mem = \"5MB\" }")?;
    let site = failover.cluster().folder().join("site.toml");
    let text = fs::read_to_string(&site)?;
    let (folder, data) = (failover.postgres_folder("db2"), failover.postgres_folder("db2").join("data"));
    let inode = fs::metadata(&data)?.ino();
    // A library that is not there; a value that is none.
    for fault in ["shared_preload_libraries = \"missing\"", "work_mem = \"much\""] {
        fs::write(&site, text.replace("work_mem = \"5MB\"", fault))?;
        let before = process(&failover, "db2")?["restarts"].as_u64().unwrap_or(0);
        drop(failover.cluster().ask("db2", &["reload"]));
        stop(&failover, "db2")?;
        start(&failover, "db2");
        let again = || Ok(process(&failover, "db2")?["restarts"].as_u64() >= Some(before + 6));
        eventually(HEALS, "it fails again and again", again).with_context(|| failover.told())?;
        for note in ["unready", "diverged"] {
            ensure!(!folder.join(note).exists(), "its data is to be mended");
        }
    }
    fs::write(&site, &text)?;
    failover.cluster().ask("db2", &["reload"])?;
    failover.settled("db1").with_context(|| failover.told())?;
    ensure!(fs::metadata(&data)?.ino() == inode && kept::aside(&failover, "db2")?.is_empty(), "its data was replaced");
    Ok(())
}

/// Has an operator stop a server's PostgreSQL.
fn stop(failover: &Failover, server: &str) -> Result<()> {
    failover.cluster().ask(server, &["process", "stop", "postgres"])?;
    eventually(PATIENCE, "it is stopped", || Ok(process(failover, server)?["state"] == "stopped"))
}

/// Has an operator start it again; that it does not come up at first is told him, too.
fn start(failover: &Failover, server: &str) {
    drop(failover.cluster().ask(server, &["process", "start", "postgres"]));
}

fn process(failover: &Failover, server: &str) -> Result<serde_json::Value> {
    let report = failover.cluster().json(server, &["process", "list"])?;
    let mut processes = report["processes"].as_array().context("processes")?.iter();
    processes.find(|process| process["name"] == "postgres").cloned().context("postgres")
}

/// The replica is one again, and so many data folders of before are kept.
fn healed(failover: &Failover, times: usize) -> Result<()> {
    let copied = || Ok(kept::aside(failover, "db2")?.len() == times);
    eventually(HEALS, "the leader is copied anew", copied).with_context(|| failover.told())?;
    failover.settled("db1").with_context(|| failover.told())
}

fn log_files(failover: &Failover, server: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(failover.postgres_folder(server).join("data/pg_wal"))?.filter_map(Result::ok);
    Ok(entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

/// Breaks the control file behind the identifier of the cluster; returns what was there.
fn spoil(failover: &Failover, server: &str) -> Result<Vec<u8>> {
    let mut before = vec![0; 256];
    control(failover, server)?.read_exact_at(&mut before, 8)?;
    write_control(failover, server, &[0x5a; 256])?;
    Ok(before)
}

fn write_control(failover: &Failover, server: &str, bytes: &[u8]) -> Result<()> {
    control(failover, server)?.write_all_at(bytes, 8).context("cannot write the control file")
}

fn control(failover: &Failover, server: &str) -> Result<File> {
    let path = failover.postgres_folder(server).join("data/global/pg_control");
    File::options().read(true).write(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
}
