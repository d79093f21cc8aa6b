//! A rule that is said to never match never is the one that decides, limits or shadows, whatever comes to any server.

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use common::edited;
use foobar_common::rules::Rule;
use foobar_common::rules::linear::{End, Fields, Members, walk};
use foobar_user::plan::plan;
use foobar_user::site::Checked;
use proptest::prelude::*;

const INTERFACES: [&str; 2] = ["eth0", "eth1"];

/// A key with one of these values, or none.
fn key(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::option::of(prop::sample::select(values))
        .prop_map(move |value| value.map_or_else(String::new, |value| format!("{name} = {value}\n")))
}

fn rule() -> impl Strategy<Value = String> {
    let on = prop::sample::select(vec!["[\"lb1\"]", "[\"web\"]", "[\"lb1\", \"web1\", \"app\"]"]);
    let peers = &[
        "\"10.0.1.0/24\"",
        "\"198.51.100.0/24\"",
        "[\"198.51.100.0/25\", \"fd00:1::/64\"]",
        "\"set:a\"",
        "[\"set:a\", \"web\"]",
        "\"127.0.0.1\"",
    ];
    let protocol = prop_oneof![
        Just(String::new()),
        (
            key("ports", &["[\"22\"]", "[\"1-1000\"]", "[\"8080\", \"22\"]"]),
            key("source_ports", &["[\"1-1023\"]", "[\"1-2000\"]"]),
            key("tcp_flags", &["\"syn\"", "\"syn,!ack\""])
        )
            .prop_map(|(ports, source, flags)| format!("protocol = \"tcp\"\n{ports}{source}{flags}")),
        key("icmp_types", &["[8]", "[0, 8]"]).prop_map(|types| format!("protocol = \"icmp\"\n{types}")),
    ];
    let action = prop::sample::select(vec![
        "\"allow\"",
        "\"deny\"",
        "\"deny\"",
        "\"shadow\"",
        "\"limit\"\nlimit = { packets = \"1/second\" }",
    ]);
    (
        on,
        key("from", peers),
        key("to", peers),
        protocol,
        key("interfaces", &["[\"eth0\"]", "[\"eth0\", \"eth1\"]"]),
        action,
    )
        .prop_map(|(on, from, to, protocol, interfaces, action)| {
            format!("on = {on}\n{from}{to}{protocol}{interfaces}action = {action}\n")
        })
}

fn address() -> impl Strategy<Value = IpAddr> {
    let texts = [
        "10.0.1.1",
        "10.0.1.11",
        "10.0.1.41",
        "10.0.1.77",
        "198.51.100.7",
        "198.51.100.200",
        "203.0.113.10",
        "127.0.0.1",
        "192.0.2.1",
        "fd00:1::1",
        "fd00:1::11",
        "fd00:1::77",
        "2001:db8::10",
        "2001:db8::77",
    ];
    prop::sample::select(texts.to_vec()).prop_map(|text| text.parse().expect("an address"))
}

type Packet = (IpAddr, IpAddr, u8, u16, u16, u8, u8, &'static str);

fn packet() -> impl Strategy<Value = Packet> {
    let port = || prop::sample::select(vec![22_u16, 80, 500, 1500, 8080, 50_000]);
    let protocol = prop::sample::select(vec![1_u8, 6, 6, 17, 58]);
    let kind = prop::sample::select(vec![0_u8, 3, 8]);
    let flags = prop::sample::select(vec![0x02_u8, 0x10, 0x12]);
    (address(), address(), protocol, port(), port(), kind, flags, prop::sample::select(INTERFACES.to_vec()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_warned_rule_never_acts(bodies in prop::collection::vec(rule(), 1..12), packets in prop::collection::vec(packet(), 200)) {
        let outside = edited("[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth1\"]\noutside = [\"eth1\"]");
        let rules: String = bodies.iter().enumerate().map(|(n, body)| format!("[[rule]]\nname = \"r{n}\"\n{body}\n")).collect();
        let text = format!("{outside}\n[set.a]\nprefixes = [\"198.51.100.0/26\", \"10.0.1.77\"]\n{rules}");
        let taken = Checked::parse(Path::new("site.toml"), &text);
        // Interfaces that no server of `on` has are refused, and are no matter here.
        prop_assume!(taken.is_ok());
        let checked = taken.unwrap_or_else(|faults| panic!("{faults}"));
        let told = checked.warnings.to_string();
        let warned = |name: &str| told.contains(&format!("rule `{name}` can never match"));
        let sets = checked.site.sets.iter();
        let members: BTreeMap<_, _> =
            sets.map(|set| (set.name.value.clone(), set.prefixes.iter().map(|prefix| prefix.value).collect())).collect();
        let members = Members(members);
        for server in &checked.site.servers {
            let rules: Vec<Rule> = plan(&checked.site, &server.name).expect("a plan").rules.into_iter().map(|planned| planned.rule).collect();
            for (source, destination, protocol, source_port, port, icmp_type, flags, interface) in &packets {
                if source.is_ipv4() != destination.is_ipv4() || !server.interfaces.iter().any(|name| *name.value == **interface) {
                    continue;
                }
                let fields = Fields {
                    source_port: *source_port,
                    port: *port,
                    icmp_type: *icmp_type,
                    flags: *flags,
                    interface,
                    sets: &members,
                    ..Fields::between(*source, *destination, *protocol)
                };
                let walked = walk(&rules, &fields, |_, _| true);
                let end = match walked.end {
                    End::Allow(index) | End::Deny(index) | End::Limit(index) => Some(index),
                    End::NoRule => None,
                };
                for index in walked.shadowed.into_iter().chain(end) {
                    let name = &rules[index].name;
                    prop_assert!(!warned(name), "{} on {}: {:?}\n{}", name, server.name.value, fields, told);
                }
            }
        }
    }
}
