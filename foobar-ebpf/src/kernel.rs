//! The kernel's answers to what the packet path asks: maps and helpers.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_loop};
use aya_ebpf::maps::{Array, LruHashMap};
use aya_ebpf::programs::XdpContext;
use core::ffi::c_void;
use core::ptr::write_volatile;
use foobar_common::abi::{
    Backend, BucketKey, Endpoint, Flow, FlowTable, MAX_SOURCES, Membership, RING_PLACES, Service, Stuck,
};
use foobar_common::address::{Address, Peer, SocketKey, Tuple};
use foobar_common::express::{self, Express};
use foobar_common::generation::{Generation, RuleEntry, in_force};
use foobar_common::parse::Headers;
use foobar_common::path::Of;
use foobar_common::reply::{Ask, Over, Room};
use foobar_common::tables::{Route, RouteQuery, Step, Tables};
use foobar_common::verdict::Reason;
use foobar_common::vlan::Link;

use crate::maps::{
    ACTIVE, ASKED4, ASKED6, BACKENDS, CHOSEN4, CHOSEN6, CONTROL, CURSORS, DATAGRAMS4, DATAGRAMS6, ENDPOINTS4,
    ENDPOINTS6, EPOCH, EXPRESS4, EXPRESS6, FLOWS4, FLOWS6, HALF_OPEN4, HALF_OPEN6, LOCAL_ACTIVE, MEMBERS, MEMBERSHIPS,
    RINGS, RULES, SERVICES4, SERVICES6, SOURCES, STUCK, SYN_SETTINGS, VLANS,
};
use crate::{atomic, count, events, failures, fence, half_open, limits, maps, own, replies, route, stages, trace};

/// Index in `CONTROL` of the word that says whether somebody watches.
const WATCHED: u32 = 1;

/// One in so many SYNs is looked at for a flood.
const SYNS_A_SAMPLE: u32 = 16;

/// Maps and helpers, for all packets but those that go on in a stage of their own.
pub(crate) type Kernel = Context<false>;
/// The same for these.
pub(crate) type Apart = Context<true>;

/// Maps and helpers, on behalf of one program's context.
pub(crate) struct Context<const APART: bool> {
    context: *mut c_void,
    ingress: u32,
}

impl<const APART: bool> Context<APART> {
    /// For a packet.
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self { context: context.as_ptr(), ingress: context.ingress_ifindex() as u32 }
    }

    /// For the packet of a context.
    #[inline(always)]
    pub(crate) fn of_packet(context: *mut xdp_md) -> Self {
        // SAFETY: the context of a running program; volatile, as the verifier demands a load of this very field.
        let ingress = unsafe { core::ptr::read_volatile(&raw const (*context).ingress_ifindex) };
        Self { context: context.cast(), ingress }
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

impl<const APART: bool> Tables for Context<APART> {
    const APART: bool = APART;

    #[inline(always)]
    fn generation(&self) -> Option<&Generation> {
        // Volatile: user space writes it through a mapping, at any time.
        // SAFETY: an aligned word of a map value.
        let control = unsafe { core::ptr::read_volatile(CONTROL.get_ptr(0)?) };
        RULES.get(in_force(control, || self.now_ns()))
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
    fn admit4(&self, _: &mut Of<1>) -> Reason {
        stages::admit_ipv4(self.context.cast())
    }
    #[inline(always)]
    fn admit6(&self, _: &mut Of<4>) -> Reason {
        stages::admit_ipv6(self.context.cast())
    }
    #[inline(always)]
    fn assign4(&self, _: &mut Of<1>) -> Reason {
        stages::assign_ipv4(self.context.cast())
    }
    #[inline(always)]
    fn assign6(&self, _: &mut Of<4>) -> Reason {
        stages::assign_ipv6(self.context.cast())
    }
    #[inline(always)]
    fn replies4(&self, ask: Ask, _: &mut Of<1>) -> Reason {
        stages::replies_ipv4(self.context.cast(), ask)
    }
    #[inline(always)]
    fn replies6(&self, ask: Ask, _: &mut Of<4>) -> Reason {
        stages::replies_ipv6(self.context.cast(), ask)
    }
    #[inline(always)]
    fn flow4(&self, table: FlowTable, key: &Tuple<1>) -> Option<Flow<1>> {
        if table == FlowTable::HalfOpen {
            return half_open::get(&HALF_OPEN4, key);
        }
        // SAFETY: the value is copied at once; an element that is used again in between is another flow's entry
        // of the same layout, as the kernel documents for every hash map.
        unsafe { flows4(table).get(key).copied() }
    }
    #[inline(always)]
    fn flow6(&self, table: FlowTable, key: &Tuple<4>) -> Option<Flow<4>> {
        if table == FlowTable::HalfOpen {
            return half_open::get(&HALF_OPEN6, key);
        }
        // SAFETY: as in `flow4`.
        unsafe { flows6(table).get(key).copied() }
    }
    #[inline(always)]
    fn insert_flow4(&self, table: FlowTable, key: &Tuple<1>, flow: &Flow<1>) -> bool {
        if maps::dry() {
            return true;
        }
        if table == FlowTable::HalfOpen {
            return half_open::insert(&HALF_OPEN4, key, flow);
        }
        flows4(table).insert(key, flow, 0).is_ok()
    }
    #[inline(always)]
    fn insert_flow6(&self, table: FlowTable, key: &Tuple<4>, flow: &Flow<4>) -> bool {
        if maps::dry() {
            return true;
        }
        if table == FlowTable::HalfOpen {
            return half_open::insert(&HALF_OPEN6, key, flow);
        }
        flows6(table).insert(key, flow, 0).is_ok()
    }
    #[inline(always)]
    fn amend_flow4(&self, table: FlowTable, key: &Tuple<1>, flow: &Flow<1>) {
        if maps::dry() {
            return;
        }
        if table == FlowTable::HalfOpen {
            half_open::amend(&HALF_OPEN4, key, flow);
        } else if let Some(entry) = flows4(table).get_ptr_mut(key) {
            amend(entry, flow);
        }
    }
    #[inline(always)]
    fn amend_flow6(&self, table: FlowTable, key: &Tuple<4>, flow: &Flow<4>) {
        if maps::dry() {
            return;
        }
        if table == FlowTable::HalfOpen {
            half_open::amend(&HALF_OPEN6, key, flow);
        } else if let Some(entry) = flows6(table).get_ptr_mut(key) {
            amend(entry, flow);
        }
    }
    #[inline(always)]
    fn remove_flow4(&self, table: FlowTable, key: &Tuple<1>) {
        if !maps::dry() {
            // It may have been driven out in between.
            match table {
                FlowTable::HalfOpen => half_open::remove(&HALF_OPEN4, key),
                _ => _ = flows4(table).remove(key),
            }
        }
    }
    #[inline(always)]
    fn remove_flow6(&self, table: FlowTable, key: &Tuple<4>) {
        if !maps::dry() {
            match table {
                FlowTable::HalfOpen => half_open::remove(&HALF_OPEN6, key),
                _ => _ = flows6(table).remove(key),
            }
        }
    }
    #[inline(always)]
    fn express4<R>(&self, tuple: &Tuple<1>, look: impl FnOnce(&mut Express<1>) -> R) -> Option<R> {
        remembered(&EXPRESS4, tuple, maps::express4_bits(), look)
    }
    #[inline(always)]
    fn express6<R>(&self, tuple: &Tuple<4>, look: impl FnOnce(&mut Express<4>) -> R) -> Option<R> {
        remembered(&EXPRESS6, tuple, maps::express6_bits(), look)
    }
    #[inline(always)]
    fn epoch(&self) -> u32 {
        // SAFETY: as in `generation`.
        EPOCH.get_ptr(0).map_or(0, |epoch| unsafe { core::ptr::read_volatile(epoch) as u32 })
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
    fn asked4(&self, peer: &Peer<1>) -> Option<SocketKey<1>> {
        // SAFETY: as in `flow4`.
        unsafe { ASKED4.get(peer).copied() }
    }
    #[inline(always)]
    fn ask4(&self, peer: &Peer<1>, vip: &SocketKey<1>) {
        // Refused, the program is told the backend's address.
        let _ = ASKED4.insert(peer, vip, 0);
    }
    #[inline(always)]
    fn chosen4(&self, peer: &Peer<1>) -> Option<Stuck> {
        // SAFETY: as in `flow4`.
        unsafe { CHOSEN4.get(peer).copied() }
    }
    #[inline(always)]
    fn choose4(&self, peer: &Peer<1>, stuck: Stuck) {
        // Refused, the next datagram is given another backend.
        let _ = CHOSEN4.insert(peer, stuck, 0);
    }
    #[inline(always)]
    fn asked6(&self, peer: &Peer<4>) -> Option<SocketKey<4>> {
        // SAFETY: as in `flow4`.
        unsafe { ASKED6.get(peer).copied() }
    }
    #[inline(always)]
    fn ask6(&self, peer: &Peer<4>, vip: &SocketKey<4>) {
        // Refused, the program is told the backend's address.
        let _ = ASKED6.insert(peer, vip, 0);
    }
    #[inline(always)]
    fn chosen6(&self, peer: &Peer<4>) -> Option<Stuck> {
        // SAFETY: as in `flow4`.
        unsafe { CHOSEN6.get(peer).copied() }
    }
    #[inline(always)]
    fn choose6(&self, peer: &Peer<4>, stuck: Stuck) {
        // Refused, the next datagram is given another backend.
        let _ = CHOSEN6.insert(peer, stuck, 0);
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
    fn reply4(&self, table: FlowTable, room: &mut Room<1>) -> bool {
        replies::find_ipv4(table, room)
    }
    #[inline(always)]
    fn insert_reply4(&self, table: FlowTable, room: &mut Room<1>, over: Over) -> bool {
        replies::insert_ipv4(table, room, over)
    }
    #[inline(always)]
    fn remove_reply4(&self, table: FlowTable, room: &mut Room<1>) {
        replies::remove_ipv4(table, room);
    }
    #[inline(always)]
    fn reply6(&self, table: FlowTable, room: &mut Room<4>) -> bool {
        replies::find_ipv6(table, room)
    }
    #[inline(always)]
    fn insert_reply6(&self, table: FlowTable, room: &mut Room<4>, over: Over) -> bool {
        replies::insert_ipv6(table, room, over)
    }
    #[inline(always)]
    fn remove_reply6(&self, table: FlowTable, room: &mut Room<4>) {
        replies::remove_ipv6(table, room);
    }
    #[inline(always)]
    fn source(&self, ring: u32, index: u32) -> Option<[u32; 4]> {
        // SAFETY: an address of a map value, masked to its length.
        SOURCES.get_ptr(ring).map(|sources| unsafe { (*sources)[index as usize & (MAX_SOURCES as usize - 1)] })
    }
    #[inline(always)]
    fn advance(&self, slot: u32) -> Option<u64> {
        // SAFETY: a word of a map value.
        CURSORS
            .get_ptr_mut(slot)
            .map(|cursor| unsafe { if maps::dry() { *cursor } else { atomic::fetch_add(cursor, 1) } })
    }
    #[inline(always)]
    fn member(&self, ring: u32, place: usize) -> Option<u32> {
        // SAFETY: a place of a map value, masked to its length.
        RINGS.get_ptr(ring).map(|ring| u32::from(unsafe { (*ring).places[place & (RING_PLACES - 1)] }))
    }
    #[inline(always)]
    fn backend(&self, slot: u32) -> Option<Backend> {
        BACKENDS.get(slot).copied()
    }
    #[inline(always)]
    fn active(&self, slot: u32) -> u64 {
        // SAFETY: an aligned word of a map value; volatile, because others add to it.
        let local = LOCAL_ACTIVE.get_ptr(slot).map_or(0, |local| unsafe { core::ptr::read_volatile(local) });
        flows(slot) + local
    }
    #[inline(always)]
    fn add_active(&self, slot: u32, change: i64) {
        if !maps::dry()
            && let Some(flows) = ACTIVE.get_ptr_mut(slot)
        {
            // SAFETY: a word of a map value.
            unsafe { atomic::fetch_add(flows, change.cast_unsigned()) };
        }
    }
    #[inline(always)]
    fn flow_closed(&self, slot: u32, refused: bool) {
        if !maps::dry() {
            failures::flow_closed(slot, u32::from(refused));
        }
    }
    #[inline(always)]
    fn hold(&self, slot: u32) -> u64 {
        // SAFETY: a word of a map value.
        let local = LOCAL_ACTIVE.get_ptr_mut(slot).map_or(0, |local| unsafe { atomic::fetch_add(local, 1) });
        flows(slot) + local
    }
    #[inline(always)]
    fn release(&self, slot: u32) {
        if let Some(local) = LOCAL_ACTIVE.get_ptr_mut(slot) {
            // SAFETY: a word of a map value.
            unsafe { atomic::fetch_add(local, u64::MAX) };
        }
    }
    #[inline(always)]
    fn connect_failed(&self, slot: u32) {
        if !maps::dry() {
            failures::one_more(slot);
        }
    }
    #[inline(always)]
    fn connect_answered(&self, slot: u32) {
        if !maps::dry() {
            failures::end_row(slot);
        }
    }
    #[inline(always)]
    fn stuck(&self, key: &BucketKey) -> Option<Stuck> {
        // SAFETY: as in `flow4`.
        unsafe { STUCK.get(key).copied() }
    }
    #[inline(always)]
    fn stick(&self, key: &BucketKey, backend: u32, last_seen_ns: u64) {
        if !maps::dry() {
            // Refused, the client is given another backend the next time.
            let _ = STUCK.insert(key, Stuck { backend, _pad: 0, last_seen_ns }, 0);
        }
    }
    #[inline(always)]
    fn member_word(&self, index: u32) -> Option<u64> {
        // SAFETY: an aligned word of a map value; volatile, because user space writes it through a mapping.
        MEMBERS.get_ptr(index).map(|word| unsafe { core::ptr::read_volatile(word) })
    }
    #[inline(always)]
    fn membership(&self, class: u32) -> Option<Membership> {
        MEMBERSHIPS.get(class).copied()
    }
    #[inline(always)]
    fn take(&self, key: &BucketKey, interval_ns: u64, burst_ns: u64) -> bool {
        limits::take(key, interval_ns, burst_ns)
    }
    #[inline(always)]
    fn open_connections(&self, key: &BucketKey) -> u32 {
        limits::open_connections(key)
    }
    #[inline(always)]
    fn answers_syns(&self) -> bool {
        SYN_SETTINGS.get(0).is_some_and(|settings| settings.answer != 0)
    }
    #[inline(always)]
    fn samples_syn(&self) -> bool {
        // SAFETY: a helper without pointers.
        unsafe { bpf_get_prandom_u32().is_multiple_of(SYNS_A_SAMPLE) }
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
        route::ipv4(self.context, query, self.now_ns())
    }
    #[inline(always)]
    fn route6(&self, query: &RouteQuery<4>) -> Route {
        route::ipv6(self.context, query, self.now_ns())
    }
    #[inline(always)]
    fn vlan(&self, link: &Link) -> u32 {
        // SAFETY: the value is copied at once.
        unsafe { VLANS.get(link).copied().unwrap_or(0) }
    }
    #[inline(always)]
    fn routed_back4(&self, source: Address<1>, ingress: u32) -> bool {
        route::way_back4(self.context, source) == ingress
    }
    #[inline(always)]
    fn routed_back6(&self, source: Address<4>, ingress: u32) -> bool {
        route::way_back6(self.context, source) == ingress
    }
    #[inline(always)]
    fn fenced(&self) -> bool {
        fence::is_up()
    }
    #[inline(always)]
    fn repeat<S: Step>(&self, times: u32, state: &mut S) {
        let turn = turn::<S> as extern "C" fn(u32, *mut S) -> i64;
        // SAFETY: the state outlives the call, and the kernel hands it to the function and to nobody else.
        unsafe { bpf_loop(times, turn as *mut c_void, core::ptr::from_mut(state).cast(), 0) };
    }
    #[inline(always)]
    fn watched(&self) -> bool {
        // SAFETY: as in `generation`.
        !maps::dry() && CONTROL.get_ptr(WATCHED).is_some_and(|word| unsafe { core::ptr::read_volatile(word) != 0 })
    }
    #[inline(always)]
    fn tell_rule<const W: usize>(&self, headers: &Headers<W>, rule: &RuleEntry, reason: Reason, bytes: u64) {
        if !maps::dry() {
            events::of_rule(headers, rule, self.ingress, u64::from(reason as u32) << 32 | bytes);
        }
    }
    #[inline(always)]
    fn tell_drop<const W: usize>(&self, headers: Option<&Headers<W>>, reason: Reason, bytes: u64) {
        events::of_reason(headers, self.ingress, reason as u32, bytes);
    }
    #[inline(always)]
    fn count_rule(&self, counter: u32, bytes: u64) {
        if maps::dry() {
            trace::rule(counter);
        } else {
            count::rule(counter, bytes);
        }
    }
    #[inline(always)]
    fn count_tunnel(&self, way: u32, bytes: u64) {
        if !maps::dry() {
            count::tunnel(way, bytes);
        }
    }
    #[inline(always)]
    fn count_backend(&self, service: u32, backend: u32, connections: u64, packets: u64, bytes: u64) {
        if maps::dry() {
            trace::backend(service, backend);
        } else {
            count::backend(service, backend, connections, packets, bytes);
        }
    }
}

/// Flows from the wire of a backend.
#[inline(always)]
fn flows(slot: u32) -> u64 {
    // SAFETY: an aligned word of a map value; volatile, because others add to it.
    let flows = ACTIVE.get_ptr(slot).map_or(0, |flows| unsafe { core::ptr::read_volatile(flows) });
    // Below zero for a moment, when user space has corrected it.
    if flows >> 63 == 0 { flows } else { 0 }
}

/// Shows this CPU's entry for a tuple, of `2 << bits` that each CPU has.
#[inline(always)]
fn remembered<const W: usize, R>(
    ways: &'static Array<Express<W>>,
    tuple: &Tuple<W>,
    bits: u32,
    look: impl FnOnce(&mut Express<W>) -> R,
) -> Option<R> {
    if maps::dry() {
        return None;
    }
    // SAFETY: a helper without pointers.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let pair = (cpu << bits | express::place(tuple, bits)) << 1;
    let (first, second) = (ways.get_ptr_mut(pair)?, ways.get_ptr_mut(pair | 1)?);
    // SAFETY: entries of this CPU, on which one packet at a time is on its way.
    unsafe {
        let entry = if Express::is_second(&*first, &*second, tuple) { second } else { first };
        Some(look(&mut *entry))
    }
}

/// One turn of `bpf_loop`; 1 ends it.
extern "C" fn turn<S: Step>(_: u32, state: *mut S) -> i64 {
    // SAFETY: the state that `repeat` has handed over.
    i64::from(!unsafe { (*state).step() })
}

/// Writes an entry where it is. An update by the kernel's helper would put another element in its place, and who looks up the
/// flow at that moment on another CPU may find neither; so he may find some members of the old value and some of the new one,
/// each of which is right.
#[inline(always)]
fn amend<const W: usize>(entry: *mut Flow<W>, flow: &Flow<W>) {
    // SAFETY: an element of the table. If it has been driven out and used again in between, it is another flow's, whose state
    // and time are a little wrong until its next packet; its backend is not touched.
    unsafe {
        write_volatile(&raw mut (*entry).generation, flow.generation);
        write_volatile(&raw mut (*entry).state, flow.state);
        write_volatile(&raw mut (*entry).rule, flow.rule);
        write_volatile(&raw mut (*entry).answer, flow.answer);
        write_volatile(&raw mut (*entry).last_seen_ns, flow.last_seen_ns);
    }
}

/// The LRU tables; half-open flows have one of their own.
#[inline(always)]
fn flows4(table: FlowTable) -> &'static LruHashMap<Tuple<1>, Flow<1>> {
    match table {
        FlowTable::Datagrams => &DATAGRAMS4,
        FlowTable::Established | FlowTable::HalfOpen => &FLOWS4,
    }
}

#[inline(always)]
fn flows6(table: FlowTable) -> &'static LruHashMap<Tuple<4>, Flow<4>> {
    match table {
        FlowTable::Datagrams => &DATAGRAMS6,
        FlowTable::Established | FlowTable::HalfOpen => &FLOWS6,
    }
}
