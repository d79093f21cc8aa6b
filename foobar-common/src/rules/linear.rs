//! The slow matcher: walks the rules one by one. It is the oracle of the compiled ones, and explains plans.

use std::net::IpAddr;

use super::{Protocol, Rule, covers};
use crate::parse::{ICMP, ICMPV6, TCP, UDP};

/// The fields of a packet that rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port of TCP and UDP.
    pub port: u16,
    /// Type of ICMP and ICMPv6.
    pub icmp_type: u8,
}

/// Index of the first rule that matches.
#[must_use]
pub fn first_match(rules: &[Rule], fields: &Fields) -> Option<usize> {
    rules.iter().position(|rule| matches(rule, fields))
}

/// Whether one rule matches.
#[must_use]
pub fn matches(rule: &Rule, fields: &Fields) -> bool {
    covers(&rule.sources.prefixes, fields.source)
        && covers(&rule.destinations.prefixes, fields.destination)
        && protocol_matches(&rule.protocol, fields)
}

fn protocol_matches(protocol: &Protocol, fields: &Fields) -> bool {
    let in_family = |number| fields.protocol == number && fields.source.is_ipv4() == (number == ICMP);
    match protocol {
        Protocol::Any => true,
        Protocol::Tcp(ports) => fields.protocol == TCP && in_ranges(ports, fields.port),
        Protocol::Udp(ports) => fields.protocol == UDP && in_ranges(ports, fields.port),
        Protocol::Icmp(types) => in_family(ICMP) && (types.is_empty() || types.contains(&fields.icmp_type)),
        Protocol::Icmpv6(types) => in_family(ICMPV6) && (types.is_empty() || types.contains(&fields.icmp_type)),
        Protocol::Number(number) => fields.protocol == *number,
    }
}

fn in_ranges(ranges: &[std::ops::RangeInclusive<u16>], port: u16) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| range.contains(&port))
}
