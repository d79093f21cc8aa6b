//! The table of half-open flows: sets of four places, of which a flow takes a free one or that of the one that was silent longest.
//!
//! Most of its entries are of nobody who ever comes again, and a SYN flood writes nothing else: so it is an array, in which an
//! entry costs two memory accesses and no list has to be kept in order. A new entry always finds a place; whom it drives out has
//! sent a SYN and nothing since, as in any table of half-open connections that is full, and is a new flow with its next SYN. Sets
//! are found by a secret, so that nobody can choose whom he drives out.
//!
//! Each entry has a version, odd while it is written. Who reads looks at the version before and after; who writes makes it odd
//! by one atomic exchange, and gives up when another does so at the same moment. Two CPUs that begin one flow at once, by two
//! SYNs, can take two places for it: both then find the first of them, and the other grows old.

use crate::abi::{Flow, MAX_HALF_OPEN};
use crate::address::Tuple;
use crate::hash::mix;

/// Places of a set: as many as hardware fetches at once.
pub const WAYS: usize = 4;
/// Sets; a power of two.
pub const SETS: u32 = MAX_HALF_OPEN / WAYS as u32;

/// A set of places.
pub type Set<const W: usize> = [HalfOpen<W>; WAYS];

/// A place: a cache line for IPv4, two for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct HalfOpen<const W: usize> {
    /// Odd: somebody writes it.
    pub version: u64,
    /// The client's tuple.
    pub tuple: Tuple<W>,
    /// Its flow; with a time of 0 the place is free.
    pub flow: Flow<W>,
}

const _: () = assert!(size_of::<HalfOpen<1>>() == 64 && size_of::<HalfOpen<4>>() == 128 && SETS.is_power_of_two());

/// Index of a tuple's set.
#[inline(always)]
#[must_use]
pub fn set_of<const W: usize>(tuple: &Tuple<W>, seed: u64) -> u32 {
    let mut hash = mix(seed ^ u64::from(tuple.ports()));
    let mut word = 0;
    while word < W {
        hash = mix(hash ^ (u64::from(tuple.source.0[word]) | u64::from(tuple.destination.0[word]) << 32));
        word += 1;
    }
    hash as u32 % SETS
}
