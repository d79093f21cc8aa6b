//! A flow that another CPU establishes between two looks is found all the same: it is put into the table of established flows
//! before it is taken out of that of half-open ones.

use std::net::IpAddr;

use crate::support::{Ends, balancer, ends, frame, seal};
use foobar_common::abi::{ENDPOINT_REPLIES, SERVICE_REPLIES};
use foobar_common::address::words;
use foobar_common::host::HostTables;
use foobar_common::path::{Work, judge};
use foobar_common::verdict::{Reason, Verdict};

const SYN: u8 = 2;
const ACK: u8 = 16;

fn at(address: &str, port: u16) -> (IpAddr, u16) {
    (address.parse().expect("an address"), port)
}

/// Client, VIP, backend and source of a family.
fn hosts(v6: bool) -> [(IpAddr, u16); 4] {
    if v6 {
        [at("2001:db8:64::7", 4000), at("2001:db8::a", 80), at("fd00:1::b", 8080), at("fd00:1::100", 0)]
    } else {
        [at("198.51.100.7", 4000), at("203.0.113.10", 80), at("10.0.1.11", 8080), at("10.0.1.100", 0)]
    }
}

/// A balancer of one backend, which sees a source of the balancer's or its client.
fn world(v6: bool, pooled: bool) -> HostTables {
    let [_, vip, backend, source] = hosts(v6);
    let mut tables = balancer(vip, backend, 6);
    if pooled {
        tables.sources.insert((0, 0), words(source.0));
        for service in tables.services4.values_mut().chain(tables.services6.values_mut()) {
            (service.flags, service.sources) = (service.flags | SERVICE_REPLIES, 1);
        }
        for endpoint in tables.endpoints4.values_mut().chain(tables.endpoints6.values_mut()) {
            endpoint.flags = ENDPOINT_REPLIES;
        }
    }
    tables
}

/// What becomes of a segment.
fn run(tables: &HostTables, source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8) -> (Verdict, Ends) {
    let mut packet = frame(Ends { source, destination }, 6, b"");
    let flags_at = if source.0.is_ipv6() { 54 + 13 } else { 34 + 13 };
    packet[flags_at] = flags;
    seal(&mut packet);
    let verdict = judge(&mut packet, tables, &mut Work::default());
    (verdict, ends(&packet))
}

#[test]
fn a_flow_on_its_way_to_the_established_ones_is_found_from_both_ends() {
    for (v6, pooled) in [(false, false), (true, false), (false, true), (true, true)] {
        let [client, vip, backend, _] = hosts(v6);
        let begun = || {
            let mut tables = world(v6, pooled);
            let (verdict, seen) = run(&tables, client, vip, SYN);
            assert_eq!(verdict, Verdict::Forward { reason: Reason::NewFlow, interface: 2 });
            tables.flows_on_the_move = true;
            (tables, seen.source)
        };
        let (tables, seen) = begun();
        let (verdict, after) = run(&tables, backend, seen, SYN | ACK);
        assert_eq!(verdict, Verdict::Forward { reason: Reason::FlowReply, interface: 2 }, "{v6} {pooled}");
        assert_eq!(after, Ends { source: vip, destination: client });
        let (tables, seen) = begun();
        let (verdict, after) = run(&tables, client, vip, ACK);
        assert_eq!(verdict, Verdict::Forward { reason: Reason::Flow, interface: 2 }, "{v6} {pooled}");
        assert_eq!(after, Ends { source: seen, destination: backend });
    }
}
