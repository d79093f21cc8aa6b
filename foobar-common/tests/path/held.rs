//! Places of local sockets: whatever happens to a socket, and in whatever order, each place is given back once.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use foobar_common::abi::{BACKEND_MEMBER, Backend, SERVICE_LEAST, SERVICE_LOCAL, Service};
use foobar_common::address::{Address, Be16, SocketKey, words};
use foobar_common::held::{self, End, Holder as _};
use foobar_common::host::HostTables;
use foobar_common::socket::{self, Connect};
use foobar_common::tables::Tables as _;
use proptest::prelude::*;

use crate::support::{Memory, balancer};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 10);
const MEMBERS: u32 = 3;
const PORT: u16 = 8080;

/// A service of three backends, slots 0 to 2, the one with the fewest connections first.
fn three(limit: u32) -> HostTables {
    let mut tables = balancer((VIP.into(), 80), (address(0).into(), PORT), 6);
    let service = Service { places: MEMBERS, flags: SERVICE_LOCAL | SERVICE_LEAST, ..Service::default() };
    tables.services4.insert(key(VIP, 80), service);
    for slot in 0..MEMBERS {
        let endpoint = Backend { address: words(address(slot).into()), port: Be16::new(PORT), ..Backend::default() };
        tables.backends.insert(slot, Backend { state: BACKEND_MEMBER, weight: 1, limit, ..endpoint });
        tables.rings.insert((0, slot as usize), slot);
    }
    tables
}

fn address(slot: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, 11 + slot as u8)
}

fn key(address: Ipv4Addr, port: u16) -> SocketKey<1> {
    SocketKey::new(Address::from(address), Be16::new(port), 6)
}

fn connect(to: SocketKey<1>, socket: &Memory, tables: &HostTables) -> Connect<1> {
    socket::connect(&to, 1, socket, tables)
}

fn active(tables: &HostTables) -> [u64; 3] {
    [0, 1, 2].map(|slot| tables.active(slot))
}

/// The slot that a socket was given.
fn given(tables: &HostTables, socket: &Memory) -> u32 {
    let Connect::Backend { .. } = connect(key(VIP, 80), socket, tables) else { panic!("no backend") };
    socket.held().slot().expect("a place")
}

#[test]
fn the_fewest_connections_are_exact() {
    let tables = three(0);
    let sockets: Vec<Memory> = (0..9).map(|_| Memory::default()).collect();
    let slots: Vec<u32> = sockets.iter().map(|socket| given(&tables, socket)).collect();
    assert_eq!(active(&tables), [3, 3, 3]);
    for (socket, slot) in sockets.iter().zip(&slots).filter(|(_, slot)| **slot == 1) {
        held::followed(socket, &tables);
        held::ended(socket, End::Connected, &tables);
        assert_eq!(*slot, 1);
    }
    assert_eq!(active(&tables), [3, 0, 3]);
    let next: Vec<u32> = (0..3).map(|_| given(&tables, &Memory::default())).collect();
    assert_eq!(next, [1, 1, 1]);
}

#[test]
fn flows_from_the_wire_count_beside() {
    let tables = three(2);
    tables.add_active(0, 2);
    tables.add_active(1, 1);
    assert_eq!([0, 1, 2].map(|_| given(&tables, &Memory::default())), [2, 1, 2]);
    assert_eq!(connect(key(VIP, 80), &Memory::default(), &tables), Connect::Refused, "nobody has room");
    tables.add_active(0, -1);
    assert_eq!(given(&tables, &Memory::default()), 0);
    assert_eq!(connect(key(VIP, 80), &Memory::default(), &tables), Connect::Refused);
    assert_eq!(active(&tables), [2, 2, 2], "who is refused takes nothing");
}

#[test]
fn a_socket_that_tries_again_at_the_limit_has_its_own_place() {
    let mut tables = three(1);
    tables.services4.insert(key(VIP, 80), Service { places: 1, flags: SERVICE_LOCAL, ..Service::default() });
    let socket = Memory::default();
    assert_eq!([given(&tables, &socket), given(&tables, &socket)], [0, 0]);
    assert_eq!(active(&tables), [1, 0, 0]);
    assert_eq!(connect(key(VIP, 80), &Memory::default(), &tables), Connect::Refused);
}

#[test]
fn programs_that_are_replaced_meet_a_call_twice() {
    let tables = three(0);
    let socket = Memory::default();
    let slot = given(&tables, &socket);
    // The later program sees what the earlier one has made of it.
    assert_eq!(connect(key(address(slot), PORT), &socket, &tables), Connect::Unchanged);
    assert_eq!(active(&tables).iter().sum::<u64>(), 1);
    for _ in 0..2 {
        held::followed(&socket, &tables);
    }
    for _ in 0..2 {
        held::answered(&socket, &tables);
    }
    for _ in 0..2 {
        held::closed(&socket, &tables);
    }
    assert_eq!(active(&tables).iter().sum::<u64>(), 1, "a connection outlives its socket");
    for _ in 0..2 {
        held::ended(&socket, End::Connected, &tables);
    }
    assert_eq!(active(&tables), [0; 3]);
}

#[test]
fn a_place_that_is_not_used_goes_with_the_next_address() {
    let tables = three(0);
    let socket = Memory::default();
    let slot = given(&tables, &socket);
    assert_eq!(connect(key(address(slot), PORT + 1), &socket, &tables), Connect::Unchanged);
    assert_eq!(active(&tables), [0; 3]);
}

#[test]
fn failures_are_counted_once_and_in_a_row() {
    let tables = three(0);
    let failures = |slot: u32| {
        let found = tables.connect_failures.borrow().get(&slot).copied().unwrap_or_default();
        (found.total, found.row)
    };
    let refused = Memory::default();
    let slot = given(&tables, &refused);
    held::followed(&refused, &tables);
    held::unanswered(&refused, &tables);
    held::unanswered(&refused, &tables);
    held::ended(&refused, End::Failed, &tables);
    held::ended(&refused, End::Failed, &tables);
    assert_eq!(failures(slot), (1, 1));
    // Given up by its own program.
    let given_up = Memory::default();
    assert_eq!(given(&tables, &given_up), (slot + 1) % 3);
    held::followed(&given_up, &tables);
    held::ended(&given_up, End::GivenUp, &tables);
    assert_eq!(failures((slot + 1) % 3), (0, 0));
    tables.connect_failed(slot);
    tables.connect_failed(slot);
    assert_eq!(failures(slot), (3, 3));
    let taken = loop {
        let socket = Memory::default();
        if given(&tables, &socket) == slot {
            break socket;
        }
    };
    held::followed(&taken, &tables);
    held::answered(&taken, &tables);
    assert_eq!(failures(slot), (3, 0));
}

#[test]
fn who_gives_up_has_waited_long_enough_or_not() {
    let mut tables = three(0);
    tables.services4.insert(key(VIP, 80), Service { places: 1, flags: SERVICE_LOCAL, ..Service::default() });
    // Over the end of the ticks, too.
    for (begun_ns, waited_ms, failures) in [(7, 400, 0), (1 << 40, 499, 0), (1 << 40, 502, 1), ((1 << 50) - 9, 900, 2)]
    {
        let socket = Memory::default();
        tables.now_ns = begun_ns;
        assert_eq!(given(&tables, &socket), 0);
        held::followed(&socket, &tables);
        tables.now_ns += waited_ms * 1_000_000;
        held::ended(&socket, End::GivenUp, &tables);
        let total = tables.connect_failures.borrow().get(&0).map_or(0, |counted| counted.total);
        assert_eq!(total, failures, "after {waited_ms} ms");
    }
    assert_eq!(active(&tables), [0; 3]);
}

#[test]
fn a_socket_without_memory_is_given_a_backend_and_not_counted() {
    let tables = three(0);
    let socket = Memory { refuses: true, ..Memory::default() };
    assert!(matches!(connect(key(VIP, 80), &socket, &tables), Connect::Backend { .. }));
    assert_eq!(active(&tables), [0; 3]);
}

/// What may happen to a socket, in any order; the kernel keeps to a better one.
#[derive(Clone, Copy, Debug)]
enum Event {
    Connect,
    Elsewhere,
    Send,
    Followed,
    Unanswered,
    Answered,
    Ended(End),
    Closed,
}

fn event() -> impl Strategy<Value = Event> {
    use Event::{Answered, Closed, Connect, Elsewhere, Ended, Followed, Send, Unanswered};
    prop_oneof![
        3 => Just(Connect),
        1 => Just(Elsewhere),
        1 => Just(Send),
        2 => Just(Followed),
        1 => Just(Unanswered),
        1 => Just(Answered),
        2 => prop_oneof![Just(End::Connected), Just(End::Failed), Just(End::GivenUp)].prop_map(Ended),
        2 => Just(Closed),
    ]
}

proptest! {
    /// The counts are those of a list of who holds what, after each event; and nothing is left when every socket has ended.
    #[test]
    fn counts_are_those_of_the_sockets(
        limit in 0_u32..4,
        events in prop::collection::vec((0_usize..6, event()), 0..200),
    ) {
        let tables = three(limit);
        let sockets: [Memory; 6] = Default::default();
        for (socket, event) in events.into_iter().map(|(socket, event)| (&sockets[socket], event)) {
            match event {
                Event::Connect => _ = connect(key(VIP, 80), socket, &tables),
                Event::Elsewhere => _ = connect(key(Ipv4Addr::LOCALHOST, 80), socket, &tables),
                Event::Send => _ = socket::send(&key(VIP, 80), 1, socket, &tables),
                Event::Followed => held::followed(socket, &tables),
                Event::Unanswered => held::unanswered(socket, &tables),
                Event::Answered => held::answered(socket, &tables),
                Event::Ended(end) => held::ended(socket, end, &tables),
                Event::Closed => held::closed(socket, &tables),
            }
            let mut counted: HashMap<u32, u64> = HashMap::new();
            sockets.iter().filter_map(|socket| socket.held().slot()).for_each(|slot| *counted.entry(slot).or_default() += 1);
            for slot in 0..MEMBERS {
                let expected = counted.get(&slot).copied().unwrap_or(0);
                prop_assert_eq!(tables.active(slot), expected);
                prop_assert!(limit == 0 || expected <= u64::from(limit));
            }
        }
        for socket in &sockets {
            held::ended(socket, End::Connected, &tables);
        }
        prop_assert_eq!(active(&tables), [0; 3]);
    }
}
