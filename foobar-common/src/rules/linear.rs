//! The slow matcher: walks the rules one by one. It is the oracle of the compiled ones, and explains plans.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{Action, Limit, Limited, Places, Protocol, Rule};
use crate::parse::{ICMP, ICMPV6, TCP, UDP};

/// Bits of TCP flags that make a packet the first of a connection, when ACK is not set.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The prefixes of each named set; one that is missing is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(pub BTreeMap<String, Vec<IpNet>>);

static NO_MEMBERS: Members = Members(BTreeMap::new());

impl Members {
    /// Whether the set of this name holds the address.
    #[must_use]
    pub fn hold(&self, set: &str, address: IpAddr) -> bool {
        self.0.get(set).is_some_and(|prefixes| prefixes.iter().any(|prefix| prefix.contains(&address)))
    }
}

/// The fields of a packet that rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port of TCP and UDP.
    pub source_port: u16,
    /// Destination port of TCP and UDP.
    pub port: u16,
    /// Type of ICMP and ICMPv6.
    pub icmp_type: u8,
    /// TCP flags as in the header.
    pub flags: u8,
    /// Interface by which the packet came.
    pub interface: &'a str,
    /// What the named sets hold.
    pub sets: &'a Members,
}

impl Fields<'static> {
    /// A packet of a protocol between two addresses, everything else zero; narrowed with `..Fields::between(…)`.
    #[must_use]
    pub fn between(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            source_port: 0,
            port: 0,
            icmp_type: 0,
            flags: 0,
            interface: "",
            sets: &NO_MEMBERS,
        }
    }
}

/// What a walk over the rules comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Shadow rules that would have dropped the packet, in order.
    pub shadowed: Vec<usize>,
    /// Where the walk ended.
    pub end: End,
}

/// The end of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At this rule, which allows.
    Allow(usize),
    /// At this rule, which denies.
    Deny(usize),
    /// At this rule, whose limit is exceeded.
    Limit(usize),
    /// Behind the last rule.
    NoRule,
}

/// Walks the rules as the packet path does; `exceeds` charges a limit and says whether the packet is above it.
#[must_use]
pub fn walk(rules: &[Rule], fields: &Fields<'_>, mut exceeds: impl FnMut(usize, &Limit) -> bool) -> Walk {
    let mut shadowed = Vec::new();
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| matches(rule, fields)) {
        let mut above = |limit: &Limit| charged(limit.what, fields) && exceeds(index, limit);
        match &rule.action {
            Action::Allow => return Walk { shadowed, end: End::Allow(index) },
            Action::Deny => return Walk { shadowed, end: End::Deny(index) },
            Action::Limit(limit) if above(limit) => return Walk { shadowed, end: End::Limit(index) },
            Action::Shadow(None) => shadowed.push(index),
            Action::Shadow(Some(limit)) if above(limit) => shadowed.push(index),
            Action::Limit(_) | Action::Shadow(Some(_)) => {}
        }
    }
    Walk { shadowed, end: End::NoRule }
}

/// Whether a packet counts towards a limit: every packet, or only the first of a TCP connection.
#[must_use]
pub const fn charged(what: Limited, fields: &Fields<'_>) -> bool {
    match what {
        Limited::Packets(_) => true,
        Limited::Connections(_) | Limited::Open(_) => fields.protocol == TCP && fields.flags & (SYN | ACK) == SYN,
    }
}

/// Index of the first rule that matches and ends the walk by itself.
#[must_use]
pub fn first_match(rules: &[Rule], fields: &Fields<'_>) -> Option<usize> {
    rules.iter().position(|rule| rule.action.ends() && matches(rule, fields))
}

/// Whether one rule matches.
#[must_use]
pub fn matches(rule: &Rule, fields: &Fields<'_>) -> bool {
    place_matches(&rule.sources, fields.source, fields.sets)
        && place_matches(&rule.destinations, fields.destination, fields.sets)
        && protocol_matches(&rule.protocol, fields)
        && (rule.source_ports.is_empty()
            || matches!(fields.protocol, TCP | UDP) && in_ranges(&rule.source_ports, fields.source_port))
        && rule.flags.is_none_or(|flags| fields.protocol == TCP && flags.holds(fields.flags))
        && (rule.interfaces.is_empty() || rule.interfaces.iter().any(|name| name == fields.interface))
}

fn place_matches(places: &Places, address: IpAddr, sets: &Members) -> bool {
    places.is_any()
        || places.prefixes.iter().any(|prefix| prefix.contains(&address))
        || places.sets.iter().any(|set| sets.hold(set, address))
}

fn protocol_matches(protocol: &Protocol, fields: &Fields<'_>) -> bool {
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

fn in_ranges(ranges: &[RangeInclusive<u16>], port: u16) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| range.contains(&port))
}
