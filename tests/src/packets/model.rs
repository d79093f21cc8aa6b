//! A second opinion on the firewall: a walk over the rules, one after the other. It shares nothing with the packet path.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foobar_common::rules::{Action, Limit, Limited, Places, Protocol, Rate, Rule};
use foobar_common::verdict::Reason;
use ipnet::IpNet;

use super::everything::{Life, SETS};
use super::frame::{ACK, FIN, RST, SYN};
use super::hosts::Wire;
use super::own;
use super::seen::{Seen, read};

/// What the model says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// The reason.
    pub reason: Reason,
    /// Rules that count it.
    pub rules: Vec<usize>,
}

/// Rules, what they speak of, and what their limits have given.
#[derive(Clone, Debug)]
pub struct Model {
    rules: Vec<Rule>,
    sets: Vec<(&'static str, Vec<IpNet>)>,
    own: Vec<(u8, own::End, own::End)>,
    buckets: HashMap<(usize, IpAddr), Bucket>,
    now_ns: u64,
}

/// Tokens of one source, times the nanoseconds of the rule's period: whole numbers, nothing is rounded.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u128,
    at_ns: u64,
}

impl Model {
    /// With these rules, at time zero.
    pub fn new(rules: Vec<Rule>) -> Self {
        let sets = SETS.map(|set| {
            let living = set.entries.iter().filter(|(_, life)| *life != Life::Over);
            (set.name, living.map(|(text, _)| text.parse().expect("a prefix of the world")).collect())
        });
        Self { rules, sets: sets.to_vec(), own: own::ends(), buckets: HashMap::new(), now_ns: 0 }
    }

    /// Fills all buckets.
    pub fn reset(&mut self) {
        self.buckets.clear();
    }

    /// Lets time go by.
    pub const fn later(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    /// Judges a frame that comes by an interface.
    pub fn judge(&mut self, wire: Wire, frame: &[u8]) -> Opinion {
        let mut opinion = Opinion { reason: Reason::NoRule, rules: Vec::new() };
        let seen = match read(frame) {
            Ok(seen) => seen,
            Err(reason) => return Opinion { reason, ..opinion },
        };
        for index in 0..self.rules.len() {
            if !self.matches(&self.rules[index], wire, &seen) {
                continue;
            }
            let action = self.rules[index].action;
            let reason = match action {
                Action::Allow => Some(Reason::RuleAllow),
                Action::Deny => Some(Reason::RuleDeny),
                Action::Limit(limit) if self.is_above(index, limit, &seen) => Some(Reason::Limit),
                Action::Shadow(Some(limit)) if !self.is_above(index, limit, &seen) => continue,
                Action::Shadow(_) => None,
                Action::Limit(_) => continue,
            };
            opinion.rules.push(index);
            if let Some(reason) = reason {
                return Opinion { reason, ..opinion };
            }
        }
        if self.own.contains(&(seen.protocol, (seen.source, seen.ports.0), (seen.destination, seen.ports.1))) {
            opinion.reason = Reason::OwnConnection;
        }
        opinion
    }

    fn matches(&self, rule: &Rule, wire: Wire, seen: &Seen) -> bool {
        protocol(&rule.protocol, seen)
            && (rule.source_ports.is_empty()
                || [6, 17].contains(&seen.protocol) && within(&rule.source_ports, seen.ports.0))
            && rule.flags.is_none_or(|flags| seen.protocol == 6 && seen.flags & flags.mask == flags.value)
            && (rule.interfaces.is_empty() || rule.interfaces.iter().any(|name| name == wire.name()))
            && self.at(&rule.sources, seen.source)
            && self.at(&rule.destinations, seen.destination)
    }

    fn at(&self, places: &Places, address: IpAddr) -> bool {
        if places.prefixes.is_empty() && places.sets.is_empty() {
            return true;
        }
        let named = self.sets.iter().filter(|(name, _)| places.sets.iter().any(|wanted| wanted == name));
        places.prefixes.iter().chain(named.flat_map(|(_, prefixes)| prefixes)).any(|net| holds(*net, address))
    }

    /// Whether a packet is above a limit; takes its token when it is not.
    fn is_above(&mut self, index: usize, limit: Limit, seen: &Seen) -> bool {
        let opens = seen.protocol == 6 && seen.flags & (SYN | ACK | RST | FIN) == SYN;
        match limit.what {
            Limited::Packets(rate) => !self.takes(index, rate, limit, seen.source),
            Limited::Connections(rate) => opens && !self.takes(index, rate, limit, seen.source),
            // Nobody has a connection open to this host.
            Limited::Open(most) => opens && most == 0,
        }
    }

    fn takes(&mut self, index: usize, rate: Rate, limit: Limit, source: IpAddr) -> bool {
        let period = u128::from(rate.period_ms) * 1_000_000;
        let full = u128::from(rate.burst) * period;
        let now = self.now_ns;
        let key = (index, shared(source, limit));
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: full, at_ns: now });
        let gained = u128::from(now - bucket.at_ns) * u128::from(rate.count);
        *bucket = Bucket { tokens: full.min(bucket.tokens + gained), at_ns: now };
        let has = bucket.tokens >= period;
        if has {
            bucket.tokens -= period;
        }
        has
    }
}

/// The address that all sources of one family and limit share: bits beyond the prefix are zero.
fn shared(source: IpAddr, limit: Limit) -> IpAddr {
    let kept =
        |bits: u128, width: u32, length: u8| bits & (!0_u128).checked_shl(width - u32::from(length)).unwrap_or(0);
    match source {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(kept(v4.to_bits().into(), 32, limit.per4) as u32).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(kept(v6.to_bits(), 128, limit.per6)).into(),
    }
}

fn within(ranges: &[std::ops::RangeInclusive<u16>], port: u16) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| *range.start() <= port && port <= *range.end())
}

fn protocol(wanted: &Protocol, seen: &Seen) -> bool {
    let kind = |types: &[u8]| types.is_empty() || types.contains(&seen.icmp_type);
    match wanted {
        Protocol::Any => true,
        Protocol::Tcp(ranges) => seen.protocol == 6 && within(ranges, seen.ports.1),
        Protocol::Udp(ranges) => seen.protocol == 17 && within(ranges, seen.ports.1),
        Protocol::Icmp(types) => seen.protocol == 1 && seen.source.is_ipv4() && kind(types),
        Protocol::Icmpv6(types) => seen.protocol == 58 && seen.source.is_ipv6() && kind(types),
        Protocol::Number(number) => seen.protocol == *number,
    }
}

/// Whether a prefix holds an address, bit by bit.
fn holds(net: IpNet, address: IpAddr) -> bool {
    let (a, b, bits) = match (net.addr(), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (u128::from(a.to_bits()) << 96, u128::from(b.to_bits()) << 96, net.prefix_len())
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), net.prefix_len()),
        _ => return false,
    };
    bits == 0 || (a ^ b) >> (128 - u32::from(bits)) == 0
}
