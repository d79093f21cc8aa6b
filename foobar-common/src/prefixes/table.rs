//! A prefix table that changes while it is read.

use std::ops::Range;

use ipnet::IpNet;

use super::BLOCK;
use super::block::{self, Place};
use super::build::{BLOCK_BITS, Build, ROOT_BITS, ROOT_SLOTS, Roots, build, store};
use super::memory::{Allocator, Memory, OutOfMemory};
use super::set::{Family, Key, Prefixes};

/// A table in a memory of its owner, with the prefixes that it is made of.
///
/// A change writes new blocks beside the old ones and puts them in force by one store, so that a reader sees the old
/// table or the new one. Only a prefix shorter than /16 takes several stores, one for two slots of the root: for a
/// moment some addresses have the new value and others the old, but each has one of the two.
///
/// Old blocks stay as they are until [`Table::reclaim`], which the owner calls when no reader from before is left.
/// `combine` is as for [`build`] and the same in every call. A call that fails has changed nothing.
#[derive(Clone, Debug)]
pub struct Table {
    prefixes: Prefixes,
    allocator: Allocator,
    roots: Roots,
}

impl Table {
    /// Builds a table in words that nobody reads yet.
    ///
    /// # Errors
    /// When the words are too few.
    pub fn new<M: Memory + ?Sized>(
        memory: &mut M,
        mut allocator: Allocator,
        prefixes: Prefixes,
        combine: impl FnMut(u32, u32) -> u32,
    ) -> Result<Self, OutOfMemory> {
        let roots = build(memory, &mut allocator, &prefixes, combine)?;
        Ok(Self { prefixes, allocator, roots })
    }

    /// The roots to look up from.
    #[must_use]
    pub const fn roots(&self) -> Roots {
        self.roots
    }

    /// The prefixes of the table.
    #[must_use]
    pub const fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// Words in use, those of old blocks before [`Table::reclaim`] among them.
    #[must_use]
    pub const fn words_in_use(&self) -> u32 {
        self.allocator.words_in_use()
    }

    /// Adds a prefix or changes its own value.
    ///
    /// # Errors
    /// When the memory is too small: [`Table::rebuild`] the table in a larger one and try again.
    pub fn insert<M: Memory + ?Sized>(
        &mut self,
        memory: &mut M,
        prefix: IpNet,
        own: u32,
        combine: impl FnMut(u32, u32) -> u32,
    ) -> Result<(), OutOfMemory> {
        self.set(memory, prefix, Some(own), combine)
    }

    /// Removes a prefix, if the table has it.
    ///
    /// # Errors
    /// When the memory is too small for the new blocks beside the old ones, as for [`Table::insert`].
    pub fn remove<M: Memory + ?Sized>(
        &mut self,
        memory: &mut M,
        prefix: IpNet,
        combine: impl FnMut(u32, u32) -> u32,
    ) -> Result<(), OutOfMemory> {
        self.set(memory, prefix, None, combine)
    }

    /// Builds a table of other prefixes beside this one, and returns its roots for the owner to put in force.
    ///
    /// # Errors
    /// When the memory is too small for both.
    pub fn replace<M: Memory + ?Sized>(
        &mut self,
        memory: &mut M,
        prefixes: Prefixes,
        combine: impl FnMut(u32, u32) -> u32,
    ) -> Result<Roots, OutOfMemory> {
        let roots = build(memory, &mut self.allocator, &prefixes, combine)?;
        let mut old = Vec::new();
        for root in [self.roots.v4, self.roots.v6] {
            for slot in 0..ROOT_SLOTS as u32 {
                block::extents(memory, Place::new(root, slot).read(memory), &mut old);
            }
            old.push(root..root + super::ROOT_WORDS);
        }
        self.allocator.retire(old);
        self.prefixes = prefixes;
        self.roots = roots;
        Ok(roots)
    }

    /// Builds the table anew in another memory, and returns its roots there; the memory from before is the owner's.
    ///
    /// # Errors
    /// When the other memory is too small; the table then stays in the one it is in.
    pub fn rebuild<M: Memory + ?Sized>(
        &mut self,
        memory: &mut M,
        mut allocator: Allocator,
        combine: impl FnMut(u32, u32) -> u32,
    ) -> Result<Roots, OutOfMemory> {
        self.roots = build(memory, &mut allocator, &self.prefixes, combine)?;
        self.allocator = allocator;
        Ok(self.roots)
    }

    /// Frees the blocks that changes have replaced; no reader from before those changes may be left.
    pub fn reclaim(&mut self) {
        self.allocator.reclaim();
    }

    fn set<M: Memory + ?Sized>(
        &mut self,
        memory: &mut M,
        prefix: IpNet,
        own: Option<u32>,
        mut combine: impl FnMut(u32, u32) -> u32,
    ) -> Result<(), OutOfMemory> {
        let root = if prefix.addr().is_ipv4() { self.roots.v4 } else { self.roots.v6 };
        let (family, key) = self.prefixes.family(prefix);
        let before = family.set(key, own);
        if before == own {
            return Ok(());
        }
        let mut change = Change { memory, allocator: &mut self.allocator, family, root, key };
        let done = if key.length <= ROOT_BITS { change.root(&mut combine) } else { change.block(&mut combine) };
        match done {
            Ok(old) => self.allocator.retire(old),
            Err(error) => {
                family.set(key, before);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// One prefix whose own value has changed; its methods return the blocks that they replaced.
struct Change<'a, M: ?Sized> {
    memory: &'a mut M,
    allocator: &'a mut Allocator,
    family: &'a Family,
    root: u32,
    key: Key,
}

impl<M: Memory + ?Sized> Change<'_, M> {
    /// For a prefix that ends in the root.
    fn root(&mut self, combine: &mut impl FnMut(u32, u32) -> u32) -> Result<Vec<Range<u32>>, OutOfMemory> {
        let mut slots = vec![self.family.value(self.key, combine); 1 << (ROOT_BITS - self.key.length)];
        self.fill(&mut slots, 128 - ROOT_BITS, combine);
        self.allocator.commit()?;
        let from = (self.key.bits >> (128 - ROOT_BITS)) as u32;
        let mut old = Vec::new();
        for slot in (from..).take(slots.len()) {
            block::extents(self.memory, Place::new(self.root, slot).read(self.memory), &mut old);
        }
        store(self.memory, self.root, from, &slots);
        Ok(old)
    }

    /// For a longer prefix: makes anew the block that it ends in, then those above as far as they change.
    fn block(&mut self, combine: &mut impl FnMut(u32, u32) -> u32) -> Result<Vec<Range<u32>>, OutOfMemory> {
        let path = self.path();
        let mut old = Vec::new();
        let mut new = 0;
        for (level, &entry) in path.iter().enumerate().rev() {
            let slot = self.slot(level);
            let mut slots = block::decode(self.memory, entry);
            match path.get(level + 1) {
                None => {
                    let before = slots;
                    let shift = shift(level);
                    let changed = slot..slot + (1 << (128 - shift - self.key.length));
                    slots[changed.clone()].fill(self.family.value(self.key, combine));
                    self.fill(&mut slots[changed.clone()], shift, combine);
                    if slots == before {
                        return self.allocator.commit().map(|()| old);
                    }
                    before[changed].iter().for_each(|entry| block::extents(self.memory, *entry, &mut old));
                }
                Some(below) if below & new & BLOCK != 0 => {
                    self.allocator.commit()?;
                    Place::of_slot(self.memory, entry, slot).write(self.memory, new);
                    return Ok(old);
                }
                Some(_) => slots[slot] = new,
            }
            new = block::encode(self.memory, self.allocator, &slots);
            old.extend(block::extent(self.memory, entry));
        }
        self.allocator.commit()?;
        self.root_place().write(self.memory, new);
        Ok(old)
    }

    /// Fills slots of the prefix with all that it holds.
    fn fill(&mut self, slots: &mut [u32], shift: u8, combine: &mut impl FnMut(u32, u32) -> u32) {
        let within = self.family.within(self.key);
        Build::new(self.memory, self.allocator, within, combine).fill(slots, self.key.bits, shift);
    }

    /// Entries from the root's on to that of the block in which the prefix ends; past a value, the same value.
    fn path(&self) -> Vec<u32> {
        let mut entry = self.root_place().read(self.memory);
        let mut path = vec![entry];
        for level in 0..usize::from((self.key.length - ROOT_BITS - 1) / BLOCK_BITS) {
            entry = block::slot_entry(self.memory, entry, self.slot(level));
            path.push(entry);
        }
        path
    }

    fn root_place(&self) -> Place {
        Place::new(self.root, (self.key.bits >> (128 - ROOT_BITS)) as u32)
    }

    /// The slot of the prefix's first address in the block of a level.
    fn slot(&self, level: usize) -> usize {
        usize::from((self.key.bits >> shift(level)) as u8)
    }
}

/// Address bits below a slot of a block, by the number of blocks above it.
const fn shift(level: usize) -> u8 {
    128 - ROOT_BITS - BLOCK_BITS - level as u8 * BLOCK_BITS
}
