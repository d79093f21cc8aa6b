//! Rules: each dimension with its neighbour that is refused, the order of rules, a thousand of them.

use foobar_common::verdict::Reason;

use super::super::case::{Case, case};
use super::super::frame::{Frame, SYN, Transport};
use super::super::hosts::{
    ADMIN, ADMIN_NEIGHBOUR, CLIENT, ENEMY, LB1, LB1_TOO, OFFICE, OFFICE_HIGH, STRANGER, WEB1, WEB2, WEB3,
};
use super::super::world::RuleSet;
use super::{both, named};

const NO_RULE: Reason = Reason::NoRule;

pub(super) fn cases() -> Vec<Case> {
    [both(dimensions), both(order), icmp(), both(thousand)].concat()
}

fn dimensions(v6: bool) -> Vec<Case> {
    let tcp = |from, to, port| Frame::new(v6, from, to, Transport::Tcp(1025, port, SYN));
    let udp = |from, port| Frame::new(v6, from, LB1, Transport::Udp(1025, port));
    let other = |from, number| Frame::new(v6, from, LB1, Transport::Other(number));
    let one = |name: &str, step| case(&named(name, v6), vec![step]);
    vec![
        one("a port", tcp(ADMIN, LB1, 22).allowed("ssh")),
        one("the port before", tcp(ADMIN, LB1, 21).drops(NO_RULE)),
        one("the port after", tcp(ADMIN, LB1, 23).drops(NO_RULE)),
        one("a port, any destination", tcp(ADMIN, LB1_TOO, 22).allowed("ssh")),
        one("an address's neighbour", tcp(ADMIN_NEIGHBOUR, LB1, 22).drops(NO_RULE)),
        one("the first port of a range", tcp(OFFICE, LB1, 8000).allowed("office")),
        one("the last port of a range", tcp(OFFICE, LB1, 8010).allowed("office")),
        one("before a range", tcp(OFFICE, LB1, 7999).drops(NO_RULE)),
        one("after a range", tcp(OFFICE, LB1, 8011).drops(NO_RULE)),
        one("a prefix", tcp(OFFICE, LB1, 443).allowed("office")),
        one("one past a prefix", tcp(STRANGER, LB1, 443).drops(NO_RULE)),
        one("another destination", tcp(OFFICE, LB1_TOO, 443).drops(NO_RULE)),
        one("UDP by port and network", udp(WEB1, 53).allowed("dns")),
        one("UDP, the port after", udp(WEB1, 54).drops(NO_RULE)),
        one("UDP from another network", udp(CLIENT, 53).drops(NO_RULE)),
        one("TCP at a port allowed for UDP", tcp(WEB1, LB1, 53).drops(NO_RULE)),
        one("UDP at a port allowed for TCP", udp(ADMIN, 22).drops(NO_RULE)),
        one("a protocol by number", other(WEB1, 89).allowed("ospf")),
        one("the next protocol", other(WEB1, 90).drops(NO_RULE)),
        one("a protocol from another server", other(WEB2, 89).drops(NO_RULE)),
        one("denied everything", other(ENEMY, 89).denied("enemy")),
    ]
}

fn order(v6: bool) -> Vec<Case> {
    let tcp = |from, to, port| Frame::new(v6, from, to, Transport::Tcp(1025, port, SYN));
    vec![
        case(
            &named("a denied half before its allowed whole", v6),
            vec![tcp(OFFICE_HIGH, LB1, 443).denied("office-high")],
        ),
        case(
            &named("an allowed destination before a denial of all", v6),
            vec![tcp(OFFICE, LB1, 8010).allowed("office"), tcp(OFFICE, LB1_TOO, 8010).denied("office-late")],
        ),
    ]
}

fn icmp() -> Vec<Case> {
    let icmp = |v6, from, kind| Frame::new(v6, from, LB1, Transport::Icmp(kind));
    let other = |v6, from, number| Frame::new(v6, from, LB1, Transport::Other(number)).data(&[8; 16]);
    let mut cases = vec![
        case("echo request", vec![icmp(false, CLIENT, 8).allowed("echo")]),
        case("the next ICMP type", vec![icmp(false, CLIENT, 9).drops(NO_RULE)]),
        case("echo request from another network", vec![icmp(false, OFFICE, 8).drops(NO_RULE)]),
        case("echo request of IPv6", vec![icmp(true, CLIENT, 128).allowed("echo6")]),
        case("the next ICMPv6 type", vec![icmp(true, CLIENT, 129).drops(NO_RULE)]),
        case("ICMPv6 with the type of ICMP", vec![icmp(true, CLIENT, 8).drops(NO_RULE)]),
        case("ICMPv6 in IPv4", vec![other(false, CLIENT, 58).drops(NO_RULE)]),
        case("ICMP in IPv6 is a protocol like others", vec![other(true, WEB3, 1).allowed("foreign-icmp")]),
        case("ICMP by its number", vec![icmp(false, WEB3, 3).allowed("foreign-icmp")]),
    ];
    for (name, kind) in [("router solicitation", 133), ("solicitation", 135), ("advertisement", 136)] {
        cases.push(case(&format!("neighbour discovery: {name}"), vec![icmp(true, CLIENT, kind).allowed("discovery")]));
    }
    cases.push(case("neighbour discovery: redirect", vec![icmp(true, CLIENT, 137).drops(NO_RULE)]));
    cases
}

fn thousand(v6: bool) -> Vec<Case> {
    let tcp = |from, port| Frame::new(v6, from, LB1, Transport::Tcp(1025, port, SYN));
    let one = |name: &str, step| case(&named(name, v6), vec![step]).rules(RuleSet::Thousand);
    let mut cases = vec![
        one("a thousand rules, the first", tcp(CLIENT, 1000).allowed("port-1000")),
        one("a thousand rules, at a word's end", tcp(CLIENT, 1063).allowed("port-1063")),
        one("a thousand rules, at a word's beginning", tcp(CLIENT, 1064).allowed("port-1064")),
        one("a thousand rules, the last", tcp(CLIENT, 1999).allowed("port-1999")),
        one("a thousand rules, none", tcp(WEB1, 2000).drops(NO_RULE)),
    ];
    if !v6 {
        cases.push(one("a thousand rules, the one behind them", tcp(CLIENT, 2000).denied("last")));
    }
    cases
}
