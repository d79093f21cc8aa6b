//! Who has every acknowledged commit: PostgreSQL waits for all of them, and only they may take over unasked.
//!
//! The order keeps the promise: PostgreSQL waits for a server before the state names it, and the state no longer names a
//! server before PostgreSQL stops waiting for it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

/// What happens to writes while no replica is there to keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They wait: an acknowledged commit is always on two servers.
    Strict,
    /// They go on after this many milliseconds, on the leader alone, which nobody may take over from meanwhile.
    Available {
        /// Milliseconds without the last replica.
        degrade_after_ms: u64,
    },
}

/// A replica that is one of several and away is no longer waited for after this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who is no further behind may join: it has caught up within moments, for which commits wait.
const NEAR: u64 = 16 << 20;

/// A replica that is connected and streams, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    /// Its server's name.
    pub name: String,
    /// Up to where it has made the log durable; in bytes.
    pub flushed: u64,
}

/// What PostgreSQL waits for before it acknowledges a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Waits {
    /// Nobody.
    #[default]
    None,
    /// All of these.
    All(BTreeSet<String>),
    /// One of these.
    One(BTreeSet<String>),
}

impl Waits {
    /// `synchronous_standby_names`.
    #[must_use]
    pub fn names(&self) -> String {
        let list = |names: &BTreeSet<String>| {
            let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            quoted.join(", ")
        };
        match self {
            Self::None => String::new(),
            Self::All(names) => format!("FIRST {} ({})", names.len(), list(names)),
            Self::One(names) => format!("ANY 1 ({})", list(names)),
        }
    }

    /// Whether whoever is waited for by this has everything that these servers need to have.
    #[must_use]
    pub fn keeps(&self, in_sync: &BTreeSet<String>, mode: Mode) -> bool {
        match (self, in_sync.is_empty(), mode) {
            (Self::All(names), false, _) => names.is_superset(in_sync),
            (Self::None | Self::One(_), false, _) => false,
            (Self::None, true, Mode::Strict) => false,
            (_, true, _) => true,
        }
    }

    /// What a leader starts with for which nobody is known to be in sync.
    #[must_use]
    pub fn alone(mode: Mode, others: &BTreeSet<String>) -> Self {
        match mode {
            Mode::Strict => Self::One(others.clone()),
            Mode::Available { .. } => Self::None,
        }
    }
}

/// What the leader knows.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// What was chosen by the operator.
    pub mode: Mode,
    /// The other servers of the cluster that may be waited for: those that follow the leader.
    pub others: &'a BTreeSet<String>,
    /// Who is in sync by the state.
    pub in_sync: &'a BTreeSet<String>,
    /// Who streams.
    pub standbys: &'a [Standby],
    /// What PostgreSQL is known to wait for.
    pub waits: &'a Waits,
    /// Where its log ended when it was known to; in bytes.
    pub waits_since: u64,
    /// Where its log ends now.
    pub position: u64,
}

/// What is to be done next; each is done and seen before the next is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Have PostgreSQL wait for these.
    Wait(Waits),
    /// Put this set into the state.
    InSync(BTreeSet<String>),
}

/// Chooses it. `away` tells for how long a server has not streamed.
#[must_use]
pub fn next(now: &Situation<'_>, away: impl Fn(&str) -> Duration) -> Change {
    let staying: BTreeSet<String> = now.in_sync.iter().filter(|name| !leaves(now, name, away(name))).cloned().collect();
    if staying != *now.in_sync {
        return Change::InSync(staying);
    }
    let streams = |name: &str| now.standbys.iter().find(|standby| standby.name == name);
    let joins = |standby: &&Standby| {
        let near = standby.flushed.saturating_add(NEAR) >= now.position;
        now.others.contains(&standby.name) && !now.in_sync.contains(&standby.name) && near
    };
    let joining: BTreeSet<String> = now.standbys.iter().filter(joins).map(|standby| standby.name.clone()).collect();
    let all: BTreeSet<String> = now.in_sync.union(&joining).cloned().collect();
    let wanted = if all.is_empty() { Waits::alone(now.mode, now.others) } else { Waits::All(all.clone()) };
    if *now.waits != wanted {
        return Change::Wait(wanted);
    }
    let there = |name: &String| {
        now.in_sync.contains(name) || streams(name).is_some_and(|standby| standby.flushed >= now.waits_since)
    };
    let grown: BTreeSet<String> = all.iter().filter(|name| there(name)).cloned().collect();
    if grown == *now.in_sync { Change::None } else { Change::InSync(grown) }
}

/// Whether a server that is in sync is no longer waited for.
fn leaves(now: &Situation<'_>, name: &str, away: Duration) -> bool {
    if !now.others.contains(name) {
        return true;
    }
    // Two that go at once are not both let go: one that streams must stay.
    if now.standbys.iter().any(|standby| standby.name != name && now.in_sync.contains(&standby.name)) {
        return away >= PATIENCE;
    }
    match now.mode {
        Mode::Strict => false,
        Mode::Available { degrade_after_ms } => away >= Duration::from_millis(degrade_after_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVAILABLE: Mode = Mode::Available { degrade_after_ms: 5_000 };

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn standby(name: &str, flushed: u64) -> Standby {
        Standby { name: name.into(), flushed }
    }

    fn ask(mode: Mode, in_sync: &[&str], waits: &Waits, standbys: &[Standby], away_s: u64) -> Change {
        let others = set(&["db2", "db3"]);
        let in_sync = set(in_sync);
        let now =
            Situation { mode, others: &others, in_sync: &in_sync, standbys, waits, waits_since: 100, position: 100 };
        next(&now, |name| {
            let streams = standbys.iter().any(|standby| standby.name == name);
            Duration::from_secs(if streams { 0 } else { away_s })
        })
    }

    #[test]
    fn a_replica_joins_after_it_is_waited_for_and_has_all() {
        let late = [standby("db2", 99)];
        assert_eq!(ask(AVAILABLE, &[], &Waits::None, &late, 0), Change::Wait(Waits::All(set(&["db2"]))));
        let waits = Waits::All(set(&["db2"]));
        assert_eq!(ask(AVAILABLE, &[], &waits, &late, 0), Change::None);
        assert_eq!(ask(AVAILABLE, &[], &waits, &[standby("db2", 100)], 0), Change::InSync(set(&["db2"])));
    }

    #[test]
    fn the_last_replica_leaves_only_where_the_mode_lets_it() {
        let waits = Waits::All(set(&["db2"]));
        assert_eq!(ask(AVAILABLE, &["db2"], &waits, &[], 4), Change::None);
        assert_eq!(ask(AVAILABLE, &["db2"], &waits, &[], 5), Change::InSync(set(&[])));
        assert_eq!(ask(AVAILABLE, &[], &waits, &[], 5), Change::Wait(Waits::None));
        assert_eq!(ask(Mode::Strict, &["db2"], &waits, &[], 500), Change::None);
    }

    #[test]
    fn nobody_in_sync_means_one_of_all_in_strict() {
        let one = Waits::One(set(&["db2", "db3"]));
        assert_eq!(Waits::alone(Mode::Strict, &set(&["db2", "db3"])), one);
        assert_eq!(ask(Mode::Strict, &[], &one, &[], 0), Change::None);
        assert_eq!(one.names(), "ANY 1 (\"db2\", \"db3\")");
    }

    #[test]
    fn what_is_waited_for_keeps_who_may_take_over() {
        let all = Waits::All(set(&["db2", "db3"]));
        assert!(all.keeps(&set(&["db2"]), AVAILABLE) && all.keeps(&set(&[]), Mode::Strict));
        assert!(!Waits::All(set(&["db2"])).keeps(&set(&["db2", "db3"]), AVAILABLE));
        assert!(!Waits::One(set(&["db2"])).keeps(&set(&["db2"]), AVAILABLE));
        assert!(Waits::None.keeps(&set(&[]), AVAILABLE) && !Waits::None.keeps(&set(&[]), Mode::Strict));
    }

    #[test]
    fn one_of_two_leaves_soon_and_never_both() {
        let waits = Waits::All(set(&["db2", "db3"]));
        let one = [standby("db3", 100)];
        assert_eq!(ask(Mode::Strict, &["db2", "db3"], &waits, &one, 1), Change::None);
        assert_eq!(ask(Mode::Strict, &["db2", "db3"], &waits, &one, 2), Change::InSync(set(&["db3"])));
        assert_eq!(ask(Mode::Strict, &["db2", "db3"], &waits, &[], 600), Change::None);
        assert_eq!(ask(AVAILABLE, &["db2", "db3"], &waits, &[], 4), Change::None);
        assert_eq!(ask(AVAILABLE, &["db2", "db3"], &waits, &[], 5), Change::InSync(set(&[])));
        assert_eq!(waits.names(), "FIRST 2 (\"db2\", \"db3\")");
    }

    #[test]
    fn who_is_no_server_of_the_cluster_neither_joins_nor_stays() {
        let waits = Waits::None;
        assert_eq!(ask(AVAILABLE, &[], &waits, &[standby("db9", 100)], 0), Change::None);
        assert_eq!(ask(Mode::Strict, &["db9"], &waits, &[standby("db9", 100)], 0), Change::InSync(set(&[])));
    }
}
