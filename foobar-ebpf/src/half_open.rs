//! The kernel's side of the table of half-open flows, see `foobar_common::half_open`.

use aya_ebpf::maps::Array;
use core::ptr::{null_mut, read_volatile, write_volatile};
use foobar_common::abi::Flow;
use foobar_common::address::{Address, Tuple};
use foobar_common::flow::closed;
use foobar_common::half_open::{HalfOpen, Set, WAYS, set_of};

use crate::maps::SEED;
use crate::{atomic, failures};

/// A table of one family.
pub(crate) type Table<const W: usize> = Array<Set<W>>;
/// A place; null: none.
type Place<const W: usize> = *mut HalfOpen<W>;

/// The entry of a tuple.
#[inline(always)]
pub(crate) fn get<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) -> Option<Flow<W>> {
    let place = found(table, tuple);
    if place.is_null() {
        return None;
    }
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
    let Some(set) = set(table, tuple) else { return false };
    // A place that another CPU locks in between is passed over the second time.
    put(oldest(set), tuple, flow) || put(oldest(set), tuple, flow)
}

/// Changes an entry where it is; one that has gone, or that another CPU changes just now, is left alone.
#[inline(never)]
pub(crate) fn amend<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>, flow: &Flow<W>) {
    let place = find(table, tuple);
    // SAFETY: a place of the table, which is ours alone from the lock on.
    unsafe {
        if !place.is_null() && lock(place) {
            if is_of(place, tuple) && read_volatile(&raw const (*place).flow.last_seen_ns) != 0 {
                write(place, flow);
            }
            unlock(place);
        }
    }
}

/// Writes a new entry to a place; who is driven out has one flow less at his backend. False: another CPU writes it.
#[inline(always)]
fn put<const W: usize>(place: Place<W>, tuple: &Tuple<W>, flow: &Flow<W>) -> bool {
    // SAFETY: a place of the table, which is ours alone from the lock on.
    unsafe {
        if place.is_null() || !lock(place) {
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
    // SAFETY: words of both, which are aligned to them; `flow` lies in the packet's work, where each byte has been written, also of the
    // padding at its end.
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
    let place = find(table, tuple);
    // SAFETY: as in `amend`. When another CPU writes it, it is in use, and grows old by itself.
    unsafe {
        if !place.is_null() && lock(place) {
            if is_of(place, tuple) {
                write_volatile(&raw mut (*place).flow.last_seen_ns, 0);
            }
            unlock(place);
        }
    }
}

/// See [`find`]. A function of its own, as are those that change the table: the stages have no stack to spare for them.
#[inline(never)]
fn found<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) -> Place<W> {
    find(table, tuple)
}

/// The place of a tuple's entry.
#[inline(always)]
fn find<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) -> Place<W> {
    let Some(set) = set(table, tuple) else { return null_mut() };
    for way in 0..WAYS {
        // SAFETY: a place of the set; volatile, because other CPUs write it.
        unsafe {
            let place = &raw mut (*set)[way];
            if read_volatile(&raw const (*place).flow.last_seen_ns) != 0 && is_of(place, tuple) {
                return place;
            }
        }
    }
    null_mut()
}

/// The place of a set that is free, or was silent longest.
#[inline(always)]
fn oldest<const W: usize>(set: *mut Set<W>) -> Place<W> {
    let (mut best, mut least) = (null_mut(), u64::MAX);
    for way in 0..WAYS {
        // SAFETY: as in `find`.
        let (place, version, seen) = unsafe {
            let place = &raw mut (*set)[way];
            (place, read_volatile(&raw const (*place).version), read_volatile(&raw const (*place).flow.last_seen_ns))
        };
        // Who writes it is done soon; or was an agent that died, and then the place is lost and no more.
        if version & 1 == 0 && seen < least {
            (best, least) = (place, seen);
        }
    }
    best
}

/// The set of a tuple.
#[inline(always)]
fn set<const W: usize>(table: &'static Table<W>, tuple: &Tuple<W>) -> Option<*mut Set<W>> {
    table.get_ptr_mut(set_of(tuple, SEED.get(0).copied().unwrap_or(0)))
}

/// Whether a place's entry is of a tuple.
///
/// # Safety
/// It is one of the table.
#[inline(always)]
unsafe fn is_of<const W: usize>(place: Place<W>, tuple: &Tuple<W>) -> bool {
    let mut differs = 0;
    // SAFETY: words of both, which are aligned to them; `flow` lies in the packet's work, where each byte has been written, also of the
    // padding at its end.
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
