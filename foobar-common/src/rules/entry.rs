//! What a rule does, as the kernel reads it.

use super::{Action, Limit, Limited, Rate, Rule};
use crate::generation::{LIMIT_CONNECTIONS, LIMIT_OPEN, LIMIT_PACKETS, RULE_ALLOW, RULE_DENY, RULE_LIMIT, RuleEntry};

const SECOND_NS: u64 = 1_000_000_000;

/// The entry of a rule that counts in this slot.
pub(super) fn entry(rule: &Rule, counter: u32) -> RuleEntry {
    let log_interval_ns = if rule.log_per_second == 0 { 0 } else { SECOND_NS / u64::from(rule.log_per_second) };
    let plain = RuleEntry { counter, log_interval_ns, ..RuleEntry::default() };
    match rule.action {
        Action::Allow => RuleEntry { action: RULE_ALLOW, leased: u8::from(rule.leased), ..plain },
        Action::Deny => RuleEntry { action: RULE_DENY, ..plain },
        Action::Limit(limit) => limited(plain, limit),
        Action::Shadow(None) => RuleEntry { action: RULE_DENY, shadow: 1, ..plain },
        Action::Shadow(Some(limit)) => RuleEntry { shadow: 1, ..limited(plain, limit) },
    }
}

fn limited(plain: RuleEntry, limit: Limit) -> RuleEntry {
    let shared = RuleEntry { action: RULE_LIMIT, per4: limit.per4, per6: limit.per6, ..plain };
    match limit.what {
        Limited::Packets(rate) => rated(RuleEntry { limit: LIMIT_PACKETS, ..shared }, rate),
        Limited::Connections(rate) => rated(RuleEntry { limit: LIMIT_CONNECTIONS, ..shared }, rate),
        Limited::Open(open) => RuleEntry { limit: LIMIT_OPEN, open, ..shared },
    }
}

fn rated(entry: RuleEntry, rate: Rate) -> RuleEntry {
    // A rate above one a nanosecond is none that a packet could be above.
    let interval_ns = (u64::from(rate.period_ms) * 1_000_000 / u64::from(rate.count.max(1))).max(1);
    RuleEntry { interval_ns, burst_ns: interval_ns * u64::from(rate.burst.max(1)), ..entry }
}
