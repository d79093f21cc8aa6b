//! The two generations of rules in the kernel: one is in force, the other is written beside it.
//!
//! One store of one word puts the other in force, for every interface and every packet that comes after it. A change that
//! waits for confirmation bears its deadline in that word: the kernel goes back by itself, also when no agent is alive.

use std::mem::size_of;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData};
use foobar_common::generation::{Generation, control};
use foobar_common::rules::compile::Compiled;

use super::clock;
use super::grace::{self, Grace};
use super::mapping::Mapping;
use super::programs::Programs;

/// Words of a generation.
const WORDS: usize = size_of::<Generation>() / 8;
/// Place of the word that says which generation is in force.
const CONTROL: usize = 0;
/// A confirmation that comes so shortly before the deadline is too late: the kernel's clock moves on in steps.
const CONFIRM_MARGIN_NS: u64 = 20_000_000;
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
    /// Where a generation was written that is not in force yet.
    written: Option<usize>,
}

/// One of the two places, by what was put there last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The generation of the last flip, also when the kernel has gone back since.
    Latest,
    /// The one before it.
    Before,
}

impl Generations {
    /// Of programs that were just loaded: no rules yet, everything is denied.
    pub(super) fn of(programs: &mut Programs) -> Result<Self> {
        let rules = array(programs.take_map("RULES")?)?;
        let control = array(programs.take_map("CONTROL")?)?;
        let (rules_mapping, control_mapping) = (Mapping::new(rules.fd(), 2 * WORDS)?, Mapping::new(control.fd(), 2)?);
        Ok(Self { _maps: [rules, control], rules: rules_mapping, control: control_mapping, left: None, written: None })
    }

    /// Writes a generation beside the one in force.
    ///
    /// While a change waits for its confirmation, this takes it back first: the kernel may do so by itself at any moment, and
    /// then the place of what it goes back to would be the one that is written.
    pub(super) fn write(&mut self, compiled: &Compiled) -> Result<()> {
        let word = self.control.read(CONTROL);
        if deadline_of(word).is_some() {
            self.control.write(CONTROL, control(latest(word) as u32 ^ 1, 0));
            self.left = None;
        }
        // Packets that began under the generation before last still read the place that is written now.
        match self.left.take() {
            Some(grace) => grace.end()?,
            None => grace::wait()?,
        }
        let place = latest(self.control.read(CONTROL)) ^ 1;
        let copied = compiled.parts().iter().try_for_each(|part| {
            let first = place * WORDS + part.offset / 8;
            self.rules.copy(first, part.bytes)
        });
        self.written = copied.is_ok().then_some(place);
        copied
    }

    /// Writes a part of a generation that no packet needs yet.
    pub(super) fn amend(&mut self, place: Place, offset: usize, bytes: &[u8]) -> Result<()> {
        let latest = latest(self.control.read(CONTROL));
        let place = if place == Place::Latest { latest } else { latest ^ 1 };
        self.rules.copy(place * WORDS + offset / 8, bytes)
    }

    /// Puts the generation that was written in force; `confirm_within`: until then, unless it is confirmed.
    pub(super) fn flip(&mut self, confirm_within: Option<Duration>) -> Result<()> {
        let deadline = match confirm_within {
            Some(time) => (clock::now()? + time).as_nanos() as u64,
            None => 0,
        };
        let place = self.written.take().context("no generation was written")?;
        self.control.write(CONTROL, control(place as u32, deadline));
        // With a deadline the kernel may go back at any time: then whoever writes next waits. So does a failure here.
        self.left = confirm_within.is_none().then(|| Grace::begin().ok()).flatten();
        Ok(())
    }

    /// Puts what waits for confirmation in force for good.
    ///
    /// # Errors
    /// It is too late: the kernel has gone back, or is about to.
    pub(super) fn confirm(&mut self) -> Result<()> {
        let word = self.control.read(CONTROL);
        if let Some(deadline_ns) = deadline_of(word) {
            ensure!(clock::now_ns()? + CONFIRM_MARGIN_NS < deadline_ns, "its time has run out, and it is taken back");
        }
        self.control.write(CONTROL, control(latest(word) as u32, 0));
        Ok(())
    }

    /// Whether somebody watches.
    pub(super) fn set_watched(&mut self, watched: bool) {
        self.control.write(WATCHED, u64::from(watched));
    }
}

/// Place of the generation of the last flip.
const fn latest(word: u64) -> usize {
    (word & 1) as usize
}

/// When the kernel goes back from it, unless it is confirmed.
const fn deadline_of(word: u64) -> Option<u64> {
    if word > 1 { Some(word >> 1) } else { None }
}

/// The data of an array map.
pub(super) fn array(map: Map) -> Result<MapData> {
    match map {
        Map::Array(data) => Ok(data),
        _ => anyhow::bail!("a map of the object is no array"),
    }
}
