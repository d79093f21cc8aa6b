//! One death and one switchover, as the writers see them, with what was acknowledged and is not there afterwards.

use std::time::Duration;

use anyhow::{Context, Result};

use super::contestant::Contestant;
use super::observer::Observer;
use super::series::{Death, Series, Switchover};
use crate::failover::{Acknowledged, DATABASES, Writers, address, now_us, sql};
use crate::obtained;
use crate::progress::{Progress, check};

/// Kills the leading server, and waits until everything is as before with the other one leading; what came of it, for people.
pub(super) fn death(site: &mut dyn Contestant, series: &mut Series, progress: &dyn Progress) -> Result<String> {
    let told = killed(site, series, progress);
    told.with_context(|| site.told()).with_context(|| format!("{}, a death", site.name()))
}

/// Has the leading server hand over, and waits in the same way.
pub(super) fn switchover(site: &mut dyn Contestant, series: &mut Series, progress: &dyn Progress) -> Result<String> {
    let told = handed_over(site, series, progress);
    told.with_context(|| site.told()).with_context(|| format!("{}, a switchover", site.name()))
}

fn killed(site: &mut dyn Contestant, series: &mut Series, progress: &dyn Progress) -> Result<String> {
    let (leader, replica) = parts(site)?;
    let mut observer = Observer::at(&site.socket(replica))?;
    let writers = begin(site, progress)?;
    let at = now_us();
    site.kill(leader)?;
    let fenced = site.fenced(leader)?;
    let writable = observer.writable(progress, PATIENCE)?;
    drop(observer);
    let written = first_elsewhere(&writers, at, leader, progress)?;
    // Who has written could write, whenever that was seen.
    let writable = writable.min(written);
    let taken = site.taken(replica, at)?;
    site.revive(leader)?;
    let lost = end(site, writers, replica, progress)?;
    let death = Death { at, fenced, taken, writable, written };
    series.add_death(&death, lost);
    Ok(death.told(lost.1))
}

fn handed_over(site: &mut dyn Contestant, series: &mut Series, progress: &dyn Progress) -> Result<String> {
    let (leader, replica) = parts(site)?;
    let writers = begin(site, progress)?;
    let at = now_us();
    site.switchover(leader, replica)?;
    let written = first_elsewhere(&writers, at, leader, progress)?;
    let before = writers.so_far()?.rows.iter().map(|row| row.ended).filter(|ended| *ended < written).max();
    let switchover = Switchover { at, before: before.context("no write before the switchover")?, written };
    let lost = end(site, writers, replica, progress)?;
    series.add_switchover(&switchover, lost);
    Ok(switchover.told(lost.1))
}

/// Who leads and who follows.
fn parts(site: &dyn Contestant) -> Result<(&'static str, &'static str)> {
    let leader = site.leader()?;
    Ok((leader, DATABASES.into_iter().find(|server| *server != leader).context("a replica")?))
}

/// Starts the writers, who write.
fn begin(site: &dyn Contestant, progress: &dyn Progress) -> Result<Writers> {
    let writers = Writers::start(site.cluster(), "bench", "")?;
    written(&writers, progress)?;
    Ok(writers)
}

/// Waits until writers have written.
fn written(writers: &Writers, progress: &dyn Progress) -> Result<()> {
    let before = writers.so_far()?.rows.len();
    until(progress, "rows are written", || Ok((writers.so_far()?.rows.len() >= before + ROWS).then_some(())))
}

/// When another server than `old` first acknowledged a row after `at`.
fn first_elsewhere(writers: &Writers, at: i64, old: &str, progress: &dyn Progress) -> Result<i64> {
    let old = address(old);
    until(progress, "another server takes writes", || Ok(writers.so_far()?.first_elsewhere(at, &old)))
}

/// Waits until the new leader writes with its replica in sync, and ends the writers; how many rows were acknowledged, and how many of
/// them are lost.
fn end(site: &dyn Contestant, writers: Writers, leader: &str, progress: &dyn Progress) -> Result<(usize, usize)> {
    let what = format!("{leader} leads with the other server in sync");
    until(progress, &what, || Ok(site.is_settled(leader)?.then_some(())))?;
    written(&writers, progress)?;
    let log: Acknowledged = writers.end()?;
    let lost = log.lost(&sql::present(&site.socket(leader))?).len();
    sql::run(&site.socket(leader), "truncate acknowledged")?;
    Ok((log.rows.len(), lost))
}

/// Waits until `attempt` gives something, unless somebody asks to stop.
pub(super) fn until<T>(
    progress: &dyn Progress,
    what: &str,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    // The inner result ends the wait at once.
    obtained(PATIENCE, what, || match check(progress) {
        Err(stopped) => Ok(Some(Err(stopped))),
        Ok(()) => Ok(attempt()?.map(Ok)),
    })?
}

/// Four times the longest lease.
const PATIENCE: Duration = Duration::from_secs(90);
/// Rows before and after each event.
const ROWS: usize = 200;
