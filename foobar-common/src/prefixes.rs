//! Prefix table: from an address to the value of its longest prefix, in an array of 64-bit words.
//!
//! Kernel and host read it with the code of this file; [`Table`] and [`build`] write it. Per family there is a root of
//! 65,536 entries, indexed by the first 16 bits of the address, two entries a word, the even one in the low half.
//! An entry with bit 31 clear is a value, 0 where no prefix holds the address; else its low 29 bits are the first word of a
//! block, which decides the next 8 bits. Bits 29 and 30 say how the block is written:
//!
//! ```text
//! single (bit 29): one slot differs from all others
//!   word  0     its entry in the low half; then the others' value in 24 bits, and the slot in 8
//! direct (bit 30): so many runs that the memory is worth the time
//!   words 0..   an entry for each slot, two a word
//! runs (neither)
//!   words 0..4  bitmap: bit b is set where a run of equal slots begins; bit 0 always is
//!   word  4     four 16-bit counts: the set bits before each word of the bitmap
//!   words 5..   an entry for each run, two a word
//! ```
//!
//! Most blocks of real sets are single, so that an address costs few loads of few cache lines: time goes there.
//!
//! A block is not changed while a reader can reach it, but for whole words that move one entry from an old block to its
//! successor, so a reader beside the writer sees the old table or the new one.

use crate::address::{Ipv4, Ipv6};

#[cfg(feature = "std")]
mod block;
#[cfg(feature = "std")]
mod build;
#[cfg(feature = "std")]
mod memory;
#[cfg(feature = "std")]
mod set;
#[cfg(feature = "std")]
mod table;

#[cfg(feature = "std")]
pub use build::{Roots, build};
#[cfg(feature = "std")]
pub use memory::{Allocator, Memory, OutOfMemory};
#[cfg(feature = "std")]
pub use set::Prefixes;
#[cfg(feature = "std")]
pub use table::Table;

/// Words of a root.
pub const ROOT_WORDS: u32 = 32_768;
/// Bit of an entry that is a block; values are smaller.
pub const BLOCK: u32 = 1 << 31;
/// Bit of an entry whose block is single.
const SINGLE: u32 = 1 << 29;
/// Bit of an entry whose block is direct.
const DIRECT: u32 = 1 << 30;
/// Bits of an entry that are a word's index.
const INDEX: u32 = SINGLE - 1;
/// Bits of a single block's word, shifted down by 32, that are the value of the other slots.
const OTHERS: u32 = (1 << 24) - 1;
/// Words of a block of runs before its entries.
const HEAD_WORDS: u32 = 5;
/// Index in a block of runs of the word with the counts.
const COUNTS: u32 = 4;

/// The words that hold a table.
pub trait Words {
    /// The word at an index, unless the index is past the end.
    fn word(&self, index: u32) -> Option<u64>;
}

impl Words for [u64] {
    #[inline(always)]
    fn word(&self, index: u32) -> Option<u64> {
        self.get(index as usize).copied()
    }
}

#[cfg(feature = "std")]
impl Words for Vec<u64> {
    fn word(&self, index: u32) -> Option<u64> {
        self.as_slice().word(index)
    }
}

/// The value of the longest prefix that holds an IPv4 address, 0 for none; `root` is the root's first word.
#[inline(always)]
#[must_use]
pub fn look_up4<T: Words + ?Sized>(words: &T, root: u32, address: Ipv4) -> u32 {
    find4(words, root, address).unwrap_or(0)
}

/// The value of the longest prefix that holds an IPv6 address, 0 for none; `root` is the root's first word.
#[inline(always)]
#[must_use]
pub fn look_up6<T: Words + ?Sized>(words: &T, root: u32, address: Ipv6) -> u32 {
    let [a, b, c, d] = address.0;
    let half = |upper: u32, lower: u32| u64::from(u32::from_be(upper)) << 32 | u64::from(u32::from_be(lower));
    find6(words, root, half(a, b), half(c, d))
}

#[inline(always)]
fn find4<T: Words + ?Sized>(words: &T, root: u32, address: Ipv4) -> Option<u32> {
    let [address] = address.0;
    let address = u32::from_be(address);
    let mut entry = pair(words, root, address >> 16)?;
    if entry & BLOCK != 0 {
        entry = step(words, entry, address >> 8 & 0xff)?;
    }
    if entry & BLOCK != 0 {
        entry = step(words, entry, address & 0xff)?;
    }
    value(entry)
}

/// A function of its own: its loop needs registers that others would have to put on the stack.
#[inline(never)]
fn find6<T: Words + ?Sized>(words: &T, root: u32, high: u64, low: u64) -> u32 {
    walk6(words, root, high, low).unwrap_or(0)
}

/// The bits that are not decided yet are in `high` and `low`, the next ones at the top.
#[inline(always)]
fn walk6<T: Words + ?Sized>(words: &T, root: u32, mut high: u64, mut low: u64) -> Option<u32> {
    let mut entry = pair(words, root, (high >> 48) as u32)?;
    high = high << 16 | low >> 48;
    low <<= 16;
    for _ in 0..14 {
        if entry & BLOCK == 0 {
            break;
        }
        entry = step(words, entry, (high >> 56) as u32)?;
        high = high << 8 | low >> 56;
        low <<= 8;
    }
    value(entry)
}

/// A value; nothing for a block below the last bit, which no writer makes.
#[inline(always)]
const fn value(entry: u32) -> Option<u32> {
    if entry & BLOCK == 0 { Some(entry) } else { None }
}

/// The entry of a slot (0..=255) in the block that another entry names.
#[inline(always)]
fn step<T: Words + ?Sized>(words: &T, block: u32, slot: u32) -> Option<u32> {
    let first = block & INDEX;
    if block & SINGLE != 0 {
        return Some(of_single(words.word(first)?, slot));
    }
    if block & DIRECT != 0 {
        return pair(words, first, slot);
    }
    let part = slot >> 6 & 3;
    let bitmap = words.word(first.wrapping_add(part))?;
    let counts = words.word(first.wrapping_add(COUNTS))?;
    pair(words, first.wrapping_add(HEAD_WORDS), rank(bitmap, counts, slot))
}

/// The entry of a slot in a single block's word.
#[inline(always)]
const fn of_single(word: u64, slot: u32) -> u32 {
    if (word >> 56) as u32 == slot { word as u32 } else { (word >> 32) as u32 & OTHERS }
}

/// The number of the run that a slot belongs to, from the slot's word of the bitmap and the counts.
#[inline(always)]
const fn rank(bitmap: u64, counts: u64, slot: u32) -> u32 {
    let before = (counts >> ((slot >> 6 & 3) * 16)) as u32 & 0xffff;
    let here = (bitmap & u64::MAX >> (63 - (slot & 63))).count_ones();
    before.wrapping_add(here).wrapping_sub(1)
}

/// Entry `index` of those that lie two a word from `first` on.
#[inline(always)]
fn pair<T: Words + ?Sized>(words: &T, first: u32, index: u32) -> Option<u32> {
    let word = words.word(first.wrapping_add(index >> 1))?;
    Some((word >> ((index & 1) * 32)) as u32)
}
