//! What the store keeps: one state, changed by compare-and-swap, and a word of each server about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Events that are remembered.
const EVENTS_MAX: usize = 16;

/// The state of the cluster. Whoever may be written, and who may follow, is in here and nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Grows with each change of the leader; never reused.
    pub epoch: u64,
    /// The server that may be written, or was the last that might. It has every acknowledged commit, but for those whose loss an
    /// operator has accepted.
    pub leader: String,
    /// Whether it holds the lease. False: it gave the lease up, and need not be waited for.
    pub held: bool,
    /// Servers, beside the leader, each of which has every acknowledged commit: who may take the lease unasked.
    pub in_sync: BTreeSet<String>,
    /// PostgreSQL's identifier of the cluster; `None`: it is not made yet.
    pub cluster: Option<u64>,
    /// The server that is to lead, as an operator wants; `Some("")`: any that may.
    pub handover: Option<String>,
    /// What has happened, the last at the end.
    pub events: Vec<Event>,
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the clock of who tells; milliseconds of Unix time.
    pub at_ms: u64,
    /// Epoch that it began or happened in.
    pub epoch: u64,
    /// What, for people.
    pub what: String,
}

impl State {
    /// Adds an event; the oldest goes when there are too many.
    #[must_use]
    pub fn with_event(mut self, what: impl Into<String>) -> Self {
        self.events.push(Event { at_ms: now_ms(), epoch: self.epoch, what: what.into() });
        let surplus = self.events.len().saturating_sub(EVENTS_MAX);
        self.events.drain(..surplus);
        self
    }

    /// The state in which `server` leads in a new epoch; nobody is known to be in sync with it.
    #[must_use]
    pub fn led_by(&self, server: &str, why: &str) -> Self {
        let next = Self {
            epoch: self.epoch + 1,
            leader: server.to_owned(),
            held: true,
            in_sync: BTreeSet::new(),
            handover: None,
            ..self.clone()
        };
        next.with_event(format!("{server} leads: {why}"))
    }

    /// Whether a server has every acknowledged commit.
    #[must_use]
    pub fn has_all(&self, server: &str) -> bool {
        self.leader == server || self.in_sync.contains(server)
    }
}

/// Milliseconds of Unix time.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// What a server's PostgreSQL is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It does not answer.
    #[default]
    Down,
    /// It follows.
    Replica,
    /// It can be written.
    Primary,
}

/// What a server says of itself, about twice a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Grows with every word: who stays the same says nothing any more.
    pub count: u64,
    /// Milliseconds of Unix time by its clock.
    pub at_ms: u64,
    /// The last epoch that it knows of.
    pub epoch: u64,
    /// The leader of that epoch, as it knows.
    pub leader: String,
    /// Identifier of the cluster in its data folder; `None`: there is none.
    pub cluster: Option<u64>,
    /// What it is.
    pub role: Role,
    /// Timeline of its last checkpoint.
    pub timeline: u32,
    /// Where its log ends: what it has written, or received and kept; in bytes.
    pub position: u64,
    /// Whether it receives its leader's log.
    pub receiving: bool,
    /// The server that it receives it from; empty: none.
    #[serde(default)]
    pub source: String,
    /// What it waits for, or what is wrong with it.
    pub note: String,
}

/// The words of all servers, by their names.
pub type Members = BTreeMap<String, Member>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_epoch_forgets_who_was_in_sync() {
        let old = State { epoch: 7, leader: "db1".into(), in_sync: ["db2".to_owned()].into(), ..State::default() };
        let new = old.led_by("db2", "db1 is gone");
        assert_eq!((new.epoch, new.leader.as_str(), new.held), (8, "db2", true));
        assert!(new.in_sync.is_empty() && new.has_all("db2") && !new.has_all("db1"));
        assert_eq!(new.events.last().map(|event| event.epoch), Some(8));
    }

    #[test]
    fn old_events_go() {
        let state = (0..40).fold(State::default(), |state, number| state.with_event(number.to_string()));
        assert_eq!(state.events.len(), EVENTS_MAX);
        assert_eq!(state.events[EVENTS_MAX - 1].what, "39");
    }
}
