//! A leader that dies, hangs or is cut off: another server leads within seconds, nothing acknowledged is lost, and the old one
//! comes back by itself.

mod cascade;
mod kept;
mod matrix;
mod modes;
mod refusals;
mod rejoin;
mod replica;
mod settings;
mod store;
mod three;
mod told;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::failover::{DATABASES, Failover, address, now_us};
use nix::sys::signal::Signal;

/// Time in which writes go on, by promise.
const RTO_MS: i64 = 5_000;
/// The same where the machine has other work: the plain run of all tests measures nothing.
const BUSY_RTO_MS: i64 = 15_000;
/// The same for half of all failovers.
const RTO_MEDIAN_MS: i64 = 3_500;
/// Time that a test waits for something, so that it can tell how long it took.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether every fault is asked for: `cargo xtask test --failover`.
pub(crate) fn is_whole() -> bool {
    std::env::var_os("FOOBAR_FAILOVER").is_some()
}

/// Time in which writes go on, in milliseconds.
pub(crate) fn rto_ms() -> i64 {
    if is_whole() { RTO_MS } else { BUSY_RTO_MS }
}

/// The other database server.
pub(crate) fn other(server: &str) -> Result<&'static str> {
    DATABASES.into_iter().find(|other| *other != server).context("another server")
}

#[test]
fn a_dead_leader_is_replaced_and_comes_back_with_nothing_lost() -> Result<()> {
    let kills = if is_whole() { 20 } else { 1 };
    let mut failover = Failover::start("")?;
    let writers = failover.writers("death")?;
    let mut times = Vec::new();
    for _ in 0..kills {
        writers.written(200, PATIENCE)?;
        let leader = failover.leader()?;
        let replica = other(leader)?;
        let at = now_us();
        failover.kill_server(leader)?;
        let took = writers.taken_over(at, &address(leader), PATIENCE)?;
        let promoted = failover.status(replica)?["promotion_ms"].as_i64().context("a promotion")?;
        println!(
            "{leader} dies: writes go on after {took} ms, of which {promoted} ms from the lease to the first client"
        );
        times.push(took);
        failover.start_agent(leader)?;
        failover.settled(replica).with_context(|| failover.told())?;
    }
    writers.written(200, PATIENCE)?;
    let leader = failover.leader()?;
    failover.judge(&writers.end()?, leader)?;
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{kills} kills: median {median} ms, worst {worst} ms");
    ensure!(median <= RTO_MEDIAN_MS || kills == 1, "a median of {median} ms");
    ensure!(worst <= rto_ms(), "it took {worst} ms");
    eventually(PATIENCE, "both servers have the same rows", || Ok(failover.digest("db1")? == failover.digest("db2")?))
}

#[test]
fn a_switchover_there_and_back_loses_nothing() -> Result<()> {
    let times = if is_whole() { 10 } else { 1 };
    let failover = Failover::start("")?;
    let writers = failover.writers("switchover")?;
    for _ in 0..times {
        for (from, to) in [("db1", "db2"), ("db2", "db1")] {
            writers.written(100, PATIENCE)?;
            let at = now_us();
            let said = failover.cluster().ask(from, &["db", "switchover", "--to", to])?;
            let took = writers.taken_over(at, &address(from), PATIENCE)?;
            println!("{from} hands over to {to}: writes go on after {took} ms; {}", said.trim());
            failover.settled(to).with_context(|| failover.told())?;
        }
    }
    failover.judge(&writers.end()?, "db1")?;
    eventually(PATIENCE, "both servers have the same rows", || Ok(failover.digest("db1")? == failover.digest("db2")?))
}

#[test]
fn an_agent_that_dies_in_the_middle_of_a_failover_goes_on_with_it() -> Result<()> {
    // From the death of the leader over the end of its lease to what follows the promotion.
    let moments: &[u64] =
        if is_whole() { &[0, 500, 1_500, 1_900, 2_000, 2_050, 2_100, 2_200, 2_400, 3_000] } else { &[2_050] };
    let mut failover = Failover::start("")?;
    let writers = failover.writers("agents")?;
    for moment in moments {
        writers.written(100, PATIENCE)?;
        let leader = failover.leader()?;
        let replica = other(leader)?;
        let at = now_us();
        failover.kill_server(leader)?;
        foobar_tests::eventually::pause(Duration::from_millis(*moment), || false);
        failover.signal_agent(replica, Signal::SIGKILL)?;
        failover.start_agent(replica)?;
        let took = writers.taken_over(at, &address(leader), PATIENCE).with_context(|| failover.told())?;
        println!("the agent of {replica} dies {moment} ms after {leader}: writes go on after {took} ms");
        failover.start_agent(leader)?;
        failover.settled(replica).with_context(|| failover.told())?;
    }
    let leader = failover.leader()?;
    failover.judge(&writers.end()?, leader)
}
