//! Backends that are no members any more: established connections stay with them, who still knocks is given another.

use std::net::IpAddr;

use foobar_common::abi::{BACKEND_ABSENT, BACKEND_KEPT, BACKEND_MEMBER, Backend};
use foobar_common::host::HostTables;
use foobar_common::path::{Work, process};
use foobar_common::verdict::{Reason, Verdict};

use crate::support::{Ends, balancer, ends, frame};

const CLIENT: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 50)), 40_000);
const VIP: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10)), 80);
const FIRST: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 11)), 8080);
const SECOND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 12));
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A flow of the client's has been given to the first backend; now its state is `state`, and the second is the member.
fn after(state: u8, protocol: u8) -> HostTables {
    let mut tables = balancer(VIP, FIRST, protocol);
    let mut packet = frame(Ends { source: CLIENT, destination: VIP }, protocol, &[1]);
    assert_eq!(
        process(&mut packet, &tables, &mut Work::default()),
        Verdict::Forward { reason: Reason::NewFlow, interface: 2 }
    );
    let first = tables.backends[&5];
    tables.backends.insert(5, Backend { state, ..first });
    let second = Backend { address: foobar_common::address::words(SECOND), state: BACKEND_MEMBER, ..first };
    tables.backends.insert(6, second);
    tables.rings.insert((0, 0), 6);
    tables.epoch += 1;
    tables
}

/// The client sends again; the verdict, and to whom.
fn again(tables: &HostTables, protocol: u8, flags: u8) -> (Verdict, IpAddr) {
    let mut packet = frame(Ends { source: CLIENT, destination: VIP }, protocol, &[1]);
    if protocol == 6 {
        packet[47] = flags;
    }
    let verdict = process(&mut packet, tables, &mut Work::default());
    (verdict, ends(&packet).destination.0)
}

fn forwarded(reason: Reason) -> Verdict {
    Verdict::Forward { reason, interface: 2 }
}

#[test]
fn a_member_keeps_who_knocks_again() {
    assert_eq!(again(&after(BACKEND_MEMBER, 6), 6, SYN), (forwarded(Reason::Flow), FIRST.0));
    assert_eq!(again(&after(BACKEND_MEMBER, 17), 17, 0), (forwarded(Reason::Flow), FIRST.0));
}

#[test]
fn who_knocks_again_at_a_former_member_is_given_another() {
    assert_eq!(again(&after(BACKEND_KEPT, 6), 6, SYN), (forwarded(Reason::NewFlow), SECOND));
    assert_eq!(again(&after(BACKEND_KEPT, 17), 17, 0), (forwarded(Reason::NewFlow), SECOND));
    assert_eq!(again(&after(BACKEND_ABSENT, 6), 6, SYN), (forwarded(Reason::NewFlow), SECOND));
}

#[test]
fn an_established_connection_stays_with_a_former_member_and_ends_with_one_that_is_gone() {
    assert_eq!(again(&after(BACKEND_KEPT, 6), 6, ACK), (forwarded(Reason::Flow), FIRST.0));
    assert_eq!(again(&after(BACKEND_ABSENT, 6), 6, ACK), (Verdict::Drop(Reason::NoFlow), VIP.0));
}
