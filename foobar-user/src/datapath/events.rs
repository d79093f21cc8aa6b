//! Events of the packet path, as user space reads them.

use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use foobar_common::abi::Event;
use zerocopy::FromBytes as _;

/// The ring, for its one reader: readable when it has an event.
pub struct Events {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Opens the ring that is pinned in `state`.
    pub(super) fn open(state: &Path) -> Result<Self> {
        let pinned =
            |name: &str| MapData::from_pin(state.join(name)).with_context(|| format!("cannot open the map {name}"));
        let lost = Map::PerCpuArray(pinned("events_lost")?).try_into()?;
        Ok(Self { ring: Map::RingBuf(pinned("events")?).try_into()?, lost })
    }

    /// Takes the next event, if there is one.
    pub fn take(&mut self) -> Option<Event> {
        let item = self.ring.next()?;
        Event::read_from_bytes(&item).ok()
    }

    /// Events for which the ring had no room, since the maps were made.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn lost(&self) -> Result<u64> {
        Ok(self.lost.get(&0, 0)?.iter().sum())
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
