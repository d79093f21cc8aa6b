//! The kernel's answers to what the packet path asks: maps and helpers.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::XdpContext;
use core::ffi::c_void;
use foobar_common::abi::{Backend, Endpoint, Flow, RuleEntry, RuleSet, Service};
use foobar_common::address::{Ipv4, Ipv6, SocketKey, Tuple};
use foobar_common::tables::{Route, RouteQuery, Tables};

use crate::maps::{
    BACKENDS, CURSORS, DESTINATION_SETS, DESTINATIONS4, DESTINATIONS6, ENDPOINTS4, ENDPOINTS6, FLOWS4, FLOWS6,
    KIND_CLASSES, KIND_SETS, RINGS, RULES, SERVICES4, SERVICES6, SOURCE_SETS, SOURCES4, SOURCES6,
};
use crate::{atomic, count, maps, own, route};

/// Maps and helpers, on behalf of one program's context.
pub(crate) struct Kernel {
    context: *mut c_void,
    ingress: u32,
}

impl Kernel {
    /// For a packet.
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self { context: context.as_ptr(), ingress: context.ingress_ifindex() as u32 }
    }

    /// For a socket, which came by no interface.
    #[inline(always)]
    pub(crate) const fn of_socket(context: *mut c_void) -> Self {
        Self { context, ingress: 0 }
    }

    /// Interface on which the packet came.
    #[inline(always)]
    pub(crate) const fn ingress(&self) -> u32 {
        self.ingress
    }
}

impl Tables for Kernel {
    #[inline(always)]
    fn generation(&self) -> u32 {
        maps::generation()
    }
    #[inline(always)]
    fn balances(&self) -> bool {
        maps::balances()
    }
    #[inline(always)]
    fn interface(&self) -> u32 {
        self.ingress
    }
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without pointers. The coarse clock: the fine one costs 30 to 40 ns a packet.
        unsafe { bpf_ktime_get_coarse_ns() }
    }
    #[inline(always)]
    fn flow4(&self, key: &Tuple<1>) -> Option<Flow> {
        // SAFETY: the value is copied at once; an element that is used again in between is another flow's entry
        // of the same layout, as the kernel documents for every hash map.
        unsafe { FLOWS4.get(key).copied() }
    }
    #[inline(always)]
    fn flow6(&self, key: &Tuple<4>) -> Option<Flow> {
        // SAFETY: as in `flow4`.
        unsafe { FLOWS6.get(key).copied() }
    }
    #[inline(always)]
    fn insert_flow4(&self, key: &Tuple<1>, flow: &Flow) -> bool {
        FLOWS4.insert(key, flow, 0).is_ok()
    }
    #[inline(always)]
    fn insert_flow6(&self, key: &Tuple<4>, flow: &Flow) -> bool {
        FLOWS6.insert(key, flow, 0).is_ok()
    }
    #[inline(always)]
    fn service4(&self, key: &SocketKey<1>) -> Option<Service> {
        // SAFETY: as in `flow4`.
        unsafe { SERVICES4.get(key).copied() }
    }
    #[inline(always)]
    fn service6(&self, key: &SocketKey<4>) -> Option<Service> {
        // SAFETY: as in `flow4`.
        unsafe { SERVICES6.get(key).copied() }
    }
    #[inline(always)]
    fn endpoint4(&self, key: &SocketKey<1>) -> Option<Endpoint> {
        // SAFETY: as in `flow4`.
        unsafe { ENDPOINTS4.get(key).copied() }
    }
    #[inline(always)]
    fn endpoint6(&self, key: &SocketKey<4>) -> Option<Endpoint> {
        // SAFETY: as in `flow4`.
        unsafe { ENDPOINTS6.get(key).copied() }
    }
    #[inline(always)]
    fn advance(&self, slot: u32) -> Option<u64> {
        // SAFETY: a word of a map value.
        CURSORS.get_ptr_mut(slot).map(|cursor| unsafe { atomic::fetch_add(cursor, 1) })
    }
    #[inline(always)]
    fn member(&self, index: u32) -> Option<u32> {
        RINGS.get(index).copied()
    }
    #[inline(always)]
    fn backend(&self, slot: u32) -> Option<Backend> {
        BACKENDS.get(slot).copied()
    }
    #[inline(always)]
    fn source_class4(&self, address: Ipv4) -> u32 {
        SOURCES4.get(Key::new(32, address)).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn source_class6(&self, address: Ipv6) -> u32 {
        SOURCES6.get(Key::new(128, address)).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn destination_class4(&self, address: Ipv4) -> u32 {
        DESTINATIONS4.get(Key::new(32, address)).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn destination_class6(&self, address: Ipv6) -> u32 {
        DESTINATIONS6.get(Key::new(128, address)).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn kind_class(&self, index: u32) -> u32 {
        KIND_CLASSES.get(index).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn source_rules(&self, class: u32) -> Option<&RuleSet> {
        SOURCE_SETS.get(class)
    }
    #[inline(always)]
    fn destination_rules(&self, class: u32) -> Option<&RuleSet> {
        DESTINATION_SETS.get(class)
    }
    #[inline(always)]
    fn kind_rules(&self, class: u32) -> Option<&RuleSet> {
        KIND_SETS.get(class)
    }
    #[inline(always)]
    fn rule(&self, index: u32) -> Option<RuleEntry> {
        RULES.get(index).copied()
    }
    #[inline(always)]
    fn own_connection4(&self, tuple: &Tuple<1>) -> bool {
        own::connection4(self.context, tuple)
    }
    #[inline(always)]
    fn own_connection6(&self, tuple: &Tuple<4>) -> bool {
        own::connection6(self.context, tuple)
    }
    #[inline(always)]
    fn route4(&self, query: &RouteQuery<1>) -> Route {
        route::ipv4(self.context, self.ingress, query)
    }
    #[inline(always)]
    fn route6(&self, query: &RouteQuery<4>) -> Route {
        route::ipv6(self.context, self.ingress, query)
    }
    #[inline(always)]
    fn count_rule(&self, counter: u32, bytes: u64) {
        count::rule(counter, bytes);
    }
    #[inline(always)]
    fn count_backend(&self, service: u32, backend: u32, connections: u64, packets: u64, bytes: u64) {
        count::backend(service, backend, connections, packets, bytes);
    }
}
