//! Single entries of the flow tables, for tests and for a look at one connection.

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData, MapError};
use foobar_common::abi::Flow;
use foobar_common::address::Tuple;

use super::state::State;
use super::wire::Wire;

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
