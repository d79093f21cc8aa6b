//! The host's shell around the packet path: the same look-ups over hash maps, for tests and explanations.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::abi::{Backend, Counter, Endpoint, Flow, RuleEntry, RuleSet, Service, Traffic};
use crate::address::{Ipv4, Ipv6, SocketKey, Tuple};
use crate::rules::compile::Compiled;
use crate::tables::{Route, RouteQuery, Tables};

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
    /// See [`Tables::generation`].
    pub generation: u32,
    /// See [`Tables::balances`].
    pub balances: bool,
    /// See [`Tables::interface`].
    pub interface: u32,
    /// See [`Tables::now_ns`].
    pub now_ns: u64,
    /// The rule set.
    pub rules: Compiled,
    /// Rules as the maps hold them.
    pub entries: Vec<RuleEntry>,
    /// Services by VIP.
    pub services4: HashMap<SocketKey<1>, Service>,
    /// Services by VIP.
    pub services6: HashMap<SocketKey<4>, Service>,
    /// Endpoints of backends.
    pub endpoints4: HashMap<SocketKey<1>, Endpoint>,
    /// Endpoints of backends.
    pub endpoints6: HashMap<SocketKey<4>, Endpoint>,
    /// Rings of members.
    pub ring: HashMap<u32, u32>,
    /// Backends by slot.
    pub backends: HashMap<u32, Backend>,
    /// Connections of this host.
    pub own4: HashSet<Tuple<1>>,
    /// Connections of this host.
    pub own6: HashSet<Tuple<4>>,
    /// Next hops by destination, the longest prefix first in force; others are unreachable.
    pub routes: Vec<HostRoute>,
    /// Whether the flow tables refuse new entries.
    pub flows_refused: bool,
    /// Flows.
    pub flows4: RefCell<HashMap<Tuple<1>, Flow>>,
    /// Flows.
    pub flows6: RefCell<HashMap<Tuple<4>, Flow>>,
    /// Cursors by service slot.
    pub cursors: RefCell<HashMap<u32, u64>>,
    /// Counters by rule counter slot.
    pub rule_counters: RefCell<HashMap<u32, Counter>>,
    /// Counters by service slot.
    pub service_counters: RefCell<HashMap<u32, Traffic>>,
    /// Counters by backend slot.
    pub backend_counters: RefCell<HashMap<u32, Traffic>>,
}

impl HostTables {
    /// Tables with these rules, and nothing else in them; rule `n` counts in slot `n`.
    #[must_use]
    pub fn new(rules: Compiled) -> Self {
        let entries =
            rules.actions.iter().zip(0..).map(|(action, counter)| RuleEntry { action: *action, counter }).collect();
        Self {
            generation: 1,
            balances: false,
            interface: 1,
            now_ns: 1_000_000_000,
            rules,
            entries,
            services4: HashMap::new(),
            services6: HashMap::new(),
            endpoints4: HashMap::new(),
            endpoints6: HashMap::new(),
            ring: HashMap::new(),
            backends: HashMap::new(),
            own4: HashSet::new(),
            own6: HashSet::new(),
            routes: Vec::new(),
            flows_refused: false,
            flows4: RefCell::default(),
            flows6: RefCell::default(),
            cursors: RefCell::default(),
            rule_counters: RefCell::default(),
            service_counters: RefCell::default(),
            backend_counters: RefCell::default(),
        }
    }

    fn route(&self, destination: IpAddr, length: u16) -> Route {
        let holding = self.routes.iter().filter(|route| route.prefix.contains(&destination));
        match holding.max_by_key(|route| route.prefix.prefix_len()) {
            Some(found) if found.route == Route::Unreachable || length <= found.mtu => found.route,
            Some(_) => Route::TooBig,
            None => Route::Unreachable,
        }
    }
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
    fn generation(&self) -> u32 {
        self.generation
    }
    fn balances(&self) -> bool {
        self.balances
    }
    fn interface(&self) -> u32 {
        self.interface
    }
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
    fn flow4(&self, key: &Tuple<1>) -> Option<Flow> {
        self.flows4.borrow().get(key).copied()
    }
    fn flow6(&self, key: &Tuple<4>) -> Option<Flow> {
        self.flows6.borrow().get(key).copied()
    }
    fn insert_flow4(&self, key: &Tuple<1>, flow: &Flow) -> bool {
        if !self.flows_refused {
            self.flows4.borrow_mut().insert(*key, *flow);
        }
        !self.flows_refused
    }
    fn insert_flow6(&self, key: &Tuple<4>, flow: &Flow) -> bool {
        if !self.flows_refused {
            self.flows6.borrow_mut().insert(*key, *flow);
        }
        !self.flows_refused
    }
    fn service4(&self, key: &SocketKey<1>) -> Option<Service> {
        self.services4.get(key).copied()
    }
    fn service6(&self, key: &SocketKey<4>) -> Option<Service> {
        self.services6.get(key).copied()
    }
    fn endpoint4(&self, key: &SocketKey<1>) -> Option<Endpoint> {
        self.endpoints4.get(key).copied()
    }
    fn endpoint6(&self, key: &SocketKey<4>) -> Option<Endpoint> {
        self.endpoints6.get(key).copied()
    }
    fn advance(&self, slot: u32) -> Option<u64> {
        let mut cursors = self.cursors.borrow_mut();
        let cursor = cursors.entry(slot).or_default();
        *cursor += 1;
        Some(*cursor - 1)
    }
    fn member(&self, index: u32) -> Option<u32> {
        self.ring.get(&index).copied()
    }
    fn backend(&self, slot: u32) -> Option<Backend> {
        self.backends.get(&slot).copied()
    }
    fn source_class4(&self, address: Ipv4) -> u32 {
        self.rules.sources.class(ip4(address))
    }
    fn source_class6(&self, address: Ipv6) -> u32 {
        self.rules.sources.class(ip6(address))
    }
    fn destination_class4(&self, address: Ipv4) -> u32 {
        self.rules.destinations.class(ip4(address))
    }
    fn destination_class6(&self, address: Ipv6) -> u32 {
        self.rules.destinations.class(ip6(address))
    }
    fn kind_class(&self, index: u32) -> u32 {
        self.rules.kind_class(index)
    }
    fn source_rules(&self, class: u32) -> Option<&RuleSet> {
        self.rules.sources.sets.get(class as usize)
    }
    fn destination_rules(&self, class: u32) -> Option<&RuleSet> {
        self.rules.destinations.sets.get(class as usize)
    }
    fn kind_rules(&self, class: u32) -> Option<&RuleSet> {
        self.rules.kind_sets.get(class as usize)
    }
    fn rule(&self, index: u32) -> Option<RuleEntry> {
        self.entries.get(index as usize).copied()
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
    fn count_rule(&self, counter: u32, bytes: u64) {
        let mut counters = self.rule_counters.borrow_mut();
        let counter = counters.entry(counter).or_default();
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
