//! What is remembered of a flow does with a packet what the whole way does, bit by bit and counter by counter.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::support::{Ends, balancer, frame, seal};
use foobar_common::abi::{Counter, FLOW_RESET, FORWARD_DIRECT, Flow, FlowTable, Traffic};
use foobar_common::address::{Address, Be16, Tuple};
use foobar_common::express::{self, KEPT};
use foobar_common::host::HostTables;
use foobar_common::path::{Work, judge, process};
use foobar_common::verdict::{Reason, Verdict};
use proptest::prelude::*;

const CLIENT: [(&str, u16); 2] = [("198.51.100.7", 40_000), ("2001:db8:64::7", 40_000)];
const VIP: [(&str, u16); 2] = [("203.0.113.10", 80), ("2001:db8::a", 80)];
const BACKEND: [(&str, u16); 2] = [("10.0.1.11", 8080), ("fd00:1::b", 8080)];
const TCP: u8 = 6;

fn at((address, port): (&str, u16)) -> (IpAddr, u16) {
    (address.parse().expect("an address"), port)
}

/// A flow to the backend.
fn entry<const W: usize>(last_seen_ns: u64) -> Flow<W> {
    Flow { backend: 5, generation: 1, last_seen_ns, ..Flow::default() }
}

/// A balancer that has an established flow of the client.
fn established(v6: usize, protocol: u8, direct: bool) -> HostTables {
    let mut tables = balancer(at(VIP[v6]), at(BACKEND[v6]), protocol);
    if direct {
        tables.backends.get_mut(&5).expect("the backend").forward = FORWARD_DIRECT;
    }
    let table = if protocol == TCP { FlowTable::Established } else { FlowTable::Datagrams };
    let ports = (Be16::new(CLIENT[v6].1), Be16::new(VIP[v6].1));
    match (at(CLIENT[v6]).0, at(VIP[v6]).0) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let key = Tuple::new((Address::from(a), Address::from(b)), ports, protocol);
            tables.flows4.borrow_mut().insert((table, key), entry(tables.now_ns));
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let key = Tuple::new((Address::from(a), Address::from(b)), ports, protocol);
            tables.flows6.borrow_mut().insert((table, key), entry(tables.now_ns));
        }
        _ => unreachable!("both are of one family"),
    }
    tables
}

/// A plain packet of the flow.
fn plain(v6: usize, protocol: u8, reply: bool, data: &[u8]) -> Vec<u8> {
    let (client, vip, backend) = (at(CLIENT[v6]), at(VIP[v6]), at(BACKEND[v6]));
    let ends =
        if reply { Ends { source: backend, destination: client } } else { Ends { source: client, destination: vip } };
    let mut frame = frame(ends, protocol, data);
    if protocol == TCP {
        // ACK instead of SYN.
        frame[if v6 == 0 { 47 } else { 67 }] = 0x10;
        seal(&mut frame);
    }
    frame
}

type Counters = (HashMap<u32, Counter>, HashMap<u32, Traffic>, HashMap<u32, Traffic>);

fn counters(tables: &HostTables) -> Counters {
    (
        tables.rule_counters.borrow().clone(),
        tables.service_counters.borrow().clone(),
        tables.backend_counters.borrow().clone(),
    )
}

/// A flow's tables after it has been used once the whole way.
fn learned(v6: usize, protocol: u8, reply: bool, direct: bool) -> HostTables {
    let tables = established(v6, protocol, direct);
    let mut packet = plain(v6, protocol, reply, &[]);
    let verdict = judge(&mut packet, &tables, &mut Work::default());
    assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
    tables
}

/// Whether what is remembered takes a packet.
fn is_taken(tables: &HostTables, packet: &[u8]) -> bool {
    express::forward(&mut packet.to_vec(), tables).is_some()
}

proptest! {
    #[test]
    fn express_is_the_whole_way(
        v6 in 0_usize..2,
        tcp: bool,
        reply: bool,
        data in prop::collection::vec(any::<u8>(), 0..48),
        changes in prop::collection::vec((0_usize..110, any::<u8>()), 0..4),
        cut in 0_usize..6,
    ) {
        let protocol = if tcp { TCP } else { 17 };
        let (with, without) = (learned(v6, protocol, reply, false), learned(v6, protocol, reply, false));
        let mut packet = plain(v6, protocol, reply, &data);
        for (place, byte) in changes {
            if let Some(old) = packet.get_mut(place) {
                *old = byte;
            }
        }
        packet.truncate(packet.len() - cut.min(packet.len()));
        let (mut quick, mut slow) = (packet.clone(), packet);
        let (verdict, wanted) =
            (process(&mut quick, &with, &mut Work::default()), judge(&mut slow, &without, &mut Work::default()));
        prop_assert_eq!(verdict, wanted);
        prop_assert_eq!(quick, slow);
        prop_assert_eq!(counters(&with), counters(&without));
    }
}

#[test]
fn plain_packets_are_taken_and_what_could_change_a_flow_is_not() {
    for v6 in [0, 1] {
        for (protocol, reply, direct) in
            [(TCP, false, false), (TCP, true, false), (TCP, false, true), (17, false, false), (17, true, false)]
        {
            let tables = learned(v6, protocol, reply, direct);
            let packet = plain(v6, protocol, reply, b"data");
            assert!(is_taken(&tables, &packet), "{v6} {protocol} {reply} {direct}");
            let changed = |place: usize, byte: u8| {
                let mut other = packet.clone();
                other[place] = byte;
                other
            };
            let (hops, flags) = if v6 == 0 { (22, 47) } else { (21, 67) };
            assert!(!is_taken(&tables, &changed(hops, 1)), "the last hop");
            assert!(!is_taken(&tables, &packet[..packet.len() - 1]), "cut");
            if protocol == TCP {
                assert!(is_taken(&tables, &changed(flags, 0x18)), "PSH");
                for other in [0x02, 0x12, 0x11, 0x14, 0x04, 0x30, 0x00] {
                    assert!(!is_taken(&tables, &changed(flags, other)), "flags {other:#x}");
                }
            }
            if v6 == 0 {
                assert!(!is_taken(&tables, &changed(14, 0x46)), "options");
                assert!(!is_taken(&tables, &changed(20, 0x20)), "a fragment");
            }
        }
    }
}

#[test]
fn what_is_remembered_ends() {
    let packet = plain(0, TCP, false, b"data");
    let taken = |change: &dyn Fn(&mut HostTables)| {
        let mut tables = learned(0, TCP, false, false);
        change(&mut tables);
        is_taken(&tables, &packet)
    };
    assert!(taken(&|_| {}));
    assert!(taken(&|tables| tables.now_ns += (u64::from(KEPT) - 1) << 20));
    assert!(!taken(&|tables| tables.now_ns += (u64::from(KEPT) + 1) << 20), "by time");
    assert!(!taken(&|tables| tables.epoch += 1), "by a change of services");
    assert!(!taken(&|tables| tables.rules.generation.head.number += 1), "by a change of rules");
    assert!(!taken(&|tables| tables.interface += 1), "on another interface");
}

#[test]
fn a_port_that_is_used_again_ends_both_directions() {
    for v6 in [0, 1] {
        let mut tables = established(v6, TCP, false);
        let (client, reply) = (plain(v6, TCP, false, b"data"), plain(v6, TCP, true, b"data"));
        for packet in [&client, &reply] {
            let verdict = judge(&mut packet.clone(), &tables, &mut Work::default());
            assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
            assert!(is_taken(&tables, packet));
        }
        tables.flows4.get_mut().values_mut().for_each(|flow| flow.state = FLOW_RESET);
        tables.flows6.get_mut().values_mut().for_each(|flow| flow.state = FLOW_RESET);
        let mut syn = client.clone();
        syn[if v6 == 0 { 47 } else { 67 }] = 2;
        seal(&mut syn);
        let verdict = judge(&mut syn, &tables, &mut Work::default());
        assert!(matches!(verdict, Verdict::Forward { reason: Reason::NewFlow, .. }), "{verdict:?}");
        assert!(!is_taken(&tables, &client) && !is_taken(&tables, &reply));
    }
}

#[test]
fn a_flow_in_its_handshake_is_not_remembered() {
    let tables = balancer((Ipv4Addr::new(203, 0, 113, 10).into(), 80), (Ipv4Addr::new(10, 0, 1, 11).into(), 8080), TCP);
    let client = (IpAddr::from(Ipv4Addr::new(198, 51, 100, 7)), 40_000);
    let mut syn = frame(Ends { source: client, destination: (Ipv4Addr::new(203, 0, 113, 10).into(), 80) }, TCP, &[]);
    let verdict = judge(&mut syn, &tables, &mut Work::default());
    assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
    assert!(!is_taken(&tables, &plain(0, TCP, false, &[])));
}
