//! What writes wait for: with `strict` always for another server; and a client that does not wait loses what the others do not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::failover::{Failover, address, now_us};

use crate::{PATIENCE, kept, other};

/// Time in which a write that waits is seen to wait.
const WAITS: Duration = Duration::from_secs(7);

#[test]
fn strict_writes_wait_for_a_replica_and_go_on_with_it() -> Result<()> {
    let mut failover = Failover::start("mode = \"strict\"")?;
    let writers = failover.writers("strict")?;
    writers.written(50, PATIENCE)?;
    failover.kill_server("db2")?;
    // What was on its way is acknowledged or not; after that nothing is, however long the replica is away.
    foobar_tests::eventually::pause(Duration::from_millis(500), || false);
    let before = writers.so_far()?.rows.len();
    foobar_tests::eventually::pause(WAITS, || false);
    let after = writers.so_far()?.rows.len();
    ensure!(before == after, "{} rows were acknowledged without a replica", after - before);
    ensure!(failover.leader()? == "db1", "another server leads");
    failover.start_agent("db2")?;
    failover.settled("db1").with_context(|| failover.told())?;
    writers.written(50, PATIENCE)?;
    failover.judge(&writers.end()?, "db1")
}

#[test]
fn who_waits_loses_nothing_where_who_does_not_loses_some() -> Result<()> {
    let mut failover = Failover::start("")?;
    for (name, options, waits) in [("waits", "", true), ("hasty", "options=-csynchronous_commit=local", false)] {
        let leader = failover.leader()?;
        let replica = other(leader)?;
        let writers = failover.writers_with(name, options)?;
        writers.written(50, PATIENCE)?;
        failover.hold_replication(leader, replica)?;
        if waits {
            foobar_tests::eventually::pause(Duration::from_millis(500), || false);
        } else {
            writers.written(200, PATIENCE)?;
        }
        let at = now_us();
        failover.kill_server(leader)?;
        writers.taken_over(at, &address(leader), PATIENCE)?;
        failover.release_replication(leader)?;
        failover.start_agent(leader)?;
        failover.settled(replica).with_context(|| failover.told())?;
        let log = writers.end()?;
        let lost = log.lost(&failover.present(replica)?);
        println!("{name}: {} of {} acknowledged rows are lost", lost.len(), log.rows.len());
        if waits {
            failover.judge(&log, replica)?;
        } else {
            // Or this test would see no loss where there is one.
            ensure!(!lost.is_empty(), "nothing was lost by who does not wait: this test is blind");
            kept::has_rows(&failover, leader, &lost)?;
        }
        failover.sql(replica, "truncate acknowledged")?;
    }
    Ok(())
}
