//! The flow tables from outside: how full they are, and single entries for tests.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use foobar_common::abi::{Flow, FlowTable, MAX_BACKENDS};
use foobar_common::address::{Address, Family, Tuple};
use foobar_common::flow;
use foobar_common::reply::{self, Reply};

use super::epoch::Epoch;
use super::flow_map::{FlowMap, Walked};
use super::mapping::Mapping;
use super::replies::Replies;
use super::state::State;
use super::wire::Wire;

/// All flow tables of both families.
pub(super) struct Flows {
    pub(super) v4: [FlowMap<1>; 3],
    pub(super) v6: [FlowMap<4>; 3],
}

impl Flows {
    /// Takes the tables out of loaded programs, in the order of [`FlowTable`]; `seed` makes places in arrays.
    pub(super) fn of(take: &mut impl FnMut(&'static str) -> Result<Map>, seed: u64) -> Result<Self> {
        let mut v4 = |name| FlowMap::of(take(name)?, seed);
        let v4 = [v4("FLOWS4")?, v4("HALF_OPEN4")?, v4("DATAGRAMS4")?];
        let mut v6 = |name| FlowMap::of(take(name)?, seed);
        let v6 = [v6("FLOWS6")?, v6("HALF_OPEN6")?, v6("DATAGRAMS6")?];
        Ok(Self { v4, v6 })
    }
}

/// Handles of their own on the flow tables: a walk through them takes a while, and nobody shall wait for it.
pub struct FlowTables {
    flows: Flows,
    replies: Replies,
    /// How many each backend has.
    active: Mapping,
    epoch: Epoch,
}

impl std::fmt::Debug for FlowTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowTables").finish_non_exhaustive()
    }
}

/// A flow as people know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The client.
    pub client: SocketAddr,
    /// The VIP that it asked for.
    pub vip: SocketAddr,
    /// From where its backend sees it, when that is not the client.
    pub source: Option<SocketAddr>,
    /// Its table.
    pub table: FlowTable,
    /// See [`Flow::backend`].
    pub backend: u32,
    /// See [`Flow::state`].
    pub state: u16,
    /// See [`Flow::last_seen_ns`].
    pub last_seen_ns: u64,
}

/// What one walk has found in one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries that are left.
    pub used: u64,
    /// Entries that were over, and taken out.
    pub removed: u64,
    /// Entries that it can hold.
    pub size: u32,
}

/// What one walk has found: tables in the order of [`TABLES`], of IPv4 and of IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Flows.
    pub flows: [[Swept; 2]; 3],
    /// Entries for their replies that are left.
    pub replies: [[u64; 2]; 3],
}

impl FlowTables {
    /// Opens the tables that are pinned in `state`.
    ///
    /// # Errors
    /// They are not there.
    pub fn open(state: &Path) -> Result<Self> {
        let pinned = |name: &'static str| {
            let pin = state.join(name.to_lowercase());
            MapData::from_pin(pin).with_context(|| format!("cannot open the map {name}"))
        };
        let active = Mapping::new(pinned("ACTIVE")?.fd(), MAX_BACKENDS as usize)?;
        let epoch = Epoch::of(Map::Array(pinned("EPOCH")?))?;
        let seed: Array<_, u64> = Map::Array(pinned("SEED")?).try_into()?;
        let table = |name| {
            let map = pinned(name)?;
            Ok(if HALF_OPEN.contains(&name) { Map::Array(map) } else { Map::LruHashMap(map) })
        };
        let flows = Flows::of(&mut { table }, seed.get(&0, 0)?)?;
        let replies = Replies::of(&mut |name| {
            let map = pinned(name)?;
            Ok(if Replies::drives_out(name) { Map::LruHashMap(map) } else { Map::HashMap(map) })
        })?;
        Ok(Self { flows, replies, active, epoch })
    }

    /// Takes out of every table what is over at `now_ns` of the coarse monotonic clock, also replies of flows that are gone, and
    /// corrects how many each backend has; takes about two microseconds for each entry.
    ///
    /// # Errors
    /// A table cannot be read or changed.
    pub fn sweep(&mut self, now_ns: u64) -> Result<Sweep> {
        let mut all = [[Swept::default(); 2]; 3];
        let mut count = Count::begin(&self.active);
        let (mut met4, mut met6) = (Met::default(), Met::default());
        for table in WALK {
            let index = place(table);
            all[index] = [
                sweep(table, &mut self.flows.v4[index], &mut met4, now_ns, &mut count)?,
                sweep(table, &mut self.flows.v6[index], &mut met6, now_ns, &mut count)?,
            ];
        }
        count.correct();
        Ok(Sweep { flows: all, replies: self.replies.sweep(&self.flows)? })
    }

    /// Shows every flow; those for which `end` says so are taken out. Returns how many were. One of these that is established
    /// before it could be taken out is shown a second time.
    ///
    /// # Errors
    /// A table cannot be read or changed.
    pub fn walk(&mut self, mut end: impl FnMut(&Known) -> bool) -> Result<u64> {
        let mut ended = 0;
        let (mut met4, mut met6) = (Met::default(), Met::default());
        for table in WALK {
            let index = place(table);
            ended += walk(table, &mut self.flows.v4[index], &mut met4, &self.active, &mut end)?;
            ended += walk(table, &mut self.flows.v6[index], &mut met6, &self.active, &mut end)?;
        }
        if ended > 0 {
            self.epoch.begin();
            self.replies.sweep(&self.flows)?;
        }
        Ok(ended)
    }
}

/// Half-open flows that a walk has met and left, so that it does not count them again where they are established meanwhile.
struct Met<const W: usize>(HashSet<Tuple<W>>);

impl<const W: usize> Default for Met<W> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<const W: usize> Met<W> {
    /// Whether a flow ends, by `end`, which is not asked again for one that was met.
    fn ends(&mut self, table: FlowTable, key: &Tuple<W>, end: impl FnOnce() -> bool) -> bool {
        if table == FlowTable::Established && self.0.contains(key) {
            return false;
        }
        let ends = end();
        if table == FlowTable::HalfOpen && !ends {
            self.0.insert(*key);
        }
        ends
    }
}

/// How many flows each backend has, counted while packets go on changing it.
struct Count<'a> {
    active: &'a Mapping,
    before: Vec<i64>,
    counted: Vec<i64>,
    /// Whether the walk has met every entry, as far as can be known.
    whole: bool,
}

impl<'a> Count<'a> {
    fn begin(active: &'a Mapping) -> Self {
        Self { active, before: numbers(active), counted: vec![0; active.words()], whole: true }
    }

    /// An entry that stays.
    fn stays<const W: usize>(&mut self, flow: &Flow<W>) {
        if !flow::closed(flow.state)
            && let Some(counted) = self.counted.get_mut(flow.backend as usize)
        {
            *counted += 1;
        }
    }

    /// What the kernel drove out of a full table was never told. During the walk the true number was between the one before
    /// and the one after; what was counted outside of these is so much too many or too few.
    fn correct(self) {
        if !self.whole {
            return;
        }
        for (slot, (before, after)) in self.before.into_iter().zip(numbers(self.active)).enumerate() {
            let counted = self.counted[slot];
            let drift = counted - counted.clamp(before.min(after), before.max(after));
            if drift != 0 {
                self.active.add(slot, drift);
            }
        }
    }
}

fn numbers(active: &Mapping) -> Vec<i64> {
    (0..active.words()).map(|slot| active.read(slot).cast_signed()).collect()
}

/// A flow's backend has one less.
fn release<const W: usize>(active: &Mapping, flow: &Flow<W>) {
    if !flow::closed(flow.state) && (flow.backend as usize) < active.words() {
        active.add(flow.backend as usize, -1);
    }
}

fn sweep<const W: usize>(
    table: FlowTable,
    map: &mut FlowMap<W>,
    met: &mut Met<W>,
    now_ns: u64,
    count: &mut Count<'_>,
) -> Result<Swept>
where
    Wire<Tuple<W>>: aya::Pod,
    Wire<Flow<W>>: aya::Pod,
{
    let (mut used, active) = (0, count.active);
    let ends = |key: &Tuple<W>, flow: &Flow<W>| {
        met.ends(table, key, || {
            let over = flow::is_over(table, flow, now_ns);
            if !over {
                used += 1;
                count.stays(flow);
            }
            over
        })
    };
    let Walked { removed, whole } = map.take_out(true, ends, |flow| release(active, flow))?;
    count.whole &= whole;
    Ok(Swept { used, removed, size: map.size() })
}

fn walk<const W: usize>(
    table: FlowTable,
    map: &mut FlowMap<W>,
    met: &mut Met<W>,
    active: &Mapping,
    end: &mut impl FnMut(&Known) -> bool,
) -> Result<u64>
where
    Wire<Tuple<W>>: aya::Pod,
    Wire<Flow<W>>: aya::Pod,
    Address<W>: Family<W>,
    IpAddr: From<Address<W>>,
{
    let ends = |key: &Tuple<W>, flow: &Flow<W>| {
        let client = SocketAddr::new(key.source.into(), key.source_port.host());
        let vip = SocketAddr::new(key.destination.into(), key.destination_port.host());
        let (source, port) = reply::sender(key, flow);
        let source = (flow.source_port.host() != 0).then(|| SocketAddr::new(source.into(), port.host()));
        let Flow { backend, state, last_seen_ns, .. } = *flow;
        met.ends(table, key, || end(&Known { client, vip, source, table, backend, state, last_seen_ns }))
    };
    Ok(map.take_out(false, ends, |flow| release(active, flow))?.removed)
}

/// The tables that are arrays of places.
const HALF_OPEN: [&str; 2] = ["HALF_OPEN4", "HALF_OPEN6"];

/// The tables, in the order in which they are held.
pub const TABLES: [FlowTable; 3] = [FlowTable::Established, FlowTable::HalfOpen, FlowTable::Datagrams];

/// The order of a walk: a flow that is established meanwhile is put there before it is taken out of the half-open ones, so that
/// it is met twice, and not missed.
const WALK: [FlowTable; 3] = [FlowTable::HalfOpen, FlowTable::Established, FlowTable::Datagrams];

const fn place(table: FlowTable) -> usize {
    match table {
        FlowTable::Established => 0,
        FlowTable::HalfOpen => 1,
        FlowTable::Datagrams => 2,
    }
}

impl State {
    /// All IPv4 flows with their tables, in no particular order.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn flows4(&self) -> Result<Vec<(FlowTable, Tuple<1>, Flow<1>)>> {
        entries(&self.flows.v4)
    }

    /// All IPv6 flows with their tables, in no particular order.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn flows6(&self) -> Result<Vec<(FlowTable, Tuple<4>, Flow<4>)>> {
        entries(&self.flows.v6)
    }

    /// All IPv4 replies, as they come, with what they belong to.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn replies4(&self) -> Result<Vec<(Tuple<1>, Reply<1>)>> {
        self.replies.v4()
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn replies6(&self) -> Result<Vec<(Tuple<4>, Reply<4>)>> {
        self.replies.v6()
    }

    /// Writes an IPv4 flow.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_flow4(&mut self, table: FlowTable, key: Tuple<1>, flow: Flow<1>) -> Result<()> {
        self.flows.v4[place(table)].set(key, flow)
    }

    /// Writes an IPv6 flow.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_flow6(&mut self, table: FlowTable, key: Tuple<4>, flow: Flow<4>) -> Result<()> {
        self.flows.v6[place(table)].set(key, flow)
    }

    /// Removes all flows.
    ///
    /// # Errors
    /// A map cannot be changed.
    pub fn clear_flows(&mut self) -> Result<()> {
        self.flows.v4.iter_mut().try_for_each(clear)?;
        self.flows.v6.iter_mut().try_for_each(clear)?;
        self.forget_ways();
        self.replies.clear()
    }
}

fn entries<const W: usize>(tables: &[FlowMap<W>; 3]) -> Result<Vec<(FlowTable, Tuple<W>, Flow<W>)>>
where
    Wire<Tuple<W>>: aya::Pod,
    Wire<Flow<W>>: aya::Pod,
{
    let mut all = Vec::new();
    for (table, map) in TABLES.into_iter().zip(tables) {
        map.visit(|key, flow| all.push((table, *key, *flow)))?;
    }
    Ok(all)
}

fn clear<const W: usize>(map: &mut FlowMap<W>) -> Result<()>
where
    Wire<Tuple<W>>: aya::Pod,
    Wire<Flow<W>>: aya::Pod,
{
    map.take_out(false, |_, _| true, |_| {}).map(drop)
}
