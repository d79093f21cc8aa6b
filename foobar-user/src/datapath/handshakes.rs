//! How handshakes with listeners are judged, from outside: whether SYNs are answered with cookies, and what came of it.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use foobar_common::abi::{Counter, SynSettings};
use foobar_common::verdict::Reason;

use super::state::sum;
use super::wire::Wire;

/// What the packet path has seen of floods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Monotonic time at which a listener last had too many half-open connections; 0: never.
    pub flood_ns: u64,
    /// SYNs answered with cookies, ever.
    pub answered: u64,
    /// Handshakes that they led to, ever.
    pub accepted: u64,
}

/// Handles of their own on the maps of handshakes: a flood is acted on at once, whoever holds the data path.
pub struct Handshakes {
    settings: Array<MapData, Wire<SynSettings>>,
    seen: Array<MapData, u64>,
    verdicts: PerCpuArray<MapData, Wire<Counter>>,
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshakes").finish_non_exhaustive()
    }
}

impl Handshakes {
    /// Opens the maps that are pinned in `state`.
    pub(super) fn open(state: &Path) -> Result<Self> {
        let pinned =
            |name: &str| MapData::from_pin(state.join(name)).with_context(|| format!("cannot open the map {name}"));
        Ok(Self {
            settings: Map::Array(pinned("syn_settings")?).try_into()?,
            seen: Map::Array(pinned("flood_seen")?).try_into()?,
            verdicts: Map::PerCpuArray(pinned("verdicts")?).try_into()?,
        })
    }

    /// What the packet path has seen of floods.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn seen(&self) -> Result<Seen> {
        let packets = |reason: Reason| anyhow::Ok(sum(&self.verdicts, reason as u32)?.packets);
        Ok(Seen {
            flood_ns: self.seen.get(&0, 0)?,
            answered: packets(Reason::SynAnswered)?,
            accepted: packets(Reason::SynCookie)?,
        })
    }

    /// Whether SYNs are answered with cookies.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn answering(&self) -> Result<bool> {
        Ok(self.settings.get(&0, 0)?.0.answer != 0)
    }

    /// Has SYNs answered, or left to the stack, from the next packet on.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set(&mut self, settings: SynSettings) -> Result<()> {
        Ok(self.settings.set(0, Wire(settings), 0)?)
    }
}
