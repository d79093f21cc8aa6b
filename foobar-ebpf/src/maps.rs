//! The maps. State lives on over generations of rules and restarts of the agent; rules belong to one generation.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, bpf_fib_lookup};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use foobar_common::abi::{
    Backend, BucketKey, ConnectFailures, Counter, DEFAULT_FLOWS, EVENT_BYTES, Endpoint, Fenced, Flow, LOG_BUCKETS,
    MAX_BACKENDS, MAX_BUCKETS, MAX_CLASSES, MAX_HALF_OPEN, MAX_PEERS, MAX_REPLIES, MAX_SERVICES, MAX_SOURCES,
    MAX_STUCK, Membership, RULE_COUNTERS, Ring, Service, Stuck, SynSettings, TUNNEL_WAYS, Trace, Traffic,
};
use foobar_common::address::{Peer, SocketKey, Tuple};
use foobar_common::express::Express;
use foobar_common::generation::Generation;
use foobar_common::half_open::{SETS, Set};
use foobar_common::open::{BUCKETS as OPEN_BUCKETS, WAYS};
use foobar_common::path::Work;
use foobar_common::reply::Reply;
use foobar_common::verdict::{REASONS, Stage};
use foobar_common::vlan::{Link, MAX_VLANS};

use crate::open::Counted;
use crate::route::Hop;
use crate::segment::Segment;

/// Parameters of `bpf_fib_lookup`, as the words by which they are set to zero.
pub(crate) type Question = [u64; size_of::<bpf_fib_lookup>() / 8];

/// Bits of the number of answers that are kept.
pub(crate) const HOPS_BITS: u32 = 10;

/// `BPF_F_MMAPABLE`: user space writes single words, and large values without a copy in the kernel.
const MMAPABLE: u32 = 1 << 10;

// State.
#[map]
pub(crate) static VERDICTS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(REASONS, 0);
#[map]
pub(crate) static RULE_COUNTS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(RULE_COUNTERS, 0);
/// Packets that were put into tunnels, and taken out of them.
#[map]
pub(crate) static TUNNELS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(TUNNEL_WAYS, 0);
#[map]
pub(crate) static SERVICE_COUNTS: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(MAX_SERVICES, 0);
#[map]
pub(crate) static BACKEND_COUNTS: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(MAX_BACKENDS, 0);
#[map]
pub(crate) static CURSORS: Array<u64> = Array::with_max_entries(MAX_SERVICES, 0);
#[map]
pub(crate) static SERVICES4: HashMap<SocketKey<1>, Service> = HashMap::with_max_entries(MAX_SERVICES, 0);
#[map]
pub(crate) static SERVICES6: HashMap<SocketKey<4>, Service> = HashMap::with_max_entries(MAX_SERVICES, 0);
#[map]
pub(crate) static ENDPOINTS4: HashMap<SocketKey<1>, Endpoint> = HashMap::with_max_entries(MAX_BACKENDS, 0);
#[map]
pub(crate) static ENDPOINTS6: HashMap<SocketKey<4>, Endpoint> = HashMap::with_max_entries(MAX_BACKENDS, 0);
/// Two rings for each service slot: the one in force, and the one that is written beside it.
#[map]
pub(crate) static RINGS: Array<Ring> = Array::with_max_entries(MAX_SERVICES * 2, 0);
#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS, 0);
/// Flows from the wire of each backend: added to by both sides, so that user space corrects it through a mapping.
#[map]
pub(crate) static ACTIVE: Array<u64> = Array::with_max_entries(MAX_BACKENDS, MMAPABLE);
/// Connections of local sockets of each backend; nobody has to correct it.
#[map]
pub(crate) static LOCAL_ACTIVE: Array<u64> = Array::with_max_entries(MAX_BACKENDS, 0);
/// What each local socket gives back at its end, see `foobar_common::held`.
#[btf_map]
pub(crate) static HELD: SkStorage<u64> = SkStorage::new();
/// Connections that each backend has not taken; user space looks often, through a mapping.
#[map]
pub(crate) static CONNECT_FAILURES: Array<ConnectFailures> = Array::with_max_entries(MAX_BACKENDS, MMAPABLE);
/// What local sockets have asked for, by the end that they were given.
#[map]
pub(crate) static ASKED4: LruHashMap<Peer<1>, SocketKey<1>> = LruHashMap::with_max_entries(MAX_PEERS, 0);
#[map]
pub(crate) static ASKED6: LruHashMap<Peer<4>, SocketKey<4>> = LruHashMap::with_max_entries(MAX_PEERS, 0);
/// Backends of local sockets that send datagrams, by the VIP.
#[map]
pub(crate) static CHOSEN4: LruHashMap<Peer<1>, Stuck> = LruHashMap::with_max_entries(MAX_PEERS, 0);
#[map]
pub(crate) static CHOSEN6: LruHashMap<Peer<4>, Stuck> = LruHashMap::with_max_entries(MAX_PEERS, 0);
/// Clients that stay with their backend.
#[map]
pub(crate) static STUCK: LruHashMap<BucketKey, Stuck> = LruHashMap::with_max_entries(MAX_STUCK, 0);
#[map]
pub(crate) static FLOWS4: LruHashMap<Tuple<1>, Flow<1>> = LruHashMap::with_max_entries(DEFAULT_FLOWS, 0);
#[map]
pub(crate) static FLOWS6: LruHashMap<Tuple<4>, Flow<4>> = LruHashMap::with_max_entries(DEFAULT_FLOWS, 0);
#[map]
pub(crate) static HALF_OPEN4: Array<Set<1>> = Array::with_max_entries(SETS, MMAPABLE);
#[map]
pub(crate) static HALF_OPEN6: Array<Set<4>> = Array::with_max_entries(SETS, MMAPABLE);
#[map]
pub(crate) static DATAGRAMS4: LruHashMap<Tuple<1>, Flow<1>> = LruHashMap::with_max_entries(MAX_HALF_OPEN, 0);
#[map]
pub(crate) static DATAGRAMS6: LruHashMap<Tuple<4>, Flow<4>> = LruHashMap::with_max_entries(MAX_HALF_OPEN, 0);
/// Replies of established flows, see `foobar_common::reply`. Not preallocated: a server whose services need none pays nothing,
/// and the kernel's own allocator serves programs from each CPU's list (Linux 6.1).
#[map]
pub(crate) static REPLIES4: HashMap<Tuple<1>, Reply<1>> = HashMap::with_max_entries(MAX_REPLIES, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static REPLIES6: HashMap<Tuple<4>, Reply<4>> = HashMap::with_max_entries(MAX_REPLIES, BPF_F_NO_PREALLOC);
/// Those of half-open flows: as many as there can be.
#[map]
pub(crate) static HALF_OPEN_REPLIES4: LruHashMap<Tuple<1>, Reply<1>> = LruHashMap::with_max_entries(MAX_HALF_OPEN, 0);
#[map]
pub(crate) static HALF_OPEN_REPLIES6: LruHashMap<Tuple<4>, Reply<4>> = LruHashMap::with_max_entries(MAX_HALF_OPEN, 0);
/// Those of datagrams.
#[map]
pub(crate) static DATAGRAM_REPLIES4: LruHashMap<Tuple<1>, Reply<1>> = LruHashMap::with_max_entries(MAX_HALF_OPEN, 0);
#[map]
pub(crate) static DATAGRAM_REPLIES6: LruHashMap<Tuple<4>, Reply<4>> = LruHashMap::with_max_entries(MAX_HALF_OPEN, 0);
/// Source addresses of services, for each ring.
#[map]
pub(crate) static SOURCES: Array<[[u32; 4]; MAX_SOURCES as usize]> = Array::with_max_entries(MAX_SERVICES * 2, 0);
/// Token buckets of limits, see `foobar_common::bucket`.
#[map]
pub(crate) static BUCKETS: LruHashMap<BucketKey, u64> = LruHashMap::with_max_entries(MAX_BUCKETS, 0);
/// How SYN cookies are answered.
#[map]
pub(crate) static SYN_SETTINGS: Array<SynSettings> = Array::with_max_entries(1, 0);
/// When a listener last had too many half-open connections.
#[map]
pub(crate) static FLOOD_SEEN: Array<u64> = Array::with_max_entries(1, 0);
/// Open connections of each source, see `foobar_common::open`.
#[map]
pub(crate) static OPEN_COUNTS: Array<[u64; WAYS]> = Array::with_max_entries(OPEN_BUCKETS, 0);
/// What makes places in the tables of open connections and of half-open flows secret; user space writes it once.
#[map]
pub(crate) static SEED: Array<u64> = Array::with_max_entries(1, 0);
/// What each accepted connection gives back when it closes.
#[btf_map]
pub(crate) static CONNECTIONS: SkStorage<Counted> = SkStorage::new();
/// What rules and drops tell.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);
/// Token buckets of telling: of rules by counter slot, behind them of reasons.
#[map]
pub(crate) static LOG_TIMES: Array<u64> = Array::with_max_entries(LOG_BUCKETS, 0);
/// Events for which the ring had no room.
#[map]
pub(crate) static EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Another number whenever services, backends or flows have changed by hand, see `foobar_common::tables::Tables::epoch`.
#[map]
pub(crate) static EPOCH: Array<u64> = Array::with_max_entries(1, MMAPABLE);

/// Devices of VLANs, by what is beneath them and their tag.
#[map]
pub(crate) static VLANS: HashMap<Link, u32> = HashMap::with_max_entries(MAX_VLANS, 0);
/// The other way round.
#[map]
pub(crate) static VLAN_LINKS: HashMap<u32, Link> = HashMap::with_max_entries(MAX_VLANS, 0);

/// The end of this server's lease to be the primary database, see `foobar_common::fence`: user space moves it on through a
/// mapping.
#[map]
pub(crate) static FENCE: Array<u64> = Array::with_max_entries(1, MMAPABLE);
/// What is held back where it leaves, once the lease is over.
#[map]
pub(crate) static FENCED: Array<Fenced> = Array::with_max_entries(1, 0);

// One loading of the programs: rules, named sets, what is in force.
/// What each CPU remembers of flows; user space sets how much. Such that it could be mapped: then entries begin with a page, and
/// with a cache line.
#[map]
pub(crate) static EXPRESS4: Array<Express<1>> = Array::with_max_entries(2, MMAPABLE);
#[map]
pub(crate) static EXPRESS6: Array<Express<4>> = Array::with_max_entries(2, MMAPABLE);
/// Two generations: the one in force, and the one that is written beside it.
#[map]
pub(crate) static RULES: Array<Generation> = Array::with_max_entries(2, MMAPABLE);
/// Which of them is in force (see `foobar_common::generation::in_force`), and whether somebody watches.
#[map]
pub(crate) static CONTROL: Array<u64> = Array::with_max_entries(2, MMAPABLE);
/// Words of the named sets' prefix tables; user space sets how many.
#[map]
pub(crate) static MEMBERS: Array<u64> = Array::with_max_entries(1 << 17, MMAPABLE);
#[map]
pub(crate) static MEMBERSHIPS: Array<Membership> = Array::with_max_entries(MAX_CLASSES as u32, 0);
/// The programs that a packet goes on in, by `foobar_common::verdict::Stage`.
#[map]
pub(crate) static STAGES: ProgramArray = ProgramArray::with_max_entries(Stage::ALL.len() as u32, 0);
/// What is known of the packet that is on its way.
#[map]
pub(crate) static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
/// A SYN while a program looks at it.
#[map]
pub(crate) static SEGMENT: PerCpuArray<Segment> = PerCpuArray::with_max_entries(1, 0);
/// What the kernel's routing tables have answered lately.
#[map]
pub(crate) static HOPS: PerCpuArray<Hop> = PerCpuArray::with_max_entries(1 << HOPS_BITS, 0);
/// A question to the kernel's routing tables.
#[map]
pub(crate) static ROUTE: PerCpuArray<Question> = PerCpuArray::with_max_entries(1, 0);
/// What a packet would meet, of a program that runs dry.
#[map]
pub(crate) static TRACE: Array<Trace> = Array::with_max_entries(1, 0);

/// 1: the program changes nothing, and writes to `TRACE` what it would do; set at load.
#[unsafe(no_mangle)]
static DRY_RUN: u32 = 0;
/// 1: an interface has frames of more than one buffer; set at load, so that others do not pay for them.
#[unsafe(no_mangle)]
static JUMBO: u32 = 0;

/// Pairs of entries that each CPU has in `EXPRESS4`, as a power of two; set at load.
#[unsafe(no_mangle)]
static EXPRESS4_BITS: u32 = 0;
/// The same for `EXPRESS6`.
#[unsafe(no_mangle)]
static EXPRESS6_BITS: u32 = 0;

/// Cookie of the network namespace whose connections are counted; set at load. 0: of every one.
#[unsafe(no_mangle)]
static NAMESPACE: u64 = 0;

/// See [`NAMESPACE`].
#[inline(always)]
pub(crate) fn namespace() -> u64 {
    // SAFETY: as in `dry`.
    unsafe { core::ptr::read_volatile(&raw const NAMESPACE) }
}

/// See [`DRY_RUN`].
#[inline(always)]
pub(crate) fn dry() -> bool {
    // SAFETY: a read of an aligned static; volatile, because user space sets it in the object after compilation.
    unsafe { core::ptr::read_volatile(&raw const DRY_RUN) != 0 }
}

/// See [`EXPRESS4_BITS`].
#[inline(always)]
pub(crate) fn express4_bits() -> u32 {
    // SAFETY: as in `dry`.
    unsafe { core::ptr::read_volatile(&raw const EXPRESS4_BITS) }
}

/// See [`EXPRESS6_BITS`].
#[inline(always)]
pub(crate) fn express6_bits() -> u32 {
    // SAFETY: as in `dry`.
    unsafe { core::ptr::read_volatile(&raw const EXPRESS6_BITS) }
}

/// See [`JUMBO`].
#[inline(always)]
pub(crate) fn jumbo() -> bool {
    // SAFETY: as in `dry`.
    unsafe { core::ptr::read_volatile(&raw const JUMBO) != 0 }
}
