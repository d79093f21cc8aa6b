//! Firewall: the first matching rule that allows or denies decides; without one the packet is refused.
//!
//! Rules that limit or shadow and stand in front of it are asked before: what they let by goes on.

use crate::abi::{BucketKey, MAX_CLASSES, RULE_WORDS};
use crate::address::{Address, Family};
use crate::generation::{
    Generation, KIND_ICMP, KIND_ICMPV6, KIND_OTHER, KIND_TCP, KIND_UDP, LIMIT_CONNECTIONS, LIMIT_OPEN, MAX_PASSING,
    RULE_ALLOW, RULE_LIMIT, RuleEntry, RuleSet, USES_DESTINATION_SETS, USES_PASSING, USES_SOURCE_SETS,
};
use crate::parse::{Headers, ICMP, ICMPV6, TCP, UDP};
use crate::tables::{Step, Tables};
use crate::verdict::Reason;

/// Index of a packet in [`Generation::kinds`].
#[inline(always)]
#[must_use]
pub const fn kind_index<const W: usize>(headers: &Headers<W>) -> u32 {
    let icmp = if W == 1 { ICMP } else { ICMPV6 };
    match headers.tuple.protocol {
        TCP => KIND_TCP + headers.tuple.destination_port.host() as u32,
        UDP => KIND_UDP + headers.tuple.destination_port.host() as u32,
        ICMP if icmp == ICMP => KIND_ICMP + headers.icmp_type as u32,
        ICMPV6 if icmp == ICMPV6 => KIND_ICMPV6 + headers.icmp_type as u32,
        other => KIND_OTHER + other as u32,
    }
}

/// The rule by which a packet may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The next packet must be judged, too: a rule that limits or shadows was met on the way, or a lease may end.
    pub each_packet: bool,
    /// Counter slot of the rule.
    pub counter: u32,
}

/// Judges a packet by the rules, and counts the rules that decide or shadow.
///
/// # Errors
/// [`Reason::RuleDeny`], [`Reason::Limit`], [`Reason::Fenced`] or [`Reason::NoRule`].
#[inline(always)]
pub fn judge<const W: usize, T: Tables>(
    headers: &Headers<W>,
    tables: &T,
    generation: &Generation,
    bytes: u64,
) -> Result<Allowed, Reason>
where
    Address<W>: Family<W>,
{
    let candidates = Candidates::of(headers, tables, generation);
    let rule = candidates.first().map(|rule| generation.rule(rule));
    let mut passing = 0;
    if generation.uses(USES_PASSING) {
        passing = candidates.passing_before(rule);
    }
    if passing != 0 {
        let mut walk = Passing { left: passing, dropped: 0, generation, headers, tables, bytes };
        tables.repeat(MAX_PASSING as u32, &mut walk);
        // What shadows drops nothing, so it was a limit.
        if walk.dropped != 0 {
            return Err(Reason::Limit);
        }
    }
    let Some(rule) = rule else { return Err(Reason::NoRule) };
    if rule.leased != 0 && tables.fenced() {
        return Err(Reason::Fenced);
    }
    let allows = rule.action == RULE_ALLOW;
    account(rule, if allows { Reason::RuleAllow } else { Reason::RuleDeny }, headers, tables, bytes);
    let each_packet = passing != 0 || rule.leased != 0;
    if allows { Ok(Allowed { counter: rule.counter, each_packet }) } else { Err(Reason::RuleDeny) }
}

/// A walk over the rules that limit or shadow and match a packet.
struct Passing<'p, const W: usize, T> {
    /// Those that are left, as in [`RuleSet::passing`].
    left: u64,
    /// Not 0: one of them has dropped the packet.
    dropped: u32,
    generation: &'p Generation,
    headers: &'p Headers<W>,
    tables: &'p T,
    bytes: u64,
}

impl<const W: usize, T: Tables> Step for Passing<'_, W, T>
where
    Address<W>: Family<W>,
{
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        let place = self.left.trailing_zeros() as usize & (MAX_PASSING - 1);
        self.left &= self.left - 1;
        let rule = self.generation.rule(u32::from(self.generation.passing[place]));
        let limits = rule.action == RULE_LIMIT;
        if limits && !above(rule, self.headers, self.tables) {
            return true;
        }
        let reason = if limits { Reason::Limit } else { Reason::RuleDeny };
        account(rule, reason, self.headers, self.tables, self.bytes);
        if rule.shadow == 0 {
            self.dropped = 1;
            return false;
        }
        true
    }
}

/// Counts a packet for the rule that decides, and tells of it.
#[inline(always)]
fn account<const W: usize, T: Tables>(rule: &RuleEntry, reason: Reason, headers: &Headers<W>, tables: &T, bytes: u64) {
    tables.count_rule(rule.counter, bytes);
    if rule.log_interval_ns != 0 || (reason != Reason::RuleAllow && tables.watched()) {
        tables.tell_rule(headers, rule, reason, bytes);
    }
}

/// Whether the packet is above its source's limit.
#[inline(always)]
fn above<const W: usize, T: Tables>(rule: &RuleEntry, headers: &Headers<W>, tables: &T) -> bool
where
    Address<W>: Family<W>,
{
    if rule.limit >= LIMIT_CONNECTIONS && !headers.opens() {
        return false;
    }
    let key = bucket(rule, headers);
    if rule.limit == LIMIT_OPEN {
        return tables.open_connections(&key) >= rule.open;
    }
    !tables.take(&key, rule.interval_ns, rule.burst_ns)
}

/// What a rule counts a packet under.
#[inline(always)]
fn bucket<const W: usize>(rule: &RuleEntry, headers: &Headers<W>) -> BucketKey
where
    Address<W>: Family<W>,
{
    let length = if W == 1 { rule.per4 } else { rule.per6 };
    BucketKey::new(rule.counter, W as u32, Address::<W>::masked(headers.tuple.source, length))
}

/// Where open connections are counted.
pub trait Ledger {
    /// Counts one more.
    fn count(&mut self, key: &BucketKey);
}

/// Counts a connection that was opened by this SYN, for every rule that has asked how many its source has open.
#[inline(always)]
pub fn count_open<const W: usize, T: Tables, L: Ledger>(
    syn: &Headers<W>,
    tables: &T,
    generation: &Generation,
    ledger: &mut L,
) where
    Address<W>: Family<W>,
{
    let candidates = Candidates::of(syn, tables, generation);
    // Hidden from the compiler, as in `Candidates::of`.
    let rule = candidates.first().map(|rule| generation.rule(core::hint::black_box(rule)));
    let left = candidates.passing_before(rule);
    if left != 0 {
        tables.repeat(MAX_PASSING as u32, &mut Opened { left, generation, syn, ledger });
    }
}

/// A walk over the same rules as [`Passing`], for a connection that they have let in.
struct Opened<'o, const W: usize, L> {
    left: u64,
    generation: &'o Generation,
    syn: &'o Headers<W>,
    ledger: &'o mut L,
}

impl<const W: usize, L: Ledger> Step for Opened<'_, W, L>
where
    Address<W>: Family<W>,
{
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        let place = self.left.trailing_zeros() as usize & (MAX_PASSING - 1);
        self.left &= self.left - 1;
        let rule = self.generation.rule(u32::from(self.generation.passing[place]));
        if rule.action == RULE_LIMIT && rule.limit == LIMIT_OPEN {
            self.ledger.count(&bucket(rule, self.syn));
        }
        true
    }
}

/// The rules that each dimension of a packet leaves.
struct Candidates<'g> {
    source: &'g RuleSet,
    source_set: &'g RuleSet,
    destination: &'g RuleSet,
    destination_set: &'g RuleSet,
    kind: &'g RuleSet,
    source_port: &'g RuleSet,
    flags: &'g RuleSet,
    interface: &'g RuleSet,
}

impl<'g> Candidates<'g> {
    #[inline(always)]
    fn of<const W: usize, T: Tables>(headers: &Headers<W>, tables: &T, generation: &'g Generation) -> Self
    where
        Address<W>: Family<W>,
    {
        let (tuple, head) = (&headers.tuple, &generation.head);
        // Each index is used at once for a load from a table: what comes from there is alike for the verifier, whatever the
        // way to the index was, and it need not walk every combination of ways.
        // The verifier of older kernels loses the bounds of the index on its way; hidden from the compiler, so that it leaves
        // the check where it is. No index is outside, and the set for it would be the empty one.
        let kind = core::hint::black_box(kind_index(headers)) as usize;
        let kind = u32::from(generation.kinds.get(kind).copied().unwrap_or(0));
        let ports = if tuple.protocol == UDP { KIND_UDP } else { KIND_TCP };
        let source_port = u32::from(generation.source_ports[(ports + u32::from(tuple.source_port.host())) as usize]);
        let interface = generation.interface_set(tables.interface());
        let source = Address::<W>::look_up(generation, head.sources, tuple.source);
        let destination = Address::<W>::look_up(generation, head.destinations, tuple.destination);
        let mut source_set = u32::from(generation.source_classes[0]);
        if generation.uses(USES_SOURCE_SETS) {
            let class = member_class(tables, Address::<W>::member(tables, head.members, tuple.source));
            source_set = u32::from(generation.source_classes[class]);
        }
        let mut destination_set = u32::from(generation.destination_classes[0]);
        if generation.uses(USES_DESTINATION_SETS) {
            let class = member_class(tables, Address::<W>::member(tables, head.members, tuple.destination));
            destination_set = u32::from(generation.destination_classes[class]);
        }
        Self {
            source: generation.set(source),
            source_set: generation.set(source_set),
            destination: generation.set(destination),
            destination_set: generation.set(destination_set),
            kind: generation.set(kind),
            source_port: generation.set(source_port),
            flags: generation.set(u32::from(generation.flags[headers.flags as usize & 63])),
            interface: generation.set(interface),
        }
    }

    /// The first common rule that allows or denies.
    #[inline(always)]
    fn first(&self) -> Option<u32> {
        let mut summary = self.summary();
        // A counted loop, because the verifier wants to see its end; it is left at the first common word.
        for _ in 0..RULE_WORDS {
            if summary == 0 {
                return None;
            }
            let word = summary.trailing_zeros() as usize & (RULE_WORDS - 1);
            let common = self.word(word);
            if common != 0 {
                return Some(word as u32 * 64 + common.trailing_zeros());
            }
            summary &= summary - 1;
        }
        None
    }

    /// The common rules that limit or shadow.
    #[inline(always)]
    const fn passing(&self) -> u64 {
        (self.source.passing | self.source_set.passing)
            & (self.destination.passing | self.destination_set.passing)
            & self.kind.passing
            & self.source_port.passing
            & self.flags.passing
            & self.interface.passing
    }

    /// Those of them that stand before the rule that decides.
    #[inline(always)]
    fn passing_before(&self, rule: Option<&RuleEntry>) -> u64 {
        self.passing() & rule.map_or(u64::MAX, |rule| rule.passing_before)
    }

    /// A superset of the words in which rules are common.
    #[inline(always)]
    const fn summary(&self) -> u64 {
        (self.source.summary | self.source_set.summary)
            & (self.destination.summary | self.destination_set.summary)
            & self.kind.summary
            & self.source_port.summary
            & self.flags.summary
            & self.interface.summary
    }

    /// The common rules of a word.
    #[inline(always)]
    const fn word(&self, word: usize) -> u64 {
        (self.source.words[word] | self.source_set.words[word])
            & (self.destination.words[word] | self.destination_set.words[word])
            & self.kind.words[word]
            & self.source_port.words[word]
            & self.flags.words[word]
            & self.interface.words[word]
    }
}

/// Steps over expired memberships at the most; the agent takes an address out of the sets long before it needs more.
const EXPIRIES: usize = 4;

/// The class that is in force of an address with memberships that may have expired.
#[inline(always)]
fn member_class<T: Tables>(tables: &T, class: u32) -> usize {
    let mut class = class;
    for _ in 0..EXPIRIES {
        let Some(membership) = tables.membership(class) else { break };
        if membership.expires_ns == 0 || tables.now_ns() < membership.expires_ns {
            break;
        }
        class = membership.after;
    }
    class as usize & (MAX_CLASSES - 1)
}
