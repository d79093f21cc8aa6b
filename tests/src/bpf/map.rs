//! Maps of such programs, filled in batches.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};

use super::{MAP_CREATE, MAP_UPDATE, MAP_UPDATE_BATCH, bpf, descriptor};

/// `union bpf_attr` of `BPF_MAP_CREATE`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct Update {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` of `BPF_MAP_UPDATE_BATCH`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// An array of programs with `target` at index 0.
pub(crate) fn program_array(target: BorrowedFd<'_>) -> Result<OwnedFd> {
    let array = create(Create { kind: PROG_ARRAY, key_size: 4, value_size: 4, max_entries: 1, flags: 0 })?;
    update(&array, &0_u32, &target.as_raw_fd()).context("cannot put a program into the program array")?;
    Ok(array)
}

/// An array of one counter.
pub(crate) fn counter() -> Result<OwnedFd> {
    create(Create { kind: ARRAY, key_size: 4, value_size: 8, max_entries: 1, flags: 0 })
}

/// A trie of the kernel's for IPv4 prefixes: {length, address} → 4 bytes.
pub(crate) fn trie(max_entries: u32) -> Result<OwnedFd> {
    create(Create { kind: LPM_TRIE, key_size: 8, value_size: 4, max_entries, flags: NO_PREALLOC })
}

/// Sets one element.
pub(crate) fn update<K, V>(map: &OwnedFd, key: &K, value: &V) -> Result<()> {
    let mut update = Update {
        map: map.as_raw_fd().cast_unsigned(),
        _pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags: 0,
    };
    // SAFETY: callers pass keys and values of the sizes that the map was made with; both outlive the call.
    unsafe { bpf(MAP_UPDATE, &mut update) }.context("cannot fill a map")?;
    Ok(())
}

/// Sets many elements, `values.len() / keys.len()` values for each key (as a map for each processor wants them).
pub(crate) fn fill<K, V>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> Result<()> {
    let mut batch = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len())?,
        map: map.as_raw_fd().cast_unsigned(),
        ..Batch::default()
    };
    // SAFETY: as in `update`; the kernel reads `count` keys and their values, which the slices hold.
    unsafe { bpf(MAP_UPDATE_BATCH, &mut batch) }.context("cannot fill a map")?;
    ensure!(batch.count as usize == keys.len(), "a map took {} of {} elements", batch.count, keys.len());
    Ok(())
}

fn create(mut attributes: Create) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    descriptor(unsafe { bpf(MAP_CREATE, &mut attributes) }.context("cannot make a map")?)
}

const ARRAY: u32 = 2;
const PROG_ARRAY: u32 = 3;
const LPM_TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;
