//! Local sockets: whom they are given, for how long, and what they are told.

use std::net::{IpAddr, Ipv4Addr};

use foobar_common::abi::{BACKEND_KEPT, BACKEND_MEMBER, Backend, SERVICE_LOCAL, Service};
use foobar_common::address::{Address, Be16, SocketKey, words};
use foobar_common::host::HostTables;
use foobar_common::socket::{self, Connect, asked};

use crate::support::{Memory, balancer};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 10);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);
const SECOND_NS: u64 = 1_000_000_000;

/// A datagram service for local sockets with two backends.
fn two() -> HostTables {
    let mut tables = balancer((IpAddr::V4(VIP), 53), (IpAddr::V4(FIRST), 5353), 17);
    tables.services4.insert(key(VIP, 53), Service { places: 2, flags: SERVICE_LOCAL, ..Service::default() });
    let first = tables.backends[&5];
    tables.backends.insert(6, Backend { address: words(SECOND.into()), ..first });
    tables.rings.insert((0, 1), 6);
    tables
}

/// A `connect()` of a socket that has done nothing before.
fn connect(vip: &SocketKey<1>, cookie: u64, tables: &HostTables) -> Connect<1> {
    socket::connect(vip, cookie, &Memory::default(), tables)
}

/// A datagram of a socket whose places do not matter.
fn send(vip: &SocketKey<1>, cookie: u64, tables: &HostTables) -> Connect<1> {
    socket::send(vip, cookie, &Memory::default(), tables)
}

fn key(address: Ipv4Addr, port: u16) -> SocketKey<1> {
    SocketKey::new(Address::from(address), Be16::new(port), 17)
}

fn to(address: Ipv4Addr) -> Connect<1> {
    Connect::Backend { address: Address::from(address), port: Be16::new(5353) }
}

#[test]
fn connections_take_turns_and_each_is_told_its_vip() {
    let tables = two();
    let vip = key(VIP, 53);
    assert_eq!([1, 2, 3].map(|cookie| connect(&vip, cookie, &tables)), [to(FIRST), to(SECOND), to(FIRST)]);
    assert_eq!(asked(&key(FIRST, 5353), 1, &tables), Some(vip));
    assert_eq!(asked(&key(SECOND, 5353), 2, &tables), Some(vip));
    assert_eq!(asked(&key(SECOND, 5353), 1, &tables), None, "another socket's");
    assert_eq!(asked(&key(FIRST, 5354), 1, &tables), None, "another port");
    assert_eq!(connect(&key(VIP, 54), 4, &tables), Connect::Unchanged);
    assert_eq!(asked(&key(VIP, 54), 4, &tables), None);
}

#[test]
fn datagrams_of_a_socket_stay_together_while_it_sends() {
    let mut tables = two();
    let vip = key(VIP, 53);
    assert_eq!(
        [1, 1, 2, 1, 2].map(|cookie| send(&vip, cookie, &tables)),
        [FIRST, FIRST, SECOND, FIRST, SECOND].map(to)
    );
    assert_eq!(asked(&key(FIRST, 5353), 1, &tables), Some(vip));
    // Each datagram begins the time anew, however often.
    for _ in 0..4 {
        tables.now_ns += 29 * SECOND_NS;
        assert_eq!(send(&vip, 1, &tables), to(FIRST));
    }
    tables.now_ns += 31 * SECOND_NS;
    assert_eq!(send(&vip, 2, &tables), to(FIRST), "the next one after a long silence");
    assert_eq!(send(&vip, 1, &tables), to(SECOND));
}

#[test]
fn a_socket_leaves_a_backend_that_is_no_member_any_more() {
    let mut tables = two();
    let vip = key(VIP, 53);
    assert_eq!(send(&vip, 1, &tables), to(FIRST));
    let first = tables.backends[&5];
    tables.backends.insert(5, Backend { state: BACKEND_KEPT, ..first });
    assert_eq!([1, 1, 1].map(|cookie| send(&vip, cookie, &tables)), [to(SECOND); 3]);
    let second = tables.backends[&6];
    tables.backends.insert(6, Backend { state: BACKEND_KEPT, ..second });
    assert_eq!(send(&vip, 1, &tables), Connect::Refused);
    tables.backends.insert(5, Backend { state: BACKEND_MEMBER, ..first });
    assert_eq!(send(&vip, 1, &tables), to(FIRST));
}
