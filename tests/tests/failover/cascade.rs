//! A replica that follows another one: it has what that one has, follows the leader while that one is away, and is never waited for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::failover::{Failover, Shape, THREE, Writers, address, now_us};

use crate::{PATIENCE, is_whole, rto_ms};

/// Time in which it follows somebody else, where the machine does nothing else.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// db3 follows db2.
const FOLLOWS: [(&str, &str); 1] = [("db3", "db2")];

#[test]
fn a_replica_of_a_replica_always_finds_somebody_to_follow() -> Result<()> {
    let shape = Shape { databases: &THREE, follows: &FOLLOWS, settings: "degrade_after = \"3s\"", ..Shape::default() };
    let mut failover = Failover::start_as(&shape)?;
    let writers = failover.writers("cascade")?;
    writers.written(100, PATIENCE)?;
    follow(&failover, &[("db1", &["db2"]), ("db2", &["db3"])])?;
    let started = failover.started("db3")?;
    reads_go_to_both(&failover)?;
    never_leads(&failover)?;

    failover.kill_server("db2")?;
    within(&failover, "db3 follows db1", &[("db1", &["db3"])])?;
    failover.settled_with("db1", &[])?;
    writers.written(50, PATIENCE).context("with db2 away: db3 is not waited for")?;
    failover.start_agent("db2")?;
    failover.settled("db1")?;
    within(&failover, "db3 follows db2 again", &[("db1", &["db2"]), ("db2", &["db3"])])?;
    let written = failover.end_of_log("db1")?;
    let moved = || Ok(failover.kept_from("db1", "db3")?.is_some_and(|from| from >= written));
    eventually(PATIENCE, "db1 holds nothing back for db3, which follows db2", moved)?;

    let at = now_us();
    failover.kill_server("db1")?;
    let took = writers.taken_over(at, &address("db1"), PATIENCE).with_context(|| failover.told())?;
    println!("db1 dies: writes go on at db2 after {took} ms");
    ensure!(took <= rto_ms(), "it took {took} ms");
    follow(&failover, &[("db2", &["db3"])])?;
    writers.written(50, PATIENCE)?;
    failover.start_agent("db1")?;
    failover.settled("db2")?;
    follow(&failover, &[("db2", &["db1", "db3"])])?;
    ensure!(failover.started("db3")? == started, "db3 was started anew");
    end(&failover, writers)
}

/// Waits until exactly these stream from each, and db3's agent says so.
fn follow(failover: &Failover, expected: &[(&str, &[&str])]) -> Result<()> {
    let so = || {
        let all = expected.iter().map(|(server, others)| Ok(failover.streaming(server)? == *others));
        let all = all.collect::<Result<Vec<bool>>>().is_ok_and(|all| all.iter().all(|so| *so));
        let leads = failover.leader()?;
        let source = expected.iter().find(|(_, others)| others.contains(&"db3")).map(|(server, _)| *server);
        let status = failover.status(leads)?;
        let members = status["members"].as_array().context("members")?;
        let says = members.iter().find(|member| member["server"] == "db3").context("db3")?;
        Ok(all && says["source"].as_str() == source && says["in_sync"] == false)
    };
    eventually(PATIENCE, &format!("{expected:?} stream"), so).with_context(|| failover.told())
}

/// The same, in a time that is promised.
fn within(failover: &Failover, what: &str, expected: &[(&str, &[&str])]) -> Result<()> {
    let began = Instant::now();
    follow(failover, expected)?;
    println!("{what} after {} ms", began.elapsed().as_millis());
    ensure!(!is_whole() || began.elapsed() <= ELSEWHERE, "it took {:?}", began.elapsed());
    Ok(())
}

fn reads_go_to_both(failover: &Failover) -> Result<()> {
    let both = || Ok(failover.members("db-read")? == ["db2", "db3"]);
    eventually(PATIENCE, "both replicas are read", both)
}

fn never_leads(failover: &Failover) -> Result<()> {
    let said = failover.cluster().ask("db1", &["db", "switchover", "--to", "db3"]);
    let said = format!("{:#}", said.err().context("it was to refuse")?);
    ensure!(said.contains("db3 `follows` db2 in the site file"), "{said}");
    Ok(())
}

fn end(failover: &Failover, writers: Writers) -> Result<()> {
    writers.written(50, PATIENCE)?;
    failover.judge(&writers.end()?, failover.leader()?)?;
    eventually(PATIENCE, "all servers have the same rows", || {
        let digests = THREE.map(|server| failover.digest(server).ok());
        Ok(digests.iter().all(|digest| digest.is_some() && *digest == digests[0]))
    })
}
