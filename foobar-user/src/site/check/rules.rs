//! Rules of the file: their names are their own, their interfaces exist, and no server has more than the packet path takes.

use std::collections::BTreeSet;

use foobar_common::open::MAX_OPEN_RULES;
use foobar_common::parse::flags_are_valid;
use foobar_common::rules::{FlagMatch, Limited, Protocol};

use crate::plan::{PASSING_RULES_MAX, PlannedRule, RULE_INTERFACES_MAX, RULES_MAX, Role, derive_rules};
use crate::site::model::{Forward, Server, Site, UserRule};
use crate::site::section::{Collector, nearest};

/// Names of derived rules.
const RESERVED: [&str; 13] = [
    "spoofed",
    "failsafe-ssh",
    "bogons",
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
const RESERVED_PREFIXES: [&str; 5] = ["service-", "check-", "vip-", "direct-", "answers-"];

pub(super) fn check(site: &Site, faults: &Collector) {
    for rule in &site.rules {
        let name = rule.name.as_str();
        if RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            faults.error(
                rule.name.span,
                format!("`{name}` is the name of a derived rule; rename yours, such as `my-{name}`"),
            );
        }
        interfaces(site, rule, faults);
        open(site, rule, faults);
        if rule.flags.is_some_and(|flags| !possible(flags)) {
            let message = format!(
                "rule `{name}` can never match: packets with such `tcp_flags` are dropped before the rules, whatever they say"
            );
            faults.warning(rule.name.span, message);
        }
    }
    for server in &site.servers {
        let rules = derive_rules(site, server);
        maxima(server, &rules, faults);
        all_outside(site, server, &rules, faults);
    }
}

/// Interfaces of a rule are some server's.
fn interfaces(site: &Site, rule: &UserRule, faults: &Collector) {
    let servers = || site.servers.iter().filter(|server| rule.stands_on(server));
    let names: BTreeSet<&str> =
        servers().flat_map(|server| &server.interfaces).map(|interface| interface.value.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    for (index, interface) in rule.interfaces.iter().enumerate() {
        if rule.interfaces[..index].contains(interface) {
            faults.error(interface.span, format!("interface `{}` is named twice; name it once", interface.value));
        } else if servers().next().is_some() && !names.contains(&interface.as_str()) {
            let hint = nearest(interface, &names)
                .map_or_else(|| format!("they have {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
            let message =
                format!("no server of rule `{}` has the interface `{}`; {hint}", rule.name.value, interface.value);
            faults.error(interface.span, message);
        }
    }
}

/// Whether a packet with such flags reaches the rules.
fn possible(flags: FlagMatch) -> bool {
    (0..64).any(|seen| flags_are_valid(seen) && flags.holds(seen))
}

/// Open connections are counted at the sockets in which they end.
fn open(site: &Site, rule: &UserRule, faults: &Collector) {
    let counts = rule.action.limit().is_some_and(|limit| matches!(limit.what, Limited::Open(_)));
    if !counts {
        return;
    }
    let name = &rule.name.value;
    if let [first, ..] = rule.interfaces.as_slice() {
        let message = format!(
            "rule `{name}` limits open connections, and a socket does not know by which interface its connection came; \
             leave out `interfaces`"
        );
        faults.error(first.span, message);
    }
    if rule.flags.is_some() {
        let message = format!(
            "rule `{name}` limits open connections, which are asked for at their SYN whatever its other flags; leave out `tcp_flags`"
        );
        faults.error(rule.action.span, message);
    }
    let Protocol::Tcp(ports) = &rule.protocol else { return };
    let balances = site.servers.iter().any(|server| server.role == Role::Balancer && rule.stands_on(server));
    let through = |port: u16| ports.is_empty() || ports.iter().any(|range| range.contains(&port));
    let nat = site.services.iter().filter(|service| service.forward == Forward::Nat);
    let hit = nat.filter(|service| service.listen.iter().any(|listen| through(listen.port()))).find(|_| balances);
    if let Some(service) = hit {
        let message = format!(
            "connections to the service `{}` end at its backends, so rule `{name}` does not count them on the balancer; \
             put it `on` the backends",
            service.name.value
        );
        faults.warning(rule.action.span, message);
    }
}

/// What one server's tables hold.
fn maxima(server: &Server, rules: &[PlannedRule], faults: &Collector) {
    let name = &server.name.value;
    if rules.len() > RULES_MAX {
        let message = format!(
            "server `{name}` would have {} rules and the packet path takes {RULES_MAX}; \
             join rules by listing several prefixes or ports in one",
            rules.len(),
        );
        faults.error(server.name.span, message);
    }
    let passing = rules.iter().filter(|planned| !planned.rule.action.ends()).count();
    if passing > PASSING_RULES_MAX {
        let message = format!(
            "server `{name}` would have {passing} rules that limit or shadow, and the packet path takes {PASSING_RULES_MAX}; \
             join some, or name fewer servers in their `on`"
        );
        faults.error(server.name.span, message);
    }
    let open = |planned: &&PlannedRule| {
        planned.rule.action.limit().is_some_and(|limit| matches!(limit.what, Limited::Open(_)))
    };
    let open = rules.iter().filter(open).count();
    if open > MAX_OPEN_RULES {
        let message = format!(
            "server `{name}` would have {open} rules that limit open connections, and a connection can be counted by \
             {MAX_OPEN_RULES}; join some, or name fewer servers in their `on`"
        );
        faults.error(server.name.span, message);
    }
    let interfaces: BTreeSet<&String> = rules.iter().flat_map(|planned| &planned.rule.interfaces).collect();
    if interfaces.len() > RULE_INTERFACES_MAX {
        let message = format!(
            "the rules of server `{name}` name {} interfaces and the packet path tells {RULE_INTERFACES_MAX} apart; name fewer",
            interfaces.len()
        );
        faults.error(server.name.span, message);
    }
}

/// Where every interface faces the internet, a private address of another server would be a bogon on all of them.
fn all_outside(site: &Site, server: &Server, rules: &[PlannedRule], faults: &Collector) {
    let [first, ..] = server.outside.as_slice() else { return };
    let Some(bogons) = rules.iter().find(|planned| planned.rule.name == "bogons") else { return };
    if server.interfaces.iter().any(|interface| !server.outside.contains(interface)) {
        return;
    }
    let dropped = |address| bogons.rule.sources.prefixes.iter().any(|prefix| prefix.contains(&address));
    let addresses = site.servers.iter().flat_map(|other| other.addresses().map(move |address| (other, address)));
    if let Some((other, address)) = addresses.filter(|(other, _)| other.name != server.name).find(|(_, a)| dropped(*a))
    {
        let message = format!(
            "every interface of `{}` faces the internet, so packets of server `{}` ({address}) would be dropped there as bogons; \
             leave out the interface by which the servers reach each other",
            server.name.value, other.name.value,
        );
        faults.error(first.span, message);
    }
}
