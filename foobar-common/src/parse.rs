//! Headers of a frame: Ethernet, VLAN tags, IPv4 or IPv6, and TCP, UDP or ICMP.
//!
//! Stated verdicts: at most two VLAN tags; IPv6 extension headers are walked, eight at the most and within the frame's
//! first 255 bytes; IPv4 options, source routes and fragments are dropped, each with its own reason; so are lengths that
//! contradict each other and combinations of TCP flags that no stack sends. Nothing here reads past the frame's end.

use crate::address::{Address, Be16, Ipv4, Ipv6, Tuple};
use crate::packet::{MAX_DEPTH, Packet};
use crate::verdict::Reason;
use crate::vlan::Ingress;

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Length of one VLAN tag.
pub const TAG: usize = 4;
/// Length of an IPv4 header without options.
const IPV4: usize = 20;
/// Length of an IPv6 header.
const IPV6: usize = 40;

/// IANA protocol numbers.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;
/// See [`ICMP`].
pub const ICMPV6: u8 = 58;

/// IPv6 extension headers (RFC 8200, RFC 4302).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// Extension headers of one packet at the most.
const EXTENSIONS: usize = 8;

/// TCP flag FIN.
pub const FIN: u8 = 0x01;
/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// TCP flag RST.
pub const RST: u8 = 0x04;
/// TCP flag PSH.
pub const PSH: u8 = 0x08;
/// TCP flag ACK.
pub const ACK: u8 = 0x10;
/// TCP flag URG.
pub const URG: u8 = 0x20;
/// TCP flag ECE.
pub const ECE: u8 = 0x40;
/// TCP flag CWR.
pub const CWR: u8 = 0x80;

/// Bit `f` is set when stacks send packets with the flags `f` (the six low ones; with and without PSH): SYN, SYN-ACK, RST,
/// FIN-ACK, ACK, with URG where it can be. What is none of these is a scan or broken.
const VALID_FLAGS: u64 = {
    let urgent = [SYN | URG, FIN | ACK | URG, ACK | URG];
    let plain = [SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, ACK];
    let mut bits = 0;
    let mut i = 0;
    while i < plain.len() {
        bits |= 1 << plain[i] | 1 << (plain[i] | PSH);
        if i < urgent.len() {
            bits |= 1 << urgent[i] | 1 << (urgent[i] | PSH);
        }
        i += 1;
    }
    bits
};

/// Whether stacks send packets with these TCP flags; others are dropped before the rules.
#[inline(always)]
#[must_use]
pub const fn flags_are_valid(flags: u8) -> bool {
    VALID_FLAGS >> (flags & 0x3f) & 1 != 0
}

/// What an Ethernet frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4 (RFC 791).
    Ipv4,
    /// IPv6 (RFC 8200).
    Ipv6,
    /// ARP (RFC 826).
    Arp,
    /// A slow protocol: the LACP without which a bond has no link (IEEE 802.3, annex 57A).
    Slow,
}

/// Headers of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<const W: usize> {
    /// Offset of the IP header.
    pub network: usize,
    /// Offset of the header behind it.
    pub transport: usize,
    /// Length of the IP packet in bytes.
    pub length: u16,
    /// Time to live, or hop limit.
    pub hops: u8,
    /// TCP flags; 0 for other protocols.
    pub flags: u8,
    /// ICMP or ICMPv6 type; 0 for other protocols.
    pub icmp_type: u8,
    /// How the packet has come; what is parsed does not know.
    pub ingress: Ingress,
    /// Addresses, ports, protocol.
    pub tuple: Tuple<W>,
}

impl<const W: usize> Headers<W> {
    /// Of the SYN that opens a connection.
    #[inline(always)]
    #[must_use]
    pub fn of_syn(tuple: Tuple<W>) -> Self {
        // Two constants side by side would be stored as one word, unaligned, which the verifier refuses on the stack.
        let flags = core::hint::black_box(SYN);
        Self { network: 0, transport: 0, length: 0, hops: 0, flags, icmp_type: 0, ingress: Ingress::default(), tuple }
    }

    /// Whether the packet opens a TCP connection, or is of a protocol without connections.
    #[inline(always)]
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.tuple.protocol != TCP || self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// Whether the frame bears VLAN tags.
    #[inline(always)]
    #[must_use]
    pub const fn tagged(&self) -> bool {
        self.network != ETHERNET
    }
}

/// What the frame carries, and at which offset.
///
/// # Errors
/// [`Reason::Truncated`], [`Reason::VlanDepth`], [`Reason::EtherType`].
#[inline(always)]
pub fn ethernet<P: Packet>(packet: &P) -> Result<(Network, usize), Reason> {
    let mut offset = ETHERNET;
    let mut kind = ether_type(packet, offset)?;
    if is_tag(kind) {
        offset += TAG;
        kind = ether_type(packet, offset)?;
    }
    if is_tag(kind) {
        offset += TAG;
        kind = ether_type(packet, offset)?;
    }
    match kind {
        0x0800 => Ok((Network::Ipv4, offset)),
        0x86dd => Ok((Network::Ipv6, offset)),
        0x0806 => Ok((Network::Arp, offset)),
        0x8809 => Ok((Network::Slow, offset)),
        kind if is_tag(kind) => Err(Reason::VlanDepth),
        _ => Err(Reason::EtherType),
    }
}

/// The EtherType in front of `offset`.
#[inline(always)]
fn ether_type<P: Packet>(packet: &P, offset: usize) -> Result<u16, Reason> {
    packet.load::<2>(offset - 2).map(u16::from_be_bytes).ok_or(Reason::Truncated)
}

/// IEEE 802.1Q and 802.1ad.
#[inline(always)]
const fn is_tag(kind: u16) -> bool {
    kind == 0x8100 || kind == 0x88a8
}

/// Headers of the IPv4 packet at `network`.
///
/// # Errors
/// The reason for which the packet is dropped.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P, network: usize) -> Result<Headers<1>, Reason> {
    let ip = packet.load::<IPV4>(network).ok_or(Reason::Truncated)?;
    let length = u16::from_be_bytes([ip[2], ip[3]]);
    if ip[0] >> 4 != 4 || ip[0] & 0x0f < 5 || !fits(packet, network, length, IPV4) {
        return Err(Reason::IpHeader);
    }
    if ip[0] & 0x0f > 5 {
        return Err(Reason::IpOptions);
    }
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    if fragment & 0x3fff != 0 {
        return Err(fragment_reason(fragment & 0x1fff, ip[9]));
    }
    let transport = network + IPV4;
    let inner = transport_header(packet, transport, ip[9], ICMP, length - IPV4 as u16)?;
    Ok(Headers {
        network,
        transport,
        length,
        hops: ip[8],
        flags: inner.flags,
        icmp_type: inner.icmp_type,
        ingress: Ingress::default(),
        tuple: Tuple::new(
            (Ipv4::from_bytes([ip[12], ip[13], ip[14], ip[15]]), Ipv4::from_bytes([ip[16], ip[17], ip[18], ip[19]])),
            (inner.source_port, inner.destination_port),
            ip[9],
        ),
    })
}

/// Headers of the IPv6 packet at `network`.
///
/// # Errors
/// The reason for which the packet is dropped.
#[inline(always)]
pub fn ipv6<P: Packet>(packet: &P, network: usize) -> Result<Headers<4>, Reason> {
    let ip = packet.load::<8>(network).ok_or(Reason::Truncated)?;
    let source = Address(words(packet, network + 8)?);
    let destination = Address(words(packet, network + 24)?);
    let payload = u16::from_be_bytes([ip[4], ip[5]]);
    let length = payload.checked_add(IPV6 as u16).ok_or(Reason::IpHeader)?;
    if ip[0] >> 4 != 6 || !fits(packet, network, length, IPV6) {
        return Err(Reason::IpHeader);
    }
    let (protocol, transport) = behind_extensions(packet, ip[6], network + IPV6, network + length as usize)?;
    let left = (network + length as usize).checked_sub(transport).ok_or(Reason::IpHeader)? as u16;
    let inner = transport_header(packet, transport, protocol, ICMPV6, left)?;
    Ok(Headers {
        network,
        transport,
        length,
        hops: ip[7],
        flags: inner.flags,
        icmp_type: inner.icmp_type,
        ingress: Ingress::default(),
        tuple: Tuple::new((source, destination), (inner.source_port, inner.destination_port), protocol),
    })
}

/// The protocol behind the extension headers, and its offset; `start` and `end` of the IP packet's payload.
#[inline(always)]
fn behind_extensions<P: Packet>(packet: &P, first: u8, start: usize, end: usize) -> Result<(u8, usize), Reason> {
    let (mut kind, mut offset) = (first, start);
    for walked in 0..=EXTENSIONS {
        if offset > MAX_DEPTH {
            return Err(Reason::IpExtension);
        }
        let units = match kind {
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS if walked == EXTENSIONS => {
                return Err(Reason::IpExtension);
            }
            // Only the first header may be hop-by-hop: others behind it would be hidden from routers.
            HOP_BY_HOP if walked > 0 => return Err(Reason::IpExtension),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8,
            AUTHENTICATION => 4,
            FRAGMENT => 0,
            // No next header, mobility, HIP, shim6: nothing that a site's server answers.
            59 | 135 | 139 | 140 => return Err(Reason::IpExtension),
            _ => return Ok((kind, offset)),
        };
        // A header that the packet's own length cuts; padding behind the packet is none.
        if offset + 8 > end {
            return Err(Reason::IpExtension);
        }
        let header = packet.load::<8>(offset).ok_or(Reason::Truncated)?;
        if kind == FRAGMENT {
            let fragment = u16::from_be_bytes([header[2], header[3]]);
            // Offset 0 and no more to come is a whole packet (RFC 6946).
            if fragment & 0xfff9 != 0 {
                return Err(fragment_reason(fragment >> 3, header[0]));
            }
        }
        // A segment left routes the packet elsewhere; an authentication header has 12 bytes at the least.
        if (kind == ROUTING && header[3] != 0) || (kind == AUTHENTICATION && header[1] == 0) {
            return Err(Reason::IpExtension);
        }
        offset += match units {
            8 => (header[1] as usize + 1) * 8,
            4 => (header[1] as usize + 2) * 4,
            _ => 8,
        };
        if offset > end {
            return Err(Reason::IpExtension);
        }
        kind = header[0];
    }
    Err(Reason::IpExtension)
}

/// Which fragment is dropped: `offset` in units of eight bytes. Ports of later ones are unknown, so none is judged; one
/// that would lie over the transport header is the way to smuggle other ports past a firewall (RFC 1858, RFC 3128).
#[inline(always)]
const fn fragment_reason(offset: u16, protocol: u8) -> Reason {
    match (offset, protocol) {
        (0, _) => Reason::FragmentFirst,
        (1 | 2, TCP) => Reason::FragmentOverlap,
        _ => Reason::FragmentLater,
    }
}

/// The 16 bytes of an IPv6 address as words.
#[inline(always)]
fn words<P: Packet>(packet: &P, offset: usize) -> Result<[u32; 4], Reason> {
    packet.load::<16>(offset).map(|bytes| Ipv6::from_bytes(bytes).0).ok_or(Reason::Truncated)
}

/// Whether an IP packet of `length` bytes with a header of `header` bytes lies within the frame.
#[inline(always)]
fn fits<P: Packet>(packet: &P, network: usize, length: u16, header: usize) -> bool {
    let length = length as usize;
    length >= header && network + length <= packet.length()
}

/// What is read of the header behind IP.
struct Transport {
    source_port: Be16,
    destination_port: Be16,
    flags: u8,
    icmp_type: u8,
}

/// The header at `offset` of a packet whose IP payload has `length` bytes; `icmp` is the family's ICMP.
#[inline(always)]
fn transport_header<P: Packet>(
    packet: &P,
    offset: usize,
    protocol: u8,
    icmp: u8,
    length: u16,
) -> Result<Transport, Reason> {
    let none = Be16::new(0);
    if protocol == TCP {
        let tcp = header::<20, P>(packet, offset, length)?;
        let data = u16::from(tcp[12] >> 4) * 4;
        if data < 20 || data > length {
            return Err(Reason::TransportHeader);
        }
        if !flags_are_valid(tcp[13]) {
            return Err(Reason::TcpFlags);
        }
        let (source_port, destination_port) = ports(tcp[0], tcp[1], tcp[2], tcp[3]);
        return Ok(Transport { source_port, destination_port, flags: tcp[13], icmp_type: 0 });
    }
    if protocol == UDP {
        let udp = header::<8, P>(packet, offset, length)?;
        if u16::from_be_bytes([udp[4], udp[5]]) != length {
            return Err(Reason::TransportHeader);
        }
        let (source_port, destination_port) = ports(udp[0], udp[1], udp[2], udp[3]);
        return Ok(Transport { source_port, destination_port, flags: 0, icmp_type: 0 });
    }
    if protocol == icmp {
        let [icmp_type, ..] = header::<8, P>(packet, offset, length)?;
        return Ok(Transport { source_port: none, destination_port: none, flags: 0, icmp_type });
    }
    Ok(Transport { source_port: none, destination_port: none, flags: 0, icmp_type: 0 })
}

/// The first `N` bytes of a transport header, which both the IP payload and the frame must hold.
#[inline(always)]
fn header<const N: usize, P: Packet>(packet: &P, offset: usize, length: u16) -> Result<[u8; N], Reason> {
    if (length as usize) < N {
        return Err(Reason::TransportHeader);
    }
    packet.load::<N>(offset).ok_or(Reason::Truncated)
}

/// Source and destination port.
#[inline(always)]
const fn ports(a: u8, b: u8, c: u8, d: u8) -> (Be16, Be16) {
    (Be16::from_bytes([a, b]), Be16::from_bytes([c, d]))
}
