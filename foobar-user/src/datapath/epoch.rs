//! The epoch of services, backends and flows: what CPUs remember of the ways of flows holds for one of them.

use anyhow::{Result, bail};
use aya::maps::{Map, MapData};

use super::mapping::Mapping;

/// The word in the kernel.
#[derive(Debug)]
pub(super) struct Epoch {
    /// Programs that are not loaded yet know their maps by the numbers of descriptors.
    _map: MapData,
    word: Mapping,
}

impl Epoch {
    /// Of its map.
    ///
    /// # Errors
    /// It is no array, or cannot be mapped into memory.
    pub(super) fn of(map: Map) -> Result<Self> {
        let Map::Array(map) = map else { bail!("the map EPOCH is no array") };
        Ok(Self { word: Mapping::new(map.fd(), 1)?, _map: map })
    }

    /// Begins another one, at once for every packet: what was remembered before holds no more.
    pub(super) fn begin(&self) {
        self.word.add(0, 1);
    }
}
