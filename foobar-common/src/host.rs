//! The host's shell around the packet path: the same look-ups over hash maps, for tests and explanations.

mod serve;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::abi::{
    Backend, BucketKey, ConnectFailures, Counter, Endpoint, Event, Flow, FlowTable, Membership, NO_RULE_SLOT, Service,
    Stuck, TUNNEL_WAYS, Traffic,
};
use crate::address::{Ipv4, Ipv6, Peer, SocketKey, Tuple};
use crate::bucket;
use crate::express::Express;
use crate::fence;
use crate::generation::{Generation, RuleEntry};
use crate::parse::{Headers, TCP};
use crate::reply::{Over, Reply, Room};
use crate::rules::compile::Compiled;
use crate::tables::{Route, RouteQuery, Step, Tables};
use crate::verdict::Reason;
use crate::vlan::{Link, Tag};

/// A route of the host's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// Destinations.
    pub prefix: IpNet,
    /// Longest IP packet in bytes.
    pub mtu: u16,
    /// Where they go.
    pub route: Route,
}

/// Everything that the packet path may look up or change.
#[derive(Clone, Debug)]
pub struct HostTables {
    /// The rules.
    pub rules: Compiled,
    /// Words of the named sets' prefix tables.
    pub members: Vec<u64>,
    /// Membership classes.
    pub memberships: Vec<Membership>,
    /// See [`Tables::interface`].
    pub interface: u32,
    /// See [`Tables::now_ns`].
    pub now_ns: u64,
    /// See [`Tables::watched`].
    pub watched: bool,
    /// The end of the lease, and this moment, both on the clock of [`crate::fence`].
    pub lease: (u64, u64),
    /// Services by VIP.
    pub services4: HashMap<SocketKey<1>, Service>,
    /// Services by VIP.
    pub services6: HashMap<SocketKey<4>, Service>,
    /// Endpoints of backends.
    pub endpoints4: HashMap<SocketKey<1>, Endpoint>,
    /// Endpoints of backends.
    pub endpoints6: HashMap<SocketKey<4>, Endpoint>,
    /// Rings of members.
    pub rings: HashMap<(u32, usize), u32>,
    /// Backends by slot.
    pub backends: HashMap<u32, Backend>,
    /// Flows from the wire of each backend slot.
    pub active: RefCell<HashMap<u32, i64>>,
    /// Connections of local sockets of each backend slot.
    pub held: RefCell<HashMap<u32, i64>>,
    /// Connections that each backend slot has not taken.
    pub connect_failures: RefCell<HashMap<u32, ConnectFailures>>,
    /// What local sockets have asked for, by the end that they were given.
    pub asked4: RefCell<HashMap<Peer<1>, SocketKey<1>>>,
    /// The same for IPv6.
    pub asked6: RefCell<HashMap<Peer<4>, SocketKey<4>>>,
    /// Backends of local sockets that send datagrams, by the VIP.
    pub chosen4: RefCell<HashMap<Peer<1>, Stuck>>,
    /// The same for IPv6.
    pub chosen6: RefCell<HashMap<Peer<4>, Stuck>>,
    /// Clients that stay with their backend.
    pub stuck: RefCell<HashMap<BucketKey, Stuck>>,
    /// See [`Tables::answers_syns`].
    pub answers_syns: bool,
    /// Connections of this host.
    pub own4: HashSet<Tuple<1>>,
    /// Connections of this host.
    pub own6: HashSet<Tuple<4>>,
    /// Next hops by destination, the longest prefix first in force; others are unreachable.
    pub routes: Vec<HostRoute>,
    /// Whether the flow tables refuse new entries.
    pub flows_refused: bool,
    /// Whether another CPU establishes a half-open flow, its reply's entry first, whenever it was just looked for among the
    /// established ones.
    pub flows_on_the_move: bool,
    /// Flows.
    pub flows4: RefCell<HashMap<(FlowTable, Tuple<1>), Flow<1>>>,
    /// Flows.
    pub flows6: RefCell<HashMap<(FlowTable, Tuple<4>), Flow<4>>>,
    /// What is remembered of flows.
    pub express4: RefCell<HashMap<Tuple<1>, Express<1>>>,
    /// The same for IPv6.
    pub express6: RefCell<HashMap<Tuple<4>, Express<4>>>,
    /// See [`Tables::epoch`].
    pub epoch: u32,
    /// Replies, as they come.
    pub replies4: RefCell<HashMap<(FlowTable, Tuple<1>), Reply<1>>>,
    /// The same for IPv6.
    pub replies6: RefCell<HashMap<(FlowTable, Tuple<4>), Reply<4>>>,
    /// Source addresses by ring and index.
    pub sources: HashMap<(u32, u32), [u32; 4]>,
    /// Devices of VLANs.
    pub vlans: HashMap<Link, u32>,
    /// VLANs of devices by which packets leave.
    pub vlan_links: HashMap<u32, Link>,
    /// Interface by which each source would be answered, the longest prefix first in force; others by none.
    pub ways_back: Vec<(IpNet, u32)>,
    /// Token buckets of limits.
    pub buckets: RefCell<HashMap<BucketKey, u64>>,
    /// Open connections.
    pub open: HashMap<BucketKey, u32>,
    /// What was told; without the rates of the kernel.
    pub events: RefCell<Vec<Event>>,
    /// Cursors by service slot.
    pub cursors: RefCell<HashMap<u32, u64>>,
    /// Counters by rule counter slot.
    pub rule_counters: RefCell<HashMap<u32, Counter>>,
    /// Packets that were put into tunnels, and that were taken out of them.
    pub tunnel_counters: RefCell<[Counter; TUNNEL_WAYS as usize]>,
    /// Counters by service slot.
    pub service_counters: RefCell<HashMap<u32, Traffic>>,
    /// Counters by backend slot.
    pub backend_counters: RefCell<HashMap<u32, Traffic>>,
}

impl HostTables {
    /// Tables with these rules, and nothing else in them.
    #[must_use]
    pub fn new(rules: Compiled) -> Self {
        Self {
            rules,
            members: Vec::new(),
            memberships: Vec::new(),
            interface: 1,
            now_ns: 1_000_000_000,
            watched: false,
            lease: (0, 1),
            services4: HashMap::new(),
            services6: HashMap::new(),
            endpoints4: HashMap::new(),
            endpoints6: HashMap::new(),
            rings: HashMap::new(),
            backends: HashMap::new(),
            active: RefCell::default(),
            held: RefCell::default(),
            connect_failures: RefCell::default(),
            asked4: RefCell::default(),
            asked6: RefCell::default(),
            chosen4: RefCell::default(),
            chosen6: RefCell::default(),
            stuck: RefCell::default(),
            answers_syns: false,
            own4: HashSet::new(),
            own6: HashSet::new(),
            routes: Vec::new(),
            flows_refused: false,
            flows_on_the_move: false,
            flows4: RefCell::default(),
            flows6: RefCell::default(),
            express4: RefCell::default(),
            express6: RefCell::default(),
            epoch: 0,
            replies4: RefCell::default(),
            replies6: RefCell::default(),
            sources: HashMap::new(),
            vlans: HashMap::new(),
            vlan_links: HashMap::new(),
            ways_back: Vec::new(),
            buckets: RefCell::default(),
            open: HashMap::new(),
            events: RefCell::default(),
            cursors: RefCell::default(),
            rule_counters: RefCell::default(),
            tunnel_counters: RefCell::default(),
            service_counters: RefCell::default(),
            backend_counters: RefCell::default(),
        }
    }

    fn look<K: Eq + std::hash::Hash + Copy, V: Copy>(
        &self,
        entries: &RefCell<HashMap<(FlowTable, K), V>>,
        table: FlowTable,
        key: &K,
    ) -> Option<V> {
        let found = entries.borrow().get(&(table, *key)).copied();
        if self.flows_on_the_move && table == FlowTable::Established {
            let mut entries = entries.borrow_mut();
            if let Some(entry) = entries.remove(&(FlowTable::HalfOpen, *key)) {
                entries.insert((table, *key), entry);
            }
        }
        found
    }

    fn way_back(&self, source: IpAddr) -> Option<u32> {
        let holding = self.ways_back.iter().filter(|(prefix, _)| prefix.contains(&source));
        holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, interface)| *interface)
    }

    fn tell<const W: usize>(&self, headers: Option<&Headers<W>>, reason: Reason, bytes: u64, rule: u32, shadow: u8) {
        let (interface, length) = (self.interface, bytes as u32);
        let mut event =
            Event { time_ns: self.now_ns, rule, reason: reason as u32, interface, length, shadow, ..Event::default() };
        if let Some(headers) = headers {
            let tuple = &headers.tuple;
            event.source[..W].copy_from_slice(&tuple.source.0);
            event.destination[..W].copy_from_slice(&tuple.destination.0);
            (event.source_port, event.destination_port) = (tuple.source_port, tuple.destination_port);
            (event.protocol, event.family) = (tuple.protocol, if W == 1 { 4 } else { 6 });
            event.detail = if tuple.protocol == TCP { headers.flags } else { headers.icmp_type };
        }
        self.events.borrow_mut().push(event);
    }

    fn route(&self, destination: IpAddr, length: u16) -> Route {
        let holding = self.routes.iter().filter(|route| route.prefix.contains(&destination));
        match holding.max_by_key(|route| route.prefix.prefix_len()) {
            Some(found) if found.route == Route::Unreachable => found.route,
            Some(found) if length > found.mtu => Route::TooBig { mtu: found.mtu },
            Some(HostRoute { mtu, route: Route::Hop { interface, source, destination, gateway, .. }, .. }) => {
                let plain = Link { interface: *interface, tag: Tag::NONE };
                let Link { interface, tag } = *self.vlan_links.get(interface).unwrap_or(&plain);
                let (source, destination, gateway, mtu) = (*source, *destination, *gateway, *mtu);
                Route::Hop { interface, tag, source, destination, gateway, mtu }
            }
            Some(found) => found.route,
            None => Route::Unreachable,
        }
    }
}

/// Inserts an entry.
fn insert<K: Eq + std::hash::Hash, V>(table: &RefCell<HashMap<K, V>>, key: K, value: V, over: Over) -> bool {
    let mut table = table.borrow_mut();
    let vacant = over == Over::Anything || !table.contains_key(&key);
    if vacant {
        table.insert(key, value);
    }
    vacant
}

fn bound_to_link(address: Ipv6Addr) -> bool {
    address.is_multicast() || address.is_unicast_link_local() || address.is_loopback()
}

fn ip4(address: Ipv4) -> IpAddr {
    Ipv4Addr::from(address.bytes()).into()
}

fn ip6(address: Ipv6) -> IpAddr {
    Ipv6Addr::from(address.bytes()).into()
}

impl Tables for HostTables {
    fn generation(&self) -> Option<&Generation> {
        Some(&self.rules.generation)
    }
    fn interface(&self) -> u32 {
        self.interface
    }
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
    fn fenced(&self) -> bool {
        let (end, now_ns) = self.lease;
        fence::is_up(end, || now_ns)
    }
    fn flow4(&self, table: FlowTable, key: &Tuple<1>) -> Option<Flow<1>> {
        self.look(&self.flows4, table, key)
    }
    fn flow6(&self, table: FlowTable, key: &Tuple<4>) -> Option<Flow<4>> {
        self.look(&self.flows6, table, key)
    }
    fn insert_flow4(&self, table: FlowTable, key: &Tuple<1>, flow: &Flow<1>) -> bool {
        if !self.flows_refused {
            self.flows4.borrow_mut().insert((table, *key), *flow);
        }
        !self.flows_refused
    }
    fn amend_flow4(&self, table: FlowTable, key: &Tuple<1>, flow: &Flow<1>) {
        self.flows4.borrow_mut().entry((table, *key)).and_modify(|entry| *entry = *flow);
    }
    fn amend_flow6(&self, table: FlowTable, key: &Tuple<4>, flow: &Flow<4>) {
        self.flows6.borrow_mut().entry((table, *key)).and_modify(|entry| *entry = *flow);
    }
    fn remove_flow4(&self, table: FlowTable, key: &Tuple<1>) {
        self.flows4.borrow_mut().remove(&(table, *key));
    }
    fn insert_flow6(&self, table: FlowTable, key: &Tuple<4>, flow: &Flow<4>) -> bool {
        if !self.flows_refused {
            self.flows6.borrow_mut().insert((table, *key), *flow);
        }
        !self.flows_refused
    }
    fn remove_flow6(&self, table: FlowTable, key: &Tuple<4>) {
        self.flows6.borrow_mut().remove(&(table, *key));
    }
    fn express4<R>(&self, tuple: &Tuple<1>, look: impl FnOnce(&mut Express<1>) -> R) -> Option<R> {
        Some(look(self.express4.borrow_mut().entry(*tuple).or_insert(Express::nothing())))
    }
    fn express6<R>(&self, tuple: &Tuple<4>, look: impl FnOnce(&mut Express<4>) -> R) -> Option<R> {
        Some(look(self.express6.borrow_mut().entry(*tuple).or_insert(Express::nothing())))
    }
    fn epoch(&self) -> u32 {
        self.epoch
    }
    fn service4(&self, key: &SocketKey<1>) -> Option<Service> {
        self.services4.get(key).copied()
    }
    fn service6(&self, key: &SocketKey<4>) -> Option<Service> {
        self.services6.get(key).copied()
    }
    fn asked4(&self, peer: &Peer<1>) -> Option<SocketKey<1>> {
        self.asked4.borrow().get(peer).copied()
    }
    fn asked6(&self, peer: &Peer<4>) -> Option<SocketKey<4>> {
        self.asked6.borrow().get(peer).copied()
    }
    fn ask4(&self, peer: &Peer<1>, vip: &SocketKey<1>) {
        self.asked4.borrow_mut().insert(*peer, *vip);
    }
    fn ask6(&self, peer: &Peer<4>, vip: &SocketKey<4>) {
        self.asked6.borrow_mut().insert(*peer, *vip);
    }
    fn chosen4(&self, peer: &Peer<1>) -> Option<Stuck> {
        self.chosen4.borrow().get(peer).copied()
    }
    fn chosen6(&self, peer: &Peer<4>) -> Option<Stuck> {
        self.chosen6.borrow().get(peer).copied()
    }
    fn choose4(&self, peer: &Peer<1>, stuck: Stuck) {
        self.chosen4.borrow_mut().insert(*peer, stuck);
    }
    fn choose6(&self, peer: &Peer<4>, stuck: Stuck) {
        self.chosen6.borrow_mut().insert(*peer, stuck);
    }
    fn endpoint4(&self, key: &SocketKey<1>) -> Option<Endpoint> {
        self.endpoints4.get(key).copied()
    }
    fn endpoint6(&self, key: &SocketKey<4>) -> Option<Endpoint> {
        self.endpoints6.get(key).copied()
    }
    fn reply4(&self, table: FlowTable, room: &mut Room<1>) -> bool {
        let found = self.look(&self.replies4, table, &room.tuple);
        found.is_some_and(|reply| {
            room.reply = reply;
            true
        })
    }
    fn insert_reply4(&self, table: FlowTable, room: &mut Room<1>, over: Over) -> bool {
        insert(&self.replies4, (table, room.tuple), room.reply, over)
    }
    fn remove_reply4(&self, table: FlowTable, room: &mut Room<1>) {
        self.replies4.borrow_mut().remove(&(table, room.tuple));
    }
    fn reply6(&self, table: FlowTable, room: &mut Room<4>) -> bool {
        let found = self.look(&self.replies6, table, &room.tuple);
        found.is_some_and(|reply| {
            room.reply = reply;
            true
        })
    }
    fn insert_reply6(&self, table: FlowTable, room: &mut Room<4>, over: Over) -> bool {
        insert(&self.replies6, (table, room.tuple), room.reply, over)
    }
    fn remove_reply6(&self, table: FlowTable, room: &mut Room<4>) {
        self.replies6.borrow_mut().remove(&(table, room.tuple));
    }
    fn source(&self, ring: u32, index: u32) -> Option<[u32; 4]> {
        self.sources.get(&(ring, index)).copied()
    }
    fn advance(&self, slot: u32) -> Option<u64> {
        let mut cursors = self.cursors.borrow_mut();
        let cursor = cursors.entry(slot).or_default();
        *cursor += 1;
        Some(*cursor - 1)
    }
    fn member(&self, ring: u32, place: usize) -> Option<u32> {
        self.rings.get(&(ring, place)).copied()
    }
    fn backend(&self, slot: u32) -> Option<Backend> {
        self.backends.get(&slot).copied()
    }
    fn active(&self, slot: u32) -> u64 {
        let number = |of: &RefCell<HashMap<u32, i64>>| of.borrow().get(&slot).copied().unwrap_or(0);
        u64::try_from(number(&self.active)).unwrap_or(0) + u64::try_from(number(&self.held)).unwrap_or(0)
    }
    fn add_active(&self, slot: u32, change: i64) {
        *self.active.borrow_mut().entry(slot).or_default() += change;
    }
    fn hold(&self, slot: u32) -> u64 {
        let before = self.active(slot);
        *self.held.borrow_mut().entry(slot).or_default() += 1;
        before
    }
    fn release(&self, slot: u32) {
        *self.held.borrow_mut().entry(slot).or_default() -= 1;
    }
    fn connect_failed(&self, slot: u32) {
        let mut failures = self.connect_failures.borrow_mut();
        let failures = failures.entry(slot).or_default();
        (failures.total, failures.row) = (failures.total + 1, failures.row + 1);
    }
    fn connect_answered(&self, slot: u32) {
        self.connect_failures.borrow_mut().entry(slot).or_default().row = 0;
    }
    fn stuck(&self, key: &BucketKey) -> Option<Stuck> {
        self.stuck.borrow().get(key).copied()
    }
    fn stick(&self, key: &BucketKey, backend: u32, now_ns: u64) {
        self.stuck.borrow_mut().insert(*key, Stuck { backend, _pad: 0, last_seen_ns: now_ns });
    }
    fn member_word(&self, index: u32) -> Option<u64> {
        self.members.get(index as usize).copied()
    }
    fn membership(&self, class: u32) -> Option<Membership> {
        self.memberships.get(class as usize).copied()
    }
    fn take(&self, key: &BucketKey, interval_ns: u64, burst_ns: u64) -> bool {
        let mut buckets = self.buckets.borrow_mut();
        let full_at = buckets.get(key).copied().unwrap_or(0);
        let next = bucket::taken(full_at, self.now_ns, interval_ns, burst_ns);
        next.is_some_and(|next| {
            buckets.insert(*key, next);
            true
        })
    }
    fn open_connections(&self, key: &BucketKey) -> u32 {
        self.open.get(key).copied().unwrap_or(0)
    }
    fn answers_syns(&self) -> bool {
        self.answers_syns
    }
    fn samples_syn(&self) -> bool {
        true
    }
    fn own_connection4(&self, tuple: &Tuple<1>) -> bool {
        self.own4.contains(tuple)
    }
    fn own_connection6(&self, tuple: &Tuple<4>) -> bool {
        self.own6.contains(tuple)
    }
    fn route4(&self, query: &RouteQuery<1>) -> Route {
        self.route(ip4(query.destination), query.length)
    }
    fn route6(&self, query: &RouteQuery<4>) -> Route {
        // As the kernel: what has a meaning on one link only is never forwarded.
        if [query.source, query.destination].iter().any(|address| bound_to_link(Ipv6Addr::from(address.bytes()))) {
            return Route::Unreachable;
        }
        self.route(ip6(query.destination), query.length)
    }
    fn vlan(&self, link: &Link) -> u32 {
        self.vlans.get(link).copied().unwrap_or(0)
    }
    fn routed_back4(&self, source: Ipv4, ingress: u32) -> bool {
        self.way_back(ip4(source)) == Some(ingress)
    }
    fn routed_back6(&self, source: Ipv6, ingress: u32) -> bool {
        self.way_back(ip6(source)) == Some(ingress)
    }
    fn repeat<S: Step>(&self, times: u32, state: &mut S) {
        let mut turns = 0..times;
        while turns.next().is_some() && state.step() {}
    }
    fn watched(&self) -> bool {
        self.watched
    }
    fn tell_rule<const W: usize>(&self, headers: &Headers<W>, rule: &RuleEntry, reason: Reason, bytes: u64) {
        self.tell(Some(headers), reason, bytes, rule.counter, rule.shadow);
    }
    fn tell_drop<const W: usize>(&self, headers: Option<&Headers<W>>, reason: Reason, bytes: u64) {
        self.tell(headers, reason, bytes, NO_RULE_SLOT, 0);
    }
    fn count_rule(&self, counter: u32, bytes: u64) {
        let mut counters = self.rule_counters.borrow_mut();
        let counter = counters.entry(counter).or_default();
        counter.packets += 1;
        counter.bytes += bytes;
    }
    fn count_tunnel(&self, way: u32, bytes: u64) {
        let counter = &mut self.tunnel_counters.borrow_mut()[way as usize];
        counter.packets += 1;
        counter.bytes += bytes;
    }
    fn count_backend(&self, service: u32, backend: u32, connections: u64, packets: u64, bytes: u64) {
        for (counters, slot) in [(&self.service_counters, service), (&self.backend_counters, backend)] {
            let mut counters = counters.borrow_mut();
            let traffic = counters.entry(slot).or_default();
            traffic.connections += connections;
            traffic.packets += packets;
            traffic.bytes += bytes;
        }
    }
}
