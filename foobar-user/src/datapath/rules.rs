//! The two generations of rules in the kernel: one is in force, the other is written beside it.
//!
//! One store of one word puts the other in force, for every interface and every packet that comes after it. A change that
//! waits for confirmation bears its deadline in that word: the kernel goes back by itself, also when no agent is alive.

use std::mem::size_of;
use std::time::Duration;

use anyhow::Result;
use aya::maps::{Map, MapData};
use foobar_common::generation::{Generation, control, in_force};
use foobar_common::rules::compile::Compiled;

use super::clock;
use super::grace::{self, Grace};
use super::mapping::Mapping;
use super::programs::Programs;

/// Words of a generation.
const WORDS: usize = size_of::<Generation>() / 8;
/// Place of the word that says which generation is in force.
const CONTROL: usize = 0;
/// Place of the word that says whether somebody watches.
const WATCHED: usize = 1;

/// Both generations, and which is in force.
#[derive(Debug)]
pub(super) struct Generations {
    /// The programs know their maps by the numbers of these descriptors until they are loaded.
    _maps: [MapData; 2],
    rules: Mapping,
    control: Mapping,
    /// Began when the one in force came into force for good: when it has passed, nobody reads the other any more.
    left: Option<Grace>,
}

impl Generations {
    /// Of programs that were just loaded: no rules yet, everything is denied.
    pub(super) fn of(programs: &mut Programs) -> Result<Self> {
        let rules = array(programs.take_map("RULES")?)?;
        let control = array(programs.take_map("CONTROL")?)?;
        let (rules_mapping, control_mapping) = (Mapping::new(rules.fd(), 2 * WORDS)?, Mapping::new(control.fd(), 2)?);
        Ok(Self { _maps: [rules, control], rules: rules_mapping, control: control_mapping, left: None })
    }

    /// Writes a generation beside the one in force.
    pub(super) fn write(&mut self, compiled: &Compiled) -> Result<()> {
        // Packets that began under the generation before last still read the place that is written now.
        match self.left.take() {
            Some(grace) => grace.end()?,
            None => grace::wait()?,
        }
        let first = self.other() * WORDS;
        compiled.parts().iter().try_for_each(|part| self.rules.copy(first + part.offset / 8, part.bytes))
    }

    /// Writes a part of the generation in force that no packet needs yet.
    pub(super) fn amend(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        let place = self.index();
        self.rules.copy(place * WORDS + offset / 8, bytes)
    }

    /// Puts the other generation in force; `confirm_within`: until then, unless it is confirmed.
    pub(super) fn flip(&mut self, confirm_within: Option<Duration>) -> Result<()> {
        let deadline = match confirm_within {
            Some(time) => (clock::now()? + time).as_nanos() as u64,
            None => 0,
        };
        let other = self.other() as u32;
        self.control.write(CONTROL, control(other, deadline));
        // With a deadline the kernel may go back at any time: then whoever writes next waits. So does a failure here.
        self.left = confirm_within.is_none().then(|| Grace::begin().ok()).flatten();
        Ok(())
    }

    /// Puts the one in force for good.
    pub(super) fn confirm(&mut self) {
        let index = self.index() as u32;
        self.control.write(CONTROL, control(index, 0));
    }

    /// Whether somebody watches.
    pub(super) fn set_watched(&mut self, watched: bool) {
        self.control.write(WATCHED, u64::from(watched));
    }

    /// Place of the generation in force.
    fn index(&self) -> usize {
        let word = self.control.read(CONTROL);
        in_force(word, || clock::now_ns().unwrap_or(0)) as usize
    }

    fn other(&self) -> usize {
        self.index() ^ 1
    }
}

/// The data of an array map.
pub(super) fn array(map: Map) -> Result<MapData> {
    match map {
        Map::Array(data) => Ok(data),
        _ => anyhow::bail!("a map of the object is no array"),
    }
}
