//! What the store said last, since when it says so, and who was heard.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::database::state::Members;
use crate::database::store::Snapshot;

/// A server whose word has not changed for this long is not counted on.
const HEARD: Duration = Duration::from_millis(1_500);

/// What the store said last, and since when it says so.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) snapshot: Snapshot,
    /// When this version was first seen.
    pub(super) since: Instant,
    /// When it was last read.
    pub(super) read: Option<Instant>,
    /// When each server's word was last seen to change.
    heard: BTreeMap<String, (u64, Instant)>,
}

impl Default for Sight {
    fn default() -> Self {
        Self { snapshot: Snapshot::default(), since: Instant::now(), read: None, heard: BTreeMap::new() }
    }
}

impl Sight {
    /// Takes in what was read, where a lease lasts for `ttl`.
    pub(super) fn take(&mut self, snapshot: Snapshot, ttl: Duration) {
        let now = Instant::now();
        // Where the store was away for that long, who leads could renew nothing, and has its turn first.
        let away = self.read.is_none_or(|read| now.duration_since(read) >= ttl);
        if away || snapshot.version != self.snapshot.version {
            self.since = now;
        }
        for (server, word) in &snapshot.members {
            let known = self.heard.get(server).is_some_and(|(count, _)| *count == word.count);
            if !known {
                // A first word may be from long ago: only a change proves that somebody lives.
                let first = !self.heard.contains_key(server);
                let at = if first { now.checked_sub(HEARD).unwrap_or(now) } else { now };
                self.heard.insert(server.clone(), (word.count, at));
            }
        }
        self.read = Some(now);
        self.snapshot = snapshot;
    }

    /// Words of those who were heard lately.
    pub(super) fn members(&self) -> Members {
        let lately = |server: &String| self.heard.get(server).is_some_and(|(_, at)| at.elapsed() < HEARD);
        let members = self.snapshot.members.iter().filter(|(server, _)| lately(server));
        members.map(|(server, word)| (server.clone(), word.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_comes_back_says_nothing_old() {
        let (ttl, old) = (Duration::from_secs(2), Instant::now().checked_sub(Duration::from_secs(60)).unwrap());
        for (away, forgotten) in [(Duration::from_millis(1_500), false), (ttl, true)] {
            let mut sight = Sight { since: old, read: Instant::now().checked_sub(away), ..Sight::default() };
            sight.take(Snapshot::default(), ttl);
            assert_eq!(sight.since != old, forgotten, "{away:?}");
        }
    }
}
