//! NAT: one end or both, addresses, ports, hop count and checksums in place, then the next hop's MAC addresses.
//!
//! Checksums are changed incrementally (RFC 1624); a UDP checksum of zero stays absent in IPv4 (RFC 768).

use core::hint::black_box;

use crate::address::{Address, Be16, Family, Tuple};
use crate::checksum::Sum;
use crate::packet::Packet;
use crate::parse::{Headers, TCP};
use crate::tables::{Mac, Route, RouteQuery, Tables};
use crate::verdict::Reason;
use crate::vlan::Tag;

/// The ends that a packet is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<const W: usize> {
    /// Its new tuple, of which one end may be as it was; the protocol is not looked at.
    pub to: Tuple<W>,
    /// Whether the way may depend on the source: that of a reply does.
    pub by_source: bool,
}

/// The link by which a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Interface index.
    pub interface: u32,
    /// Longest IP packet that the way takes, in bytes.
    pub mtu: u16,
    /// The tag under which it leaves.
    pub tag: Tag,
    /// MAC address of this host there.
    pub source: Mac,
    /// MAC address of the next hop.
    pub destination: Mac,
}

impl Egress {
    /// Not asked for yet.
    #[must_use]
    pub const fn nowhere() -> Self {
        Self { interface: 0, mtu: 0, tag: Tag::NONE, source: Mac(0), destination: Mac(0) }
    }
}

/// Translates the packet for its next hop; the link by which it leaves is left in `egress`. Returns [`Reason::Flow`],
/// [`Reason::Neighbour`] when the stack has to forward it, or the reason for which it is dropped; it is then as it came.
///
/// The way and the translation are functions of their own, one after the other: the kernel's stack has no room for both at once.
#[inline(always)]
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
    // What has no neighbour yet the stack forwards: it counts the hop and resolves the neighbour on the way.
    let way = match way(headers, translation, egress, tables) {
        Reason::OffLink => Reason::Flow,
        way => way,
    };
    if !matches!(way, Reason::Flow | Reason::NoNeighbour) {
        return way;
    }
    if !translate(packet, headers, translation) {
        return Reason::Truncated;
    }
    match way {
        Reason::NoNeighbour => Reason::Neighbour,
        _ => readdress(packet, headers, egress.source, egress.destination).map_or(Reason::Truncated, |()| Reason::Flow),
    }
}

/// Sends the packet as it is to the backend that `translation` leads to (direct server return); the link by which it leaves is
/// left in `egress`. Returns [`Reason::Flow`] or the reason for which it is dropped; it is then as it came.
#[inline(always)]
pub fn relay<const W: usize, P: Packet, T: Tables>(
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
    match way(headers, translation, egress, tables) {
        Reason::Flow => {
            readdress(packet, headers, egress.source, egress.destination).map_or(Reason::Truncated, |()| Reason::Flow)
        }
        // A router would send the packet, which still bears the VIP, back here. One without a neighbour the stack would take for
        // its own; health checks keep the neighbours of members resolved.
        reason => reason,
    }
}

/// The way of the translated packet, left in `egress`: [`Reason::Flow`] to its destination's own link, [`Reason::OffLink`] by a
/// router, [`Reason::NoNeighbour`], or why there is none.
#[inline(never)]
fn way<const W: usize, T: Tables>(
    headers: &Headers<W>,
    translation: &Translation<W>,
    egress: &mut Egress,
    tables: &T,
) -> Reason
where
    Address<W>: Family<W>,
{
    let query = query(headers, translation);
    match Address::<W>::route(tables, &query) {
        Route::Hop { interface, tag, source, destination, gateway, mtu } => {
            // Field by field: a copy of the whole would be a call.
            (egress.interface, egress.mtu, egress.tag) = (interface, mtu, tag);
            (egress.source, egress.destination) = (source, destination);
            if gateway { Reason::OffLink } else { Reason::Flow }
        }
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
    let (source, destination) = (translation.to.source, translation.to.destination);
    let by_source = translation.by_source || !is_global(source);
    let (ingress, protocol, length) = (headers.ingress.device, headers.tuple.protocol, headers.length);
    RouteQuery { ingress, source, destination, protocol, length, by_source }
}

/// Whether an address means the same on every link: the kernel forwards nothing from others, so the answer for one source is
/// none for the next.
#[inline(always)]
pub(crate) const fn is_global<const W: usize>(address: Address<W>) -> bool {
    // 2000::/3 and fc00::/7.
    let first = u32::from_be(address.0[0]);
    W == 1 || first >> 29 == 1 || first >> 25 == 0xfc >> 1
}

/// Replaces the tuple, with all checksums; false: the frame is shorter than its headers said.
#[inline(never)]
fn translate<const W: usize, P: Packet>(packet: &mut P, headers: &Headers<W>, translation: &Translation<W>) -> bool
where
    Address<W>: Family<W>,
{
    replace(packet, headers, translation).is_some()
}

/// See [`translate`]. An end that stays adds nothing to the checksums: ones to a sum of ones.
#[inline(always)]
fn replace<const W: usize, P: Packet>(packet: &mut P, headers: &Headers<W>, translation: &Translation<W>) -> Option<()>
where
    Address<W>: Family<W>,
{
    let (old, new) = (&headers.tuple, &translation.to);
    let addresses =
        Sum::new().change_address(old.source.0, new.source.0).change_address(old.destination.0, new.destination.0);
    // Hidden from the compiler each time, which would lead one offset over another, where the verifier loses its bounds.
    let (network, transport) = (headers.network, || black_box(headers.transport));
    let first = network + if W == 1 { 12 } else { 8 };
    new.source.store(packet, first)?;
    new.destination.store(packet, black_box(first) + W * 4)?;
    if W == 1 {
        update(packet, black_box(network) + 10, addresses)?;
    }
    packet.store::<2>(transport(), new.source_port.bytes())?;
    packet.store::<2>(transport() + 2, new.destination_port.bytes())?;
    let change = change_port(addresses, old.source_port, new.source_port);
    let change = change_port(change, old.destination_port, new.destination_port);
    if old.protocol == TCP {
        return update(packet, transport() + 16, change);
    }
    update_udp(packet, transport() + 6, change, W == 1)
}

/// Notes that a port changes.
#[inline(always)]
const fn change_port(sum: Sum, old: Be16, new: Be16) -> Sum {
    sum.change16(u16::from_ne_bytes(old.bytes()), u16::from_ne_bytes(new.bytes()))
}

/// Decrements time to live or hop limit.
#[inline(always)]
fn count_hop<const W: usize, P: Packet>(packet: &mut P, headers: &Headers<W>) -> Option<()> {
    let offset = headers.network + if W == 1 { 8 } else { 7 };
    let hops = headers.hops - 1;
    packet.store::<1>(offset, [hops])?;
    if W == 1 {
        let old = u16::from_ne_bytes([headers.hops, 0]);
        // Hidden as in `translate`.
        return update(
            packet,
            black_box(headers.network) + 10,
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
