//! Source ports, by any order of opening, establishing, resetting, losing and sweeping flows: no two flows share one, each answer
//! reaches its client, what is over gives its port back, and half-open flows hold none against others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::support::{Ends, balancer, ends, frame, seal};
use foobar_common::abi::{ENDPOINT_REPLIES, Flow, FlowTable, SERVICE_REPLIES};
use foobar_common::address::{Address, Be16, SocketKey, Tuple, words};
use foobar_common::host::HostTables;
use foobar_common::path::{Work, process};
use foobar_common::reply::{Reply, sender};
use foobar_common::verdict::{Reason, Verdict};
use proptest::prelude::*;

/// More than the ports that are tried: a client's port is hashed without the VIP, so that all of these begin alike.
const VIPS: u16 = 80;
/// Ports of the one client.
const CLIENTS: u16 = 3;
const BACKEND_PORT: u16 = 9080;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// The client opens a connection from a port to a VIP's port.
    Open(u16, u16),
    /// One that is open is answered, and its client has received that.
    Establish(usize),
    /// It resets one of those that are open.
    Reset(usize),
    /// The table drives one out.
    Lose(usize),
    /// The agent walks through the tables.
    Sweep,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        16 => (0..CLIENTS, 0..VIPS).prop_map(|(client, vip)| Act::Open(client, vip)),
        12 => any::<usize>().prop_map(Act::Establish),
        2 => any::<usize>().prop_map(Act::Reset),
        2 => any::<usize>().prop_map(Act::Lose),
        1 => Just(Act::Sweep),
    ]
}

fn host(v6: bool, last: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into()
    } else {
        Ipv4Addr::new(10, 0, 1, last).into()
    }
}

/// A balancer whose service has many VIPs and one source.
struct World {
    v6: bool,
    tables: HostTables,
    /// The backend's end of each open flow.
    open: BTreeMap<(u16, u16), u16>,
    /// Those of them that are no longer half open.
    established: BTreeSet<(u16, u16)>,
}

impl World {
    fn new(v6: bool) -> Self {
        let (vip, backend) = (host(v6, 10), host(v6, 11));
        let mut tables = balancer((vip, 1000), (backend, BACKEND_PORT), 6);
        tables.sources.insert((0, 0), words(host(v6, 100)));
        let change = |service: &mut foobar_common::abi::Service| {
            service.flags |= SERVICE_REPLIES;
            service.sources = 1;
        };
        tables.services4.values_mut().for_each(change);
        tables.services6.values_mut().for_each(change);
        tables.endpoints4.values_mut().for_each(|endpoint| endpoint.flags = ENDPOINT_REPLIES);
        tables.endpoints6.values_mut().for_each(|endpoint| endpoint.flags = ENDPOINT_REPLIES);
        for port in (1000..1000 + VIPS).map(Be16::new) {
            match vip {
                IpAddr::V4(a) => {
                    let service = *tables.services4.values().next().expect("a service");
                    tables.services4.insert(SocketKey::new(Address::from(a), port, 6), service);
                }
                IpAddr::V6(a) => {
                    let service = *tables.services6.values().next().expect("a service");
                    tables.services6.insert(SocketKey::new(Address::from(a), port, 6), service);
                }
            }
        }
        Self { v6, tables, open: BTreeMap::new(), established: BTreeSet::new() }
    }

    /// A segment with these flags, and what becomes of it.
    fn run(&self, ends: Ends, flags: u8) -> (Verdict, Vec<u8>) {
        let mut packet = frame(ends, 6, b"data");
        let flags_at = if self.v6 { 54 + 13 } else { 34 + 13 };
        packet[flags_at] = flags;
        seal(&mut packet);
        let verdict = process(&mut packet, &self.tables, &mut Work::default());
        (verdict, packet)
    }

    fn asks(&self, (client, vip): (u16, u16), flags: u8) -> (Verdict, Vec<u8>) {
        let ends = Ends { source: (host(self.v6, 50), 2000 + client), destination: (host(self.v6, 10), 1000 + vip) };
        self.run(ends, flags)
    }

    fn open(&mut self, flow: (u16, u16)) {
        const SYN: u8 = 2;
        let (verdict, packet) = self.asks(flow, SYN);
        if verdict == Verdict::Drop(Reason::SourcePorts) {
            // Lost flows hold their ports until the next walk, so that there may be fewer open ones.
            assert!(!self.open.contains_key(&flow) && self.held() >= 64, "{flow:?} of {}", self.held());
            return;
        }
        let reason = if self.open.contains_key(&flow) { Reason::Flow } else { Reason::NewFlow };
        assert_eq!(verdict, Verdict::Forward { reason, interface: 2 });
        let Ends { source, destination } = ends(&packet);
        assert_eq!((source.0, destination), (host(self.v6, 100), (host(self.v6, 11), BACKEND_PORT)));
        assert!(source.1 >= 1024);
        if let Some((other, _)) = self.open.iter().find(|(other, port)| **other != flow && **port == source.1) {
            let other = *other;
            assert!(!self.established.contains(&other) && self.replies() >= 64, "{other:?} has given way to {flow:?}");
            self.open.remove(&other);
        }
        if let Some(before) = self.open.insert(flow, source.1) {
            assert_eq!(before, source.1, "a SYN sent again moves its flow");
        }
    }

    fn establish(&mut self, flow: (u16, u16)) {
        const SYN_ACK: u8 = 18;
        const ACK: u8 = 16;
        let reply =
            Ends { source: (host(self.v6, 11), BACKEND_PORT), destination: (host(self.v6, 100), self.open[&flow]) };
        assert_eq!(self.run(reply, SYN_ACK).0, Verdict::Forward { reason: Reason::FlowReply, interface: 2 });
        assert_eq!(self.asks(flow, ACK).0, Verdict::Forward { reason: Reason::Flow, interface: 2 });
        self.established.insert(flow);
    }

    fn reset(&mut self, flow: (u16, u16)) {
        const RST: u8 = 4;
        assert_eq!(self.asks(flow, RST).0, Verdict::Forward { reason: Reason::Flow, interface: 2 });
        self.forget(flow);
    }

    fn forget(&mut self, flow: (u16, u16)) {
        self.open.remove(&flow);
        self.established.remove(&flow);
    }

    fn lose(&mut self, flow: (u16, u16)) {
        self.forget(flow);
        let (client, vip) = (Be16::new(2000 + flow.0), Be16::new(1000 + flow.1));
        let is = |source, destination| source == client && destination == vip;
        self.tables.flows4.get_mut().retain(|(_, key), _| !is(key.source_port, key.destination_port));
        self.tables.flows6.get_mut().retain(|(_, key), _| !is(key.source_port, key.destination_port));
    }

    /// As the agent does: flows that have been reset have had their time, and entries without a flow go.
    fn sweep(&mut self) {
        self.tables.flows4.get_mut().retain(|_, flow| !foobar_common::flow::closed(flow.state));
        self.tables.flows6.get_mut().retain(|_, flow| !foobar_common::flow::closed(flow.state));
        let (flows4, flows6) = (self.tables.flows4.get_mut(), self.tables.flows6.get_mut());
        self.tables.replies4.get_mut().retain(|(_, tuple), reply| is_of_any(flows4, tuple, reply));
        self.tables.replies6.get_mut().retain(|(_, tuple), reply| is_of_any(flows6, tuple, reply));
    }

    fn replies(&self) -> usize {
        self.tables.replies4.borrow().len() + self.tables.replies6.borrow().len()
    }

    /// Entries that do not give way.
    fn held(&self) -> usize {
        let is_held = |table: &FlowTable| *table == FlowTable::Established;
        let v4 = self.tables.replies4.borrow().keys().filter(|(table, _)| is_held(table)).count();
        v4 + self.tables.replies6.borrow().keys().filter(|(table, _)| is_held(table)).count()
    }

    /// Each open flow has a port for itself, at which its backend reaches its client.
    fn check(&self) {
        const ACK: u8 = 16;
        let ports: BTreeSet<u16> = self.open.values().copied().collect();
        assert_eq!(ports.len(), self.open.len(), "two flows share a port: {:?}", self.open);
        for ((client, vip), port) in &self.open {
            let reply = Ends { source: (host(self.v6, 11), BACKEND_PORT), destination: (host(self.v6, 100), *port) };
            let (verdict, packet) = self.run(reply, ACK);
            assert_eq!(verdict, Verdict::Forward { reason: Reason::FlowReply, interface: 2 });
            let to = Ends { source: (host(self.v6, 10), 1000 + vip), destination: (host(self.v6, 50), 2000 + client) };
            assert_eq!(ends(&packet), to);
        }
    }
}

/// Whether a flow's replies come so: its own entry, and not that of one before it with the same ends.
fn is_of_any<const W: usize>(
    flows: &HashMap<(FlowTable, Tuple<W>), Flow<W>>,
    tuple: &Tuple<W>,
    reply: &Reply<W>,
) -> bool {
    let key = reply.flow(tuple.protocol);
    let flow = [FlowTable::HalfOpen, FlowTable::Established].iter().find_map(|kind| flows.get(&(*kind, key)));
    flow.is_some_and(|flow| sender(&key, flow) == (tuple.destination, tuple.destination_port))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ports_are_never_shared_and_never_lost(v6: bool, acts in prop::collection::vec(act(), 1..400)) {
        let mut world = World::new(v6);
        for act in acts {
            let nth = |world: &World, n: usize| world.open.keys().copied().nth(n % world.open.len().max(1));
            match act {
                Act::Open(client, vip) => world.open((client, vip)),
                Act::Establish(n) => if let Some(flow) = nth(&world, n) { world.establish(flow) },
                Act::Reset(n) => if let Some(flow) = nth(&world, n) { world.reset(flow) },
                Act::Lose(n) => if let Some(flow) = nth(&world, n) { world.lose(flow) },
                Act::Sweep => world.sweep(),
            }
        }
        world.check();
        world.sweep();
        world.check();
        prop_assert_eq!(world.replies(), world.open.len());
        let all: Vec<_> = world.open.keys().copied().collect();
        all.into_iter().for_each(|flow| world.reset(flow));
        world.sweep();
        prop_assert_eq!(world.replies(), 0);
    }
}
