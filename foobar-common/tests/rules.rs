//! The compiled rule matcher answers what the linear one answers, for any rules and packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foobar_common::abi::RULE_WORDS;
use foobar_common::address::{Address, Be16, Family, Tuple};
use foobar_common::firewall::{Allowed, judge};
use foobar_common::generation::RuleSet;
use foobar_common::host::HostTables;
use foobar_common::parse::Headers;
use foobar_common::rules::compile::{Compiled, Surroundings, compile};
use foobar_common::rules::linear::{Fields, first_match};
use foobar_common::rules::{Action, Protocol, Rule};
use foobar_common::verdict::Reason;
use foobar_common::vlan::Ingress;
use ipnet::IpNet;
use proptest::prelude::*;

/// Few distinct bits, so that prefixes nest and packets hit them.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u32..4, 0_u32..8).prop_map(|(net, host)| Ipv4Addr::from_bits(0x0a00_0000 | net << 16 | host).into()),
        (0_u128..4, 0_u128..8).prop_map(|(net, host)| Ipv6Addr::from_bits(0xfd00 << 112 | net << 64 | host).into()),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), 0_u8..=128).prop_map(|(address, length)| {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(longest)).expect("the length fits")
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    let ranges = || {
        prop::collection::vec((prop_oneof![0_u16..12, 65_530..=65_535_u16], 0_u16..4), 0..3)
            .prop_map(|ranges| ranges.into_iter().map(|(at, more)| at..=at.saturating_add(more)).collect::<Vec<_>>())
    };
    let types = || prop::collection::vec(prop_oneof![0_u8..6, 253..=255_u8], 0..3);
    let number = prop::sample::select(vec![0_u8, 1, 6, 17, 58, 89, 255]);
    prop_oneof![
        Just(Protocol::Any),
        ranges().prop_map(Protocol::Tcp),
        ranges().prop_map(Protocol::Udp),
        types().prop_map(Protocol::Icmp),
        types().prop_map(Protocol::Icmpv6),
        number.prop_map(Protocol::Number),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let prefixes = || prop::collection::vec(prefix(), 0..3);
    let rule =
        (prefixes(), prefixes(), protocol(), any::<bool>()).prop_map(|(sources, destinations, protocol, allow)| {
            let action = if allow { Action::Allow } else { Action::Deny };
            Rule { sources: sources.into(), destinations: destinations.into(), protocol, ..Rule::any("", action) }
        });
    prop::collection::vec(rule, 0..150)
}

/// A packet: two addresses of one family, protocol, port, type.
fn fields() -> impl Strategy<Value = Fields<'static>> {
    let protocol = prop::sample::select(vec![0_u8, 1, 6, 17, 58, 89, 90, 255]);
    let port = prop_oneof![0_u16..16, 65_529..=65_535_u16];
    let icmp_type = prop_oneof![0_u8..7, 252..=255_u8];
    (address(), address(), protocol, port, icmp_type)
        .prop_filter("one family", |(source, destination, ..)| source.is_ipv4() == destination.is_ipv4())
        .prop_map(|(source, destination, protocol, port, icmp_type)| Fields {
            port,
            icmp_type,
            ..Fields::between(source, destination, protocol)
        })
}

fn compiled<const W: usize>(tables: &HostTables, fields: &Fields<'_>, ends: [Address<W>; 2]) -> Result<Allowed, Reason>
where
    Address<W>: Family<W>,
{
    let port = if matches!(fields.protocol, 6 | 17) { fields.port } else { 0 };
    let tuple = Tuple::new((ends[0], ends[1]), (Be16::new(0), Be16::new(port)), fields.protocol);
    let headers = Headers {
        network: 14,
        transport: 34,
        length: 40,
        hops: 64,
        flags: 0,
        icmp_type: fields.icmp_type,
        ingress: Ingress::default(),
        tuple,
    };
    judge(&headers, tables, &tables.rules.generation, 60)
}

/// A generation as the kernel has it: what is not in use was left there by earlier ones.
fn as_written(mut compiled: Compiled) -> Compiled {
    let [_, sets, words] = compiled.parts().map(|part| part.bytes.len());
    let everything = RuleSet { summary: u64::MAX, passing: u64::MAX, words: [u64::MAX; RULE_WORDS] };
    compiled.generation.sets[sets / size_of::<RuleSet>()..].fill(everything);
    compiled.generation.words[words / size_of::<u64>()..].fill(u64::MAX);
    compiled
}

proptest! {
    #[test]
    fn compiled_is_linear(rules in rules(), packets in prop::collection::vec(fields(), 1..40)) {
        let tables = HostTables::new(as_written(compile(&rules, &Surroundings::default()).expect("few rules")));
        for fields in packets {
            let answer = match (fields.source, fields.destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => compiled(&tables, &fields, [Address::from(a), Address::from(b)]),
                (IpAddr::V6(a), IpAddr::V6(b)) => compiled(&tables, &fields, [Address::from(a), Address::from(b)]),
                _ => unreachable!("filtered"),
            };
            let expected = match first_match(&rules, &fields) {
                Some(rule) if rules[rule].action == Action::Allow => Ok(Allowed { each_packet: false, counter: rule as u32 }),
                Some(_) => Err(Reason::RuleDeny),
                None => Err(Reason::NoRule),
            };
            prop_assert_eq!(answer, expected, "{:?}", fields);
        }
    }
}
