//! The kernel's side of the table of half-open flows, see `foobar_common::half_open`.

use aya_ebpf::maps::Array;
use core::ptr::{read_volatile, write_volatile};
use foobar_common::abi::Flow;
use foobar_common::address::{Address, Tuple};
use foobar_common::flow::closed;
use foobar_common::half_open::{HalfOpen, WAYS, first_place};

use crate::maps::SEED;
use crate::{atomic, failures};

/// A table of one family.
pub(crate) type Table<const W: usize> = Array<HalfOpen<W>>;
type Place<const W: usize> = *mut HalfOpen<W>;
/// No place's number.
const NOWHERE: u32 = 0;

/// The entry of a tuple.
#[inline(always)]
pub(crate) fn get<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) -> Option<Flow<W>> {
    let place = table.get_ptr_mut(found(table, tuple).checked_sub(1)?)?;
    // Once more when another CPU writes it: that takes less than a look.
    look(place, tuple).or_else(|| look(place, tuple))
}

/// A place's flow, if it is of this tuple and nobody writes it.
#[inline(always)]
fn look<const W: usize>(place: Place<W>, tuple: &Tuple<W>) -> Option<Flow<W>> {
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

/// Writes an entry, in the place of its set that suits best; false: other CPUs write there just now.
#[inline(never)]
pub(crate) fn insert<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>, flow: &Flow<W>) -> bool {
    // A place that another CPU locks in between is passed over the second time.
    put(table, oldest(table, tuple), tuple, flow) || put(table, oldest(table, tuple), tuple, flow)
}

/// Changes an entry where it is; one that has gone, or that another CPU changes just now, is left alone.
#[inline(never)]
pub(crate) fn amend<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>, flow: &Flow<W>) {
    let found = find(table, tuple).checked_sub(1);
    let Some(place) = found.and_then(|place| table.get_ptr_mut(place)) else { return };
    // SAFETY: a place of the table, which is ours alone from the lock on.
    unsafe {
        if lock(place) {
            if is_of(place, tuple) && read_volatile(&raw const (*place).flow.last_seen_ns) != 0 {
                write(place, flow);
            }
            unlock(place);
        }
    }
}

/// Writes a new entry to a place, from 1 on; who is driven out has one flow less at his backend. False: another CPU writes it.
#[inline(always)]
fn put<const W: usize>(table: &'static Table<W>, place: u32, tuple: &Tuple<W>, flow: &Flow<W>) -> bool {
    let Some(place) = place.checked_sub(1).and_then(|place| table.get_ptr_mut(place)) else { return false };
    // SAFETY: a place of the table, which is ours alone from the lock on.
    unsafe {
        if !lock(place) {
            return false;
        }
        let used = read_volatile(&raw const (*place).flow.last_seen_ns) != 0;
        if used && !closed(read_volatile(&raw const (*place).flow.state)) && !is_of(place, tuple) {
            failures::flow_gone(read_volatile(&raw const (*place).flow.backend));
        }
        let (from, to) = (core::ptr::from_ref(tuple).cast::<u64>(), (&raw mut (*place).tuple).cast::<u64>());
        for word in 0..size_of::<Tuple<W>>() / 8 {
            write_volatile(to.add(word), read_volatile(from.add(word)));
        }
        write(place, flow);
        unlock(place);
    }
    true
}

/// Writes a place's flow.
///
/// # Safety
/// It is one that the caller has locked.
#[inline(always)]
unsafe fn write<const W: usize>(place: Place<W>, flow: &Flow<W>) {
    // SAFETY: words of both, which are aligned to them.
    unsafe {
        let (from, to) = (core::ptr::from_ref(flow).cast::<u64>(), (&raw mut (*place).flow).cast::<u64>());
        for word in 0..size_of::<Flow<W>>() / 8 {
            write_volatile(to.add(word), read_volatile(from.add(word)));
        }
    }
}

/// Frees the place of a tuple's entry.
#[inline(never)]
pub(crate) fn remove<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) {
    let found = find(table, tuple).checked_sub(1);
    let Some(place) = found.and_then(|place| table.get_ptr_mut(place)) else { return };
    // SAFETY: as in `amend`. When another CPU writes it, it is in use, and grows old by itself.
    unsafe {
        if lock(place) {
            if is_of(place, tuple) {
                write_volatile(&raw mut (*place).flow.last_seen_ns, 0);
            }
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
        let (version, seen) = unsafe {
            (read_volatile(&raw const (*place).version), read_volatile(&raw const (*place).flow.last_seen_ns))
        };
        // Who writes it is done soon; or was an agent that died, and then the place is lost and no more.
        if version & 1 == 0 && seen < least {
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
unsafe fn read<const W: usize>(place: Place<W>) -> Flow<W> {
    // SAFETY: integers; field by field, since a copy of the whole would be a call.
    unsafe {
        let flow = &raw const (*place).flow;
        let mut source = Address([0; W]);
        for (word, value) in source.0.iter_mut().enumerate() {
            *value = read_volatile(&raw const (*flow).source.0[word]);
        }
        Flow {
            backend: read_volatile(&raw const (*flow).backend),
            generation: read_volatile(&raw const (*flow).generation),
            state: read_volatile(&raw const (*flow).state),
            rule: read_volatile(&raw const (*flow).rule),
            answer: read_volatile(&raw const (*flow).answer),
            last_seen_ns: read_volatile(&raw const (*flow).last_seen_ns),
            source,
            source_port: read_volatile(&raw const (*flow).source_port),
            _pad: 0,
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
