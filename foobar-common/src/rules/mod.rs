//! Firewall rules as user space states them: first match wins, no match is denied.

pub mod compile;
pub mod linear;

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::Serialize;

/// One rule of a server's firewall; an empty list in a dimension matches everything there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Stable name: the label of its counters over reloads.
    pub name: String,
    /// Source prefixes.
    pub sources: Vec<IpNet>,
    /// Destination prefixes.
    pub destinations: Vec<IpNet>,
    /// Protocol, with its ports or ICMP types.
    pub protocol: Protocol,
    /// What happens to a packet that matches.
    pub action: Action,
}

/// The protocol dimension of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every protocol.
    Any,
    /// TCP with these destination ports; empty: all.
    Tcp(Vec<RangeInclusive<u16>>),
    /// UDP with these destination ports; empty: all.
    Udp(Vec<RangeInclusive<u16>>),
    /// ICMP for IPv4 with these types; empty: all.
    Icmp(Vec<u8>),
    /// ICMPv6 with these types; empty: all.
    Icmpv6(Vec<u8>),
    /// Another protocol by its IANA number.
    Number(u8),
}

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The packet goes to the stack, or to the service's backend.
    Allow,
    /// The packet is dropped.
    Deny,
}

/// Whether `prefixes` holds `address`; an empty list holds every address.
#[must_use]
pub fn covers(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains(&address))
}
