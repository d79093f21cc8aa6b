//! Rules of every kind, and the named sets that they speak of.
//!
//! Limits give one token an hour: within a test run a bucket is as it was left, on every clock.

use foobar_common::rules::{Action, FlagMatch, Limit, Limited, Places, Protocol, Rate, Rule};

use super::frame::{ACK, RST, SYN};
use super::hosts::Wire;

/// A named set of the world.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Name.
    pub name: &'static str,
    /// Prefixes, and how long they are in it.
    pub entries: &'static [(&'static str, Life)],
}

/// How long a prefix is in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Until it is removed.
    Forever,
    /// Longer than any test runs.
    Long,
    /// It has run out before the test began.
    Over,
}

use Life::{Forever, Long, Over};

/// The sets: they overlap, have holes, and hold what has run out.
pub const SETS: [Named; 4] = [
    Named {
        name: "blocked",
        entries: &[
            ("198.51.66.0/24", Forever),
            ("2001:db8:42::/48", Forever),
            ("198.51.101.0/32", Forever),
            ("2001:db8:65::/128", Forever),
            ("198.51.100.201/32", Over),
            ("2001:db8:64:8000::c9/128", Over),
            ("198.51.100.202/32", Long),
            ("2001:db8:64:8000::ca/128", Long),
        ],
    },
    Named {
        name: "partners",
        entries: &[("198.51.96.0/19", Forever), ("2001:db8:60::/44", Forever), ("198.51.66.64/26", Forever)],
    },
    Named { name: "closed", entries: &[("10.0.1.2/32", Forever), ("fd00:1::2/128", Forever)] },
    Named { name: "empty", entries: &[] },
];

/// Tokens that an hour gives.
const HOURLY: u32 = 1;

fn rate(burst: u32) -> Rate {
    Rate { count: HOURLY, period_ms: 3_600_000, burst }
}

const fn packets(rate: Rate, per4: u8, per6: u8) -> Limit {
    Limit { what: Limited::Packets(rate), per4, per6 }
}

const fn connections(rate: Rate, per4: u8, per6: u8) -> Limit {
    Limit { what: Limited::Connections(rate), per4, per6 }
}

fn nets(texts: &[&str]) -> Places {
    texts.iter().map(|text| text.parse().expect("a prefix in this file")).collect::<Vec<_>>().into()
}

fn set(name: &str) -> Places {
    Places { prefixes: Vec::new(), sets: vec![name.to_owned()] }
}

fn tcp(first: u16, last: u16) -> Protocol {
    Protocol::Tcp(vec![first..=last])
}

fn udp(first: u16, last: u16) -> Protocol {
    Protocol::Udp(vec![first..=last])
}

fn on(wire: Wire) -> Vec<String> {
    vec![wire.name().to_owned()]
}

/// Rules that tell of their packets: one of each action.
const TELLING: [&str; 5] = ["spoofed", "would-drop", "dials", "blocked", "app"];
/// So often that no case is ever told less.
const TELLS_PER_SECOND: u32 = 100_000;

/// The rules, in order.
pub fn rules() -> Vec<Rule> {
    let mut rules = [sources(), passing(), ends(), flags_and_ports(), accepted(), services()].concat();
    for rule in rules.iter_mut().filter(|rule| TELLING.contains(&rule.name.as_str())) {
        rule.log_per_second = TELLS_PER_SECOND;
    }
    rules
}

/// Sources that cannot be, and who is never locked out.
fn sources() -> Vec<Rule> {
    let spoofed = [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "10.0.1.1/32",
        "10.0.1.2/32",
        "203.0.113.2/32",
        "203.0.113.10/32",
        "::1/128",
        "ff00::/8",
        "::ffff:0:0/96",
        "fd00:1::1/128",
        "fd00:1::2/128",
        "2001:db8::2/128",
        "2001:db8::a/128",
    ];
    let bogons = [
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "fc00::/7",
        "3fff::/20",
        "100::/64",
    ];
    vec![
        Rule { sources: nets(&spoofed), ..Rule::any("spoofed", Action::Deny) },
        Rule {
            sources: nets(&["10.0.1.41/32", "fd00:1::29/128"]),
            protocol: tcp(22, 22),
            ..Rule::any("ssh", Action::Allow)
        },
        Rule { sources: nets(&bogons), interfaces: on(Wire::Front), ..Rule::any("bogons", Action::Deny) },
    ]
}

/// Limits and shadows: what they let by goes on to the rules behind them.
fn passing() -> Vec<Rule> {
    let office = nets(&["198.51.100.0/24", "2001:db8:64::/48"]);
    vec![
        Rule { sources: office, protocol: tcp(8000, 8003), ..Rule::any("would-drop", Action::Shadow(None)) },
        Rule { protocol: udp(53, 53), ..Rule::any("would-limit", Action::Shadow(Some(packets(rate(2), 32, 64)))) },
        Rule { protocol: tcp(8001, 8001), ..Rule::any("dials", Action::Limit(connections(rate(3), 32, 64))) },
        Rule { protocol: udp(5000, 5001), ..Rule::any("nets", Action::Limit(packets(rate(4), 24, 48))) },
        Rule { protocol: udp(5001, 5001), ..Rule::any("everybody", Action::Limit(packets(rate(3), 0, 0))) },
        Rule { protocol: Protocol::Icmp(vec![8]), ..Rule::any("pings", Action::Limit(packets(rate(2), 32, 128))) },
        Rule { protocol: Protocol::Icmpv6(vec![128]), ..Rule::any("pings6", Action::Limit(packets(rate(2), 32, 128))) },
        Rule {
            protocol: tcp(8006, 8006),
            ..Rule::any("open", Action::Limit(Limit { what: Limited::Open(2), per4: 32, per6: 64 }))
        },
        Rule {
            protocol: tcp(8009, 8009),
            ..Rule::any("would-close", Action::Shadow(Some(Limit { what: Limited::Open(0), per4: 32, per6: 64 })))
        },
        Rule { protocol: tcp(9999, 9999), ..Rule::any("would-drop-too", Action::Shadow(None)) },
    ]
}

/// Named sets, at either end.
fn ends() -> Vec<Rule> {
    vec![
        Rule { sources: set("blocked"), ..Rule::any("blocked", Action::Deny) },
        Rule { destinations: set("closed"), protocol: tcp(8004, 8004), ..Rule::any("closed", Action::Deny) },
        Rule { sources: set("empty"), protocol: tcp(444, 444), ..Rule::any("nobody", Action::Allow) },
        Rule {
            sources: Places { sets: vec!["partners".into(), "empty".into()], ..nets(&["203.0.113.51/32"]) },
            protocol: tcp(443, 443),
            ..Rule::any("partners", Action::Allow)
        },
        Rule {
            sources: set("partners"),
            destinations: set("closed"),
            protocol: Protocol::Number(89),
            ..Rule::any("both-ends", Action::Allow)
        },
    ]
}

/// Source ports, TCP flags, interfaces.
fn flags_and_ports() -> Vec<Rule> {
    vec![
        Rule { protocol: udp(123, 123), source_ports: vec![123..=123], ..Rule::any("ntp", Action::Allow) },
        Rule {
            protocol: tcp(8015, 8015),
            source_ports: vec![1024..=4999, 6000..=65535],
            ..Rule::any("unprivileged", Action::Allow)
        },
        Rule {
            protocol: tcp(8017, 8017),
            flags: Some(FlagMatch { mask: SYN | ACK, value: SYN }),
            ..Rule::any("syn-only", Action::Allow)
        },
        Rule {
            protocol: tcp(8008, 8008),
            flags: Some(FlagMatch { mask: RST, value: RST }),
            ..Rule::any("no-reset", Action::Deny)
        },
        Rule { protocol: tcp(9000, 9000), interfaces: on(Wire::Back), ..Rule::any("back-only", Action::Allow) },
        Rule { protocol: udp(9000, 9000), interfaces: on(Wire::Front), ..Rule::any("front-only", Action::Allow) },
        Rule {
            protocol: udp(9001, 9001),
            interfaces: [on(Wire::Front), on(Wire::Back)].concat(),
            ..Rule::any("either", Action::Allow)
        },
    ]
}

/// What the limits and shadows above have left.
fn accepted() -> Vec<Rule> {
    let allow = |name: &str, protocol| Rule { protocol, ..Rule::any(name, Action::Allow) };
    vec![
        allow("app", tcp(8000, 8010)),
        allow("dns", udp(53, 53)),
        allow("datagrams", udp(5000, 5001)),
        allow("echo", Protocol::Icmp(vec![8])),
        allow("echo6", Protocol::Icmpv6(vec![128])),
        allow("discovery", Protocol::Icmpv6(vec![133, 134, 135, 136])),
    ]
}

/// The services, some with limits: what they limit is judged packet by packet.
fn services() -> Vec<Rule> {
    let vip = || nets(&["203.0.113.10/32", "2001:db8::a/128"]);
    vec![
        Rule {
            destinations: vip(),
            protocol: tcp(8082, 8082),
            ..Rule::any("vip-dials", Action::Limit(connections(rate(2), 32, 64)))
        },
        Rule {
            sources: nets(&["203.0.113.51/32", "2001:db8::33/128"]),
            destinations: vip(),
            protocol: tcp(8080, 8080),
            ..Rule::any("vip-packets", Action::Limit(packets(rate(3), 32, 128)))
        },
        Rule { destinations: vip(), protocol: tcp(8080, 8090), ..Rule::any("vip", Action::Allow) },
        Rule { destinations: vip(), protocol: udp(7007, 7007), ..Rule::any("vip-udp", Action::Allow) },
    ]
}
