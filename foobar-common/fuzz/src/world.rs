//! Tables of a balancer with one service in each protocol and family, and frames cut from the fuzzer's bytes.

use std::net::IpAddr;

use foobar_common::abi::Service;
use foobar_common::address::Be16;
use foobar_common::generation::USES_BALANCER;
use foobar_common::host::HostTables;
use foobar_common::rules::compile::{Surroundings, compile};
use foobar_common::rules::{Action, FlagMatch, Limit, Limited, Protocol, Rate, Rule};

/// VIPs, by protocol.
const SERVICES: [(u8, &str, u16, &str, u16); 4] = [
    (6, "203.0.113.10", 8080, "10.0.1.11", 9080),
    (17, "203.0.113.10", 7007, "10.0.1.11", 8007),
    (6, "2001:db8::a", 8080, "fd00:1::b", 9080),
    (17, "2001:db8::a", 7007, "fd00:1::b", 8007),
];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address of this file")
}

/// The tables; everything is reachable.
pub fn tables() -> HostTables {
    let enemy =
        Rule { sources: vec!["198.51.66.0/24".parse().expect("a prefix")].into(), ..Rule::any("enemy", Action::Deny) };
    let open = Rule { protocol: Protocol::Tcp(vec![443..=443, 8000..=8090]), ..Rule::any("open", Action::Allow) };
    let datagrams = Rule { protocol: Protocol::Udp(Vec::new()), ..Rule::any("datagrams", Action::Allow) };
    let rate = Rate { count: 1, period_ms: 1000, burst: 2 };
    let limit = Limit { what: Limited::Packets(rate), per4: 24, per6: 64 };
    let limited = Rule { protocol: Protocol::Udp(vec![7007..=7007]), ..Rule::any("limited", Action::Limit(limit)) };
    let shadow = Rule { flags: Some(FlagMatch { mask: 4, value: 4 }), ..Rule::any("shadow", Action::Shadow(None)) };
    let rules = [enemy, limited, shadow, open, datagrams];
    let surroundings = Surroundings { number: 1, uses: USES_BALANCER, ..Surroundings::default() };
    let mut tables = HostTables::new(compile(&rules, &surroundings).expect("a few rules"));
    tables.watched = true;
    for (slot, (protocol, vip, port, backend, to)) in (0..).zip(SERVICES) {
        let service = Service { slot, ring: slot, ..Service::default() };
        tables.serve(service, protocol, (ip(vip), Be16::new(port)), (slot, ip(backend), Be16::new(to)));
    }
    tables.reach_everything(1500);
    tables
}

/// Forgets what the frames of the last input have left.
pub fn reset(tables: &HostTables) {
    tables.flows4.borrow_mut().clear();
    tables.flows6.borrow_mut().clear();
    tables.active.borrow_mut().clear();
    tables.buckets.borrow_mut().clear();
    tables.events.borrow_mut().clear();
    tables.cursors.borrow_mut().clear();
    tables.rule_counters.borrow_mut().clear();
    tables.service_counters.borrow_mut().clear();
    tables.backend_counters.borrow_mut().clear();
}

/// Frames one after the other: two bytes of length (big endian, the low 11 bits), then so many bytes, or what is left.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length) & 0x7ff).min(behind.len());
        let (frame, behind) = behind.split_at(length);
        rest = behind;
        Some(frame.to_vec())
    })
}
