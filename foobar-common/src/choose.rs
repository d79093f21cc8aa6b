//! The choice of a backend for a new flow: the next one of the ring by one atomic cursor for each service (strict round robin, by
//! weight), the one that the client's address and port point to (Maglev), or the one with the fewest flows for its weight.
//!
//! Two CPUs never get the same turn, because the cursor is one atomic addition. When user space replaces a ring
//! between the look-up of the service and that of the member, the choice falls on a member of either ring: a ring
//! is written whole beside the old one before the service points to it.

use crate::abi::{BACKEND_MEMBER, Backend, BucketKey, RING_PLACES, SERVICE_HASH, SERVICE_LEAST, Service};
use crate::address::{Address, Family, Tuple};
use crate::tables::{Step, Tables};
use crate::verdict::Reason;

/// Places that are looked at before a new flow is refused because nobody there has room.
const SEARCH: u32 = 256;
/// No backend's slot.
const NOBODY: u32 = u32::MAX;
const SECOND_NS: u64 = 1_000_000_000;

/// The backend for a flow of nobody who is known: the slot of the next one by the cursor, or of the one with the fewest flows.
///
/// # Errors
/// [`Reason::NoBackend`] or [`Reason::BackendsFull`].
#[inline(always)]
pub fn next<T: Tables>(service: &Service, tables: &T) -> Result<u32, Reason> {
    if service.places == 0 {
        return Err(Reason::NoBackend);
    }
    let turn = tables.advance(service.slot).ok_or(Reason::Internal)?;
    search(service, (turn % u64::from(service.places)) as u32, tables)
}

/// The backend for a flow of a client, by what the service goes by.
///
/// # Errors
/// As for [`next`].
#[inline(always)]
pub fn for_client<const W: usize, T: Tables>(
    service: &Service,
    tuple: &Tuple<W>,
    now_ns: u64,
    tables: &T,
) -> Result<u32, Reason>
where
    Address<W>: Family<W>,
{
    if service.affinity_s == 0 {
        return chosen(service, tuple, tables);
    }
    let key = BucketKey::new(service.slot, W as u32, Address::<W>::masked(tuple.source, 128));
    let slot = match known(service, &key, now_ns, tables) {
        Some(slot) => slot,
        None => chosen(service, tuple, tables)?,
    };
    tables.stick(&key, slot, now_ns);
    Ok(slot)
}

/// The backend that the client stays with, as long as it has room.
#[inline(always)]
fn known<T: Tables>(service: &Service, key: &BucketKey, now_ns: u64, tables: &T) -> Option<u32> {
    let stuck = tables.stuck(key)?;
    let over = now_ns.saturating_sub(stuck.last_seen_ns) > u64::from(service.affinity_s) * SECOND_NS;
    let backend = tables.backend(stuck.backend)?;
    let member = backend.state == BACKEND_MEMBER && backend.service == service.slot;
    let room = backend.limit == 0 || tables.active(stuck.backend) < u64::from(backend.limit);
    if over || !member || !room { None } else { Some(stuck.backend) }
}

#[inline(always)]
fn chosen<const W: usize, T: Tables>(service: &Service, tuple: &Tuple<W>, tables: &T) -> Result<u32, Reason> {
    if service.flags & SERVICE_HASH == 0 {
        return next(service, tables);
    }
    if service.places == 0 {
        return Err(Reason::NoBackend);
    }
    search(service, hash(tuple) % service.places, tables)
}

/// Of a client's address and port, alike on every balancer.
#[inline(always)]
#[must_use]
pub fn hash<const W: usize>(tuple: &Tuple<W>) -> u32 {
    // The multiplier of Fibonacci hashing: each word reaches all upper bits, which are folded down.
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = (u64::from(tuple.source_port.host()) | 1 << 16).wrapping_mul(MULTIPLIER);
    let mut word = 0;
    while word < W {
        mixed = (mixed ^ mixed >> 32 ^ u64::from(u32::from_be(tuple.source.0[word]))).wrapping_mul(MULTIPLIER);
        word += 1;
    }
    (mixed >> 32) as u32
}

/// The member at a place of a service's ring, when it has room.
#[inline(always)]
pub fn with_room<T: Tables>(service: &Service, place: u32, tables: &T) -> Option<(u32, Backend)> {
    let slot = tables.member(service.ring, place as usize & (RING_PLACES - 1))?;
    let backend = tables.backend(slot)?;
    let room = backend.limit == 0 || tables.active(slot) < u64::from(backend.limit);
    if room && backend.state == BACKEND_MEMBER { Some((slot, backend)) } else { None }
}

/// The place after this one.
#[inline(always)]
pub const fn after(service: &Service, place: u32) -> u32 {
    if place + 1 < service.places { place + 1 } else { 0 }
}

/// The first member with room from a place of the ring on, or the one with the fewest flows.
#[inline(always)]
fn search<T: Tables>(service: &Service, place: u32, tables: &T) -> Result<u32, Reason> {
    let left = if service.places < SEARCH { service.places } else { SEARCH };
    let mut search = Search { service, tables, place, left, best: NOBODY, flows: 1, weight: 0, full: 0 };
    tables.repeat(SEARCH, &mut search);
    if search.best != NOBODY {
        return Ok(search.best);
    }
    Err(if search.full == 0 { Reason::NoBackend } else { Reason::BackendsFull })
}

/// A walk along a ring.
struct Search<'s, T> {
    service: &'s Service,
    tables: &'s T,
    place: u32,
    /// Places to look at.
    left: u32,
    /// The best slot so far, with its flows and its weight: to begin with nobody, with so many flows for no weight that
    /// everybody has fewer. A turn does not ask whether there is one: Linux 6.1 verifies it by what is known before the first, and
    /// would take the comparison out as never reached.
    best: u32,
    flows: u64,
    weight: u64,
    /// Not 0: a member had no room.
    full: u32,
}

impl<T: Tables> Step for Search<'_, T> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let place = self.place as usize & (RING_PLACES - 1);
        self.place = after(self.service, self.place);
        let Some(slot) = self.tables.member(self.service.ring, place) else { return true };
        let Some(backend) = self.tables.backend(slot) else { return true };
        if backend.state != BACKEND_MEMBER {
            return true;
        }
        let least = self.service.flags & SERVICE_LEAST != 0;
        // Who neither counts nor compares flows does not pay for their number.
        let flows = if least || backend.limit != 0 { self.tables.active(slot) } else { 0 };
        if backend.limit != 0 && flows >= u64::from(backend.limit) {
            self.full = 1;
            return true;
        }
        let weight = u64::from(backend.weight);
        if flows * self.weight < self.flows * weight {
            (self.best, self.flows, self.weight) = (slot, flows, weight);
        }
        least
    }
}
