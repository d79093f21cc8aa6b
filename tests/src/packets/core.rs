//! The packet path on the host: a byte buffer and hash maps.

use anyhow::Result;
use foobar_common::abi::{Backend, Endpoint, Event, Flow, TUNNEL_RECEIVED};
use foobar_common::address::{Address, Be16, SocketKey, words};
use foobar_common::generation::USES_BALANCER;
use foobar_common::host::HostTables;
use foobar_common::path::Work;
use foobar_common::rules::compile::{Surroundings, compile};
use foobar_common::stage;
use foobar_common::verdict::Verdict;
use foobar_common::vlan::{Link, Tag};

use super::case::{GENERATION, Lease, Seed};
use super::counters::Counters;
use super::everything::SETS;
use super::hosts::{Host, VIP, Wire};
use super::members::Members;
use super::network::Network;
use super::own;
use super::shell::{Done, Key, Shell, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use super::world::{BACKEND_SLOTS, MEMBERS, RuleSet, SERVICE_SLOTS, SERVICES, Served};

/// Time of the host's core: long after everything began.
const NOW_NS: u64 = 1_000_000_000_000;

/// The host's shell.
#[derive(Debug)]
pub struct Core {
    tables: HostTables,
    network: Network,
    counters: Counters,
}

impl Core {
    /// With these rules, on this network.
    pub fn new(rules: RuleSet, network: Network) -> Result<Self> {
        let (uses, tunnels) = (rules.uses(), rules.tunnels());
        let rules = rules.rules();
        let (interfaces, members) = (network.interfaces(), Members::new()?);
        let names: Vec<String> = SETS.iter().map(|named| named.name.to_owned()).collect();
        let surroundings = Surroundings {
            number: GENERATION,
            uses,
            counters: &[],
            interfaces: &interfaces,
            sets: &names,
            classes: &members.bits,
            members: members.roots,
            tunnels,
        };
        let mut tables = HostTables::new(compile(&rules, &surroundings)?);
        (tables.members, tables.memberships) = (members.words, members.memberships);
        tables.ways_back = network.ways_back();
        tables.now_ns = NOW_NS;
        tables.routes = network.routes();
        for vlan in network.vlans() {
            let link = Link { interface: vlan.parent, tag: Tag::new(vlan.kind, vlan.number) };
            tables.vlans.insert(link, vlan.device);
            tables.vlan_links.insert(vlan.device, link);
        }
        for key in own::connections() {
            match key {
                Key::V4(tuple) => _ = tables.own4.insert(tuple),
                Key::V6(tuple) => _ = tables.own6.insert(tuple),
            }
        }
        for (slot, service) in (0..).zip(&SERVICES) {
            add(&mut tables, 2 * slot, service, false);
            add(&mut tables, 2 * slot + 1, service, true);
        }
        let counters = Counters::zero(rules.len(), SERVICE_SLOTS as usize, BACKEND_SLOTS as usize);
        Ok(Self { tables, network, counters })
    }

    /// Without the services.
    #[must_use]
    pub fn firewall_only(mut self) -> Self {
        self.tables.rules.generation.head.uses &= !USES_BALANCER;
        self
    }

    /// Lets time go by.
    pub const fn later(&mut self, ns: u64) {
        self.tables.now_ns += ns;
    }

    /// All entries for replies, of IPv4 and of IPv6.
    pub fn replies(&self) -> [Vec<String>; 2] {
        let (four, six) = (self.tables.replies4.borrow(), self.tables.replies6.borrow());
        [
            told_apart(four.iter().map(|((_, tuple), reply)| (tuple, reply))),
            told_apart(six.iter().map(|((_, tuple), reply)| (tuple, reply))),
        ]
    }

    /// All flows, sorted, without their times.
    pub fn flows(&self) -> Vec<(String, String)> {
        let four = self
            .tables
            .flows4
            .borrow()
            .iter()
            .map(|((table, key), flow)| named(&(table, key), *flow))
            .collect::<Vec<_>>();
        let six = self
            .tables
            .flows6
            .borrow()
            .iter()
            .map(|((table, key), flow)| named(&(table, key), *flow))
            .collect::<Vec<_>>();
        let mut all = [four, six].concat();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// Entries for replies with their keys in words, sorted.
pub fn told_apart<K: std::fmt::Debug, V: std::fmt::Debug>(entries: impl IntoIterator<Item = (K, V)>) -> Vec<String> {
    let mut all: Vec<String> = entries.into_iter().map(|entry| format!("{entry:?}")).collect();
    all.sort();
    all
}

/// A flow and its key in words, without its time.
pub fn named<K: std::fmt::Debug, const W: usize>(key: &K, flow: Flow<W>) -> (String, String) {
    (format!("{key:?}"), format!("{:?}", Flow { last_seen_ns: 0, ..flow }))
}

fn add(tables: &mut HostTables, slot: u32, service: &Served, v6: bool) {
    let value = service.kernel(slot);
    for port in service.ports().map(Be16::new) {
        if v6 {
            tables.services6.insert(SocketKey::new(Address::from(VIP.v6), port, service.protocol), value);
        } else {
            tables.services4.insert(SocketKey::new(Address::from(VIP.v4), port, service.protocol), value);
        }
    }
    for (index, source) in (0..).zip(service.sources) {
        tables.sources.insert((value.ring, index), words(source.address(v6)));
    }
    for (place, backend) in service.ring(slot).iter().enumerate() {
        tables.rings.insert((value.ring, place), u32::from(*backend));
    }
    for (member, host) in (0..).zip(service.members) {
        let backend = MEMBERS * slot + member;
        add_backend(tables, backend, slot, service, *host, v6);
    }
}

fn add_backend(tables: &mut HostTables, backend: u32, slot: u32, service: &Served, host: Host, v6: bool) {
    let port = Be16::new(service.backend_port);
    let (address, member) = (words(host.address(v6)), service.backend(slot));
    tables.backends.insert(backend, Backend { address, port, ..member });
    if !service.has_way_back() {
        return;
    }
    let value = Endpoint {
        vip: words(VIP.address(v6)),
        port: Be16::new(service.port),
        flags: service.endpoint_flags(),
        backend,
    };
    if v6 {
        tables.endpoints6.insert(SocketKey::new(Address::from(host.v6), port, service.protocol), value);
    } else {
        tables.endpoints4.insert(SocketKey::new(Address::from(host.v4), port, service.protocol), value);
    }
}

impl Shell for Core {
    fn reset(&mut self) -> Result<()> {
        self.tables.flows4.borrow_mut().clear();
        self.tables.flows6.borrow_mut().clear();
        self.tables.replies4.borrow_mut().clear();
        self.tables.replies6.borrow_mut().clear();
        self.tables.cursors.borrow_mut().clear();
        self.tables.active.borrow_mut().clear();
        self.tables.connect_failures.borrow_mut().clear();
        self.tables.stuck.borrow_mut().clear();
        self.tables.buckets.borrow_mut().clear();
        self.tables.events.borrow_mut().clear();
        self.tables.epoch += 1;
        self.tables.now_ns = NOW_NS;
        Ok(())
    }

    fn seed(&mut self, seed: &Seed) -> Result<bool> {
        let (key, seen) = (Key::of(&seed.packet), NOW_NS - seed.age_ns);
        match key {
            Key::V4(tuple) => _ = self.tables.flows4.borrow_mut().insert((key.table(), tuple), seed.entry(seen)),
            Key::V6(tuple) => _ = self.tables.flows6.borrow_mut().insert((key.table(), tuple), seed.entry(seen)),
        }
        Ok(true)
    }

    fn set_lease(&mut self, lease: Lease) -> Result<()> {
        self.tables.lease = (lease.end(NOW_NS), NOW_NS);
        Ok(())
    }

    fn run(&mut self, ingress: Wire, frame: &[u8]) -> Result<Done> {
        let interface = self.network.index(ingress);
        self.tables.interface = interface;
        let mut bytes = frame.to_vec();
        let unpacked = || self.tables.tunnel_counters.borrow()[TUNNEL_RECEIVED as usize].packets;
        let before = unpacked();
        let verdict = stage::judge(&mut bytes, &self.tables, &mut Work::default());
        let counter = &mut self.counters.verdicts[verdict.reason() as usize];
        counter.packets += 1;
        // What comes out of a tunnel begins its way anew, with a length of its own.
        counter.bytes += if unpacked() > before { bytes.len() } else { frame.len() } as u64;
        let action = match verdict {
            Verdict::Drop(_) | Verdict::Stage(_) => XDP_DROP,
            Verdict::Pass(_) | Verdict::Handshake(_) => XDP_PASS,
            Verdict::Answer(_) => XDP_TX,
            Verdict::Forward { interface: egress, .. } if egress == interface => XDP_TX,
            Verdict::Forward { .. } => XDP_REDIRECT,
        };
        Ok(Done { action, bytes })
    }

    fn events(&mut self) -> Result<Vec<Event>> {
        Ok(self.tables.events.take().into_iter().map(|event| Event { time_ns: 0, ..event }).collect())
    }

    fn counters(&self) -> Result<Counters> {
        let mut counters = self.counters.clone();
        for (slot, counter) in &*self.tables.rule_counters.borrow() {
            counters.rules[*slot as usize] = *counter;
        }
        for (slot, traffic) in &*self.tables.service_counters.borrow() {
            counters.services[*slot as usize] = *traffic;
        }
        for (slot, traffic) in &*self.tables.backend_counters.borrow() {
            counters.backends[*slot as usize] = *traffic;
        }
        counters.tunnels = self.tables.tunnel_counters.borrow().to_vec();
        for (slot, failures) in &*self.tables.connect_failures.borrow() {
            counters.failures[*slot as usize] = *failures;
        }
        Ok(counters)
    }
}
