//! Programs measured in turn, each between two runs of the reference, so that a slow moment of the machine hits both alike.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Result, ensure};

use super::addresses::{Cycle, Who};
use super::frame::syn;
use super::programs::{self, Cycler};
use crate::bench::bpf;
use crate::bench::samples::Samples;

/// Whose packets a program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// One address: member or stranger of this number.
    One(Who, u32),
    /// Many in turn.
    Many(Cycle),
}

/// A program in a state, with the packets that it gets.
#[derive(Debug)]
struct Subject {
    name: String,
    program: OwnedFd,
    sources: Sources,
    /// Around the program and around the reference.
    cyclers: Option<(Cycler, Cycler)>,
    /// What it must return for each packet.
    verdict: u32,
    /// Nanoseconds a packet over those of the reference, a sample a round.
    parts: Samples,
}

/// All that is measured in one interleaved run.
#[derive(Debug)]
pub(super) struct Turns {
    reference: OwnedFd,
    ingress: u32,
    subjects: Vec<Subject>,
    reference_ns: Samples,
}

/// Number of a subject.
pub(super) type Index = usize;

impl Turns {
    /// No subjects yet; packets come by interface `ingress`.
    pub(super) fn new(ingress: u32) -> Result<Self> {
        let none = Samples::default();
        Ok(Self { reference: programs::reference()?, ingress, subjects: Vec::new(), reference_ns: none })
    }

    /// Adds a subject; every packet must meet `verdict`.
    pub(super) fn add(&mut self, name: &str, program: &OwnedFd, sources: Sources, verdict: u32) -> Result<Index> {
        let cyclers = match sources {
            Sources::One(..) => None,
            Sources::Many(cycle) => {
                Some((programs::cycler(cycle, program.as_fd())?, programs::cycler(cycle, self.reference.as_fd())?))
            }
        };
        let (name, program, parts) = (name.to_owned(), program.try_clone()?, Samples::default());
        let subject = Subject { name, program, sources, cyclers, verdict, parts };
        subject.check(self.ingress)?;
        self.subjects.push(subject);
        Ok(self.subjects.len() - 1)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.subjects.len()
    }

    /// Measures every subject once, in every other round in reverse.
    pub(super) fn round(&mut self, round: u32) -> Result<()> {
        let mut order: Vec<&mut Subject> = self.subjects.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for subject in order {
            let start = round * REPEAT;
            let before = subject.references(&self.reference, self.ingress, start)?;
            let program = subject.cyclers.as_ref().map_or(&subject.program, |(cycler, _)| &cycler.program);
            let time = bpf::time(program.as_fd(), &subject.frame(start)?, self.ingress, REPEAT)?;
            let after = subject.references(&self.reference, self.ingress, start)?;
            let (reference, cycled) = (f64::midpoint(before.0, after.0), f64::midpoint(before.1, after.1));
            self.reference_ns.add(reference);
            subject.parts.add((time - (cycled - reference)) / reference);
        }
        Ok(())
    }

    /// Name of a subject.
    pub(super) fn name(&self, index: Index) -> &str {
        &self.subjects[index].name
    }

    /// Nanoseconds a packet, as if the reference had always taken its median.
    pub(super) fn samples(&self, index: Index) -> Samples {
        self.subjects[index].parts.times(self.reference_ns.median())
    }
}

impl Subject {
    /// Nanoseconds of the reference, alone and with the cycler around it.
    fn references(&self, reference: &OwnedFd, ingress: u32, start: u32) -> Result<(f64, f64)> {
        let frame = self.frame(start)?;
        let alone = bpf::time(reference.as_fd(), &frame, ingress, REPEAT)?;
        match &self.cyclers {
            Some((_, cycler)) => Ok((alone, bpf::time(cycler.program.as_fd(), &frame, ingress, REPEAT)?)),
            None => Ok((alone, alone)),
        }
    }

    /// The frame; a cycler counts on from `start`.
    fn frame(&self, start: u32) -> Result<Vec<u8>> {
        match self.sources {
            Sources::One(who, number) => syn(who.address(number), start),
            Sources::Many(_) => syn(Who::Strangers.address(u32::MAX), start),
        }
    }

    /// The verdict is the expected one, of many packets in turn.
    fn check(&self, ingress: u32) -> Result<()> {
        let program = self.cyclers.as_ref().map_or(&self.program, |(cycler, _)| &cycler.program);
        for number in 0..CHECKED {
            let start = number.wrapping_mul(CHECKED_APART);
            let verdict = bpf::once(program.as_fd(), &self.frame(start)?, ingress)?;
            ensure!(verdict == self.verdict, "{}: packet {start} met {verdict}, not {}", self.name, self.verdict);
        }
        Ok(())
    }
}

/// Packets of one measurement; four go round 65,536 sources.
const REPEAT: u32 = 16_384;
/// Packets whose verdict is looked at, and how far apart they are.
const CHECKED: u32 = 64;
const CHECKED_APART: u32 = 1021;
