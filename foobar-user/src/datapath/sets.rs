//! Named sets in the kernel: one prefix table that tells of each address which sets it is in.
//!
//! Entries come and go one by one while packets are judged; a whole replacement is built beside the table in force, and
//! comes into force with the generation of rules that names its roots.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData};
use foobar_common::abi::Membership;
use foobar_common::generation::Roots;
use foobar_common::prefixes::{Allocator, Memory, OutOfMemory, Prefixes, ROOT_WORDS, Table};
use ipnet::IpNet;

use super::classes::{Classes, MAX_SETS};
use super::grace;
use super::mapping::Mapping;
use super::programs::Programs;
use super::rules::array;
use super::wire::Wire;

/// Words for the tables when the sets are small: two of them, with their blocks.
pub const LEAST_WORDS: u32 = 8 * ROOT_WORDS;

/// Changes of single entries between two times of waiting until what they have replaced can be used again.
const CHANGES_PER_GRACE: u64 = 256;

/// One named set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Its members.
    pub entries: Vec<Entry>,
}

/// A member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The prefix.
    pub prefix: IpNet,
    /// When it ends, in nanoseconds of the monotonic clock; `None`: never.
    pub expires_ns: Option<u64>,
}

/// The sets of one loading of the programs.
pub(super) struct Sets {
    /// The programs know the map by the number of this descriptor until they are loaded.
    _map: MapData,
    memory: Words,
    memberships: Array<MapData, Wire<Membership>>,
    names: Vec<String>,
    classes: Classes,
    /// Classes that the kernel knows.
    told: usize,
    /// Changes of single entries so far.
    changes: u64,
    table: Table,
    /// Whether the table is what packets meet, and nothing may come back that was before it.
    settled: bool,
    /// Whether the table here is another one than the kernel's.
    spoiled: bool,
}

impl std::fmt::Debug for Sets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sets").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Sets {
    /// Of programs that were just loaded; no sets yet.
    pub(super) fn of(programs: &mut Programs) -> Result<Self> {
        let memberships = programs.take_map("MEMBERSHIPS")?.try_into()?;
        let data = array(programs.take_map("MEMBERS")?)?;
        let mut memory = Words::new(Mapping::new(data.fd(), data.info()?.max_entries() as usize)?);
        let allocator = Allocator::new(0..memory.size());
        let table = Table::new(&mut Unread(&mut memory.mapping), allocator, Prefixes::new(), |_, own| own)?;
        Ok(Self {
            _map: data,
            memory,
            memberships,
            names: Vec::new(),
            classes: Classes::new(),
            told: 0,
            changes: 0,
            table,
            settled: true,
            spoiled: false,
        })
    }

    /// Builds other sets beside those in force.
    ///
    /// # Errors
    /// As [`SetError`]; what was in force still is.
    pub(super) fn replace(&mut self, sets: &[Set]) -> Result<(), SetError> {
        self.check_settled()?;
        // Packets that began under the table before last still read the blocks that are used again now.
        grace::wait()?;
        self.table.reclaim();
        // Classes keep their numbers while the table in force leads to them: new ones come behind them.
        let mut classes = self.classes.clone();
        let prefixes = gather(sets, &mut classes)?;
        classes.check().map_err(SetError::Classes)?;
        // A change that failed halfway has left nothing that is in force.
        self.memory.forget();
        let mut unread = Unread(&mut self.memory.mapping);
        let replaced = self.table.replace(&mut unread, prefixes, |inherited, own| classes.union(inherited, own));
        replaced.map_err(out_of)?;
        classes.check().map_err(SetError::Classes)?;
        self.names = sets.iter().map(|set| set.name.clone()).collect();
        (self.classes, self.settled) = (classes, false);
        Ok(())
    }

    /// Prepares one member more, another time to live, or one member less (`keep` is false); [`Sets::put_in_force`] follows.
    ///
    /// # Errors
    /// As [`SetError`]; then the sets have to be replaced before they can change again.
    pub(super) fn change(&mut self, set: &str, entry: Entry, keep: bool) -> Result<(), SetError> {
        self.check_settled()?;
        let bit = self.names.iter().position(|name| name == set);
        let bit = bit.with_context(|| format!("no rule of this server names the set `{set}`"))? as u8;
        let own = self.table.prefixes().get(entry.prefix).unwrap_or(0);
        let own = match keep {
            true => self.classes.with(own, bit, entry.expires_ns.unwrap_or(0)),
            false => self.classes.without(own, bit),
        };
        let Self { memory, classes, table, .. } = self;
        let combine = |inherited, own| classes.union(inherited, own);
        let changed = match own {
            0 => table.remove(memory, entry.prefix, combine),
            _ => table.insert(memory, entry.prefix, own, combine),
        };
        changed.map_err(out_of)?;
        self.classes.check().map_err(SetError::Classes)
    }

    /// Tells the kernel of classes that it does not know, and returns them with the sets that they are in.
    ///
    /// # Errors
    /// The map cannot be written.
    pub(super) fn tell_classes(&mut self) -> Result<Vec<(usize, u64)>> {
        let bits = self.classes.bits();
        let new: Vec<(usize, u64)> = bits.into_iter().enumerate().skip(self.told).collect();
        for (class, _) in &new {
            let membership = self.classes.membership(*class as u32);
            self.memberships.set(*class as u32, Wire(membership), 0).context("cannot write a membership class")?;
        }
        self.told = self.classes.len();
        Ok(new)
    }

    /// Puts changes of single entries in force: from here on packets may meet their classes.
    pub(super) fn put_in_force(&mut self) -> Result<()> {
        self.memory.flush();
        // What was replaced is used again only when no packet reads it any more; to wait for each entry would be slow.
        self.changes += 1;
        if self.changes.is_multiple_of(CHANGES_PER_GRACE) {
            grace::wait()?;
            self.table.reclaim();
        }
        Ok(())
    }

    /// A change could not be put in force: the sets have to be replaced before they can change again.
    pub(super) fn spoil(&mut self) {
        self.memory.forget();
        self.spoiled = true;
    }

    /// The table is in force for good.
    pub(super) const fn settle(&mut self) {
        self.settled = true;
    }

    /// A table that is read may not be freed, and changes to one that is not would be without effect.
    fn check_settled(&self) -> Result<(), SetError> {
        if self.settled && !self.spoiled { Ok(()) } else { Err(SetError::Unsettled) }
    }

    /// Names of the sets, in the order of their bits.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The sets of each class as bits.
    pub(super) fn bits(&self) -> Vec<u64> {
        self.classes.bits()
    }

    /// Where the tables are.
    pub(super) const fn roots(&self) -> Roots {
        let roots = self.table.roots();
        Roots { v4: roots.v4, v6: roots.v6 }
    }
}

/// Own memberships of every prefix.
fn gather(sets: &[Set], classes: &mut Classes) -> Result<Prefixes> {
    ensure!(sets.len() <= MAX_SETS, "{} sets, but the rules of a server name {MAX_SETS} at the most", sets.len());
    let mut prefixes = Prefixes::new();
    for (bit, set) in (0..).zip(sets) {
        for entry in &set.entries {
            let own = prefixes.get(entry.prefix).unwrap_or(0);
            let one = classes.with(0, bit, entry.expires_ns.unwrap_or(0));
            prefixes.insert(entry.prefix, classes.union(own, one));
        }
    }
    Ok(prefixes)
}

/// Room for a table beside another one a quarter larger, so that it can be replaced, and for changes.
fn out_of(error: OutOfMemory) -> SetError {
    let needed = error.needed_words;
    SetError::Memory(needed.saturating_mul(2).saturating_add(needed / 4))
}

/// Why sets cannot be as they should.
#[derive(Debug)]
pub(super) enum SetError {
    /// The memory is too small; with so many words it would not be.
    Memory(u32),
    /// Too many different memberships; a new loading of the programs knows only those that are left.
    Classes(anyhow::Error),
    /// An earlier replacement is not in force, or may yet be taken back.
    Unsettled,
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for SetError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// The words in the kernel. Stores wait until they are flushed, in order: the kernel has to know classes before a packet
/// meets them.
#[derive(Debug)]
struct Words {
    mapping: Mapping,
    waiting: Vec<(u32, u64)>,
    newest: HashMap<u32, u64>,
}

impl Words {
    fn new(mapping: Mapping) -> Self {
        Self { mapping, waiting: Vec::new(), newest: HashMap::new() }
    }

    /// Drops what was not flushed.
    fn forget(&mut self) {
        self.newest.clear();
        self.waiting.clear();
    }

    fn flush(&mut self) {
        self.newest.clear();
        for (index, word) in self.waiting.drain(..) {
            self.mapping.write(index as usize, word);
        }
    }
}

impl Memory for Words {
    fn read(&self, index: u32) -> u64 {
        self.newest.get(&index).copied().unwrap_or_else(|| self.mapping.read(index as usize))
    }

    fn write(&mut self, index: u32, word: u64) {
        self.waiting.push((index, word));
        self.newest.insert(index, word);
    }

    fn size(&self) -> u32 {
        self.mapping.words() as u32
    }
}

/// The words of a table that nobody reads yet: written at once.
struct Unread<'w>(&'w mut Mapping);

impl Memory for Unread<'_> {
    fn read(&self, index: u32) -> u64 {
        self.0.read(index as usize)
    }

    fn write(&mut self, index: u32, word: u64) {
        self.0.write(index as usize, word);
    }

    fn size(&self) -> u32 {
        self.0.words() as u32
    }
}
