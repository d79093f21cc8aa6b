//! Places of local sockets: each holds one at the backend that it was given, and gives it back once, whatever becomes of it.
//!
//! What a socket holds is one word in the socket itself, which is only ever exchanged: whoever takes a place out of it gives the
//! place back. So nothing depends on the order of what happens to a socket, on an agent that is alive, or on which generation
//! of the programs sees it: two of them run side by side while they are replaced.

use crate::abi::Service;
use crate::choose;
use crate::tables::Tables;
use crate::verdict::Reason;

/// Attempts at a place when other CPUs take the last ones of those that were chosen.
const ATTEMPTS: u32 = 3;

/// A SYN that was not answered within this was lost, or is not going to be: a program that gives up then does so for that reason.
const PATIENCE_NS: u64 = 500_000_000;
/// Nanoseconds of a tick, as a power of two: a little more than a millisecond.
const TICK: u32 = 20;
/// Ticks are counted in so many bits: for twelve days, and then anew.
const TICKS: u64 = (1 << 30) - 1;

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was one.
    Connected,
    /// It never was, because the backend has refused it, or cannot be reached.
    Failed,
    /// It was not one yet when its own program ended it.
    GivenUp,
}

/// What a socket holds; 0: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held(pub u64);

impl Held {
    /// The end of the connection is promised to be told: a close of the socket gives nothing back.
    const FOLLOWED: u64 = 1 << 32;
    /// That the backend has not answered was counted.
    const FAILED: u64 = 1 << 33;

    /// A place at a backend's slot.
    #[inline(always)]
    #[must_use]
    pub const fn at(slot: u32) -> Self {
        Self(slot as u64 + 1)
    }

    /// The backend's slot.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> Option<u32> {
        (self.0 as u32).checked_sub(1)
    }

    /// The end is told, of a connection that began at a time of the coarse monotonic clock.
    #[inline(always)]
    const fn followed(self, now_ns: u64) -> Self {
        self.with(Self::FOLLOWED | (now_ns >> TICK & TICKS) << 34)
    }

    /// Nanoseconds since then.
    #[inline(always)]
    const fn waited_ns(self, now_ns: u64) -> u64 {
        ((now_ns >> TICK).wrapping_sub(self.0 >> 34) & TICKS) << TICK
    }

    #[inline(always)]
    const fn is(self, mark: u64) -> bool {
        self.0 & mark != 0
    }

    #[inline(always)]
    const fn with(self, mark: u64) -> Self {
        Self(self.0 | mark)
    }
}

/// A socket's own memory.
pub trait Holder {
    /// What it holds now.
    fn held(&self) -> Held;
    /// Has it hold something else, atomically, and returns what it held; `None`: it has no room, and holds nothing.
    fn exchange(&self, held: Held) -> Option<Held>;
}

/// Takes a place for a socket at the backend that a service chooses; what it held before is given back first.
///
/// A backend has never more of them than its limit, however many CPUs take at once. A socket without memory is given a backend,
/// too, but is not counted: what could not be given back is not taken.
///
/// # Errors
/// [`Reason::NoBackend`] or [`Reason::BackendsFull`].
#[inline(always)]
pub fn take<H: Holder, T: Tables>(service: &Service, socket: &H, tables: &T) -> Result<u32, Reason> {
    give_back(socket, tables);
    for _ in 0..ATTEMPTS {
        let slot = choose::next(service, tables)?;
        let limit = tables.backend(slot).map_or(0, |backend| u64::from(backend.limit));
        let before = tables.hold(slot);
        if limit != 0 && before >= limit {
            tables.release(slot);
            continue;
        }
        match socket.exchange(Held::at(slot)) {
            // Two threads may send by one socket at once: the place of the slower one stays.
            Some(old) => release(old, tables),
            None => tables.release(slot),
        }
        return Ok(slot);
    }
    Err(Reason::BackendsFull)
}

/// Gives back what a socket holds.
#[inline(always)]
pub fn give_back<H: Holder, T: Tables>(socket: &H, tables: &T) {
    if socket.held() != Held::default()
        && let Some(old) = socket.exchange(Held::default())
    {
        release(old, tables);
    }
}

#[inline(always)]
fn release<T: Tables>(held: Held, tables: &T) {
    if let Some(slot) = held.slot() {
        tables.release(slot);
    }
}

/// A connection is on its way, and its end will be told to [`ended`]. The socket is locked, as for what follows: nobody else
/// changes what it holds.
#[inline(always)]
pub fn followed<H: Holder, T: Tables>(socket: &H, tables: &T) {
    let held = socket.held();
    if held.slot().is_some() && !held.is(Held::FOLLOWED) {
        let _ = socket.exchange(held.followed(tables.now_ns()));
    }
}

/// The first SYN was not answered within its time.
#[inline(always)]
pub fn unanswered<H: Holder, T: Tables>(socket: &H, tables: &T) {
    let held = socket.held();
    if !held.is(Held::FAILED)
        && let Some(slot) = held.slot()
    {
        let _ = socket.exchange(held.with(Held::FAILED));
        tables.connect_failed(slot);
    }
}

/// The backend has taken the connection.
#[inline(always)]
pub fn answered<H: Holder, T: Tables>(socket: &H, tables: &T) {
    if let Some(slot) = socket.held().slot() {
        tables.connect_answered(slot);
    }
}

/// The connection has ended.
#[inline(always)]
pub fn ended<H: Holder, T: Tables>(socket: &H, end: End, tables: &T) {
    let held = socket.held();
    let failed = match end {
        End::Connected => false,
        End::Failed => true,
        End::GivenUp => held.is(Held::FOLLOWED) && held.waited_ns(tables.now_ns()) >= PATIENCE_NS,
    };
    if failed {
        unanswered(socket, tables);
    }
    give_back(socket, tables);
}

/// The socket is closed. A connection goes on to its end; what never became one, and what has none, ends here.
#[inline(always)]
pub fn closed<H: Holder, T: Tables>(socket: &H, tables: &T) {
    if !socket.held().is(Held::FOLLOWED) {
        give_back(socket, tables);
    }
}
