//! The agent's side of `foobar set`: memory, disk and kernel change together or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{error, info};

use super::admin::{self, Firewall};
use super::control::{Reply, SetChange};
use super::origin::Origins;
use super::server::{Server, lock};
use crate::datapath::instance::InstanceError;
use crate::datapath::sets::Entry;
use crate::sets::{Change, Now};

/// Entries that are changed one by one at the most; more are faster with whole tables.
const SINGLY_MAX: usize = 256;

/// What a change of a set came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetChanged {
    /// Entries of the change.
    pub entries: usize,
    /// Entries of the set now, of all sources.
    pub total: usize,
}

impl Server {
    /// Puts entries into a set, or takes them out.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub(super) fn change_set(&mut self, change: &SetChange) -> Result<SetChanged> {
        let SetChange { set, prefixes, .. } = change;
        ensure!(!prefixes.is_empty(), "name at least one prefix");
        let ends = change.admin.connection.map(|connection| [connection.client.ip(), connection.server.ip()]);
        let before = ends.map(|ends| self.sets.around(&ends));
        let done = if change.delete {
            self.sets.delete(set, prefixes)?
        } else {
            let until = change.ttl_ms.map(|ttl| Now::read().after(Duration::from_millis(ttl)));
            self.sets.add(set, prefixes, until)?
        };
        let put = self.refuse_set_that_cuts(change, before).and_then(|()| self.put_in_kernel(set, &done));
        if let Err(refusal) = put {
            self.undo(set, done);
            return Err(refusal);
        }
        info!(set, entries = prefixes.len(), delete = change.delete, "changed");
        Ok(SetChanged { entries: prefixes.len(), total: self.sets.list(set)?.summary().entries() })
    }

    fn refuse_set_that_cuts(&self, change: &SetChange, before: Option<BTreeMap<String, Vec<IpNet>>>) -> Result<()> {
        let (Some(connection), Some(before), false) = (&change.admin.connection, before, change.admin.force) else {
            return Ok(());
        };
        let after = self.sets.around(&[connection.client.ip(), connection.server.ip()]);
        let plan = &self.loaded.plan;
        admin::refuse_to_cut(
            connection,
            Firewall { plan, sets: &before },
            Firewall { plan, sets: &after },
            &Origins::of_file(&self.options.site),
        )
    }

    /// One by one while packets are judged; many, or what finds no room, with the plan and at one instant.
    fn put_in_kernel(&mut self, set: &str, change: &Change) -> Result<()> {
        let added = change.put.iter().map(|entry| (*entry, true));
        let taken = change.take.iter().map(|prefix| (Entry { prefix: *prefix, expires_ns: None }, false));
        let changes: Vec<(Entry, bool)> = added.chain(taken).collect();
        if changes.len() <= SINGLY_MAX {
            let mut datapath = lock(&self.datapath);
            let mut one_by_one = changes.iter().map(|(entry, keep)| datapath.change_set(set, *entry, *keep));
            match one_by_one.find_map(Result::err) {
                None => {
                    return datapath
                        .judge_again()
                        .with_context(|| format!("known flows are not judged by `{set}` again"));
                }
                Some(InstanceError::Room) => {}
                Some(InstanceError::Other(error)) => {
                    drop(datapath);
                    return self.refused_by_kernel(set, error);
                }
            }
        }
        // Some of the entries may be in the kernel: the next plan makes its tables anew.
        self.sets.outdate();
        ensure!(
            self.window.waiting().is_none(),
            "the sets cannot change so while a change waits for its confirmation: `foobar confirm` or `foobar revert` it first"
        );
        let applied = lock(&self.datapath).apply(&self.loaded.plan, &self.sets, None);
        self.events.tell_watched();
        applied.with_context(|| format!("the kernel does not take the change of `{set}`"))
    }

    /// Some entries may be in the kernel, and the others not: its tables are made anew by the next plan.
    fn refused_by_kernel(&mut self, set: &str, error: anyhow::Error) -> Result<()> {
        self.sets.outdate();
        Err(error.context(format!("the kernel does not take the change of `{set}`")))
    }

    fn undo(&mut self, set: &str, done: Change) {
        if let Err(error) = self.sets.undo(set, done) {
            error!(set, "entries that were refused are still saved, and come back at the next start: {error:#}");
        }
    }

    /// What is in a set, or how much is in each.
    ///
    /// # Errors
    /// No such set.
    pub(super) fn list_set(&self, set: Option<&str>, limit: Option<usize>) -> Result<Reply> {
        match set {
            Some(set) => Ok(Reply::Listing(self.sets.list(set)?, Now::read(), limit)),
            None => Reply::value(&self.sets.summaries()),
        }
    }

    /// When the next entry expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let left = self.sets.next_expiry_ns()?.saturating_sub(Now::read().monotonic_ns);
        Some(Instant::now() + Duration::from_nanos(left))
    }

    /// Takes expired entries out of the kernel's tables; they match nothing any more since their time.
    pub(super) fn expire_entries(&mut self) {
        for (set, prefixes) in self.sets.expire(Now::read()) {
            let mut datapath = lock(&self.datapath);
            let out = |prefix: &IpNet| Entry { prefix: *prefix, expires_ns: None };
            let taken = prefixes.iter().try_for_each(|prefix| datapath.change_set(&set, out(prefix), false));
            let taken = taken.and_then(|()| Ok(datapath.judge_again()?));
            drop(datapath);
            if taken.is_err() {
                // They match nothing any more; their place is free again when the tables are made anew.
                self.sets.outdate();
                info!(set, entries = prefixes.len(), "expired entries leave the kernel's tables with the next reload");
            }
        }
    }
}
