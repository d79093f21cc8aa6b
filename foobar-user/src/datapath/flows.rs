//! The flow tables from outside: how full they are, and single entries for tests.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, MapError};
use foobar_common::abi::{Flow, MAX_FLOWS};
use foobar_common::address::Tuple;

use super::state::State;
use super::wire::Wire;

/// Handles of their own on the flow tables: to count them takes a while, and nobody shall wait for it.
pub struct FlowTables {
    ipv4: HashMap<MapData, Wire<Tuple<1>>, Wire<Flow>>,
    ipv6: HashMap<MapData, Wire<Tuple<4>>, Wire<Flow>>,
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

impl State {
    /// All IPv4 flows, in no particular order.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn flows4(&self) -> Result<Vec<(Tuple<1>, Flow)>> {
        entries(&self.flows4)
    }

    /// All IPv6 flows, in no particular order.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn flows6(&self) -> Result<Vec<(Tuple<4>, Flow)>> {
        entries(&self.flows6)
    }

    /// Writes an IPv4 flow.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_flow4(&mut self, key: Tuple<1>, flow: Flow) -> Result<()> {
        self.flows4.insert(Wire(key), Wire(flow), 0).context("cannot write an IPv4 flow")
    }

    /// Writes an IPv6 flow.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_flow6(&mut self, key: Tuple<4>, flow: Flow) -> Result<()> {
        self.flows6.insert(Wire(key), Wire(flow), 0).context("cannot write an IPv6 flow")
    }

    /// Removes all flows.
    ///
    /// # Errors
    /// A map cannot be changed.
    pub fn clear_flows(&mut self) -> Result<()> {
        clear(&mut self.flows4)?;
        clear(&mut self.flows6)
    }
}

fn entries<const W: usize>(map: &HashMap<MapData, Wire<Tuple<W>>, Wire<Flow>>) -> Result<Vec<(Tuple<W>, Flow)>>
where
    Wire<Tuple<W>>: aya::Pod,
{
    map.iter().map(|entry| entry.map(|(key, flow)| (key.0, flow.0)).context("cannot read the flow table")).collect()
}

fn clear<const W: usize>(map: &mut HashMap<MapData, Wire<Tuple<W>>, Wire<Flow>>) -> Result<()>
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
