//! Connections that backends have not taken, as the packet path and the sockets count them.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::MapData;
use foobar_common::abi::MAX_BACKENDS;

use super::Datapath;
use super::mapping::Mapping;

/// Words of one backend: see `ConnectFailures`.
const WORDS: usize = 2;
/// The word of those in a row.
const ROW: usize = 1;

/// A look at the counts that costs no system call.
#[derive(Debug)]
pub struct Failures(Mapping);

impl Failures {
    fn open(state: &Path) -> Result<Self> {
        let map = MapData::from_pin(state.join("connect_failures")).context("cannot open the map CONNECT_FAILURES")?;
        Ok(Self(Mapping::new(map.fd(), MAX_BACKENDS as usize * WORDS)?))
    }

    /// Failures of a backend's slot since it has last taken a connection.
    #[must_use]
    pub fn row(&self, slot: u32) -> u64 {
        self.0.read(slot as usize * WORDS + ROW)
    }
}

impl Datapath {
    /// Handles of their own on the counts.
    ///
    /// # Errors
    /// No plan has been in force yet.
    pub fn failures(&self) -> Result<Failures> {
        Failures::open(&self.pins.state())
    }
}
