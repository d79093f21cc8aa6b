//! Programs measured in turn, each between two runs of the reference, so that a slow moment of the machine hits both alike.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Result, ensure};

use super::addresses::{Cycle, Who};
use super::frame::syn;
use super::programs;
use crate::bench::samples::Samples;
use crate::bpf;
use crate::bpf::caller::Caller;

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
    /// Around the program, where sources change.
    cycler: Option<Caller>,
    /// What it must return for each packet.
    verdict: u32,
    /// Nanoseconds a packet, the cycler's included, over those of the reference; a sample a round.
    parts: Samples,
}

/// All that is measured in one interleaved run.
#[derive(Debug)]
pub(super) struct Turns {
    reference: OwnedFd,
    /// The reference with a cycler around it: what a cycler costs. All cyclers have the same instructions.
    cycled: Caller,
    ingress: u32,
    subjects: Vec<Subject>,
    reference_ns: Samples,
    /// What a cycler costs, over the reference.
    cycler: Samples,
}

/// Number of a subject.
pub(super) type Index = usize;

impl Turns {
    /// No subjects yet; packets come by interface `ingress`.
    pub(super) fn new(ingress: u32) -> Result<Self> {
        let reference = programs::reference()?;
        let cycled = programs::cycler(Cycle { period: 1, who: Who::Members }, reference.as_fd())?;
        Ok(Self {
            reference,
            cycled,
            ingress,
            subjects: Vec::new(),
            reference_ns: Samples::default(),
            cycler: Samples::default(),
        })
    }

    /// Adds a subject; every packet must meet `verdict`.
    pub(super) fn add(&mut self, name: &str, program: &OwnedFd, sources: Sources, verdict: u32) -> Result<Index> {
        let cycler = match sources {
            Sources::One(..) => None,
            Sources::Many(cycle) => Some(programs::cycler(cycle, program.as_fd())?),
        };
        let (name, program, parts) = (name.to_owned(), program.try_clone()?, Samples::default());
        let subject = Subject { name, program, sources, cycler, verdict, parts };
        subject.check(self.ingress)?;
        self.subjects.push(subject);
        Ok(self.subjects.len() - 1)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.subjects.len()
    }

    /// Measures every subject once, in every other round in reverse: reference, subject, reference, subject, reference …
    pub(super) fn round(&mut self, round: u32) -> Result<()> {
        let start = round * REPEAT;
        let frame = syn(Who::Members.address(0), start)?;
        let time = |program: &OwnedFd, frame: &[u8]| bpf::time(program.as_fd(), frame, self.ingress, REPEAT);
        let mut before = time(&self.reference, &frame)?;
        let cycled = time(self.cycled.program(), &frame)?;
        let mut after = time(&self.reference, &frame)?;
        self.cycler.add(cycled / f64::midpoint(before, after) - 1.0);
        let mut order: Vec<&mut Subject> = self.subjects.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for subject in order {
            before = after;
            let ns = time(subject.timed(), &subject.frame(start)?)?;
            after = time(&self.reference, &frame)?;
            let reference = f64::midpoint(before, after);
            self.reference_ns.add(reference);
            subject.parts.add(ns / reference);
        }
        Ok(())
    }

    /// Name of a subject.
    pub(super) fn name(&self, index: Index) -> &str {
        &self.subjects[index].name
    }

    /// Nanoseconds a packet without the cycler's, as if the reference had always taken its median.
    pub(super) fn samples(&self, index: Index) -> Samples {
        let subject = &self.subjects[index];
        let around = if subject.cycler.is_some() { self.cycler.median() } else { 0.0 };
        subject.parts.less(around).times(self.reference_ns.median())
    }
}

impl Subject {
    fn timed(&self) -> &OwnedFd {
        self.cycler.as_ref().map_or(&self.program, Caller::program)
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
        for number in 0..CHECKED {
            let start = number.wrapping_mul(CHECKED_APART);
            let verdict = bpf::once(self.timed().as_fd(), &self.frame(start)?, ingress)?;
            ensure!(verdict == self.verdict, "{}: packet {start} met {verdict}, not {}", self.name, self.verdict);
        }
        Ok(())
    }
}

/// Packets of one measurement; four go round 65,536 sources.
const REPEAT: u32 = 16_384;
/// Packets whose verdict is looked at, and how far apart they are.
const CHECKED: u32 = 16;
const CHECKED_APART: u32 = 4099;
