//! Named sets as a running agent has them: what the site declares, and what operators add at run time.
//!
//! The site file and the files that it names are read at start and at each reload; entries of the run time come and go by
//! `foobar set`, may have a time to live, and survive restarts and reboots; they go with the last rule that names their set,
//! as soon as that is for good. Only entries of the run time can be deleted.

mod additions;
mod declared;
mod listing;
mod now;
pub mod prefix;
mod store;
pub mod ttl;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;

use crate::datapath::sets::Entry;
use crate::datapath::{self, SetSource};
use crate::site::sets::PREFIXES_MAX;

pub use self::additions::{Additions, Until};
pub use self::declared::Declared;
pub(crate) use self::declared::sorted;
pub use self::listing::{Listing, Row, Source, Summary};
pub use self::now::Now;
pub use self::store::Files;
pub(crate) use self::store::replace as replace_file;

/// Every set of a server.
#[derive(Debug)]
pub struct Sets {
    folder: PathBuf,
    sets: BTreeMap<String, Set>,
    /// Another number for another content, single changes aside.
    version: u64,
}

/// One set.
#[derive(Clone, Debug)]
struct Set {
    declared: Declared,
    additions: Additions,
}

/// What a change has done, and how it is undone when the kernel refuses it.
#[derive(Debug, Default)]
pub struct Change {
    /// Entries that the kernel has to hold from now on.
    pub put: Vec<Entry>,
    /// Entries that it must not hold any more.
    pub take: Vec<IpNet>,
    /// What stood there before.
    before: Vec<(IpNet, Option<Option<Until>>)>,
}

impl Sets {
    /// No sets yet; those of the run time lie in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), sets: BTreeMap::new(), version: 0 }
    }

    /// Takes what a site declares; entries of the run time stay with the sets of their names.
    ///
    /// Returns the earlier declaration, for when the new one is refused.
    ///
    /// # Errors
    /// Entries of the run time cannot be read.
    pub fn declare(&mut self, declared: BTreeMap<String, Declared>, now: Now) -> Result<BTreeMap<String, Declared>> {
        let mut next = BTreeMap::new();
        for (name, declared) in declared {
            let additions = match self.sets.get(&name) {
                Some(set) => set.additions.clone(),
                None => store::read(&store::path(&self.folder, &name), now)?,
            };
            next.insert(name, Set { declared, additions });
        }
        let before = std::mem::replace(&mut self.sets, next);
        let before: BTreeMap<String, Declared> = before.into_iter().map(|(name, set)| (name, set.declared)).collect();
        if !before.iter().eq(self.sets.iter().map(|(name, set)| (name, &set.declared))) {
            self.outdate();
        }
        Ok(before)
    }

    /// The files of these sets.
    #[must_use]
    pub fn files(&self) -> Files {
        Files::new(&self.folder, self.names())
    }

    /// Names of the sets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(String::as_str)
    }

    /// Has the kernel's tables be made anew by the next plan: they could not follow a change.
    pub const fn outdate(&mut self) {
        self.version += 1;
    }

    /// The prefixes of each set that hold one of `addresses`: all that a judgement about these addresses needs.
    #[must_use]
    pub fn around(&self, addresses: &[IpAddr]) -> BTreeMap<String, Vec<IpNet>> {
        let declared = |(name, set): (&String, &Set)| (name.clone(), set.declared.clone());
        self.around_with(addresses, &self.sets.iter().map(declared).collect())
    }

    /// The same, were the sets declared so.
    #[must_use]
    pub fn around_with(
        &self,
        addresses: &[IpAddr],
        declared: &BTreeMap<String, Declared>,
    ) -> BTreeMap<String, Vec<IpNet>> {
        let holds = |prefix: &IpNet| addresses.iter().any(|address| prefix.contains(address));
        let of = |(name, declared): (&String, &Declared)| {
            let added = self.sets.get(name).into_iter().flat_map(|set| set.additions.iter()).map(|(prefix, _)| prefix);
            (name.clone(), declared.iter().chain(added).filter(holds).collect())
        };
        declared.iter().map(of).collect()
    }

    /// Adds entries of the run time, or changes how long they live. They are saved when this returns.
    ///
    /// # Errors
    /// No such set, a prefix that cannot be, too many, or they cannot be saved; then nothing has changed.
    pub fn add(&mut self, name: &str, prefixes: &[IpNet], until: Option<Until>) -> Result<Change> {
        let folder = self.folder.clone();
        let set = self.set_mut(name)?;
        let new = prefixes.iter().filter(|prefix| set.additions.get(prefix).is_none()).count();
        let total = set.len() + new;
        ensure!(
            total <= PREFIXES_MAX,
            "`{name}` would have {total} prefixes, but a set has {PREFIXES_MAX} at the most"
        );
        let mut change = Change::default();
        for prefix in prefixes {
            change.before.push((*prefix, set.additions.put(*prefix, until)));
            // What the site declares stays, whatever the time to live of its double.
            if !set.declared.holds(prefix) {
                change.put.push(Entry { prefix: *prefix, expires_ns: until.map(|until| until.monotonic_ns) });
            }
        }
        save(&folder, name, set, change)
    }

    /// Deletes entries of the run time. That is saved when this returns.
    ///
    /// # Errors
    /// No such set, no such entry, an entry of the site or its file, or it cannot be saved; then nothing has changed.
    pub fn delete(&mut self, name: &str, prefixes: &[IpNet]) -> Result<Change> {
        let folder = self.folder.clone();
        let set = self.set_mut(name)?;
        for prefix in prefixes.iter().filter(|prefix| set.additions.get(prefix).is_none()) {
            set.refuse_to_delete(name, prefix)?;
        }
        let mut change = Change::default();
        for prefix in prefixes {
            let Some(old) = set.additions.remove(prefix) else { continue };
            change.before.push((*prefix, Some(old)));
            if !set.declared.holds(prefix) {
                change.take.push(*prefix);
            }
        }
        save(&folder, name, set, change)
    }

    /// Undoes a change that the kernel has refused.
    ///
    /// # Errors
    /// It cannot be saved.
    pub fn undo(&mut self, name: &str, change: Change) -> Result<()> {
        let path = store::path(&self.folder, name);
        let set = self.set_mut(name)?;
        set.restore(change);
        store::write(&path, name, &set.additions)
    }

    /// Takes out what has expired; the files follow at the next change, and are read with the time in mind.
    #[must_use]
    pub fn expire(&mut self, now: Now) -> Vec<(String, Vec<IpNet>)> {
        let mut gone = Vec::new();
        for (name, set) in &mut self.sets {
            let expired = set.additions.expire(now);
            let taken: Vec<IpNet> = expired.into_iter().filter(|prefix| !set.declared.holds(prefix)).collect();
            if !taken.is_empty() {
                gone.push((name.clone(), taken));
            }
        }
        gone
    }

    /// Monotonic time of the next expiry, in nanoseconds.
    #[must_use]
    pub fn next_expiry_ns(&self) -> Option<u64> {
        self.sets.values().filter_map(|set| set.additions.next_expiry_ns()).min()
    }

    /// What `foobar set list` shows of one set.
    ///
    /// # Errors
    /// No such set.
    pub fn list(&self, name: &str) -> Result<Listing> {
        let set = self.sets.get(name).with_context(|| self.unknown(name))?;
        Ok(Listing::new(name, set.declared.clone(), set.additions.clone()))
    }

    /// How much is in each set.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary> {
        self.sets.iter().map(|(name, set)| Summary::of(name, &set.declared, &set.additions)).collect()
    }

    fn set_mut(&mut self, name: &str) -> Result<&mut Set> {
        if !self.sets.contains_key(name) {
            bail!(self.unknown(name));
        }
        self.sets.get_mut(name).context("it was there")
    }

    fn unknown(&self, name: &str) -> String {
        match self.names().collect::<Vec<_>>().join(", ") {
            names if names.is_empty() => {
                format!(
                    "no rule of this server names a set, so there is no set `{name}`: declare [set.{name}] in the site file"
                )
            }
            names => format!("there is no set `{name}` here; this server has {names}"),
        }
    }
}

impl SetSource for Sets {
    fn version(&self) -> u64 {
        self.version
    }

    fn sets(&self) -> Vec<datapath::sets::Set> {
        let of = |(name, set): (&String, &Set)| datapath::sets::Set { name: name.clone(), entries: set.in_force() };
        self.sets.iter().map(of).collect()
    }
}

impl Set {
    fn len(&self) -> usize {
        self.declared.len() + self.additions.len()
    }

    fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.declared.iter().chain(self.additions.iter().map(|(prefix, _)| prefix))
    }

    /// Everything that the kernel has to hold.
    fn in_force(&self) -> Vec<Entry> {
        let declared = self.declared.iter().map(|prefix| Entry { prefix, expires_ns: None });
        let added = self
            .additions
            .iter()
            .filter(|(prefix, _)| !self.declared.holds(prefix))
            .map(|(prefix, until)| Entry { prefix, expires_ns: until.map(|until: Until| until.monotonic_ns) });
        declared.chain(added).collect()
    }

    fn restore(&mut self, change: Change) {
        for (prefix, old) in change.before.into_iter().rev() {
            match old {
                Some(until) => drop(self.additions.put(prefix, until)),
                None => drop(self.additions.remove(&prefix)),
            }
        }
    }

    fn refuse_to_delete(&self, name: &str, prefix: &IpNet) -> Result<()> {
        let advice =
            "delete it there and run `foobar reload`; `foobar set del` deletes what `foobar set add` has added";
        if let Some(path) = self.declared.in_file(prefix) {
            let line = declared::line_of(path, prefix).map_or_else(String::new, |line| format!(":{line}"));
            bail!("{prefix} stands in {}{line}: {advice}", path.display());
        }
        ensure!(!self.declared.is_inline(prefix), "{prefix} stands in [set.{name}] of the site file: {advice}");
        match self.prefixes().find(|held| held.contains(prefix)) {
            Some(wider) => bail!("{prefix} is no entry of `{name}`; it lies in its entry {wider}"),
            None => bail!("{prefix} is no entry of `{name}`"),
        }
    }
}

fn save(folder: &Path, name: &str, set: &mut Set, change: Change) -> Result<Change> {
    match store::write(&store::path(folder, name), name, &set.additions) {
        Ok(()) => Ok(change),
        Err(error) => {
            set.restore(change);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
