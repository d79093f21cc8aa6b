//! What a frame is, by `etherparse` and by the text of the RFCs: nothing is shared with the packet path's parser.

use std::net::IpAddr;

use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
    TcpHeaderSlice, UdpHeaderSlice,
};
use foobar_common::verdict::Reason;

/// Extension headers at the most.
const HEADERS: usize = 8;
/// The transport header begins within so many bytes of the frame.
const DEPTH: usize = 255;

/// What rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol behind all extension headers.
    pub protocol: u8,
    /// Source and destination port; zeroes without.
    pub ports: (u16, u16),
    /// TCP flags, the low six.
    pub flags: u8,
    /// Type of the family's ICMP.
    pub icmp_type: u8,
}

/// What a frame carries; an error is a verdict that no rule is asked for.
pub fn read(frame: &[u8]) -> Result<Seen, Reason> {
    let mut at = 12;
    for tags in 0.. {
        let kind = frame.get(at..at + 2).ok_or(Reason::Truncated)?;
        at += 2;
        match u16::from_be_bytes([kind[0], kind[1]]) {
            0x8100 | 0x88a8 if tags == 2 => return Err(Reason::VlanDepth),
            0x8100 | 0x88a8 => at += 2,
            0x0800 => return ipv4(&frame[at..]),
            0x86dd => return ipv6(&frame[at..], at),
            0x0806 => return Err(Reason::Arp),
            0x8809 => return Err(Reason::SlowProtocol),
            _ => break,
        }
    }
    Err(Reason::EtherType)
}

fn ipv4(packet: &[u8]) -> Result<Seen, Reason> {
    if packet.len() < 20 {
        return Err(Reason::Truncated);
    }
    // Options may be cut off, so that the library refuses the header: it has some, and that is reason enough.
    let words = packet[0] & 15;
    let plain = [&[0x45], &packet[1..20]].concat();
    let header = Ipv4HeaderSlice::from_slice(&plain).map_err(|_| Reason::IpHeader)?;
    let total = usize::from(header.total_len());
    if packet[0] >> 4 != 4 || words < 5 || total < 20 || total > packet.len() {
        return Err(Reason::IpHeader);
    }
    if words > 5 {
        return Err(Reason::IpOptions);
    }
    let protocol = header.protocol();
    if header.is_fragmenting_payload() {
        return Err(fragment(header.fragments_offset().value(), protocol));
    }
    let ends = (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()));
    transport(ends, protocol, &packet[20..total], IpNumber::ICMP)
}

/// The reason for which a fragment is dropped, by its offset in units of eight bytes and by what was cut.
fn fragment(offset: u16, cut: IpNumber) -> Reason {
    let header = if cut == IpNumber::TCP { 20 } else { 8 };
    match usize::from(offset) * 8 {
        0 => Reason::FragmentFirst,
        bytes if bytes < header => Reason::FragmentOverlap,
        _ => Reason::FragmentLater,
    }
}

fn ipv6(packet: &[u8], network: usize) -> Result<Seen, Reason> {
    if packet.len() < 40 {
        return Err(Reason::Truncated);
    }
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| Reason::IpHeader)?;
    let length = usize::from(header.payload_length());
    if length + 40 > usize::from(u16::MAX) {
        return Err(Reason::IpHeader);
    }
    let payload = packet[40..].get(..length).ok_or(Reason::IpHeader)?;
    let (protocol, chain) = walk(header.next_header(), payload, DEPTH.saturating_sub(network + 40))?;
    let ends = (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()));
    transport(ends, protocol, &payload[chain..], IpNumber::IPV6_ICMP)
}

/// The protocol behind the extension headers, and their length; `depth`: where the last of them ends at the latest.
fn walk(first: IpNumber, payload: &[u8], depth: usize) -> Result<(IpNumber, usize), Reason> {
    let (mut next, mut length) = (first, 0);
    let bad = Reason::IpExtension;
    for count in 0..=HEADERS {
        // ESP hides what it carries, so it is a protocol; numbers for experiments are, too. "No next header" carries nothing.
        if length > depth {
            return Err(bad);
        }
        let is_extension = next.is_ipv6_ext_header_value() && next.0 != 50 && next.0 < 253 || next.0 == 59;
        if !is_extension {
            return Ok((next, length));
        }
        let rest = &payload[length..];
        if count == HEADERS {
            return Err(bad);
        }
        let (behind, bytes) = match next.0 {
            0 if count == 0 => options(rest)?,
            43 => {
                let header = options(rest)?;
                if rest[3] != 0 {
                    return Err(bad);
                }
                header
            }
            44 => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| bad)?;
                if header.is_fragmenting_payload() {
                    return Err(fragment(header.fragment_offset().value(), header.next_header()));
                }
                (header.next_header(), 8)
            }
            51 => {
                let header = IpAuthHeaderSlice::from_slice(rest).map_err(|_| bad)?;
                (header.next_header(), header.slice().len())
            }
            60 => options(rest)?,
            _ => return Err(bad),
        };
        next = behind;
        length += bytes;
    }
    Err(bad)
}

/// "Next header" and length of a header that counts its length in units of eight bytes.
fn options(rest: &[u8]) -> Result<(IpNumber, usize), Reason> {
    let header = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| Reason::IpExtension)?;
    Ok((header.next_header(), header.slice().len()))
}

fn transport(ends: (IpAddr, IpAddr), protocol: IpNumber, payload: &[u8], icmp: IpNumber) -> Result<Seen, Reason> {
    let mut seen =
        Seen { source: ends.0, destination: ends.1, protocol: protocol.0, ports: (0, 0), flags: 0, icmp_type: 0 };
    let bad = Reason::TransportHeader;
    if protocol == IpNumber::TCP {
        let header = TcpHeaderSlice::from_slice(payload).map_err(|_| bad)?;
        seen.ports = (header.source_port(), header.destination_port());
        seen.flags = header.slice()[13] & 0x3f;
        if !occurs(&header) {
            return Err(Reason::TcpFlags);
        }
    } else if protocol == IpNumber::UDP {
        let header = UdpHeaderSlice::from_slice(payload).map_err(|_| bad)?;
        if usize::from(header.length()) != payload.len() {
            return Err(bad);
        }
        seen.ports = (header.source_port(), header.destination_port());
    } else if protocol == icmp {
        seen.icmp_type = *payload.get(..8).ok_or(bad)?.first().ok_or(bad)?;
    }
    Ok(seen)
}

/// Whether a stack sends such flags: each state of a connection has its own, and URG only with data that may be urgent.
fn occurs(tcp: &TcpHeaderSlice<'_>) -> bool {
    match (tcp.syn(), tcp.rst(), tcp.fin()) {
        (true, false, false) => !(tcp.ack() && tcp.urg()),
        (false, true, false) => !tcp.urg(),
        (false, false, true | false) => tcp.ack(),
        _ => false,
    }
}
