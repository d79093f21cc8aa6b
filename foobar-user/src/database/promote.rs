//! The lead that an operator takes for a server which lacks acknowledged commits, once the lease is seen to be over.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::report::{DatabaseReport, MemberReport};
use super::state::{Role, State};
use super::store::Store;

/// Time between two looks at a lease that may be over.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for as long as a lease lasts, and takes it in a new epoch. Dropped before that, it changes nothing.
///
/// # Errors
/// The leader lives, a server that has every acknowledged commit does, none is ready here, or the store does not answer.
pub async fn promote(
    store: &impl Store,
    me: &str,
    ttl: Duration,
    report: impl Fn() -> DatabaseReport + Send,
) -> Result<()> {
    let snapshot = store.read().await?;
    let state = snapshot.state.context("there is no leader yet")?;
    ensure!(state.leader != me, "{me} leads already");
    needed(&report(), me, &state)?;
    let began = Instant::now();
    // Nobody's clock is believed but this one: over is what has stayed the same for as long as a lease lasts.
    while state.held && began.elapsed() < ttl {
        sleep(LOOK).await;
        ensure!(store.read().await?.version == snapshot.version, lives(&state.leader));
    }
    needed(&report(), me, &state)?;
    let taken = state.led_by(me, "an operator accepts the loss of what has not reached it");
    if store.swap(snapshot.version, &taken).await?.is_some() {
        return Ok(());
    }
    // The answer to a swap that was made may have been lost, and the question put again.
    let is_taken = |now: State| (now.leader, now.epoch) == (taken.leader, taken.epoch);
    ensure!(store.read().await?.state.is_some_and(is_taken), lives(&state.leader));
    Ok(())
}

/// Whether this server can lead, and nobody could who need not lose anything.
fn needed(report: &DatabaseReport, me: &str, state: &State) -> Result<()> {
    let replicas = || report.members.iter().filter(|member| member.role == Role::Replica);
    let mine = replicas().find(|member| member.server == me);
    let mine = mine.context("PostgreSQL is no running replica here: `foobar db status` tells what it waits for")?;
    for MemberReport { server, position, .. } in replicas().filter(|member| member.server != me) {
        ensure!(
            !state.in_sync.contains(server),
            "{server} runs and has every acknowledged commit: it takes over by itself"
        );
        ensure!(*position <= mine.position, "{server} runs and lacks less: ask it, or stop its agent");
    }
    Ok(())
}

/// What an operator is told who wants more than a switchover while the leader lives.
fn lives(leader: &str) -> String {
    format!(
        "{leader} renews its lease, or another server has just taken it: `foobar db switchover` changes the leader without a \
         loss. If the PostgreSQL of {leader} does not come up again, stop its agent first"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(running: &[(&str, u64)]) -> DatabaseReport {
        let member = |(name, position): &(&str, u64)| MemberReport {
            server: (*name).into(),
            role: Role::Replica,
            position: *position,
            ..MemberReport::default()
        };
        DatabaseReport { members: running.iter().map(member).collect(), ..DatabaseReport::default() }
    }

    #[test]
    fn it_is_needed_where_nobody_who_has_everything_runs() {
        let in_sync = ["db2".to_owned()].into();
        let state = State { leader: "db1".into(), in_sync, ..State::default() };
        let refused = |running: &[_], why: &str| {
            needed(&reported(running), "db3", &state).is_err_and(|error| error.to_string().contains(why))
        };
        assert!(needed(&reported(&[("db3", 5)]), "db3", &state).is_ok());
        assert!(needed(&reported(&[("db3", 5), ("db4", 5)]), "db3", &state).is_ok());
        assert!(refused(&[("db2", 5), ("db3", 5)], "db2 runs and has every"));
        assert!(refused(&[("db3", 5), ("db4", 6)], "db4 runs and lacks less"));
        assert!(refused(&[], "no running replica here"));
    }
}
