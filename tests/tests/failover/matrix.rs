//! Each fault, one after the other, in one cluster that heals between them: who leads, what is lost, who could be written at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::failover::{DATABASES, Failover, Fault, Keeping, Outcome, Shape, address, now_us};

use crate::{PATIENCE, is_whole, rto_ms};

/// Time in which nobody may lead, if nobody is to: several leases.
const NOBODY: Duration = Duration::from_secs(8);
/// Time in which a lease that cannot be renewed ends, and the next one begins.
const LEASES: Duration = Duration::from_secs(5);
/// What a fault came to.
struct Cell {
    fault: Fault,
    lasted: Duration,
    took: Option<i64>,
    acknowledged: usize,
}

impl Cell {
    fn is_late(&self) -> bool {
        self.took.is_some_and(|took| took > rto_ms() + self.fault.lingering_ms())
    }

    fn print(&self) {
        let took = self.took.map_or_else(|| "-".to_owned(), |took| took.to_string());
        println!(
            "{:<14} {:>4} s {:<9} {took:>6} ms {:>7} acknowledged, 0 lost",
            format!("{:?}", self.fault),
            self.lasted.as_secs(),
            format!("{:?}", self.fault.outcome()),
            self.acknowledged
        );
    }
}

#[test]
fn every_fault_costs_time_and_nothing_that_was_acknowledged() -> Result<()> {
    try_out(Keeping::Witness, &[Fault::AgentStopped, Fault::Stopped, Fault::CutOutwards])
}

#[test]
fn the_same_holds_with_etcd() -> Result<()> {
    try_out(Keeping::Etcd, &[Fault::EtcdLeaderGone, Fault::Death, Fault::EtcdGone])
}

/// Tries `some` faults, or all.
fn try_out(keeping: Keeping, some: &[Fault]) -> Result<()> {
    let faults = if is_whole() { Fault::all(keeping) } else { some.to_vec() };
    let mut failover = Failover::start_as(&Shape { keeping, settings: "degrade_after = \"3s\"", ..Shape::default() })?;
    let mut cells = Vec::new();
    for fault in faults {
        let lasting = if is_whole() { fault.lasting() } else { &fault.lasting()[..1] };
        for lasting in lasting {
            let cell = strike(&mut failover, fault, *lasting).with_context(|| format!("{fault:?}, {lasting:?}"));
            let cell = cell.with_context(|| failover.told())?;
            cell.print();
            cells.push(cell);
        }
    }
    let late: Vec<Fault> = cells.iter().filter(|cell| cell.is_late()).map(|cell| cell.fault).collect();
    ensure!(late.is_empty(), "later than {} ms: {late:?}", rto_ms());
    Ok(())
}

fn strike(failover: &mut Failover, fault: Fault, lasting: Duration) -> Result<Cell> {
    let leader = failover.leader()?;
    let replica = DATABASES.into_iter().find(|server| *server != leader).context("a replica")?;
    let writers = failover.writers(&format!("{fault:?}-{leader}"))?;
    writers.written(50, PATIENCE).context("before the fault")?;
    let (at, began) = (now_us(), Instant::now());
    fault.strike(failover, leader, replica)?;
    let took = match fault.outcome() {
        Outcome::Promoted => {
            let took = writers.taken_over(at, &address(leader), PATIENCE)?;
            writers.written(50, PATIENCE).context("after the failover")?;
            foobar_tests::eventually::pause(lasting.saturating_sub(began.elapsed()), || false);
            Some(took)
        }
        Outcome::Kept => {
            writers.written(50, PATIENCE).context("during the fault")?;
            None
        }
        Outcome::Either => {
            // A lease from before the fault is over by then: what is written later goes by one that was renewed since.
            foobar_tests::eventually::pause(LEASES, || false);
            writers.written(50, PATIENCE).context("during the fault")?;
            Some(writers.so_far()?.longest_outage_ms())
        }
        Outcome::Nobody => {
            let began = Instant::now();
            // Whoever led at first may go on for as long as its lease lasts.
            while began.elapsed() < NOBODY {
                ensure!(!failover.leader_elsewhere(leader), "another server leads");
                foobar_tests::eventually::pause(Duration::from_millis(200), || false);
            }
            let before = writers.so_far()?.rows.len();
            foobar_tests::eventually::pause(Duration::from_secs(1), || false);
            ensure!(writers.so_far()?.rows.len() == before, "somebody takes writes");
            None
        }
    };
    let lasted = began.elapsed();
    fault.mend(failover, leader, replica)?;
    let leads = match fault.outcome() {
        Outcome::Promoted => replica,
        Outcome::Either => failover.leader()?,
        Outcome::Kept | Outcome::Nobody => leader,
    };
    failover.settled(leads).context("after everything was mended")?;
    writers.written(50, PATIENCE).context("after everything was mended")?;
    let log = writers.end()?;
    failover.judge(&log, leads)?;
    let same = || Ok(failover.digest(leader)? == failover.digest(replica)?);
    eventually(PATIENCE, "both servers have the same rows", same)?;
    failover.sql(leads, "truncate acknowledged")?;
    Ok(Cell { fault, lasted, took, acknowledged: log.rows.len() })
}
