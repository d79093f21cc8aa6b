//! Rules of the file: their names are their own, and no server has more than the packet path takes.

use crate::plan::{RULES_MAX, rule_count};
use crate::site::model::Site;
use crate::site::section::Collector;

/// Names of derived rules.
const RESERVED: [&str; 11] = [
    "failsafe-ssh",
    "neighbour-discovery",
    "icmp-errors",
    "icmpv6-errors",
    "icmp-echo",
    "icmpv6-echo",
    "icmp-echo-reply",
    "icmpv6-echo-reply",
    "metrics",
    "prometheus",
    "replication",
];
/// Beginnings of names of derived rules.
const RESERVED_PREFIXES: [&str; 3] = ["service-", "check-", "vip-"];

pub(super) fn check(site: &Site, faults: &Collector) {
    for rule in &site.rules {
        let name = rule.name.as_str();
        if RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            faults.error(
                rule.name.span,
                format!("`{name}` is the name of a derived rule; rename yours, such as `my-{name}`"),
            );
        }
    }
    for server in &site.servers {
        let count = rule_count(site, server);
        if count > RULES_MAX {
            let message = format!(
                "server `{}` would have {count} rules and the packet path takes {RULES_MAX}; \
                 join rules by listing several prefixes or ports in one",
                server.name.value,
            );
            faults.error(server.name.span, message);
        }
    }
}
