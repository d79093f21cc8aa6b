//! A second opinion on the firewall: `etherparse` for headers, a walk over the rules, nothing shared with the packet path.

use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, UdpHeaderSlice};
use foobar_common::rules::{Action, Protocol, Rule};
use foobar_common::verdict::Reason;

/// What rules look at.
#[derive(Clone, Copy, Debug)]
struct Seen {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: (u16, u16),
    icmp_type: u8,
}

/// What the model says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// The reason.
    pub reason: Reason,
    /// The rule that counts it.
    pub rule: Option<usize>,
}

/// Judges a frame; `own`: whether a connection of this host has these ends (source first).
pub fn judge(frame: &[u8], rules: &[Rule], own: impl Fn(u8, (IpAddr, u16), (IpAddr, u16)) -> bool) -> Opinion {
    let seen = match read(frame) {
        Ok(seen) => seen,
        Err(reason) => return Opinion { reason, rule: None },
    };
    if let Some(rule) = rules.iter().position(|rule| matches(rule, &seen)) {
        let reason = if rules[rule].action == Action::Allow { Reason::RuleAllow } else { Reason::RuleDeny };
        return Opinion { reason, rule: Some(rule) };
    }
    let own = own(seen.protocol, (seen.source, seen.ports.0), (seen.destination, seen.ports.1));
    Opinion { reason: if own { Reason::OwnConnection } else { Reason::NoRule }, rule: None }
}

fn read(frame: &[u8]) -> Result<Seen, Reason> {
    let mut rest = frame.get(12..).ok_or(Reason::Truncated)?;
    let mut tags = 0;
    loop {
        let (kind, behind) = rest.split_first_chunk::<2>().ok_or(Reason::Truncated)?;
        match u16::from_be_bytes(*kind) {
            0x8100 | 0x88a8 if tags == 2 => return Err(Reason::VlanDepth),
            0x8100 | 0x88a8 => {
                tags += 1;
                rest = behind.get(2..).ok_or(Reason::Truncated)?;
            }
            0x0800 => return ipv4(behind),
            0x86dd => return ipv6(behind),
            0x0806 => return Err(Reason::Arp),
            _ => return Err(Reason::EtherType),
        }
    }
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
    if header.is_fragmenting_payload() {
        return Err(Reason::FragmentFirst);
    }
    let ends = (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()));
    transport(ends, header.protocol().0, &packet[20..total], 1)
}

fn ipv6(packet: &[u8]) -> Result<Seen, Reason> {
    if packet.len() < 40 {
        return Err(Reason::Truncated);
    }
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| Reason::IpHeader)?;
    let payload = packet[40..].get(..usize::from(header.payload_length())).ok_or(Reason::IpHeader)?;
    if usize::from(header.payload_length()) + 40 > usize::from(u16::MAX) {
        return Err(Reason::IpHeader);
    }
    let next = header.next_header();
    if next == etherparse::IpNumber::IPV6_FRAGMENTATION_HEADER {
        return Err(Reason::FragmentFirst);
    }
    // ESP hides what it carries, so it is a protocol and no extension; "no next header" carries nothing.
    if next.0 == 59 || next.is_ipv6_ext_header_value() && next.0 != 50 && next.0 < 253 {
        return Err(Reason::IpExtension);
    }
    let ends = (IpAddr::V6(header.source_addr()), IpAddr::V6(header.destination_addr()));
    transport(ends, next.0, payload, 58)
}

fn transport(ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8], icmp: u8) -> Result<Seen, Reason> {
    let mut seen = Seen { source: ends.0, destination: ends.1, protocol, ports: (0, 0), icmp_type: 0 };
    let bad = Reason::TransportHeader;
    if protocol == 6 {
        let header = TcpHeaderSlice::from_slice(payload).map_err(|_| bad)?;
        seen.ports = (header.source_port(), header.destination_port());
    } else if protocol == 17 {
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

fn matches(rule: &Rule, seen: &Seen) -> bool {
    let within =
        |nets: &[ipnet::IpNet], address: IpAddr| nets.is_empty() || nets.iter().any(|net| holds(*net, address));
    let port = |ranges: &[std::ops::RangeInclusive<u16>]| {
        ranges.is_empty() || ranges.iter().any(|range| *range.start() <= seen.ports.1 && seen.ports.1 <= *range.end())
    };
    let kind = |types: &[u8]| types.is_empty() || types.contains(&seen.icmp_type);
    let protocol = match &rule.protocol {
        Protocol::Any => true,
        Protocol::Tcp(ranges) => seen.protocol == 6 && port(ranges),
        Protocol::Udp(ranges) => seen.protocol == 17 && port(ranges),
        Protocol::Icmp(types) => seen.protocol == 1 && seen.source.is_ipv4() && kind(types),
        Protocol::Icmpv6(types) => seen.protocol == 58 && seen.source.is_ipv6() && kind(types),
        Protocol::Number(number) => seen.protocol == *number,
    };
    protocol && within(&rule.sources.prefixes, seen.source) && within(&rule.destinations.prefixes, seen.destination)
}

/// Whether a prefix holds an address, bit by bit.
fn holds(net: ipnet::IpNet, address: IpAddr) -> bool {
    let (a, b, bits) = match (net.addr(), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (u128::from(a.to_bits()) << 96, u128::from(b.to_bits()) << 96, net.prefix_len())
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), net.prefix_len()),
        _ => return false,
    };
    bits == 0 || (a ^ b) >> (128 - u32::from(bits)) == 0
}
