//! Blocks as the writer sees them: 256 slots with an entry each.

use std::ops::Range;

use super::memory::{Allocator, Memory};
use super::{BLOCK, COUNTS, DIRECT, HEAD_WORDS, INDEX, OTHERS, SINGLE, of_single, rank};

/// Slots of a block.
pub(super) const SLOTS: usize = 256;
/// Words of a direct block.
const DIRECT_WORDS: u32 = SLOTS as u32 / 2;
/// Runs from which on a block is direct: it then takes three and a half times the words at the most.
const DIRECT_RUNS: usize = 64;

/// Half a word that holds an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    word: u32,
    shift: u32,
}

impl Place {
    /// Of entry `index` of those that lie two a word from `first` on.
    pub(super) const fn new(first: u32, index: u32) -> Self {
        Self { word: first + index / 2, shift: index % 2 * 32 }
    }

    /// Of a slot in the block that an entry names; of a single block only the slot that differs has one.
    pub(super) fn of_slot<M: Memory + ?Sized>(memory: &M, block: u32, slot: usize) -> Self {
        let first = block & INDEX;
        if block & SINGLE != 0 {
            return Self::new(first, 0);
        }
        if block & DIRECT != 0 {
            return Self::new(first, slot as u32);
        }
        let bitmap = memory.read(first + slot as u32 / 64);
        Self::new(first + HEAD_WORDS, rank(bitmap, memory.read(first + COUNTS), slot as u32))
    }

    pub(super) fn read<M: Memory + ?Sized>(self, memory: &M) -> u32 {
        (memory.read(self.word) >> self.shift) as u32
    }

    /// Stores an entry and leaves the word's other one as it is.
    pub(super) fn write<M: Memory + ?Sized>(self, memory: &mut M, entry: u32) {
        let others = memory.read(self.word) & !(u64::from(u32::MAX) << self.shift);
        memory.write(self.word, others | u64::from(entry) << self.shift);
    }
}

/// The entry for these slots: their value if they have one and the same, else a new block.
pub(super) fn encode<M: Memory + ?Sized>(memory: &mut M, allocator: &mut Allocator, slots: &[u32; SLOTS]) -> u32 {
    let (bitmap, runs, count) = runs(slots);
    if count == 1 {
        return slots[0];
    }
    if let Some(word) = single(slots, count) {
        let first = allocator.allocate(1);
        if allocator.holds(first, 1) {
            memory.write(first, word);
        }
        return first | BLOCK | SINGLE;
    }
    if count >= DIRECT_RUNS {
        let first = allocator.allocate(DIRECT_WORDS);
        if allocator.holds(first, DIRECT_WORDS) {
            write_pairs(memory, first, slots);
        }
        return first | BLOCK | DIRECT;
    }
    let words = HEAD_WORDS + (count as u32).div_ceil(2);
    let first = allocator.allocate(words);
    if allocator.holds(first, words) {
        let (mut counts, mut before) = (0, 0);
        for (part, bits) in (0..).zip(bitmap) {
            memory.write(first + part, bits);
            counts |= u64::from(before) << (part * 16);
            before += bits.count_ones();
        }
        memory.write(first + COUNTS, counts);
        write_pairs(memory, first + HEAD_WORDS, &runs[..count.next_multiple_of(2)]);
    }
    first | BLOCK
}

/// Writes entries, two a word.
fn write_pairs<M: Memory + ?Sized>(memory: &mut M, first: u32, entries: &[u32]) {
    for (word, pair) in (first..).zip(entries.chunks_exact(2)) {
        memory.write(word, u64::from(pair[0]) | u64::from(pair[1]) << 32);
    }
}

/// The word of a single block, if slots with so many runs can be one.
fn single(slots: &[u32; SLOTS], runs: usize) -> Option<u64> {
    if runs > 3 {
        return None;
    }
    // Of three slots two are alike, if only one of all differs.
    let others = if slots[0] == slots[1] { slots[0] } else { slots[SLOTS - 1] };
    let mut odd = (0_u64..).zip(slots).filter(|(_, entry)| **entry != others);
    let (Some((slot, &entry)), None) = (odd.next(), odd.next()) else { return None };
    (others <= OTHERS).then(|| slot << 56 | u64::from(others) << 32 | u64::from(entry))
}

/// Where runs begin, the entries of the runs, and how many there are.
fn runs(slots: &[u32; SLOTS]) -> ([u64; 4], [u32; SLOTS], usize) {
    const STEP: usize = 16;
    let mut bitmap = [1, 0, 0, 0];
    let mut runs = [0; SLOTS];
    runs[0] = slots[0];
    let mut count = 1;
    for from in (0..SLOTS).step_by(STEP) {
        let from = from.max(1);
        let to = (from + STEP) / STEP * STEP;
        // Most blocks have few runs; whole steps without one are told by comparing memory.
        if slots[from..to] == slots[from - 1..to - 1] {
            continue;
        }
        for slot in from..to {
            if slots[slot] != slots[slot - 1] {
                bitmap[slot / 64] |= 1_u64 << (slot % 64);
                runs[count] = slots[slot];
                count += 1;
            }
        }
    }
    (bitmap, runs, count)
}

/// The slots of the block that an entry names, or 256 times its value.
pub(super) fn decode<M: Memory + ?Sized>(memory: &M, entry: u32) -> [u32; SLOTS] {
    std::array::from_fn(|slot| slot_entry(memory, entry, slot))
}

/// The entry of a slot of the block that an entry names, or its value.
pub(super) fn slot_entry<M: Memory + ?Sized>(memory: &M, entry: u32, slot: usize) -> u32 {
    if entry & BLOCK == 0 {
        return entry;
    }
    if entry & SINGLE != 0 {
        return of_single(memory.read(entry & INDEX), slot as u32);
    }
    Place::of_slot(memory, entry, slot).read(memory)
}

/// The words of the block that an entry names, if it names one.
pub(super) fn extent<M: Memory + ?Sized>(memory: &M, entry: u32) -> Option<Range<u32>> {
    let first = entry & INDEX;
    let words = || match entry & (SINGLE | DIRECT) {
        SINGLE => 1,
        DIRECT => DIRECT_WORDS,
        _ => HEAD_WORDS + count(memory, first).div_ceil(2),
    };
    (entry & BLOCK != 0).then(|| first..first + words())
}

/// Adds the words of an entry's block and of all blocks below it.
pub(super) fn extents<M: Memory + ?Sized>(memory: &M, entry: u32, found: &mut Vec<Range<u32>>) {
    let Some(extent) = extent(memory, entry) else { return };
    // A single block's other slots have a value.
    let (first, entries) = match entry & (SINGLE | DIRECT) {
        SINGLE => (extent.start, 1),
        DIRECT => (extent.start, SLOTS as u32),
        _ => (extent.start + HEAD_WORDS, count(memory, extent.start)),
    };
    for index in 0..entries {
        extents(memory, Place::new(first, index).read(memory), found);
    }
    found.push(extent);
}

/// Number of runs of a block of runs.
fn count<M: Memory + ?Sized>(memory: &M, first: u32) -> u32 {
    rank(memory.read(first + 3), memory.read(first + COUNTS), SLOTS as u32 - 1) + 1
}
