//! A leader that dies, hangs or is cut off: another server leads within seconds, nothing acknowledged is lost, and the old one
//! comes back by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use foobar_tests::failover::{Failover, now_us};

/// Time in which writes go on, by promise.
const RTO_MS: i64 = 5_000;
/// Time that a test waits for it, so that it can tell how long it took.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_dead_leader_is_replaced_and_comes_back_with_nothing_lost() -> Result<()> {
    let mut failover = Failover::start("")?;
    let writers = failover.writers("death")?;
    writers.written(200, PATIENCE)?;
    let at = now_us();
    failover.kill_server("db1")?;
    let took = writers.taken_over(at, "10.0.1.31", PATIENCE)?;
    println!("the leader dies: writes go on after {took} ms");
    writers.written(200, PATIENCE)?;
    failover.start_agent("db1")?;
    failover.settled("db2")?;
    writers.written(200, PATIENCE)?;
    let log = writers.end()?;
    let lost = log.lost(&failover.present("db2")?);
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    ensure!(log.overlaps().is_empty(), "two servers were written at once: {:?}", log.overlaps());
    ensure!(took <= RTO_MS, "it took {took} ms");
    foobar_tests::eventually(PATIENCE, "both servers have the same rows", || {
        Ok(failover.digest("db1")? == failover.digest("db2")?)
    })
}

#[test]
fn a_switchover_there_and_back_loses_no_transaction_that_was_not_in_flight() -> Result<()> {
    let failover = Failover::start("")?;
    let writers = failover.writers("switchover")?;
    for (from, to) in [("db1", "db2"), ("db2", "db1")] {
        writers.written(100, PATIENCE)?;
        let faults = writers.so_far()?.faults.len();
        let at = now_us();
        let said = failover.cluster().ask(from, &["db", "switchover", "--to", to])?;
        let address = if from == "db1" { "10.0.1.31" } else { "10.0.1.32" };
        let took = writers.taken_over(at, address, PATIENCE)?;
        let failed = writers.so_far()?.faults.len() - faults;
        println!("{from} hands over to {to}: {took} ms, {failed} failures; {}", said.trim());
        failover.settled(to)?;
    }
    let log = writers.end()?;
    let lost = log.lost(&failover.present("db1")?);
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    ensure!(log.overlaps().is_empty(), "two servers were written at once: {:?}", log.overlaps());
    Ok(())
}
