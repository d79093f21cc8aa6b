//! The flow tables from outside: how full they are, and single entries for tests.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, MapError};
use foobar_common::abi::{Flow, FlowTable, MAX_FLOWS};
use foobar_common::address::Tuple;

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

/// Handles of their own on the flow tables: to count them takes a while, and nobody shall wait for it.
pub struct FlowTables {
    ipv4: Table<1>,
    ipv6: Table<4>,
}

impl std::fmt::Debug for FlowTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowTables").finish_non_exhaustive()
    }
}

impl FlowTables {
    /// Opens the tables that are pinned in `state`.
    ///
    /// # Errors
    /// They are not there.
    pub fn open(state: &Path) -> Result<Self> {
        let pinned = |name: &str| {
            let map = MapData::from_pin(state.join(name)).with_context(|| format!("cannot open the map {name}"))?;
            anyhow::Ok(Map::LruHashMap(map))
        };
        Ok(Self { ipv4: pinned("flows4")?.try_into()?, ipv6: pinned("flows6")?.try_into()? })
    }

    /// Entries in use, IPv4 and IPv6; takes about a microsecond for each.
    #[must_use]
    pub fn count(&self) -> (u64, u64) {
        // A walk over a table that changes can meet entries again: it ends at the table's size at the latest.
        let limit = MAX_FLOWS as usize;
        let ipv4 = self.ipv4.keys().take(limit).filter(Result::is_ok).count();
        let ipv6 = self.ipv6.keys().take(limit).filter(Result::is_ok).count();
        (ipv4 as u64, ipv6 as u64)
    }
}

/// The tables, in the order in which they are held.
const TABLES: [FlowTable; 3] = [FlowTable::Established, FlowTable::HalfOpen, FlowTable::Datagrams];

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
