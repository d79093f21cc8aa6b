//! Firewall: the first matching rule decides, then "belongs to a connection of this host", then deny.

use crate::abi::{RULE_ALLOW, RULE_WORDS, RuleSet};
use crate::address::{Address, Family};
use crate::parse::{Headers, ICMP, ICMPV6, TCP, UDP};
use crate::tables::Tables;
use crate::verdict::Reason;

/// Index of TCP port 0 in the table of protocol classes.
pub const KIND_TCP: u32 = 0;
/// Index of UDP port 0.
pub const KIND_UDP: u32 = 0x1_0000;
/// Index of ICMP type 0.
pub const KIND_ICMP: u32 = 0x2_0000;
/// Index of ICMPv6 type 0.
pub const KIND_ICMPV6: u32 = KIND_ICMP + 256;
/// Index of IP protocol 0; of the four protocols above only in the other family.
pub const KIND_OTHER: u32 = KIND_ICMPV6 + 256;
/// Entries of the table of protocol classes.
pub const KINDS: u32 = KIND_OTHER + 256;

/// Index of a packet in the table of protocol classes.
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

/// Why a packet may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// By a rule, with this counter slot.
    Rule(u32),
    /// As part of a connection of this host.
    OwnConnection,
}

/// Judges a packet by the rules, and counts the rule that decides.
///
/// # Errors
/// [`Reason::RuleDeny`] or [`Reason::NoRule`].
#[inline(always)]
pub fn judge<const W: usize, T: Tables>(headers: &Headers<W>, tables: &T, bytes: u64) -> Result<Allowed, Reason>
where
    Address<W>: Family<W>,
{
    if let Some(rule) = first_match(headers, tables) {
        let entry = tables.rule(rule).ok_or(Reason::Internal)?;
        tables.count_rule(entry.counter, bytes);
        return if entry.action == RULE_ALLOW { Ok(Allowed::Rule(entry.counter)) } else { Err(Reason::RuleDeny) };
    }
    if <Address<W> as Family<W>>::own_connection(tables, &headers.tuple) {
        return Ok(Allowed::OwnConnection);
    }
    Err(Reason::NoRule)
}

/// Index of the first rule that all three classes of the packet have in common.
#[inline(always)]
fn first_match<const W: usize, T: Tables>(headers: &Headers<W>, tables: &T) -> Option<u32>
where
    Address<W>: Family<W>,
{
    let source = tables.source_rules(Address::<W>::source_class(tables, headers.tuple.source))?;
    let destination = tables.destination_rules(Address::<W>::destination_class(tables, headers.tuple.destination))?;
    let kind = tables.kind_rules(tables.kind_class(kind_index(headers)))?;
    first_common(source, destination, kind)
}

/// The lowest bit that three sets share.
#[inline(always)]
fn first_common(a: &RuleSet, b: &RuleSet, c: &RuleSet) -> Option<u32> {
    let mut summary = a.summary & b.summary & c.summary;
    // A counted loop, because the verifier wants to see its end; it is left at the first common word.
    for _ in 0..RULE_WORDS {
        if summary == 0 {
            return None;
        }
        let word = summary.trailing_zeros() as usize & (RULE_WORDS - 1);
        let common = a.words[word] & b.words[word] & c.words[word];
        if common != 0 {
            return Some(word as u32 * 64 + common.trailing_zeros());
        }
        summary &= summary - 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rules: &[usize]) -> RuleSet {
        let mut set = RuleSet::default();
        for rule in rules {
            set.words[rule / 64] |= 1 << (rule % 64);
            set.summary |= 1 << (rule / 64);
        }
        set
    }

    #[test]
    fn the_first_common_rule_is_found_over_all_words() {
        assert_eq!(first_common(&set(&[3, 70, 1023]), &set(&[4, 1023]), &set(&[3, 4, 1023])), Some(1023));
        assert_eq!(first_common(&set(&[3, 70]), &set(&[70, 90]), &set(&[1, 70, 90])), Some(70));
        assert_eq!(first_common(&set(&[3]), &set(&[4]), &set(&[3, 4])), None);
        assert_eq!(first_common(&set(&[]), &set(&[]), &set(&[])), None);
    }
}
