//! The maps. State lives on over generations of rules and restarts of the agent; rules belong to one generation.

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use foobar_common::abi::{
    Backend, Counter, Endpoint, Flow, MAX_BACKENDS, MAX_FLOWS, MAX_MEMBERS, MAX_RULES, MAX_SERVICES, RuleEntry,
    RuleSet, Service, SynSettings, Traffic,
};
use foobar_common::address::{Ipv4, Ipv6, SocketKey, Tuple};
use foobar_common::firewall::KINDS;
use foobar_common::open::{BUCKETS, WAYS};
use foobar_common::verdict::REASONS;

use crate::open::Counted;
use crate::segment::Segment;

/// `BPF_F_NO_PREALLOC`, which tries demand.
const NO_PREALLOC: u32 = 1;
/// Prefixes of one dimension and family at the most.
const MAX_PREFIXES: u32 = 65_536;
/// Classes of one dimension; user space sets what a generation needs.
const MAX_CLASSES: u32 = 4096;
/// Counter slots of rules: names keep their slot, so there are more than rules.
const RULE_COUNTERS: u32 = 4 * MAX_RULES as u32;

// State.
#[map]
pub(crate) static VERDICTS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(REASONS, 0);
#[map]
pub(crate) static RULE_COUNTS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(RULE_COUNTERS, 0);
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
pub(crate) static RINGS: Array<u32> = Array::with_max_entries(MAX_SERVICES * 2 * MAX_MEMBERS, 0);
#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS, 0);
#[map]
pub(crate) static FLOWS4: LruHashMap<Tuple<1>, Flow> = LruHashMap::with_max_entries(MAX_FLOWS, 0);
#[map]
pub(crate) static FLOWS6: LruHashMap<Tuple<4>, Flow> = LruHashMap::with_max_entries(MAX_FLOWS, 0);

/// How SYN cookies are answered.
#[map]
pub(crate) static SYN_SETTINGS: Array<SynSettings> = Array::with_max_entries(1, 0);
/// When a listener last had too many half-open connections.
#[map]
pub(crate) static FLOOD_SEEN: Array<u64> = Array::with_max_entries(1, 0);

/// A SYN while a program looks at it.
#[map]
pub(crate) static SEGMENT: PerCpuArray<Segment> = PerCpuArray::with_max_entries(1, 0);

/// Open connections of each source, see `foobar_common::open`.
#[map]
pub(crate) static OPEN_COUNTS: Array<[u64; WAYS]> = Array::with_max_entries(BUCKETS, 0);
/// What each accepted connection gives back when it closes.
#[btf_map]
pub(crate) static CONNECTIONS: SkStorage<Counted> = SkStorage::new();

// One generation of rules.
#[map]
pub(crate) static SOURCES4: LpmTrie<Ipv4, u32> = LpmTrie::with_max_entries(MAX_PREFIXES, NO_PREALLOC);
#[map]
pub(crate) static SOURCES6: LpmTrie<Ipv6, u32> = LpmTrie::with_max_entries(MAX_PREFIXES, NO_PREALLOC);
#[map]
pub(crate) static DESTINATIONS4: LpmTrie<Ipv4, u32> = LpmTrie::with_max_entries(MAX_PREFIXES, NO_PREALLOC);
#[map]
pub(crate) static DESTINATIONS6: LpmTrie<Ipv6, u32> = LpmTrie::with_max_entries(MAX_PREFIXES, NO_PREALLOC);
#[map]
pub(crate) static KIND_CLASSES: Array<u32> = Array::with_max_entries(KINDS, 0);
#[map]
pub(crate) static SOURCE_SETS: Array<RuleSet> = Array::with_max_entries(MAX_CLASSES, 0);
#[map]
pub(crate) static DESTINATION_SETS: Array<RuleSet> = Array::with_max_entries(MAX_CLASSES, 0);
#[map]
pub(crate) static KIND_SETS: Array<RuleSet> = Array::with_max_entries(MAX_CLASSES, 0);
#[map]
pub(crate) static RULES: Array<RuleEntry> = Array::with_max_entries(MAX_RULES as u32, 0);

/// Number of the generation; set at load.
#[unsafe(no_mangle)]
static GENERATION: u32 = 0;
/// 1: this server has services on the wire; set at load, so that others do not pay for them.
#[unsafe(no_mangle)]
static BALANCES: u32 = 0;

/// See [`GENERATION`].
#[inline(always)]
pub(crate) fn generation() -> u32 {
    // SAFETY: a read of an aligned static; volatile, because user space sets it in the object after compilation.
    unsafe { core::ptr::read_volatile(&raw const GENERATION) }
}

/// See [`BALANCES`].
#[inline(always)]
pub(crate) fn balances() -> bool {
    // SAFETY: as in `generation`.
    unsafe { core::ptr::read_volatile(&raw const BALANCES) != 0 }
}
