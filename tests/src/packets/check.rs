//! Running a case through both shells, and telling what differs.

use std::fmt::Write;

use anyhow::Result;
use foobar_common::rules::Rule;

use super::case::{Action, Case, Step};
use super::core::Core;
use super::counters::Counters;
use super::kernel::Kernel;
use super::shell::{Done, Key, Shell, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use super::world::{BACKEND_SLOTS, SERVICE_SLOTS};

/// A frame shorter than this cannot be given to `BPF_PROG_TEST_RUN`.
pub const LEAST_BYTES: usize = 14;

/// Runs a case through the host's core and the kernel; what differs from its expectation or between them.
pub fn check(case: &Case, rules: &[Rule], core: &mut Core, kernel: &mut Kernel) -> Result<Vec<String>> {
    core.reset()?;
    kernel.reset()?;
    let mut in_kernel = true;
    for seed in &case.flows {
        let key = Key::of(&seed.packet);
        core.seed(key, seed.flow, seed.age_ns)?;
        in_kernel &= kernel.seed(key, seed.flow, seed.age_ns)?;
    }
    let mut faults = Vec::new();
    for (number, step) in (1..).zip(&case.steps) {
        let expected = expected(step, rules);
        let mut shells: Vec<(&str, &mut dyn Shell)> = vec![("core", &mut *core)];
        if in_kernel && step.frame.len() >= LEAST_BYTES {
            shells.push(("kernel", &mut *kernel));
        }
        for (name, shell) in shells {
            let before = shell.counters()?;
            let done = shell.run(step.ingress, &step.frame)?;
            let changes = shell.counters()?.since(&before);
            for fault in differences(step, &done, &changes, &expected) {
                faults.push(format!("{name}, packet {number}: {fault}"));
            }
        }
    }
    if in_kernel && core.flows() != kernel.flows()? {
        faults.push(format!("flows: core {:?}, kernel {:?}", core.flows(), kernel.flows()?));
    }
    Ok(faults)
}

fn differences(step: &Step, done: &Done, changes: &Counters, expected: &Counters) -> Vec<String> {
    let mut faults = changes.differences(expected);
    let action = match step.action {
        Action::Drop => XDP_DROP,
        Action::Pass => XDP_PASS,
        Action::Forward(egress) if egress == step.ingress => XDP_TX,
        Action::Forward(_) => XDP_REDIRECT,
    };
    if done.action != action {
        faults.push(format!("action {} instead of {action}", done.action));
    }
    if done.bytes != step.after {
        faults.push(format!("bytes (actual, expected):\n{}", hex_difference(&done.bytes, &step.after)));
    }
    faults
}

/// The change of every counter.
fn expected(step: &Step, rules: &[Rule]) -> Counters {
    let mut counters = Counters::zero(rules.len(), SERVICE_SLOTS as usize, BACKEND_SLOTS as usize);
    let bytes = step.frame.len() as u64;
    let verdict = &mut counters.verdicts[step.reason as usize];
    (verdict.packets, verdict.bytes) = (1, bytes);
    for name in &step.rules {
        let index = rules.iter().position(|rule| rule.name == *name).expect("a rule of the world");
        counters.rules[index].packets += 1;
        counters.rules[index].bytes += bytes;
    }
    if let Some(given) = step.traffic {
        for traffic in [&mut counters.services[given.service as usize], &mut counters.backends[given.backend as usize]]
        {
            traffic.connections = given.connections;
            traffic.packets = given.packets;
            traffic.bytes = given.packets * bytes;
        }
    }
    counters
}

/// Lines of sixteen bytes that differ, in hexadecimal.
pub fn hex_difference(actual: &[u8], expected: &[u8]) -> String {
    let mut text = String::new();
    let line = |bytes: &[u8], at: usize| {
        let end = bytes.len().min(at + 16);
        bytes.get(at..end).unwrap_or(&[]).iter().map(|byte| format!("{byte:02x} ")).collect::<String>()
    };
    for at in (0..actual.len().max(expected.len())).step_by(16) {
        let (a, b) = (line(actual, at), line(expected, at));
        if a != b {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "      {at:4}  {a}\n            {b}");
        }
    }
    text
}
