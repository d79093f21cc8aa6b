//! The flow tables from outside: how full they are, and single entries for tests.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, MapError};
use foobar_common::abi::{Flow, FlowTable, MAX_FLOWS, MAX_HALF_OPEN};
use foobar_common::address::Tuple;
use foobar_common::flow;

use super::state::State;
use super::wire::Wire;

type Table<const W: usize> = HashMap<MapData, Wire<Tuple<W>>, Wire<Flow>>;

/// All flow tables of both families.
pub(super) struct Flows {
    v4: [Table<1>; 3],
    v6: [Table<4>; 3],
}

impl Flows {
    /// Takes the tables out of loaded programs, in the order of [`FlowTable`].
    pub(super) fn of(take: &mut impl FnMut(&'static str) -> Result<Map>) -> Result<Self> {
        let v4 = [take("FLOWS4")?.try_into()?, take("HALF_OPEN4")?.try_into()?, take("DATAGRAMS4")?.try_into()?];
        let v6 = [take("FLOWS6")?.try_into()?, take("HALF_OPEN6")?.try_into()?, take("DATAGRAMS6")?.try_into()?];
        Ok(Self { v4, v6 })
    }
}

/// Handles of their own on the flow tables: a walk through them takes a while, and nobody shall wait for it.
pub struct FlowTables(Flows);

impl std::fmt::Debug for FlowTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowTables").finish_non_exhaustive()
    }
}

/// What one walk has found in one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries that are left.
    pub used: u64,
    /// Entries that were over, and taken out.
    pub removed: u64,
}

impl FlowTables {
    /// Opens the tables that are pinned in `state`.
    ///
    /// # Errors
    /// They are not there.
    pub fn open(state: &Path) -> Result<Self> {
        let mut pinned = |name: &'static str| {
            let pin = state.join(name.to_lowercase());
            let map = MapData::from_pin(pin).with_context(|| format!("cannot open the map {name}"))?;
            anyhow::Ok(Map::LruHashMap(map))
        };
        Ok(Self(Flows::of(&mut pinned)?))
    }

    /// Takes out of every table what is over at `now_ns` of the coarse monotonic clock; takes about two microseconds for each
    /// entry. Tables in the order of [`TABLES`], of IPv4 and of IPv6.
    ///
    /// # Errors
    /// A table cannot be read or changed.
    pub fn sweep(&mut self, now_ns: u64) -> Result<[[Swept; 2]; 3]> {
        let mut all = [[Swept::default(); 2]; 3];
        for (index, table) in TABLES.into_iter().enumerate() {
            all[index] = [sweep(table, &mut self.0.v4[index], now_ns)?, sweep(table, &mut self.0.v6[index], now_ns)?];
        }
        Ok(all)
    }
}

fn sweep<const W: usize>(table: FlowTable, map: &mut Table<W>, now_ns: u64) -> Result<Swept>
where
    Wire<Tuple<W>>: aya::Pod,
{
    let (mut used, mut over) = (0, Vec::new());
    // A walk over a table that changes begins anew when the entry under it goes: it ends at the table's size at the latest.
    // What it has missed it meets the next time.
    for entry in map.iter().take(size(table) as usize) {
        match entry {
            Ok((key, flow)) if flow::is_over(table, &flow.0, now_ns) => over.push((key, flow.0)),
            Ok(_) => used += 1,
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).context("cannot read a flow table"),
        }
    }
    let mut removed = 0;
    for (key, seen) in over {
        // Once more: it may have been used since. A packet between this look and the removal, of a flow that was silent to the
        // very end of its time, finds none any more.
        let unused = map.get(&key, 0).is_ok_and(|Wire(flow)| flow == seen);
        if !unused {
            used += 1;
        } else if map.remove(&key).is_ok() {
            removed += 1;
        }
    }
    Ok(Swept { used, removed })
}

/// Entries that a table can hold, of one family.
#[must_use]
pub const fn size(table: FlowTable) -> u32 {
    match table {
        FlowTable::Established => MAX_FLOWS,
        FlowTable::HalfOpen | FlowTable::Datagrams => MAX_HALF_OPEN,
    }
}

/// The tables, in the order in which they are held.
pub const TABLES: [FlowTable; 3] = [FlowTable::Established, FlowTable::HalfOpen, FlowTable::Datagrams];

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
    pub fn flows4(&self) -> Result<Vec<(FlowTable, Tuple<1>, Flow)>> {
        entries(&self.flows.v4)
    }

    /// All IPv6 flows with their tables, in no particular order.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn flows6(&self) -> Result<Vec<(FlowTable, Tuple<4>, Flow)>> {
        entries(&self.flows.v6)
    }

    /// Writes an IPv4 flow.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_flow4(&mut self, table: FlowTable, key: Tuple<1>, flow: Flow) -> Result<()> {
        self.flows.v4[place(table)].insert(Wire(key), Wire(flow), 0).context("cannot write an IPv4 flow")
    }

    /// Writes an IPv6 flow.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_flow6(&mut self, table: FlowTable, key: Tuple<4>, flow: Flow) -> Result<()> {
        self.flows.v6[place(table)].insert(Wire(key), Wire(flow), 0).context("cannot write an IPv6 flow")
    }

    /// Removes all flows.
    ///
    /// # Errors
    /// A map cannot be changed.
    pub fn clear_flows(&mut self) -> Result<()> {
        self.flows.v4.iter_mut().try_for_each(clear)?;
        self.flows.v6.iter_mut().try_for_each(clear)
    }
}

fn entries<const W: usize>(tables: &[Table<W>; 3]) -> Result<Vec<(FlowTable, Tuple<W>, Flow)>>
where
    Wire<Tuple<W>>: aya::Pod,
{
    let all = TABLES.iter().zip(tables).flat_map(|(table, map)| map.iter().map(|entry| (*table, entry)));
    all.map(|(table, entry)| entry.map(|(key, flow)| (table, key.0, flow.0)).context("cannot read a flow table"))
        .collect()
}

fn clear<const W: usize>(map: &mut Table<W>) -> Result<()>
where
    Wire<Tuple<W>>: aya::Pod,
{
    let keys: Vec<_> = map.keys().filter_map(Result::ok).collect();
    for key in keys {
        match map.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).context("cannot remove a flow"),
        }
    }
    Ok(())
}
