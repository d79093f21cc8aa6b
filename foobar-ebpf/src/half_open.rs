//! The kernel's side of the table of half-open flows, see `foobar_common::half_open`.

use aya_ebpf::maps::Array;
use core::ptr::{read_volatile, write_volatile};
use foobar_common::abi::Flow;
use foobar_common::address::Tuple;
use foobar_common::half_open::{HalfOpen, WAYS, first_place};

use crate::atomic;
use crate::maps::SEED;

/// A table of one family.
pub(crate) type Table<const W: usize> = Array<HalfOpen<W>>;
type Place<const W: usize> = *mut HalfOpen<W>;
/// No place's number.
const NOWHERE: u32 = 0;

/// The entry of a tuple.
#[inline(always)]
pub(crate) fn get<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) -> Option<Flow> {
    let place = table.get_ptr_mut(found(table, tuple).checked_sub(1)?)?;
    // SAFETY: a place of the table; whoever writes it in between is noticed below.
    unsafe {
        let version = read_volatile(&raw const (*place).version);
        if version & 1 != 0 || !is_of(place, tuple) {
            return None;
        }
        let flow = read(place);
        // An addition of nothing, which no other access passes: a load alone could come before those above.
        let after = atomic::fetch_add(&raw mut (*place).version, 0);
        if after == version { Some(flow) } else { None }
    }
}

/// Writes an entry, in the place of its set that suits best; false: other CPUs write there, and in the next one, just now.
#[inline(never)]
pub(crate) fn insert<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>, flow: &Flow) -> bool {
    let found = match find(table, tuple) {
        NOWHERE => oldest(table, tuple),
        found => found,
    };
    let Some(best) = found.checked_sub(1) else { return false };
    write(table, best, tuple, flow) || write(table, best ^ 1, tuple, flow)
}

/// Writes an entry to a place; false: another CPU writes it just now.
#[inline(always)]
fn write<const W: usize>(table: &'static Table<W>, place: u32, tuple: &Tuple<W>, flow: &Flow) -> bool {
    let Some(place) = table.get_ptr_mut(place) else { return false };
    // SAFETY: a place of the table, which is ours alone from the lock on.
    unsafe {
        if !lock(place) {
            return false;
        }
        let (from, to) = (core::ptr::from_ref(tuple).cast::<u64>(), (&raw mut (*place).tuple).cast::<u64>());
        for word in 0..size_of::<Tuple<W>>() / 8 {
            write_volatile(to.add(word), read_volatile(from.add(word)));
        }
        let (from, to) = (core::ptr::from_ref(flow).cast::<u64>(), (&raw mut (*place).flow).cast::<u64>());
        for word in 0..size_of::<Flow>() / 8 {
            write_volatile(to.add(word), read_volatile(from.add(word)));
        }
        unlock(place);
    }
    true
}

/// Frees the place of a tuple's entry.
#[inline(never)]
pub(crate) fn remove<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) {
    let found = find(table, tuple).checked_sub(1);
    let Some(place) = found.and_then(|place| table.get_ptr_mut(place)) else { return };
    // SAFETY: as in `insert`. When another CPU writes it, it is in use, and grows old by itself.
    unsafe {
        if lock(place) {
            write_volatile(&raw mut (*place).flow.last_seen_ns, 0);
            unlock(place);
        }
    }
}

/// See [`find`]. A function of its own, as are those that change the table: the stages have no stack to spare for them.
#[inline(never)]
fn found<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) -> u32 {
    find(table, tuple)
}

/// Number of the place of a tuple's entry, from 1 on; [`NOWHERE`]: there is none.
#[inline(always)]
fn find<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) -> u32 {
    let first = first(tuple);
    for way in 0..WAYS {
        let Some(place) = table.get_ptr_mut(first + way) else { return NOWHERE };
        // SAFETY: a place of the table; volatile, because other CPUs write it.
        let used = unsafe { read_volatile(&raw const (*place).flow.last_seen_ns) != 0 };
        // SAFETY: as above.
        if used && unsafe { is_of(place, tuple) } {
            return first + way + 1;
        }
    }
    NOWHERE
}

/// Number of the place of a tuple's set that is free, or was silent longest.
#[inline(always)]
fn oldest<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) -> u32 {
    let first = first(tuple);
    let (mut best, mut least) = (NOWHERE, u64::MAX);
    for way in 0..WAYS {
        let Some(place) = table.get_ptr_mut(first + way) else { return NOWHERE };
        // SAFETY: as in `find`.
        let seen = unsafe { read_volatile(&raw const (*place).flow.last_seen_ns) };
        if seen < least {
            (best, least) = (first + way + 1, seen);
        }
    }
    best
}

#[inline(always)]
fn first<const W: usize>(tuple: &Tuple<W>) -> u32 {
    first_place(tuple, SEED.get(0).copied().unwrap_or(0))
}

/// Whether a place's entry is of a tuple.
///
/// # Safety
/// It is one of the table.
#[inline(always)]
unsafe fn is_of<const W: usize>(place: Place<W>, tuple: &Tuple<W>) -> bool {
    let mut differs = 0;
    // SAFETY: words of both, which are aligned to them.
    unsafe {
        let (entry, wanted) = ((&raw const (*place).tuple).cast::<u64>(), core::ptr::from_ref(tuple).cast::<u64>());
        for word in 0..size_of::<Tuple<W>>() / 8 {
            differs |= read_volatile(entry.add(word)) ^ read_volatile(wanted.add(word));
        }
    }
    differs == 0
}

/// A copy of a place's flow.
///
/// # Safety
/// It is one of the table.
#[inline(always)]
unsafe fn read<const W: usize>(place: Place<W>) -> Flow {
    // SAFETY: integers; field by field, since a copy of the whole would be a call.
    unsafe {
        let flow = &raw const (*place).flow;
        Flow {
            backend: read_volatile(&raw const (*flow).backend),
            generation: read_volatile(&raw const (*flow).generation),
            state: read_volatile(&raw const (*flow).state),
            rule: read_volatile(&raw const (*flow).rule),
            answer: read_volatile(&raw const (*flow).answer),
            last_seen_ns: read_volatile(&raw const (*flow).last_seen_ns),
            source: [
                read_volatile(&raw const (*flow).source[0]),
                read_volatile(&raw const (*flow).source[1]),
                read_volatile(&raw const (*flow).source[2]),
                read_volatile(&raw const (*flow).source[3]),
            ],
            source_port: read_volatile(&raw const (*flow).source_port),
            _pad: [0; 3],
        }
    }
}

/// Makes a place's version odd; false: somebody else has.
///
/// # Safety
/// It is one of the table.
#[inline(always)]
unsafe fn lock<const W: usize>(place: Place<W>) -> bool {
    // SAFETY: an aligned word of a map value.
    unsafe {
        let version = read_volatile(&raw const (*place).version);
        version & 1 == 0 && atomic::compare_exchange(&raw mut (*place).version, version, version + 1) == version
    }
}

/// Makes it even again, and another one than before.
///
/// # Safety
/// It is one that the caller has locked.
#[inline(always)]
unsafe fn unlock<const W: usize>(place: Place<W>) {
    // SAFETY: as in `lock`. Atomic, so that what was written comes before it.
    unsafe { atomic::fetch_add(&raw mut (*place).version, 1) };
}
