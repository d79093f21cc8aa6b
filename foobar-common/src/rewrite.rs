//! NAT: addresses, ports, hop count and checksums in place, then the next hop's MAC addresses.
//!
//! Checksums are changed incrementally (RFC 1624); a UDP checksum of zero stays absent in IPv4 (RFC 768).

use crate::address::{Address, Be16, Family};
use crate::checksum::Sum;
use crate::packet::Packet;
use crate::parse::{Headers, TCP};
use crate::tables::{Mac, Route, RouteQuery, Tables};
use crate::verdict::Reason;

/// Which end of the tuple NAT replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The destination: client to backend (DNAT).
    Destination,
    /// The source: backend to client.
    Source,
}

/// The new value of one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<const W: usize> {
    /// Which end.
    pub end: End,
    /// Its new address.
    pub address: Address<W>,
    /// Its new port.
    pub port: Be16,
}

/// The link by which a packet leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Interface index.
    pub interface: u32,
    /// Longest IP packet that the way takes, in bytes.
    pub mtu: u16,
}

/// Translates the packet for its next hop; the link by which it leaves is left in `egress`. Returns [`Reason::Flow`],
/// [`Reason::Neighbour`] when the stack has to forward it, or the reason for which it is dropped; it is then as it came.
///
/// A function of its own: what the route needs of the stack is given back before other stages need theirs.
#[inline(never)]
pub fn forward<const W: usize, P: Packet, T: Tables>(
    packet: &mut P,
    headers: &Headers<W>,
    translation: &Translation<W>,
    egress: &mut Egress,
    tables: &T,
) -> Reason
where
    Address<W>: Family<W>,
{
    if headers.hops <= 1 {
        return Reason::TimeExceeded;
    }
    let query = query(headers, translation);
    let hop = match Address::<W>::route(tables, &query) {
        Route::Hop { interface, source, destination, mtu, .. } => {
            *egress = Egress { interface, mtu };
            Some((source, destination))
        }
        Route::NoNeighbour => None,
        Route::TooBig { .. } => return Reason::TooBig,
        Route::Unreachable => return Reason::Unreachable,
    };
    if translate(packet, headers, translation).is_none() {
        return Reason::Truncated;
    }
    let Some((source, destination)) = hop else {
        // The stack forwards it, counts the hop and resolves the neighbour on the way.
        return Reason::Neighbour;
    };
    readdress(packet, headers, source, destination).map_or(Reason::Truncated, |()| Reason::Flow)
}

/// Sends the packet as it is to the backend whose address is given (direct server return); the link by which it leaves is
/// left in `egress`. Returns [`Reason::Flow`] or the reason for which it is dropped; it is then as it came.
#[inline(never)]
pub fn relay<const W: usize, P: Packet, T: Tables>(
    packet: &mut P,
    headers: &Headers<W>,
    backend: &Address<W>,
    egress: &mut Egress,
    tables: &T,
) -> Reason
where
    Address<W>: Family<W>,
{
    if headers.hops <= 1 {
        return Reason::TimeExceeded;
    }
    let source = headers.tuple.source;
    let (protocol, length) = (headers.tuple.protocol, headers.length);
    let query = RouteQuery { source, destination: *backend, protocol, length, by_source: !is_global(source) };
    match Address::<W>::route(tables, &query) {
        // A router would send the packet, which still bears the VIP, back here.
        Route::Hop { gateway: true, .. } => Reason::OffLink,
        Route::Hop { interface, source, destination, mtu, .. } => {
            *egress = Egress { interface, mtu };
            readdress(packet, headers, source, destination).map_or(Reason::Truncated, |()| Reason::Flow)
        }
        // The stack would take the packet for its own. Health checks keep the neighbours of members resolved.
        Route::NoNeighbour => Reason::NoNeighbour,
        Route::TooBig { .. } => Reason::TooBig,
        Route::Unreachable => Reason::Unreachable,
    }
}

/// Counts the hop, and writes the MAC addresses of the next one.
#[inline(always)]
pub(crate) fn readdress<const W: usize, P: Packet>(
    packet: &mut P,
    headers: &Headers<W>,
    source: Mac,
    destination: Mac,
) -> Option<()> {
    count_hop(packet, headers)?;
    packet.store::<6>(0, destination.bytes())?;
    packet.store::<6>(6, source.bytes())
}

/// The question for the next hop of the translated packet.
#[inline(always)]
pub(crate) fn query<const W: usize>(headers: &Headers<W>, translation: &Translation<W>) -> RouteQuery<W> {
    let (source, destination) = match translation.end {
        End::Source => (translation.address, headers.tuple.destination),
        End::Destination => (headers.tuple.source, translation.address),
    };
    let by_source = translation.end == End::Source || !is_global(source);
    RouteQuery { source, destination, protocol: headers.tuple.protocol, length: headers.length, by_source }
}

/// Whether an address means the same on every link: the kernel forwards nothing from others, so the answer for one source is
/// none for the next.
#[inline(always)]
pub(crate) const fn is_global<const W: usize>(address: Address<W>) -> bool {
    // 2000::/3 and fc00::/7.
    let first = u32::from_be(address.0[0]);
    W == 1 || first >> 29 == 1 || first >> 25 == 0xfc >> 1
}

/// Replaces one end of the tuple, with all checksums.
#[inline(always)]
fn translate<const W: usize, P: Packet>(
    packet: &mut P,
    headers: &Headers<W>,
    translation: &Translation<W>,
) -> Option<()> {
    let tuple = &headers.tuple;
    let (old, old_port) = match translation.end {
        End::Source => (tuple.source, tuple.source_port),
        End::Destination => (tuple.destination, tuple.destination_port),
    };
    let addresses = Sum::new().change_address(old.0, translation.address.0);
    store_address(packet, headers, translation)?;
    if W == 1 {
        update(packet, headers.network + 10, addresses)?;
    }
    let port = headers.transport + if translation.end == End::Source { 0 } else { 2 };
    packet.store::<2>(port, translation.port.bytes())?;
    let change = addresses.change16(u16::from_ne_bytes(old_port.bytes()), u16::from_ne_bytes(translation.port.bytes()));
    if tuple.protocol == TCP {
        return update(packet, headers.transport + 16, change);
    }
    update_udp(packet, headers.transport + 6, change, W == 1)
}

/// Writes the new address into the IP header.
#[inline(always)]
fn store_address<const W: usize, P: Packet>(
    packet: &mut P,
    headers: &Headers<W>,
    translation: &Translation<W>,
) -> Option<()> {
    let (source, destination) = if W == 1 { (12, 16) } else { (8, 24) };
    let offset = headers.network + if translation.end == End::Source { source } else { destination };
    let mut word = 0;
    while word < W {
        packet.store::<4>(offset + word * 4, translation.address.0[word].to_ne_bytes())?;
        word += 1;
    }
    Some(())
}

/// Decrements time to live or hop limit.
#[inline(always)]
fn count_hop<const W: usize, P: Packet>(packet: &mut P, headers: &Headers<W>) -> Option<()> {
    let offset = headers.network + if W == 1 { 8 } else { 7 };
    let hops = headers.hops - 1;
    packet.store::<1>(offset, [hops])?;
    if W == 1 {
        let old = u16::from_ne_bytes([headers.hops, 0]);
        // Hidden from the compiler, which would lead this offset over the one before, where the verifier loses its bounds.
        return update(
            packet,
            core::hint::black_box(headers.network) + 10,
            Sum::new().change16(old, u16::from_ne_bytes([hops, 0])),
        );
    }
    Some(())
}

/// Applies a change to the checksum at `offset`.
#[inline(always)]
pub(crate) fn update<P: Packet>(packet: &mut P, offset: usize, change: Sum) -> Option<()> {
    let old = packet.load::<2>(offset)?;
    packet.store::<2>(offset, change.applied_to(old))
}

/// Applies a change to a UDP checksum.
#[inline(always)]
fn update_udp<P: Packet>(packet: &mut P, offset: usize, change: Sum, may_be_absent: bool) -> Option<()> {
    let old = packet.load::<2>(offset)?;
    packet.store::<2>(offset, change.applied_to_udp(old, may_be_absent))
}
