//! Whether one rule leaves nothing to another: every packet that the narrow one matches, the wide one matches too.
//!
//! A yes is always right; a no may be wrong only where named sets hold what prefixes name, because sets change at run time.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{FlagMatch, Places, Protocol, Rule};
use crate::parse::{ICMP, ICMPV6, TCP, UDP};

/// Every port, port 0 included.
const PORTS: RangeInclusive<u16> = 0..=u16::MAX;

/// A rule with its prefixes joined, so that many rules can be compared with many.
#[derive(Clone, Debug)]
pub struct Shape<'r> {
    rule: &'r Rule,
    sources: Vec<IpNet>,
    destinations: Vec<IpNet>,
    /// Whether IPv4 packets, and whether IPv6 packets can match.
    families: [bool; 2],
}

impl<'r> Shape<'r> {
    /// The shape of a rule.
    #[must_use]
    pub fn of(rule: &'r Rule) -> Self {
        let (sources, destinations) = (joined(&rule.sources), joined(&rule.destinations));
        let families = [false, true].map(|v6| {
            let named = |places: &Places, prefixes: &[IpNet]| {
                !places.sets.is_empty() || prefixes.iter().any(|prefix| is_v6(prefix) == v6)
            };
            let protocol = match rule.protocol {
                Protocol::Icmp(_) => !v6,
                Protocol::Icmpv6(_) => v6,
                _ => true,
            };
            protocol && named(&rule.sources, &sources) && named(&rule.destinations, &destinations)
        });
        Self { rule, sources, destinations, families }
    }

    /// Whether no packet at all can match: its addresses and its protocol are of different families.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.families[0] && !self.families[1]
    }

    /// Whether every packet that `narrow` matches is matched by this rule; both are of a host with these interfaces.
    #[must_use]
    pub fn covers(&self, narrow: &Self, interfaces: &[String]) -> bool {
        flags(self.rule.flags, narrow.rule.flags)
            && source_ports(&self.rule.source_ports, narrow.rule)
            && names(&self.rule.interfaces, &narrow.rule.interfaces, interfaces)
            && [false, true].into_iter().zip(narrow.families).all(|(v6, lives)| !lives || self.covers_in(narrow, v6))
    }

    fn covers_in(&self, narrow: &Self, v6: bool) -> bool {
        protocol(&self.rule.protocol, &narrow.rule.protocol, v6)
            && places((&self.rule.sources, &self.sources), (&narrow.rule.sources, &narrow.sources), v6)
            && places(
                (&self.rule.destinations, &self.destinations),
                (&narrow.rule.destinations, &narrow.destinations),
                v6,
            )
    }
}

const fn is_v6(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V6(_))
}

/// A dimension's prefixes, neighbours joined; everything for any address.
fn joined(places: &Places) -> Vec<IpNet> {
    if places.is_any() {
        return vec![IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
    }
    IpNet::aggregate(&places.prefixes)
}

fn places(wide: (&Places, &[IpNet]), narrow: (&Places, &[IpNet]), v6: bool) -> bool {
    let everything = wide.1.iter().any(|prefix| is_v6(prefix) == v6 && prefix.prefix_len() == 0);
    everything
        || narrow.0.sets.iter().all(|set| wide.0.sets.contains(set))
            && narrow
                .1
                .iter()
                .filter(|prefix| is_v6(prefix) == v6)
                .all(|prefix| wide.1.iter().any(|wider| wider.contains(prefix)))
}

fn protocol(wide: &Protocol, narrow: &Protocol, v6: bool) -> bool {
    let typed = |protocol: &Protocol| match protocol {
        Protocol::Number(TCP) => Protocol::Tcp(Vec::new()),
        Protocol::Number(UDP) => Protocol::Udp(Vec::new()),
        Protocol::Number(ICMP) if !v6 => Protocol::Icmp(Vec::new()),
        Protocol::Number(ICMPV6) if v6 => Protocol::Icmpv6(Vec::new()),
        other => other.clone(),
    };
    match (typed(wide), typed(narrow)) {
        (Protocol::Any, _) => true,
        (Protocol::Tcp(wide), Protocol::Tcp(narrow)) | (Protocol::Udp(wide), Protocol::Udp(narrow)) => {
            ranges(&wide, &narrow)
        }
        (Protocol::Icmp(wide), Protocol::Icmp(narrow)) | (Protocol::Icmpv6(wide), Protocol::Icmpv6(narrow)) => {
            wide.is_empty() || !narrow.is_empty() && narrow.iter().all(|kind| wide.contains(kind))
        }
        (Protocol::Number(wide), Protocol::Number(narrow)) => wide == narrow,
        _ => false,
    }
}

fn source_ports(wide: &[RangeInclusive<u16>], narrow: &Rule) -> bool {
    // Without TCP and UDP the narrow rule takes packets that have no ports.
    wide.is_empty()
        || matches!(narrow.protocol, Protocol::Tcp(_) | Protocol::Udp(_) | Protocol::Number(TCP | UDP))
            && ranges(wide, &narrow.source_ports)
}

/// Whether ranges of ports hold others; none are all.
fn ranges(wide: &[RangeInclusive<u16>], narrow: &[RangeInclusive<u16>]) -> bool {
    let everything = [PORTS];
    let or_all = |ranges| if <[_]>::is_empty(ranges) { &everything[..] } else { ranges };
    let mut sorted: Vec<_> = or_all(wide).to_vec();
    sorted.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    let held = |range: &RangeInclusive<u16>| {
        merged.iter().any(|wide| wide.start() <= range.start() && range.end() <= wide.end())
    };
    or_all(narrow).iter().all(held)
}

/// Whether every combination of flags that the narrow match takes is one of the wide match.
const fn flags(wide: Option<FlagMatch>, narrow: Option<FlagMatch>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => wide.mask & !narrow.mask == 0 && narrow.value & wide.mask == wide.value,
    }
}

/// Whether interfaces hold others; none are all of the host's.
fn names(wide: &[String], narrow: &[String], all: &[String]) -> bool {
    let narrow = if narrow.is_empty() { all } else { narrow };
    wide.is_empty() || !narrow.is_empty() && narrow.iter().all(|name| wide.contains(name))
}
