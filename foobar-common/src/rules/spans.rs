//! Spans of the tables of protocols and ports: which entries a rule matches.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::Protocol;
use super::pool::{Standing, insert};
use crate::generation::{KIND_ICMP, KIND_ICMPV6, KIND_OTHER, KIND_TCP, KIND_UDP, KINDS, RuleSet};
use crate::parse::{ICMP, ICMPV6, TCP, UDP};

/// Between two neighbouring bounds every index matches the same rules: first index, end, and these rules.
pub(super) fn intervals(spans: &[Vec<(u32, u32)>], standings: &[Standing], end: u32) -> Vec<(u32, u32, RuleSet)> {
    let mut bounds: BTreeSet<u32> = spans.iter().flatten().flat_map(|(first, last)| [*first, last + 1]).collect();
    bounds.extend([0, end]);
    let bounds: Vec<u32> = bounds.into_iter().collect();
    let mut sets: Vec<RuleSet> = vec![RuleSet::default(); bounds.len()];
    for (spans, standing) in spans.iter().zip(standings) {
        for (first, last) in spans {
            let from = bounds.partition_point(|bound| bound < first);
            let to = bounds.partition_point(|bound| bound <= last);
            sets[from..to].iter_mut().for_each(|set| insert(set, *standing));
        }
    }
    bounds.windows(2).zip(sets).map(|(pair, set)| (pair[0], pair[1], set)).collect()
}

/// Spans of indices (first and last) of ports from `base` on; no port named means all.
pub(super) fn ports(base: u32, ranges: &[RangeInclusive<u16>]) -> Vec<(u32, u32)> {
    if ranges.is_empty() {
        return vec![(base, base + 0xffff)];
    }
    ranges.iter().map(|range| (base + u32::from(*range.start()), base + u32::from(*range.end()))).collect()
}

/// Spans of indices (first and last) that a protocol matches.
pub(super) fn spans(protocol: &Protocol) -> Vec<(u32, u32)> {
    let types = |base: u32, types: &[u8]| {
        if types.is_empty() {
            return vec![(base, base + 255)];
        }
        types.iter().map(|kind| (base + u32::from(*kind), base + u32::from(*kind))).collect()
    };
    let other = |number: u8| (KIND_OTHER + u32::from(number), KIND_OTHER + u32::from(number));
    match protocol {
        Protocol::Any => vec![(0, KINDS - 1)],
        Protocol::Tcp(ranges) => ports(KIND_TCP, ranges),
        Protocol::Udp(ranges) => ports(KIND_UDP, ranges),
        Protocol::Icmp(kinds) => types(KIND_ICMP, kinds),
        Protocol::Icmpv6(kinds) => types(KIND_ICMPV6, kinds),
        Protocol::Number(TCP) => ports(KIND_TCP, &[]),
        Protocol::Number(UDP) => ports(KIND_UDP, &[]),
        // In the other family these are numbers like any other.
        Protocol::Number(ICMP) => [types(KIND_ICMP, &[]), vec![other(ICMP)]].concat(),
        Protocol::Number(ICMPV6) => [types(KIND_ICMPV6, &[]), vec![other(ICMPV6)]].concat(),
        Protocol::Number(number) => vec![other(*number)],
    }
}
