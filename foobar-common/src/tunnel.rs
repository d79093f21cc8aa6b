//! Tunnels to backends in other networks: IPv4 in IPv4 (RFC 2003) and IPv6 in IPv6 (RFC 2473), never one in the other.
//!
//! The balancer puts a client's packet into one to the backend's own address, whose program takes it out again and judges it
//! as if it had come without.

use crate::abi::{TUNNEL_RECEIVED, TUNNEL_SENT};
use crate::address::{Address, Family};
use crate::checksum::{Sum, put};
use crate::choose;
use crate::generation::{Generation, Tunnels, USES_TUNNELS};
use crate::packet::{Packet, Resize};
use crate::parse::{ETHERNET, Headers, TAG};
use crate::path::{self, Of};
use crate::tables::{Mac, Route, RouteQuery, Tables};
use crate::verdict::{Reason, Stage, Verdict};
use crate::vlan::{self, Tag};

/// IANA protocol number of IPv4 in IP.
pub const IPV4_IN: u8 = 4;
/// IANA protocol number of IPv6 in IP.
pub const IPV6_IN: u8 = 41;
/// Length of the header in front of an IPv4 packet.
pub const OUTER4: usize = 20;
/// Length of the header in front of an IPv6 packet.
pub const OUTER6: usize = 40;

/// No interface has this index.
const NOWHERE: u32 = 0;
/// Time to live of what is sent from here.
const HOPS: u8 = 64;
/// IPv4: this packet may not be cut, in the byte of the flags.
const DONT_FRAGMENT: u8 = 0x40;
/// Congestion was experienced (RFC 3168), in the byte of IPv4's type of service.
const CONGESTED: u8 = 3;
/// No IPv6 host believes in a smaller MTU (RFC 8200, 5).
const LEAST_MTU6: u16 = 1280;
/// What the families do not share.
pub trait Network<const W: usize>: Family<W> {
    /// Protocol number of a tunnel of this family.
    const PROTOCOL: u8;

    /// The address as the tables of tunnels hold it.
    fn mapped(address: Address<W>) -> [u32; 4];
    /// This server's own address.
    fn own(tunnels: &Tunnels) -> Address<W>;
    /// Type of service and traffic class of the header at an offset.
    fn class<P: Packet>(packet: &P, at: usize) -> Option<u8>;
    /// Whether the header at an offset is of this family.
    fn is_at<P: Packet>(packet: &P, at: usize) -> bool;
    /// Destination of the header at an offset.
    fn destination<P: Packet>(packet: &P, at: usize) -> Option<Address<W>>;
    /// Counts a hop in the header at an offset, which has this number of them left.
    fn count_hop<P: Packet>(packet: &mut P, at: usize, hops: u8) -> Option<()>;
    /// Notes in the header at an offset that congestion was experienced.
    fn congest<P: Packet>(packet: &mut P, at: usize, class: u8) -> Option<()>;
    /// Writes a header behind Ethernet's.
    fn write<P: Packet>(packet: &mut P, header: &Outer<W>) -> Option<()>;
}

/// A header that is written here.
#[derive(Clone, Copy, Debug)]
pub struct Outer<const W: usize> {
    /// Source.
    source: Address<W>,
    /// Destination.
    destination: Address<W>,
    /// Bytes behind it.
    payload: u16,
    /// What these are.
    protocol: u8,
    /// Type of service, or traffic class.
    class: u8,
    /// Of the flow: identification and flow label are made from it, so that routers spread flows and not packets (RFC 6438).
    /// A packet that may not be cut needs no other identification (RFC 6864).
    hash: u32,
}

/// A packet that cannot be sent on; of an ICMP error nobody is told.
#[inline(always)]
const fn unsent<const W: usize>(reason: Reason, error: bool) -> Result<Verdict, Reason> {
    if error { Err(reason) } else { path::unsent::<W>(reason) }
}

/// Whether a packet that came here is a tunnel for this server's own program, once the rules have let it in.
#[inline(always)]
pub fn ends_here<const W: usize>(headers: &Headers<W>, generation: &Generation) -> bool {
    generation.uses(USES_TUNNELS) && headers.tuple.protocol == if W == 1 { IPV4_IN } else { IPV6_IN }
}

/// Why a packet that no rule allows is dropped.
#[inline(always)]
pub fn refused<const W: usize>(reason: Reason, headers: &Headers<W>, generation: &Generation) -> Reason {
    let tunnel = matches!(headers.tuple.protocol, IPV4_IN | IPV6_IN) && generation.uses(USES_TUNNELS);
    if tunnel && matches!(reason, Reason::NoRule) { Reason::ForeignTunnel } else { reason }
}

/// Puts a client's packet into a tunnel to its backend, in front of which its VLAN tag goes. `H`: length of the header in front.
#[inline(always)]
pub fn encapsulate<const W: usize, const H: usize, P: Resize, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &mut Of<W>,
) -> Result<Verdict, Reason>
where
    Address<W>: Network<W>,
{
    let headers = &work.headers;
    let error = work.reason == Reason::IcmpError;
    if headers.hops <= 1 {
        return unsent::<W>(Reason::TimeExceeded, error);
    }
    let query = query(tables, work)?;
    let (interface, tag, from, to) = match Address::<W>::route(tables, &query) {
        Route::Hop { interface, tag, source, destination, .. } => (interface, tag, source, destination),
        // No interface; words all the same, for the verifier refuses a register that only one of the ways has set.
        Route::NoNeighbour => (NOWHERE, Tag::NONE, Mac(0), Mac(0)),
        Route::TooBig { .. } => return unsent::<W>(Reason::TooBig, error),
        Route::Unreachable => return Err(Reason::Unreachable),
    };
    (work.egress.interface, work.egress.tag) = (interface, tag);
    if headers.ingress.tag != Tag::NONE {
        vlan::retag(packet, headers.ingress.tag, Tag::NONE)?;
        work.headers.ingress.tag = Tag::NONE;
    }
    let headers = &work.headers;
    let class = Address::<W>::class(packet, ETHERNET).ok_or(Reason::Truncated)?;
    Address::<W>::count_hop(packet, ETHERNET, headers.hops).ok_or(Reason::Truncated)?;
    let hash = choose::hash(&headers.tuple);
    // Without a neighbour the stack forwards it, and knows by these addresses that it is the stack's.
    let before = packet.load::<ETHERNET>(0).ok_or(Reason::Truncated)?;
    packet.push(H).ok_or(Reason::Internal)?;
    packet.store::<ETHERNET>(0, before).ok_or(Reason::Internal)?;
    if interface != NOWHERE {
        packet.store::<6>(0, to.bytes()).ok_or(Reason::Internal)?;
        packet.store::<6>(6, from.bytes()).ok_or(Reason::Internal)?;
    }
    let RouteQuery { source, destination, protocol, .. } = query;
    let outer = Outer { source, destination, payload: headers.length, protocol, class, hash };
    Address::<W>::write(packet, &outer).ok_or(Reason::Internal)?;
    tables.count_tunnel(TUNNEL_SENT, work.bytes());
    if interface == NOWHERE {
        return Ok(Verdict::Pass(Reason::Neighbour));
    }
    Ok(path::leave(work, work.reason))
}

/// The question for the next hop of a packet that a tunnel takes.
///
/// # Errors
/// [`Reason::TooBig`] or [`Reason::Internal`].
#[inline(always)]
pub fn query<const W: usize, T: Tables>(tables: &T, work: &Of<W>) -> Result<RouteQuery<W>, Reason>
where
    Address<W>: Network<W>,
{
    let generation = tables.generation().ok_or(Reason::Internal)?;
    let (source, destination) = (Address::<W>::own(&generation.tunnels), work.translation.to.destination);
    let length = work.headers.length.checked_add(if W == 1 { OUTER4 } else { OUTER6 } as u16).ok_or(Reason::TooBig)?;
    let (ingress, protocol) = (work.headers.ingress.device, Address::<W>::PROTOCOL);
    Ok(RouteQuery { ingress, source, destination, protocol, length, by_source: false })
}

/// Longest packet in a tunnel whose way takes so many bytes.
#[inline(always)]
#[must_use]
pub const fn inside<const W: usize>(mtu: u16) -> u16 {
    if W == 1 {
        return mtu.saturating_sub(OUTER4 as u16);
    }
    let mtu = mtu.saturating_sub(OUTER6 as u16);
    if mtu < LEAST_MTU6 { LEAST_MTU6 } else { mtu }
}

/// Takes a packet out of a tunnel, which then begins its way anew: its destination is a VIP, at which no tunnel ends, so none
/// is ever inside another.
#[inline(always)]
pub fn decapsulate<const W: usize, const H: usize, P: Resize, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &Of<W>,
) -> Result<Verdict, Reason>
where
    Address<W>: Network<W>,
{
    let headers = &work.headers;
    let generation = tables.generation().ok_or(Reason::Internal)?;
    let Tunnels { peers, peer_count, .. } = &generation.tunnels;
    let ours = Address::<W>::own(&generation.tunnels) == headers.tuple.destination
        && holds(peers, *peer_count, Address::<W>::mapped(headers.tuple.source));
    if !ours {
        // A rule of the file's own has let it in, for the stack.
        return Ok(Verdict::Pass(Reason::RuleAllow));
    }
    if headers.transport != headers.network + H {
        return Err(Reason::TunnelInner);
    }
    // Each with an offset that the compiler knows.
    match headers.network {
        ETHERNET => open::<W, H, ETHERNET, P>(packet, generation)?,
        TAGGED => open::<W, H, TAGGED, P>(packet, generation)?,
        DOUBLY_TAGGED => open::<W, H, DOUBLY_TAGGED, P>(packet, generation)?,
        _ => return Err(Reason::Internal),
    }
    tables.count_tunnel(TUNNEL_RECEIVED, work.bytes());
    Ok(Verdict::Stage(if W == 1 { Stage::Path4 } else { Stage::Path6 }))
}

/// Offset of the IP header behind one VLAN tag.
const TAGGED: usize = ETHERNET + TAG;
/// The same behind two.
const DOUBLY_TAGGED: usize = TAGGED + TAG;

/// Takes the header at offset `N` away.
#[inline(always)]
fn open<const W: usize, const H: usize, const N: usize, P: Resize>(
    packet: &mut P,
    generation: &Generation,
) -> Result<(), Reason>
where
    Address<W>: Network<W>,
{
    let Tunnels { vips, vip_count, .. } = &generation.tunnels;
    let destination = Address::<W>::destination(packet, N + H).ok_or(Reason::TunnelInner)?;
    if !Address::<W>::is_at(packet, N + H) || !holds(vips, *vip_count, Address::<W>::mapped(destination)) {
        return Err(Reason::TunnelInner);
    }
    let outer = Address::<W>::class(packet, N).ok_or(Reason::Truncated)?;
    let inner = Address::<W>::class(packet, N + H).ok_or(Reason::Truncated)?;
    // RFC 6040, 4.2: who cannot be told of congestion loses the packet.
    match (outer & CONGESTED, inner & CONGESTED) {
        (CONGESTED, 0) => return Err(Reason::TunnelInner),
        (CONGESTED, 1 | 2) => Address::<W>::congest(packet, N + H, inner).ok_or(Reason::Truncated)?,
        _ => {}
    }
    let head = packet.load::<N>(0).ok_or(Reason::Truncated)?;
    packet.store::<N>(H, head).ok_or(Reason::Truncated)?;
    packet.pull(H).ok_or(Reason::Internal)
}

/// What of an MTU is left for packets to an address of this server, which may have come out of a tunnel.
#[inline(always)]
pub fn room<const W: usize>(generation: &Generation, address: Address<W>, mtu: u32) -> u32
where
    Address<W>: Network<W>,
{
    let Tunnels { vips, vip_count, .. } = &generation.tunnels;
    if !generation.uses(USES_TUNNELS) || !holds(vips, *vip_count, Address::<W>::mapped(address)) {
        return mtu;
    }
    mtu.saturating_sub(if W == 1 { OUTER4 } else { OUTER6 } as u32)
}

/// Whether an address is one of the first of a list.
#[inline(always)]
pub fn holds<const N: usize>(list: &[[u32; 4]; N], count: u32, address: [u32; 4]) -> bool {
    let mut place = 0;
    while place < N && place < count as usize {
        let [a, b, c, d] = list[place];
        if (a ^ address[0]) | (b ^ address[1]) | (c ^ address[2]) | (d ^ address[3]) == 0 {
            return true;
        }
        place += 1;
    }
    false
}

impl Network<1> for Address<1> {
    const PROTOCOL: u8 = IPV4_IN;

    #[inline(always)]
    fn mapped(address: Self) -> [u32; 4] {
        [0, 0, 0xffff_u32.to_be(), address.0[0]]
    }

    #[inline(always)]
    fn own(tunnels: &Tunnels) -> Self {
        Self([tunnels.own[0][3]])
    }

    #[inline(always)]
    fn class<P: Packet>(packet: &P, at: usize) -> Option<u8> {
        packet.load::<1>(at + 1).map(|[class]| class)
    }

    #[inline(always)]
    fn is_at<P: Packet>(packet: &P, at: usize) -> bool {
        packet.load::<1>(at).is_some_and(|[first]| first >> 4 == 4)
    }

    #[inline(always)]
    fn destination<P: Packet>(packet: &P, at: usize) -> Option<Self> {
        packet.load::<4>(at + 16).map(Self::from_bytes)
    }

    #[inline(always)]
    fn count_hop<P: Packet>(packet: &mut P, at: usize, hops: u8) -> Option<()> {
        packet.store::<1>(at + 8, [hops - 1])?;
        let change = Sum::new().change16(u16::from_ne_bytes([hops, 0]), u16::from_ne_bytes([hops - 1, 0]));
        let old = packet.load::<2>(at + 10)?;
        packet.store::<2>(at + 10, change.applied_to(old))
    }

    #[inline(always)]
    fn congest<P: Packet>(packet: &mut P, at: usize, class: u8) -> Option<()> {
        let new = class | CONGESTED;
        packet.store::<1>(at + 1, [new])?;
        let change = Sum::new().change16(u16::from_ne_bytes([0, class]), u16::from_ne_bytes([0, new]));
        let old = packet.load::<2>(at + 10)?;
        packet.store::<2>(at + 10, change.applied_to(old))
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &mut P, header: &Outer<1>) -> Option<()> {
        let first = 0x4500_0000 | u32::from(header.class) << 16 | (u32::from(header.payload) + OUTER4 as u32);
        let second = (header.hash & 0xffff) << 16 | u32::from(DONT_FRAGMENT) << 8;
        let third = u32::from(HOPS) << 24 | u32::from(header.protocol) << 16;
        let mut sum = put(packet, ETHERNET, first.to_be(), Sum::new())?;
        sum = put(packet, ETHERNET + 4, second.to_be(), sum)?;
        sum = put(packet, ETHERNET + 8, third.to_be(), sum)?;
        sum = put(packet, ETHERNET + 12, header.source.0[0], sum)?;
        sum = put(packet, ETHERNET + 16, header.destination.0[0], sum)?;
        packet.store::<2>(ETHERNET + 10, sum.checksum())
    }
}

impl Network<4> for Address<4> {
    const PROTOCOL: u8 = IPV6_IN;

    #[inline(always)]
    fn mapped(address: Self) -> [u32; 4] {
        address.0
    }

    #[inline(always)]
    fn own(tunnels: &Tunnels) -> Self {
        Self(tunnels.own[1])
    }

    #[inline(always)]
    fn class<P: Packet>(packet: &P, at: usize) -> Option<u8> {
        packet.load::<2>(at).map(|[first, second]| first << 4 | second >> 4)
    }

    #[inline(always)]
    fn is_at<P: Packet>(packet: &P, at: usize) -> bool {
        packet.load::<1>(at).is_some_and(|[first]| first >> 4 == 6)
    }

    #[inline(always)]
    fn destination<P: Packet>(packet: &P, at: usize) -> Option<Self> {
        packet.load::<16>(at + 24).map(Self::from_bytes)
    }

    #[inline(always)]
    fn count_hop<P: Packet>(packet: &mut P, at: usize, hops: u8) -> Option<()> {
        packet.store::<1>(at + 7, [hops - 1])
    }

    #[inline(always)]
    fn congest<P: Packet>(packet: &mut P, at: usize, class: u8) -> Option<()> {
        let [second] = packet.load::<1>(at + 1)?;
        packet.store::<1>(at + 1, [(class | CONGESTED) << 4 | second & 0x0f])
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &mut P, header: &Outer<4>) -> Option<()> {
        let first = 0x6000_0000 | u32::from(header.class) << 20 | header.hash & 0x000f_ffff;
        let second = u32::from(header.payload) << 16 | u32::from(header.protocol) << 8 | u32::from(HOPS);
        packet.store::<4>(ETHERNET, first.to_be_bytes())?;
        packet.store::<4>(ETHERNET + 4, second.to_be_bytes())?;
        let ([a, b, c, d], [e, f, g, h]) = (header.source.0, header.destination.0);
        packet.store::<4>(ETHERNET + 8, a.to_ne_bytes())?;
        packet.store::<4>(ETHERNET + 12, b.to_ne_bytes())?;
        packet.store::<4>(ETHERNET + 16, c.to_ne_bytes())?;
        packet.store::<4>(ETHERNET + 20, d.to_ne_bytes())?;
        packet.store::<4>(ETHERNET + 24, e.to_ne_bytes())?;
        packet.store::<4>(ETHERNET + 28, f.to_ne_bytes())?;
        packet.store::<4>(ETHERNET + 32, g.to_ne_bytes())?;
        packet.store::<4>(ETHERNET + 36, h.to_ne_bytes())
    }
}
