//! Memory of a prefix table: words that the owner provides, and which of them are in use.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::INDEX;

/// Words that a table is written to. Readers may be at work: a write is one aligned 64-bit store.
pub trait Memory {
    /// The word at an index below [`Memory::size`].
    fn read(&self, index: u32) -> u64;
    /// Stores a word at an index below [`Memory::size`]. Stores become visible in the order they are made.
    fn write(&mut self, index: u32, word: u64);
    /// Number of words.
    fn size(&self) -> u32;
}

impl Memory for [u64] {
    fn read(&self, index: u32) -> u64 {
        self[index as usize]
    }

    fn write(&mut self, index: u32, word: u64) {
        self[index as usize] = word;
    }

    fn size(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }
}

impl Memory for Vec<u64> {
    fn read(&self, index: u32) -> u64 {
        self[index as usize]
    }

    fn write(&mut self, index: u32, word: u64) {
        self[index as usize] = word;
    }

    fn size(&self) -> u32 {
        self.as_slice().size()
    }
}

/// The memory is too small; the table in force is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Words of a memory in which the call would have succeeded.
    pub needed_words: u32,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the prefix table has no room; it needs a memory of {} words of 8 bytes", self.needed_words)
    }
}

impl std::error::Error for OutOfMemory {}

/// Where blocks of words lie, and which are free.
///
/// A change allocates as if the memory had no end, and only then learns whether it fits.
#[derive(Clone, Debug)]
pub struct Allocator {
    first: u32,
    /// First word that was never in use.
    next: u32,
    end: u32,
    /// Free blocks by their number of words.
    free: BTreeMap<u32, Vec<u32>>,
    free_words: u32,
    /// Whether free neighbours may lie apart in `free`.
    scattered: bool,
    /// Blocks of old tables, which a reader may still see.
    quarantine: Vec<Range<u32>>,
    /// [`Allocator::next`] before the change under way.
    before: u32,
    /// Free blocks that the change under way has taken.
    taken: Vec<Range<u32>>,
}

impl Allocator {
    /// An allocator of these words of a memory, all free.
    #[must_use]
    pub fn new(words: Range<u32>) -> Self {
        Self {
            first: words.start,
            next: words.start,
            // What an entry has bits for.
            end: words.end.min(INDEX),
            free: BTreeMap::new(),
            free_words: 0,
            scattered: false,
            quarantine: Vec::new(),
            before: words.start,
            taken: Vec::new(),
        }
    }

    /// Words that are not free, those in quarantine among them.
    #[must_use]
    pub const fn words_in_use(&self) -> u32 {
        self.next - self.first - self.free_words
    }

    /// Whether a block lies within the memory; it does not when the change under way will fail.
    pub(super) const fn holds(&self, first: u32, words: u32) -> bool {
        first.saturating_add(words) <= self.end
    }

    /// Index of the first of so many words, which may lie past the end.
    pub(super) fn allocate(&mut self, words: u32) -> u32 {
        if let Some(first) = self.take(words, words) {
            return first;
        }
        if !self.holds(self.next, words) {
            if let Some(first) = self.split(words) {
                return first;
            }
            if self.scattered {
                self.join();
                if let Some(first) = self.take(words, words).or_else(|| self.split(words)) {
                    return first;
                }
            }
        }
        let first = self.next;
        self.next = first.saturating_add(words);
        first
    }

    /// Ends a change: its blocks are in use, or the memory is too small and all are given back.
    pub(super) fn commit(&mut self) -> Result<(), OutOfMemory> {
        let needed_words = self.next;
        if needed_words <= self.end {
            self.before = needed_words;
            self.taken.clear();
            return Ok(());
        }
        self.next = self.before;
        for block in std::mem::take(&mut self.taken) {
            self.release(block);
        }
        Err(OutOfMemory { needed_words })
    }

    /// Frees blocks once no reader can see them any more.
    pub(super) fn retire(&mut self, blocks: impl IntoIterator<Item = Range<u32>>) {
        self.quarantine.extend(blocks);
    }

    /// Frees what is in quarantine.
    pub(super) fn reclaim(&mut self) {
        for block in std::mem::take(&mut self.quarantine) {
            self.release(block);
        }
    }

    fn release(&mut self, block: Range<u32>) {
        let words = block.end - block.start;
        self.free.entry(words).or_default().push(block.start);
        self.free_words += words;
        self.scattered = true;
    }

    /// Takes `words` from a free block of `size`, and frees the rest of it.
    fn take(&mut self, size: u32, words: u32) -> Option<u32> {
        let blocks = self.free.get_mut(&size)?;
        let first = blocks.pop()?;
        if blocks.is_empty() {
            self.free.remove(&size);
        }
        self.free_words -= words;
        self.taken.push(first..first + words);
        if size > words {
            self.free.entry(size - words).or_default().push(first + words);
        }
        Some(first)
    }

    fn split(&mut self, words: u32) -> Option<u32> {
        let (&size, _) = self.free.range(words..).next()?;
        self.take(size, words)
    }

    /// Makes one free block of those that touch.
    fn join(&mut self) {
        let mut blocks: Vec<Range<u32>> = std::mem::take(&mut self.free)
            .into_iter()
            .flat_map(|(words, blocks)| blocks.into_iter().map(move |first| first..first + words))
            .collect();
        blocks.sort_unstable_by_key(|block| block.start);
        blocks.dedup_by(|block, last| {
            let touch = last.end == block.start;
            if touch {
                last.end = block.end;
            }
            touch
        });
        for block in blocks {
            self.free.entry(block.end - block.start).or_default().push(block.start);
        }
        self.scattered = false;
    }
}

#[cfg(test)]
mod tests {
    use super::{Allocator, OutOfMemory};

    #[test]
    fn a_failed_change_gives_all_back() {
        let mut allocator = Allocator::new(10..40);
        assert_eq!((allocator.allocate(10), allocator.allocate(10)), (10, 20));
        allocator.commit().expect("20 of 30 words");
        allocator.retire(std::iter::once(10..20));
        allocator.reclaim();
        let before = allocator.words_in_use();
        allocator.allocate(10);
        allocator.allocate(10);
        allocator.allocate(7);
        assert_eq!(allocator.commit(), Err(OutOfMemory { needed_words: 47 }));
        assert_eq!(allocator.words_in_use(), before);
        assert_eq!(allocator.allocate(10), 10);
        assert_eq!(allocator.allocate(10), 30);
        allocator.commit().expect("all of it");
    }

    #[test]
    fn free_blocks_are_joined_and_split() {
        let mut allocator = Allocator::new(0..30);
        for _ in 0..5 {
            allocator.allocate(6);
        }
        allocator.commit().expect("30 of 30 words");
        allocator.retire([12..18, 6..12]);
        assert_eq!(allocator.words_in_use(), 30);
        allocator.reclaim();
        assert_eq!(allocator.words_in_use(), 18);
        assert_eq!(allocator.allocate(9), 6);
        assert_eq!(allocator.allocate(3), 15);
        allocator.commit().expect("the same words again");
        assert_eq!(allocator.words_in_use(), 30);
    }
}
