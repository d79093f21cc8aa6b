//! Local sockets: a `connect()` to a VIP, or a datagram to one, goes to a backend, with no hop; and who asks whom the socket
//! talks to is told the VIP that it has asked for.

use crate::abi::{BACKEND_MEMBER, SERVICE_LOCAL, Service, Stuck};
use crate::address::{Address, Be16, Family, Peer, SocketKey};
use crate::flow::{REFRESH_NS, UDP_IDLE_NS};
use crate::held::{self, Holder};
use crate::tables::Tables;

/// What becomes of a call to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect<const W: usize> {
    /// The address is no VIP of a local service.
    Unchanged,
    /// It goes to this backend.
    Backend {
        /// Address.
        address: Address<W>,
        /// Port.
        port: Be16,
    },
    /// The service has no healthy backend, or none with room: the call fails with `EPERM`.
    Refused,
}

/// Chooses the backend for a `connect()` of a socket (by its cookie) to `key`, and counts the connection; the socket holds its
/// place there from now on.
#[inline(always)]
pub fn connect<const W: usize, H: Holder, T: Tables>(
    key: &SocketKey<W>,
    cookie: u64,
    socket: &H,
    tables: &T,
) -> Connect<W>
where
    Address<W>: Family<W>,
{
    let Some(service) = local(key, tables) else {
        elsewhere(key, socket, tables);
        return Connect::Unchanged;
    };
    let Ok(slot) = held::take(&service, socket, tables) else { return Connect::Refused };
    tables.count_backend(service.slot, slot, 1, 0, 0);
    given(key, slot, cookie, true, tables)
}

/// A socket that had a place goes to an address that is no VIP: it gives its place back.
///
/// While the programs are replaced, both generations of them run for one call: the later one meets the backend's address, which
/// the earlier one has set.
#[inline(always)]
fn elsewhere<const W: usize, H: Holder, T: Tables>(key: &SocketKey<W>, socket: &H, tables: &T)
where
    Address<W>: Family<W>,
{
    let Some(slot) = socket.held().slot() else { return };
    let is_there = tables
        .backend(slot)
        .is_some_and(|backend| backend.port == key.port && Address::<W>::backend_address(&backend) == key.address);
    if !is_there {
        held::give_back(socket, tables);
    }
}

/// Chooses the backend for a datagram that a socket sends to `key` without being connected. It stays with the backend that it
/// was given before, as a flow on the wire does, as long as it is a member and the socket goes on sending. A socket holds one
/// place, at the backend that it was given last, until it is closed.
#[inline(always)]
pub fn send<const W: usize, H: Holder, T: Tables>(key: &SocketKey<W>, cookie: u64, socket: &H, tables: &T) -> Connect<W>
where
    Address<W>: Family<W>,
{
    let Some(service) = local(key, tables) else { return Connect::Unchanged };
    let (asked, now_ns) = (Peer::new(cookie, *key), tables.now_ns());
    let (slot, age_ns) = match Address::<W>::chosen(tables, &asked) {
        Some(stuck) => (stuck.backend, now_ns.saturating_sub(stuck.last_seen_ns)),
        None => (0, u64::MAX),
    };
    let member = |slot| {
        tables.backend(slot).is_some_and(|backend| backend.state == BACKEND_MEMBER && backend.service == service.slot)
    };
    if age_ns <= UDP_IDLE_NS && member(slot) {
        let stale = age_ns > REFRESH_NS;
        if stale {
            Address::<W>::choose(tables, &asked, Stuck { backend: slot, _pad: 0, last_seen_ns: now_ns });
        }
        return given(key, slot, cookie, stale, tables);
    }
    let Ok(slot) = held::take(&service, socket, tables) else { return Connect::Refused };
    tables.count_backend(service.slot, slot, 1, 0, 0);
    Address::<W>::choose(tables, &asked, Stuck { backend: slot, _pad: 0, last_seen_ns: now_ns });
    given(key, slot, cookie, true, tables)
}

/// What a socket had asked for, when it was given this end: what its program is told instead.
#[inline(always)]
pub fn asked<const W: usize, T: Tables>(end: &SocketKey<W>, cookie: u64, tables: &T) -> Option<SocketKey<W>>
where
    Address<W>: Family<W>,
{
    Address::<W>::asked(tables, &Peer::new(cookie, *end))
}

/// The service for local sockets at an address.
#[inline(always)]
fn local<const W: usize, T: Tables>(key: &SocketKey<W>, tables: &T) -> Option<Service>
where
    Address<W>: Family<W>,
{
    Address::<W>::service(tables, key).filter(|service| service.flags & SERVICE_LOCAL != 0)
}

/// The backend's end, remembered with what was asked for.
#[inline(always)]
fn given<const W: usize, T: Tables>(
    key: &SocketKey<W>,
    slot: u32,
    cookie: u64,
    remember: bool,
    tables: &T,
) -> Connect<W>
where
    Address<W>: Family<W>,
{
    let Some(backend) = tables.backend(slot) else { return Connect::Refused };
    let (address, port) = (Address::<W>::backend_address(&backend), backend.port);
    if remember {
        let end = SocketKey::new(address, port, key.protocol);
        Address::<W>::ask(tables, &Peer::new(cookie, end), key);
    }
    Connect::Backend { address, port }
}
