//! An array map in this process's memory: single words and large values are written without a system call.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The values of an array map that was made with `BPF_F_MMAPABLE`, as 64-bit words.
///
/// The kernel reads them at any time: a store of one word is what it sees whole.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<c_void>,
    words: usize,
}

// SAFETY: plain shared memory, that every thread of the process has at the same place.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference it is only read, word by word.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `words` words of a map.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn new(map: impl AsFd, words: usize) -> Result<Self> {
        let length = NonZeroUsize::new(words * 8).context("a map without words")?;
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping at a place that the kernel chooses.
        let start = unsafe { mmap(None, length, access, flags, map, 0) }.context("cannot map a table into memory")?;
        Ok(Self { start, words })
    }

    /// How many words there are.
    pub(super) const fn words(&self) -> usize {
        self.words
    }

    /// Reads a word.
    pub(super) fn read(&self, index: usize) -> u64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: within the mapping, aligned; volatile, because the kernel's side is no part of this program.
        unsafe { self.start.cast::<u64>().add(index).read_volatile() }
    }

    /// Stores a word, at once for every reader.
    pub(super) fn write(&mut self, index: usize, word: u64) {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: as in `read`.
        unsafe { self.start.cast::<u64>().add(index).write_volatile(word) }
    }

    /// A word that the kernel's side changes atomically, too.
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.words, "word {index} of {}", self.words);
        // SAFETY: within the mapping, aligned, and mapped for as long as `self` lives.
        unsafe { AtomicU64::from_ptr(self.start.cast::<u64>().add(index).as_ptr()) }
    }

    /// Adds to a word that others add to as well, atomically; it wraps.
    pub(super) fn add(&self, index: usize, change: i64) {
        self.word(index).fetch_add(change.cast_unsigned(), Ordering::Relaxed);
    }

    /// Stores bytes from a word on; for what no reader uses yet.
    ///
    /// # Errors
    /// They do not fit.
    pub(super) fn copy(&mut self, first: usize, bytes: &[u8]) -> Result<()> {
        ensure!(first * 8 + bytes.len() <= self.words * 8, "{} bytes do not fit into a table", bytes.len());
        // SAFETY: within the mapping by the check above, and no Rust reference to it exists.
        unsafe {
            self.start.cast::<u8>().add(first * 8).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` has made; nobody holds a pointer into it.
        // A failure would leave memory mapped until the process ends.
        let _ = unsafe { munmap(self.start, self.words * 8) };
    }
}
