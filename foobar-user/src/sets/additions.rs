//! Entries of the run time: each stays, or goes at its time.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::Now;

/// When an entry goes, on both clocks.
pub type Until = Now;

/// Entries of one set, ordered by prefix, and those with an end also by that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    entries: BTreeMap<IpNet, Option<Until>>,
    ends: BTreeSet<(u64, IpNet)>,
}

impl Additions {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When an entry goes; the outer `None`: there is no such entry.
    #[must_use]
    pub fn get(&self, prefix: &IpNet) -> Option<Option<Until>> {
        self.entries.get(prefix).copied()
    }

    /// Puts an entry in, or changes its end; returns what stood there.
    pub fn put(&mut self, prefix: IpNet, until: Option<Until>) -> Option<Option<Until>> {
        let old = self.remove(&prefix);
        self.entries.insert(prefix, until);
        if let Some(until) = until {
            self.ends.insert((until.monotonic_ns, prefix));
        }
        old
    }

    /// Takes an entry out, and returns it.
    pub fn remove(&mut self, prefix: &IpNet) -> Option<Option<Until>> {
        let old = self.entries.remove(prefix);
        if let Some(Some(until)) = old {
            self.ends.remove(&(until.monotonic_ns, *prefix));
        }
        old
    }

    /// Takes out every entry whose time has come.
    pub fn expire(&mut self, now: Now) -> Vec<IpNet> {
        let mut gone = Vec::new();
        while let Some((end, prefix)) = self.ends.first().copied().filter(|(end, _)| *end <= now.monotonic_ns) {
            self.ends.remove(&(end, prefix));
            self.entries.remove(&prefix);
            gone.push(prefix);
        }
        gone
    }

    /// Monotonic time of the next expiry, in nanoseconds.
    #[must_use]
    pub fn next_expiry_ns(&self) -> Option<u64> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, Option<Until>)> + '_ {
        self.entries.iter().map(|(prefix, until)| (*prefix, *until))
    }
}
