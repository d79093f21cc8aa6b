//! Three servers: the furthest replica leads, the third one goes on with it, and what happens when the second one dies, too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually::{eventually, pause};
use foobar_tests::failover::{Failover, Shape, THREE, Writers, address, now_us};

use crate::{PATIENCE, is_whole, rto_ms};

/// Time in which writes are seen to wait, or to go on.
const A_WHILE: Duration = Duration::from_secs(4);

#[test]
fn two_of_three_die_and_writes_go_on_at_the_last_one() -> Result<()> {
    let mut failover = Failover::start_as(&Shape { databases: &THREE, ..Shape::default() })?;
    let writers = failover.writers("available")?;
    for _ in 0..if is_whole() { 5 } else { 1 } {
        let (first, second, third) = the_furthest_leads(&mut failover, &writers)?;
        let at = now_us();
        failover.kill_server(second)?;
        let took = writers.taken_over(at, &address(second), PATIENCE).with_context(|| failover.told())?;
        println!("{second} dies, too: writes go on at {third} alone after {took} ms");
        ensure!(took <= rto_ms(), "it took {took} ms");
        writers.written(50, PATIENCE)?;
        failover.settled_with(third, &[])?;
        failover.start_agent(second)?;
        failover.start_agent(first)?;
        failover.settled(third)?;
    }
    end(&failover, writers)
}

#[test]
fn strict_writes_wait_at_the_last_of_three() -> Result<()> {
    if !is_whole() {
        return Ok(());
    }
    let shape = Shape { databases: &THREE, settings: "mode = \"strict\"", ..Shape::default() };
    let mut failover = Failover::start_as(&shape)?;
    let writers = failover.writers("strict")?;
    let (first, second, third) = the_furthest_leads(&mut failover, &writers)?;
    failover.kill_server(second)?;
    eventually(PATIENCE, "the last one leads", || Ok(failover.leader()? == third))?;
    let before = writers.so_far()?.rows.len();
    pause(A_WHILE, || false);
    let alone = writers.so_far()?.rows.len() - before;
    ensure!(alone == 0, "{alone} rows were acknowledged on one server");
    ensure!(failover.leader()? == third, "{third} no longer leads");
    failover.start_agent(first)?;
    failover.settled_with(third, &[first])?;
    writers.written(50, PATIENCE)?;
    failover.start_agent(second)?;
    failover.settled(third)?;
    end(&failover, writers)
}

/// The leader dies while one of its replicas lacks what the other one has. Returns the dead one, the new leader, and the third.
fn the_furthest_leads(
    failover: &mut Failover,
    writers: &Writers,
) -> Result<(&'static str, &'static str, &'static str)> {
    writers.written(100, PATIENCE)?;
    let first = failover.leader()?;
    let mut others = THREE.into_iter().filter(|server| *server != first);
    // Of two that are as far as each other the first by name would lead.
    let (third, second) = (others.next().context("a second")?, others.next().context("a third")?);
    let started = failover.started(third)?;
    failover.hold_replication(first, third)?;
    pause(Duration::from_millis(300), || false);
    let at = now_us();
    failover.kill_server(first)?;
    let took = writers.taken_over(at, &address(first), PATIENCE).with_context(|| failover.told())?;
    println!("{first} dies: writes go on after {took} ms at {second}, which is further than {third}");
    ensure!(took <= rto_ms(), "it took {took} ms");
    ensure!(failover.leader()? == second, "{} leads, which is behind", failover.leader()?);
    failover.release_replication(first)?;
    failover.settled_with(second, &[third])?;
    ensure!(failover.streaming(second)? == [third], "{:?}", failover.streaming(second));
    ensure!(failover.started(third)? == started, "{third} was started anew");
    writers.written(100, PATIENCE)?;
    Ok((first, second, third))
}

fn end(failover: &Failover, writers: Writers) -> Result<()> {
    writers.written(100, PATIENCE)?;
    let leader = failover.leader()?;
    failover.judge(&writers.end()?, leader)?;
    eventually(PATIENCE, "all servers have the same rows", || {
        let digests = THREE.map(|server| failover.digest(server).ok());
        Ok(digests.iter().all(|digest| digest.is_some() && *digest == digests[0]))
    })
}
