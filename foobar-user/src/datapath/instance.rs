//! One loading of the programs, with the rules and named sets that belong to it.

use std::mem::offset_of;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunOptions};
use foobar_common::abi::{NO_RULE_SLOT, Trace};
use foobar_common::generation::{Generation, Tunnels};
use foobar_common::rules::Rule;
use foobar_common::rules::compile::{Compiled, Surroundings, compile};
use zerocopy::IntoBytes as _;

use super::programs::{Parts, Programs};
use super::rules::{self, Generations};
use super::sets::{Entry, LEAST_WORDS, Set, SetError, Sets};
use super::state::State;
use super::wire::Wire;

/// How programs are loaded, beside what their plan needs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Folder in which state maps are pinned, and found again; `None`: they live and die with the programs.
    pub state: Option<&'a Path>,
    /// Folder for the pins of this loading's own maps.
    pub own: Option<&'a Path>,
    /// Whether frames may have more than one buffer.
    pub jumbo: bool,
    /// Established flows of each family at the most; 0: none are forwarded here.
    pub flows: u32,
    /// Whether the program tells about each packet that it drops.
    pub log_drops: bool,
}

/// Loaded programs, attached to nothing by themselves, with their rules and sets.
#[derive(Debug)]
pub struct Instance {
    programs: Programs,
    state: State,
    generations: Generations,
    sets: Sets,
    member_words: u32,
    jumbo: bool,
    /// The generation in force, as it was compiled.
    compiled: Option<Compiled>,
    /// The one before it, while the kernel may go back to it.
    before: Option<Compiled>,
    /// The one that was written beside it.
    written: Option<Compiled>,
    /// The programs once more, which change nothing; loaded when somebody asks.
    dry: Option<Programs>,
}

/// Why an instance cannot do what it should.
#[derive(Debug)]
pub enum InstanceError {
    /// It has no room for these sets, or cannot take them now: another loading of the programs may have.
    Room,
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for InstanceError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<SetError> for InstanceError {
    fn from(error: SetError) -> Self {
        match error {
            SetError::Memory(_) | SetError::Classes(_) | SetError::Unsettled => Self::Room,
            SetError::Other(error) => Self::Other(error),
        }
    }
}

impl Instance {
    /// Loads the programs, with room for these sets twice over; they deny everything.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load(place: &Place<'_>, sets: &[Set]) -> Result<Self> {
        let mut member_words = LEAST_WORDS;
        loop {
            let Place { state, own, jumbo, flows, log_drops } = *place;
            let mut programs = Programs::load(&Parts { state, own, member_words, jumbo, flows, log_drops })?;
            let mut loaded = Sets::of(&mut programs)?;
            match loaded.replace(sets) {
                Ok(()) => {}
                Err(SetError::Memory(needed)) => {
                    ensure!(needed > member_words, "the named sets do not fit into {member_words} words");
                    member_words = needed;
                    if let Some(own) = own {
                        std::fs::remove_file(own.join("members")).ok();
                    }
                    continue;
                }
                Err(SetError::Classes(error) | SetError::Other(error)) => return Err(error),
                Err(SetError::Unsettled) => bail!("sets of programs that were just loaded are not settled"),
            }
            let state = State::of(&mut programs)?;
            let generations = Generations::of(&mut programs)?;
            return Ok(Self {
                programs,
                state,
                generations,
                sets: loaded,
                member_words,
                jumbo,
                compiled: None,
                before: None,
                written: None,
                dry: None,
            });
        }
    }

    /// The programs.
    pub const fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// The state maps.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The state maps, to change them.
    pub const fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Whether it can take frames of more than one buffer.
    pub(super) const fn jumbo(&self) -> bool {
        self.jumbo
    }

    /// Builds other sets beside those in force; they come into force with the next generation.
    ///
    /// # Errors
    /// They do not fit.
    pub fn replace_sets(&mut self, sets: &[Set]) -> Result<(), InstanceError> {
        Ok(self.sets.replace(sets)?)
    }

    /// Compiles rules and writes them beside those in force.
    ///
    /// # Errors
    /// The rules do not fit the tables.
    pub fn write(
        &mut self,
        rules: &[Rule],
        counters: &[u32],
        number: u32,
        uses: u32,
        interfaces: &[(String, u32)],
        tunnels: Tunnels,
    ) -> Result<()> {
        self.sets.tell_classes()?;
        let compiled = compile(
            rules,
            &Surroundings {
                number,
                uses,
                counters,
                interfaces,
                sets: self.sets.names(),
                classes: &self.sets.bits(),
                members: self.sets.roots(),
                tunnels,
            },
        )?;
        self.generations.write(&compiled)?;
        self.written = Some(compiled);
        Ok(())
    }

    /// Puts what was written in force; with `confirm_within` only so long, unless it is confirmed.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn flip(&mut self, confirm_within: Option<Duration>) -> Result<()> {
        let written = self.written.take().context("no generation was written")?;
        self.generations.flip(confirm_within)?;
        self.before = self.compiled.replace(written).filter(|_| confirm_within.is_some());
        if confirm_within.is_none() {
            self.sets.settle();
        }
        Ok(())
    }

    /// Keeps what is in force.
    ///
    /// # Errors
    /// It is too late.
    pub fn confirm(&mut self) -> Result<()> {
        self.generations.confirm()?;
        self.before = None;
        self.sets.settle();
        Ok(())
    }

    /// Adds a member to a set in force, or takes one out.
    ///
    /// # Errors
    /// There is no such set, or no room: then the sets have to be replaced.
    pub fn change_set(&mut self, set: &str, entry: Entry, keep: bool) -> Result<(), InstanceError> {
        self.sets.change(set, entry, keep)?;
        if let Err(error) = self.tell_classes() {
            // What was prepared is not in force, and must not come with the next change.
            self.sets.spoil();
            return Err(error.into());
        }
        Ok(self.sets.put_in_force()?)
    }

    /// Has every flow judged again that was let through before: the number of the generation in force is another one.
    ///
    /// # Errors
    /// No rules are in force yet.
    pub fn renumber(&mut self, number: u32) -> Result<()> {
        let compiled = self.compiled.as_mut().context("no rules are in force yet")?;
        compiled.generation.head.number = number;
        // Words are what is written: the number, and the uses behind it.
        let head = &compiled.generation.head.as_bytes()[..8];
        self.generations.amend(rules::Place::Latest, offset_of!(Generation, head), head)
    }

    /// Has every generation that is, or may come, in force know new classes.
    fn tell_classes(&mut self) -> Result<()> {
        let Self { sets, compiled, before, generations, .. } = self;
        for (class, sets) in sets.tell_classes()? {
            amend(
                generations,
                rules::Place::Latest,
                compiled.as_mut().context("no rules are in force yet")?,
                class,
                sets,
            )?;
            if let Some(before) = before {
                amend(generations, rules::Place::Before, before, class, sets)?;
            }
        }
        Ok(())
    }

    /// Whether somebody watches.
    pub fn set_watched(&mut self, watched: bool) {
        self.generations.set_watched(watched);
    }

    /// What the programs would do with a frame that comes by an interface; nothing is counted or changed.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn explain(&mut self, place: &Place<'_>, frame: &[u8], interface: u32) -> Result<Trace> {
        let mut dry = match self.dry.take() {
            Some(dry) => dry,
            None => {
                let Place { state, own, jumbo, .. } = *place;
                let member_words = self.member_words;
                Programs::load_dry(&Parts { state, own, member_words, jumbo, flows: 0, log_drops: false })?
            }
        };
        let trace = trace(&mut dry, frame, interface);
        self.dry = Some(dry);
        trace
    }
}

/// Has a generation know a class.
fn amend(
    generations: &mut Generations,
    place: rules::Place,
    compiled: &mut Compiled,
    class: usize,
    sets: u64,
) -> Result<()> {
    let known = compiled.sets();
    compiled.add_class(class, sets)?;
    let generation = &compiled.generation;
    let first = offset_of!(Generation, sets) + known * size_of_val(&generation.sets[0]);
    generations.amend(place, first, generation.sets[known..compiled.sets()].as_bytes())?;
    // Words are what is written: four classes at a time.
    let four = class & !3;
    let source = offset_of!(Generation, source_classes) + 2 * four;
    generations.amend(place, source, generation.source_classes[four..four + 4].as_bytes())?;
    let destination = offset_of!(Generation, destination_classes) + 2 * four;
    generations.amend(place, destination, generation.destination_classes[four..four + 4].as_bytes())
}

/// `struct xdp_md` of a test run: data, its end, metadata, the interface that a frame comes by, its queue, egress interface.
#[must_use]
pub fn context(interface: u32, length: usize) -> Vec<u8> {
    [0, length as u32, 0, interface, 0, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

fn trace(dry: &mut Programs, frame: &[u8], interface: u32) -> Result<Trace> {
    let mut map: Array<_, Wire<Trace>> = dry.map_mut("TRACE")?.try_into()?;
    let nothing = Trace { reason: 0, steps: 0, rules: [0; _], service: NO_RULE_SLOT, backend: NO_RULE_SLOT };
    map.set(0, Wire(nothing), 0)?;
    let context = context(interface, frame.len());
    // An answer may be longer than what it answers, and so is a tunnel.
    let mut bytes = vec![0; frame.len() + 128];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut bytes),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    dry.xdp("foobar")?.test_run(options).context("the kernel refuses to run the program on this packet")?;
    let map: Array<_, Wire<Trace>> = dry.map_mut("TRACE")?.try_into()?;
    Ok(map.get(&0, 0)?.0)
}
