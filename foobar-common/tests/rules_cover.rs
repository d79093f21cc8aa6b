//! A rule that is said to cover another one matches whatever the other one matches.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use foobar_common::rules::cover::Shape;
use foobar_common::rules::linear::{Fields, Members, matches};
use foobar_common::rules::{Action, FlagMatch, Places, Protocol, Rule};
use ipnet::IpNet;
use proptest::prelude::*;

const INTERFACES: [&str; 3] = ["eth0", "eth1", "eth2"];

/// Few distinct bits, so that prefixes nest and packets hit them.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u32..8).prop_map(|bits| Ipv4Addr::from_bits(bits << 29).into()),
        (0_u128..8).prop_map(|bits| Ipv6Addr::from_bits(bits << 125).into()),
    ]
}

fn places() -> impl Strategy<Value = Places> {
    let prefix = (address(), 0_u8..=3)
        .prop_map(|(address, length)| IpNet::new(address, length).expect("a short prefix").trunc());
    let set = prop::sample::select(vec!["a".to_owned(), "b".to_owned()]);
    (prop::collection::vec(prefix, 0..4), prop::collection::vec(set, 0..2))
        .prop_map(|(prefixes, sets)| Places { prefixes, sets })
}

fn ranges() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    let edge = prop::sample::select(vec![0_u16, 1, 2, 3, u16::MAX - 1, u16::MAX]);
    let range = (edge.clone(), edge).prop_map(|(a, b)| a.min(b)..=a.max(b));
    prop_oneof![Just(Vec::new()), prop::collection::vec(range, 1..3)]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    let types = || prop::collection::vec(0_u8..3, 0..3);
    prop_oneof![
        Just(Protocol::Any),
        ranges().prop_map(Protocol::Tcp),
        ranges().prop_map(Protocol::Udp),
        types().prop_map(Protocol::Icmp),
        types().prop_map(Protocol::Icmpv6),
        prop::sample::select(vec![1_u8, 6, 17, 58, 89]).prop_map(Protocol::Number),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let flags = prop::option::of((0_u8..4, 0_u8..4).prop_map(|(mask, value)| FlagMatch { mask, value: value & mask }));
    let interfaces = prop::sample::subsequence(INTERFACES.to_vec(), 0..=3);
    (places(), places(), protocol(), ranges(), flags, interfaces).prop_map(
        |(sources, destinations, protocol, ports, flags, names)| {
            let ports = if matches!(protocol, Protocol::Tcp(_) | Protocol::Udp(_)) { ports } else { Vec::new() };
            Rule {
                sources,
                destinations,
                source_ports: ports,
                flags: flags.filter(|_| matches!(protocol, Protocol::Tcp(_))),
                interfaces: names.into_iter().map(str::to_owned).collect(),
                protocol,
                ..Rule::any("", Action::Deny)
            }
        },
    )
}

/// Two addresses of one family.
fn ends() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        (0_u32..8, 0_u32..8).prop_map(|(a, b)| [a, b].map(|bits| Ipv4Addr::from_bits(bits << 29).into()).into()),
        (0_u128..8, 0_u128..8).prop_map(|(a, b)| [a, b].map(|bits| Ipv6Addr::from_bits(bits << 125).into()).into()),
    ]
}

fn fields() -> impl Strategy<Value = Fields<'static>> {
    let port = || prop::sample::select(vec![0_u16, 1, 2, 3, 4, u16::MAX - 1, u16::MAX]);
    let protocol = prop::sample::select(vec![1_u8, 6, 17, 58, 89, 90]);
    let interface = prop::sample::select(INTERFACES.to_vec());
    (ends(), protocol, port(), port(), 0_u8..4, 0_u8..4, interface).prop_map(
        |((source, destination), protocol, source_port, port, icmp_type, flags, interface)| Fields {
            source_port,
            port,
            icmp_type,
            flags,
            interface,
            ..Fields::between(source, destination, protocol)
        },
    )
}

/// Two sets that overlap each other and some prefixes.
fn members() -> Members {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect();
    Members(BTreeMap::from([
        ("a".to_owned(), nets(&["32.0.0.0/3", "8000::/1"])),
        ("b".to_owned(), nets(&["0.0.0.0/1", "a000::/3"])),
    ]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_covered_is_matched(wide in rule(), narrow in rule(), packets in prop::collection::vec(fields(), 60)) {
        let all = INTERFACES.map(str::to_owned);
        let members = members();
        let (shape, of_narrow) = (Shape::of(&wide), Shape::of(&narrow));
        let covers = shape.covers(&of_narrow, &all);
        for fields in packets {
            let fields = Fields { sets: &members, ..fields };
            if matches(&narrow, &fields) {
                prop_assert!(!of_narrow.is_empty(), "{:?} matches {:?}, which is said to be empty", narrow, fields);
                prop_assert!(!covers || matches(&wide, &fields), "{:?}\n{:?}\n{:?}", wide, narrow, fields);
            }
        }
    }

    #[test]
    fn every_rule_covers_itself_and_any_covers_all(rule in rule()) {
        let all = INTERFACES.map(str::to_owned);
        let any = Rule::any("", Action::Deny);
        prop_assert!(Shape::of(&rule).covers(&Shape::of(&rule), &all));
        prop_assert!(Shape::of(&any).covers(&Shape::of(&rule), &all));
    }
}
