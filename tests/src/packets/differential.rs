//! Many frames through both shells, which must agree in everything; and through the model, which shares nothing with them.

use std::thread;

use anyhow::Result;

use super::check::hex_difference;
use super::core::Core;
use super::counters::Counters;
use super::hosts::Wire;
use super::kernel::Kernel;
use super::model::{Model, Opinion};
use super::random::Random;
use super::shell::{Shell, XDP_DROP, XDP_PASS};

/// Frames between two readings of the counters; flows, cursors and token buckets begin anew with each batch.
const BATCH: usize = 1000;
/// Differences to show at the most.
const SHOWN: usize = 5;

/// A frame, and the interface by which it comes.
pub type Arrival = (Wire, Vec<u8>);

/// The shells that a frame goes through, and the model where it has an opinion: it knows no services.
#[derive(Debug)]
pub struct Contest {
    /// The packet path on the host.
    pub core: Core,
    /// The loaded program.
    pub kernel: Kernel,
    /// The model.
    pub model: Option<Model>,
}

/// What differs, as far as it is shown.
#[derive(Debug, Default)]
struct Faults(Vec<String>);

impl Faults {
    fn note(&mut self, (wire, frame): &Arrival, what: &str) {
        if self.0.len() < SHOWN {
            let bytes: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            self.0.push(format!("{wire:?} {bytes}: {what}"));
        }
    }

    const fn are_enough(&self) -> bool {
        self.0.len() >= SHOWN
    }
}

impl Contest {
    /// Runs so many random frames of so many bytes at the most; what differs.
    pub fn random(&mut self, seed: u64, frames: usize, longest: usize) -> Result<Vec<String>> {
        let mut random = Random::new(seed);
        let any = std::iter::repeat_with(|| random.frame());
        self.all(any.filter(|(_, frame)| frame.len() <= longest).take(frames))
    }

    /// Runs frames; what differs.
    pub fn all(&mut self, frames: impl Iterator<Item = Arrival>) -> Result<Vec<String>> {
        let mut faults = Faults::default();
        let mut frames = frames.peekable();
        while frames.peek().is_some() && !faults.are_enough() {
            let batch: Vec<Arrival> = frames.by_ref().take(BATCH).collect();
            self.batch(&batch, &mut faults)?;
        }
        Ok(faults.0)
    }

    fn batch(&mut self, batch: &[Arrival], faults: &mut Faults) -> Result<()> {
        self.reset()?;
        let before = (self.core.counters()?, self.kernel.counters()?);
        let mut expected = before.0.since(&before.0);
        for arrival in batch {
            let opinion = self.run(arrival, faults)?;
            note(&mut expected, opinion.as_ref(), arrival.1.len() as u64);
        }
        let host = self.core.counters()?.since(&before.0);
        let loaded = self.kernel.counters()?.since(&before.1);
        if self.core.flows() != self.kernel.flows()? {
            faults.0.push(format!(
                "flows: {:?} on the host, {:?} in the kernel",
                self.core.flows(),
                self.kernel.flows()?
            ));
        }
        if host != loaded || self.model.is_some() && host != expected {
            self.blame(batch, faults)?;
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.core.reset()?;
        self.kernel.reset()?;
        self.model.iter_mut().for_each(Model::reset);
        Ok(())
    }

    /// Runs one frame everywhere.
    fn run(&mut self, arrival: &Arrival, faults: &mut Faults) -> Result<Option<Opinion>> {
        let (wire, frame) = arrival;
        let (host, loaded) = (self.core.run(*wire, frame)?, self.kernel.run(*wire, frame)?);
        if host != loaded {
            let bytes = hex_difference(&loaded.bytes, &host.bytes);
            let (loaded, host) = (loaded.action, host.action);
            faults.note(arrival, &format!("action {loaded} in the kernel, {host} on the host; bytes:\n{bytes}"));
        }
        let opinion = self.model.as_mut().map(|model| model.judge(*wire, frame));
        if let Some(opinion) = &opinion {
            let action = if opinion.reason.verdict() == "drop" { XDP_DROP } else { XDP_PASS };
            if host.action != action || host.bytes != *frame {
                faults.note(arrival, &format!("action {} on the host, but the model: {opinion:?}", host.action));
            }
        }
        Ok(opinion)
    }

    /// Finds the frames of a batch that are counted differently, one by one.
    fn blame(&mut self, batch: &[Arrival], faults: &mut Faults) -> Result<()> {
        self.reset()?;
        let mut before = (self.core.counters()?, self.kernel.counters()?);
        for arrival in batch {
            let opinion = self.run(arrival, &mut Faults::default())?;
            let after = (self.core.counters()?, self.kernel.counters()?);
            let (host, loaded) = (after.0.since(&before.0), after.1.since(&before.1));
            before = after;
            let found = loaded.differences(&host);
            if !found.is_empty() {
                faults.note(arrival, &format!("in the kernel, not as on the host: {}", found.join("; ")));
            }
            let mut expected = host.since(&host);
            note(&mut expected, opinion.as_ref(), arrival.1.len() as u64);
            let found = host.differences(&expected);
            if opinion.is_some() && !found.is_empty() {
                faults.note(arrival, &format!("on the host, not as the model: {}", found.join("; ")));
            }
            if faults.are_enough() {
                break;
            }
        }
        Ok(())
    }
}

fn note(counters: &mut Counters, opinion: Option<&Opinion>, bytes: u64) {
    let Some(opinion) = opinion else { return };
    let verdict = &mut counters.verdicts[opinion.reason as usize];
    let rules = opinion.rules.iter();
    verdict.packets += 1;
    verdict.bytes += bytes;
    for rule in rules {
        counters.rules[*rule].packets += 1;
        counters.rules[*rule].bytes += bytes;
    }
}

/// Runs two contests at once, each on a thread of its own in this namespace; what differs in each.
pub fn both<T: Send>(one: impl FnOnce() -> T + Send, other: impl FnOnce() -> T + Send) -> (T, T) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().expect("a contest's thread panicked"), other)
    })
}

/// Each of the frames cut at each byte, and with each byte of its headers changed in several ways.
pub fn cut_and_bent(frames: &[Arrival]) -> Vec<Arrival> {
    const HEADERS: usize = 140;
    let cuts = |(wire, frame): &Arrival| {
        let (wire, frame) = (*wire, frame.clone());
        (14..=frame.len().min(2 * HEADERS)).map(move |at| (wire, frame[..at].to_vec()))
    };
    let bends = |(wire, frame): &Arrival| {
        let (wire, frame) = (*wire, frame.clone());
        (12..frame.len().min(HEADERS)).flat_map(move |at| {
            let frame = frame.clone();
            [0, 1, 0x80, 0xff].map(|change| {
                let mut bent = frame.clone();
                bent[at] = if change == 0 { 0 } else { bent[at] ^ change };
                (wire, bent)
            })
        })
    };
    frames.iter().flat_map(move |arrival| cuts(arrival).chain(bends(arrival))).collect()
}
