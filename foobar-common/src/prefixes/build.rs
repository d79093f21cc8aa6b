//! Building of whole tables and parts of them from prefixes in order.

use std::iter::Peekable;

use super::block::{self, Place, SLOTS};
use super::memory::{Allocator, Memory, OutOfMemory};
use super::set::{Family, Key, Prefixes};
use super::{BLOCK, ROOT_WORDS};

/// Bits that the root decides.
pub(super) const ROOT_BITS: u8 = 16;
/// Bits that a block decides.
pub(super) const BLOCK_BITS: u8 = 8;
/// Entries of a root.
pub(super) const ROOT_SLOTS: usize = 1 << ROOT_BITS;

/// First words of the roots, one a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    /// See [`look_up4`](super::look_up4).
    pub v4: u32,
    /// See [`look_up6`](super::look_up6).
    pub v6: u32,
}

/// Builds a table of its own; several may share a memory and its allocator.
///
/// `combine` gives the value of a prefix, below 2^31, from that of the next shorter prefix which holds it (0 for none)
/// and its own.
///
/// # Errors
/// When the allocator has too few words; it is then as before.
pub fn build<M: Memory + ?Sized>(
    memory: &mut M,
    allocator: &mut Allocator,
    prefixes: &Prefixes,
    mut combine: impl FnMut(u32, u32) -> u32,
) -> Result<Roots, OutOfMemory> {
    let v4 = root(memory, allocator, &prefixes.v4, &mut combine);
    let v6 = root(memory, allocator, &prefixes.v6, &mut combine);
    allocator.commit()?;
    Ok(Roots { v4, v6 })
}

fn root<M: Memory + ?Sized>(
    memory: &mut M,
    allocator: &mut Allocator,
    family: &Family,
    combine: &mut impl FnMut(u32, u32) -> u32,
) -> u32 {
    let first = allocator.allocate(ROOT_WORDS);
    let mut slots = vec![0; ROOT_SLOTS];
    Build::new(memory, allocator, family.iter(), combine).fill(&mut slots, 0, 128 - ROOT_BITS);
    if allocator.holds(first, ROOT_WORDS) {
        store(memory, first, 0, &slots);
    }
    first
}

/// Stores entries of a root from slot `from` on; two slots of a word change at one instant.
pub(super) fn store<M: Memory + ?Sized>(memory: &mut M, root: u32, from: u32, entries: &[u32]) {
    if let [entry] = entries {
        return Place::new(root, from).write(memory, *entry);
    }
    for (word, pair) in (root + from / 2..).zip(entries.chunks_exact(2)) {
        memory.write(word, u64::from(pair[0]) | u64::from(pair[1]) << 32);
    }
}

/// A walk over prefixes in order that makes the blocks below.
pub(super) struct Build<'a, M: ?Sized, I: Iterator, C> {
    memory: &'a mut M,
    allocator: &'a mut Allocator,
    prefixes: Peekable<I>,
    combine: &'a mut C,
}

impl<'a, M, I, C> Build<'a, M, I, C>
where
    M: Memory + ?Sized,
    I: Iterator<Item = (Key, u32)>,
    C: FnMut(u32, u32) -> u32,
{
    pub(super) fn new(memory: &'a mut M, allocator: &'a mut Allocator, prefixes: I, combine: &'a mut C) -> Self {
        Self { memory, allocator, prefixes: prefixes.peekable(), combine }
    }

    /// Fills slots, which hold the value of the prefixes around them, with the next prefixes as far as they lie within.
    ///
    /// The first slot begins at the address `base`; each spans 2^`shift` addresses.
    pub(super) fn fill(&mut self, slots: &mut [u32], base: u128, shift: u8) {
        while let Some(&(key, own)) = self.prefixes.peek() {
            let slot = usize::try_from((key.bits - base) >> shift).unwrap_or(usize::MAX);
            let Some(&inherited) = slots.get(slot) else { return };
            let decided = 128 - shift;
            if let Some(free) = decided.checked_sub(key.length) {
                self.prefixes.next();
                let value = (self.combine)(inherited, own);
                debug_assert!(value < BLOCK, "values have 31 bits");
                slots[slot..slot + (1 << free)].fill(value & !BLOCK);
            } else {
                slots[slot] = self.block(base + ((slot as u128) << shift), shift - BLOCK_BITS, inherited);
            }
        }
    }

    fn block(&mut self, base: u128, shift: u8, inherited: u32) -> u32 {
        let mut slots = [inherited; SLOTS];
        self.fill(&mut slots, base, shift);
        block::encode(self.memory, self.allocator, &slots)
    }
}
