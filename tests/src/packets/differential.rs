//! Random frames through both shells, which must agree in everything; and the firewall's against the model.

use std::net::IpAddr;

use anyhow::Result;
use foobar_common::rules::Rule;

use super::check::hex_difference;
use super::core::Core;
use super::counters::Counters;
use super::hosts::Wire;
use super::kernel::Kernel;
use super::model;
use super::own;
use super::random::Random;
use super::shell::Shell;

/// Frames between two readings of the counters; flows and cursors begin anew with each batch.
const BATCH: usize = 1000;
/// Differences to show at the most.
const SHOWN: usize = 5;

/// Runs so many random frames; what differs.
pub fn compare(seed: u64, frames: usize, core: &mut Core, kernel: &mut Kernel) -> Result<Vec<String>> {
    let mut random = Random::new(seed);
    let mut faults = Vec::new();
    let mut left = frames;
    while left > 0 && faults.len() < SHOWN {
        let batch: Vec<_> = (0..left.min(BATCH)).map(|_| random.frame()).collect();
        left -= batch.len();
        if !agree(&batch, core, kernel, &mut faults)? {
            blame(&batch, core, kernel, &mut faults)?;
        }
    }
    Ok(faults)
}

/// Whether both count the same over a batch, and keep the same flows.
fn agree(batch: &[(Wire, Vec<u8>)], core: &mut Core, kernel: &mut Kernel, faults: &mut Vec<String>) -> Result<bool> {
    core.reset()?;
    kernel.reset()?;
    let before = (core.counters()?, kernel.counters()?);
    for (wire, frame) in batch {
        let (host, loaded) = (core.run(*wire, frame)?, kernel.run(*wire, frame)?);
        if host != loaded && faults.len() < SHOWN {
            let difference = hex_difference(&loaded.bytes, &host.bytes);
            faults.push(format!(
                "{wire:?} {frame:02x?}: action {} in the kernel, {} on the host; bytes:\n{difference}",
                loaded.action, host.action
            ));
        }
    }
    let same = core.counters()?.since(&before.0) == kernel.counters()?.since(&before.1);
    if core.flows() != kernel.flows()? {
        faults.push(format!("flows differ: {:?} on the host, {:?} in the kernel", core.flows(), kernel.flows()?));
    }
    Ok(same)
}

/// Finds the frames of a batch that are counted differently, one by one.
fn blame(batch: &[(Wire, Vec<u8>)], core: &mut Core, kernel: &mut Kernel, faults: &mut Vec<String>) -> Result<()> {
    core.reset()?;
    kernel.reset()?;
    for (wire, frame) in batch {
        let before = (core.counters()?, kernel.counters()?);
        core.run(*wire, frame)?;
        kernel.run(*wire, frame)?;
        let host = core.counters()?.since(&before.0);
        let found = kernel.counters()?.since(&before.1).differences(&host);
        if !found.is_empty() && faults.len() < SHOWN {
            faults.push(format!("{wire:?} {frame:02x?}: in the kernel {}", found.join("; ")));
        }
    }
    Ok(())
}

/// Runs random frames through the firewall alone, against the model; what differs.
pub fn against_model(
    seed: u64,
    frames: usize,
    rules: &[Rule],
    core: &mut Core,
    kernel: &mut Kernel,
) -> Result<Vec<String>> {
    let mut random = Random::new(seed);
    let own = own::ends();
    let is_own = |protocol: u8, source: (IpAddr, u16), destination: (IpAddr, u16)| {
        own.contains(&(protocol, source, destination))
    };
    let mut faults = Vec::new();
    let mut expected = core.counters()?;
    let in_kernel = kernel.counters()?;
    let start = core.counters()?;
    for _ in 0..frames {
        let (wire, frame) = random.frame();
        let opinion = model::judge(&frame, rules, is_own);
        note(&mut expected, &opinion, frame.len() as u64);
        core.run(wire, &frame)?;
        kernel.run(wire, &frame)?;
        if faults.len() < SHOWN {
            let found = core.counters()?.differences(&expected);
            if !found.is_empty() {
                faults.push(format!("{wire:?} {frame:02x?}: {opinion:?}, but {}", found.join("; ")));
                expected = core.counters()?;
            }
        }
    }
    let expected = expected.since(&start);
    faults.extend(core.counters()?.since(&start).differences(&expected).iter().map(|fault| format!("core: {fault}")));
    faults.extend(
        kernel.counters()?.since(&in_kernel).differences(&expected).iter().map(|fault| format!("kernel: {fault}")),
    );
    Ok(faults)
}

fn note(counters: &mut Counters, opinion: &model::Opinion, bytes: u64) {
    let verdict = &mut counters.verdicts[opinion.reason as usize];
    verdict.packets += 1;
    verdict.bytes += bytes;
    if let Some(rule) = opinion.rule {
        counters.rules[rule].packets += 1;
        counters.rules[rule].bytes += bytes;
    }
}
