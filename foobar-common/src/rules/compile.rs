//! The rule compiler: rules become classes for each dimension, and each class a bitmap of the rules it may match.
//!
//! The longest matching prefix of an address names its class; a class holds every rule with a prefix that covers that
//! prefix, or with none. A protocol with its port or type names a class of its own. The lowest bit that the three
//! bitmaps of a packet share is the first rule that matches it, whatever the number of rules.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Action, Protocol, Rule};
use crate::abi::{MAX_RULES, RULE_ALLOW, RULE_DENY, RuleSet};
use crate::firewall::{KIND_ICMP, KIND_ICMPV6, KIND_OTHER, KIND_TCP, KIND_UDP, KINDS};
use crate::parse::{ICMP, ICMPV6, TCP, UDP};

/// What the maps of one generation hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Classes of sources.
    pub sources: Prefixes,
    /// Classes of destinations.
    pub destinations: Prefixes,
    /// Class of each protocol with port or type, where it is not 0; ascending by index.
    pub kinds: Vec<(u32, u32)>,
    /// Rule sets of these classes.
    pub kind_sets: Vec<RuleSet>,
    /// [`crate::abi::RuleEntry::action`] of each rule.
    pub actions: Vec<u32>,
}

/// Classes of addresses in one dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Class of each prefix; an address has that of the longest prefix which holds it, else 0.
    pub classes: Vec<(IpNet, u32)>,
    /// Rule sets of the classes.
    pub sets: Vec<RuleSet>,
}

/// More rules than the packet path can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRules {
    /// How many there are.
    pub rules: usize,
}

impl std::fmt::Display for TooManyRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rules, but a server holds {MAX_RULES} at the most", self.rules)
    }
}

impl std::error::Error for TooManyRules {}

/// Compiles rules in the order in which they apply.
///
/// # Errors
/// More than [`MAX_RULES`].
pub fn compile(rules: &[Rule]) -> Result<Compiled, TooManyRules> {
    if rules.len() > MAX_RULES {
        return Err(TooManyRules { rules: rules.len() });
    }
    let (kinds, kind_sets) = kinds(rules);
    Ok(Compiled {
        sources: prefixes(rules, |rule| &rule.sources.prefixes),
        destinations: prefixes(rules, |rule| &rule.destinations.prefixes),
        kinds,
        kind_sets,
        actions: rules
            .iter()
            .map(|rule| match rule.action {
                Action::Allow => RULE_ALLOW,
                _ => RULE_DENY,
            })
            .collect(),
    })
}

/// Numbers rule sets, equal ones alike; set 0 is there from the start.
struct Classes {
    sets: Vec<RuleSet>,
    numbers: HashMap<RuleSet, u32>,
}

impl Classes {
    fn starting_with(set: RuleSet) -> Self {
        Self { sets: vec![set], numbers: HashMap::from([(set, 0)]) }
    }

    fn number(&mut self, set: RuleSet) -> u32 {
        *self.numbers.entry(set).or_insert_with(|| {
            self.sets.push(set);
            self.sets.len() as u32 - 1
        })
    }
}

/// The set of the rules for which `holds` is true.
fn set_of(rules: &[Rule], holds: impl Fn(&Rule) -> bool) -> RuleSet {
    let mut set = RuleSet::default();
    for (index, _) in rules.iter().enumerate().filter(|(_, rule)| holds(rule)) {
        set.words[index / 64] |= 1 << (index % 64);
        set.summary |= 1 << (index / 64);
    }
    set
}

/// Classes of one address dimension.
fn prefixes(rules: &[Rule], dimension: fn(&Rule) -> &Vec<IpNet>) -> Prefixes {
    let mut classes = Classes::starting_with(set_of(rules, |rule| dimension(rule).is_empty()));
    let distinct: BTreeSet<IpNet> = rules.iter().flat_map(dimension).map(IpNet::trunc).collect();
    let numbered = distinct
        .into_iter()
        .map(|prefix| {
            let covered = |rule: &Rule| {
                let prefixes = dimension(rule);
                prefixes.is_empty() || prefixes.iter().any(|wider| wider.contains(&prefix))
            };
            (prefix, classes.number(set_of(rules, covered)))
        })
        .collect();
    Prefixes { classes: numbered, sets: classes.sets }
}

/// Classes of protocols with ports and types.
fn kinds(rules: &[Rule]) -> (Vec<(u32, u32)>, Vec<RuleSet>) {
    let mut classes = Classes::starting_with(set_of(rules, |rule| rule.protocol == Protocol::Any));
    let spans: Vec<Vec<(u32, u32)>> = rules.iter().map(|rule| spans(&rule.protocol)).collect();
    // Between two neighbouring bounds every index matches the same rules.
    let mut bounds: BTreeSet<u32> = spans.iter().flatten().flat_map(|(first, last)| [*first, last + 1]).collect();
    bounds.insert(KINDS);
    let bounds: Vec<u32> = bounds.into_iter().collect();
    let mut numbered = Vec::new();
    for pair in bounds.windows(2) {
        let mut set = RuleSet::default();
        for index in (0..rules.len()).filter(|i| spans[*i].iter().any(|(a, b)| *a <= pair[0] && pair[0] <= *b)) {
            set.words[index / 64] |= 1 << (index % 64);
            set.summary |= 1 << (index / 64);
        }
        let class = classes.number(set);
        if class != 0 {
            numbered.extend((pair[0]..pair[1]).map(|index| (index, class)));
        }
    }
    (numbered, classes.sets)
}

/// Spans of indices (first and last) that a protocol matches.
fn spans(protocol: &Protocol) -> Vec<(u32, u32)> {
    let ports = |base: u32, ranges: &[std::ops::RangeInclusive<u16>]| {
        if ranges.is_empty() {
            return vec![(base, base + 0xffff)];
        }
        ranges.iter().map(|range| (base + u32::from(*range.start()), base + u32::from(*range.end()))).collect()
    };
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

impl Prefixes {
    /// Class of an address, by a walk over all prefixes; the kernel's tries answer the same.
    #[must_use]
    pub fn class(&self, address: IpAddr) -> u32 {
        let holding = self.classes.iter().filter(|(prefix, _)| prefix.contains(&address));
        holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map_or(0, |(_, class)| *class)
    }
}

impl Compiled {
    /// Class of an index of [`crate::firewall::kind_index`].
    #[must_use]
    pub fn kind_class(&self, index: u32) -> u32 {
        self.kinds.binary_search_by_key(&index, |(index, _)| *index).map_or(0, |at| self.kinds[at].1)
    }
}
