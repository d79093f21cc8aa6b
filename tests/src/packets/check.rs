//! Running a case through both shells, and telling what differs.

use std::fmt::Write;

use anyhow::Result;
use foobar_common::abi::{Counter, Event, FlowTable, NO_RULE_SLOT, TUNNEL_RECEIVED, TUNNEL_SENT};
use foobar_common::rules::{self, Rule};
use foobar_common::verdict::Reason;

use super::case::{Action, Case, Step, Tunnel};
use super::core::Core;
use super::counters::Counters;
use super::kernel::Kernel;
use super::shell::{Done, Key, Shell, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use super::world::{BACKEND_SLOTS, SERVICE_SLOTS};

/// The flow tables.
const ALL: [FlowTable; 3] = [FlowTable::Established, FlowTable::HalfOpen, FlowTable::Datagrams];

/// A frame shorter than this cannot be given to `BPF_PROG_TEST_RUN`.
pub const LEAST_BYTES: usize = 14;

/// Runs a case through the host's core, and through the kernel where there is one; what differs from its expectation or
/// between them.
pub fn check(case: &Case, rules: &[Rule], core: &mut Core, kernel: Option<&mut Kernel>) -> Result<Vec<String>> {
    core.reset()?;
    // Nobody waits for the kernel's clock.
    let mut kernel = kernel.filter(|_| case.steps.iter().all(|step| step.later_ns == 0));
    if let Some(kernel) = kernel.as_mut() {
        kernel.reset()?;
    }
    for seed in &case.flows {
        core.seed(seed)?;
        if let Some(loaded) = kernel.as_mut()
            && !loaded.seed(seed)?
        {
            kernel = None;
        }
    }
    let mut faults = Vec::new();
    for (number, step) in (1..).zip(&case.steps) {
        let expected = expected(step, rules);
        core.later(step.later_ns);
        core.set_lease(step.lease)?;
        if let Some(kernel) = kernel.as_mut() {
            kernel.set_lease(step.lease)?;
        }
        if let Some(kernel) = kernel.as_mut()
            && step.frame.len() >= LEAST_BYTES
        {
            faults
                .extend(unexplained(kernel, step, rules)?.into_iter().map(|fault| format!("packet {number}: {fault}")));
        }
        let mut shells: Vec<(&str, &mut dyn Shell)> = vec![("core", &mut *core)];
        if let Some(kernel) = kernel.as_mut()
            && step.frame.len() >= LEAST_BYTES
        {
            shells.push(("kernel", &mut **kernel));
        }
        let told = told(step, rules);
        let mut events = Vec::new();
        for (name, shell) in shells {
            shell.events()?;
            let before = shell.counters()?;
            let done = shell.run(step.ingress, &step.frame)?;
            let changes = shell.counters()?.since(&before);
            for fault in differences(step, &done, &changes, &expected) {
                faults.push(format!("{name}, packet {number}: {fault}"));
            }
            let found = shell.events()?;
            if found.iter().map(Told::of).ne(told.iter().copied()) {
                faults.push(format!("{name}, packet {number}: {found:?} is told instead of {told:?}"));
            }
            events.push(found);
        }
        if events.windows(2).any(|pair| pair[0] != pair[1]) {
            faults.push(format!("packet {number}, events of core and kernel: {events:?}"));
        }
    }
    if let Some((packet, table)) = &case.ends {
        let at = |table: &FlowTable| match Key::of(packet) {
            Key::V4(key) => format!("{:?}", (table, key)),
            Key::V6(key) => format!("{:?}", (table, key)),
        };
        let flows = core.flows();
        let found = ALL.iter().filter(|table| flows.iter().any(|(name, _)| *name == at(table)));
        if found.clone().ne([table]) {
            faults.push(format!("its flow is in {:?} instead of {table:?}", found.collect::<Vec<_>>()));
        }
    }
    if let Some(kernel) = kernel {
        if core.flows() != kernel.flows()? {
            faults.push(format!("flows: core {:?}, kernel {:?}", core.flows(), kernel.flows()?));
        }
        if core.replies() != kernel.replies()? {
            faults.push(format!("replies: core {:?}, kernel {:?}", core.replies(), kernel.replies()?));
        }
    }
    if let Some(entries) = case.replies
        && core.replies().iter().map(Vec::len).sum::<usize>() != entries
    {
        faults.push(format!("{entries} entries for replies are expected, and these are there: {:?}", core.replies()));
    }
    Ok(faults)
}

/// Where the dry twin, which runs before the packet does, says something else than what is expected, or changes anything that
/// can be seen at once. What it would change in flows and buckets shows when the packet itself runs.
fn unexplained(kernel: &mut Kernel, step: &Step, rules: &[Rule]) -> Result<Vec<String>> {
    kernel.events()?;
    let before = kernel.counters()?;
    let Some(trace) = kernel.explain(step.ingress, &step.frame)? else { return Ok(Vec::new()) };
    let mut faults = Vec::new();
    let slot = |name: &&str| rules.iter().position(|rule| rule.name == **name).map(|slot| slot as u32);
    let mut counted: Vec<u32> = step.rules.iter().filter_map(slot).collect();
    counted.sort_unstable();
    let (service, backend) = step.traffic.map_or((NO_RULE_SLOT, NO_RULE_SLOT), |given| (given.service, given.backend));
    let mut met = trace.rules.get(..trace.steps as usize).unwrap_or(&[]).to_vec();
    // What comes out of a tunnel begins with the first rule again.
    met.sort_unstable();
    if (trace.reason, &met[..], trace.service, trace.backend) != (step.reason as u32, &counted[..], service, backend) {
        faults.push(format!(
            "explained as reason {}, rules {met:?}, service {}, backend {} instead of {}, {counted:?}, {service}, {backend}",
            trace.reason, trace.service, trace.backend, step.reason as u32
        ));
    }
    if kernel.counters()? != before || !kernel.events()?.is_empty() {
        faults.push("explaining it counts or tells".to_owned());
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

/// What an event says beside the packet's own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    rule: u32,
    reason: u32,
    shadow: u8,
    length: u32,
}

impl Told {
    const fn of(event: &Event) -> Self {
        Self { rule: event.rule, reason: event.reason, shadow: event.shadow, length: event.length }
    }
}

/// What is told of a packet, by the rules that count it and tell of their packets.
fn told(step: &Step, rules: &[Rule]) -> Vec<Told> {
    let telling = rules.iter().zip(0..).filter(|(rule, _)| rule.log_per_second > 0);
    let counting = telling.filter(|(rule, _)| step.rules.contains(&rule.name.as_str()));
    let told = |(rule, slot): (&Rule, u32)| {
        let (reason, shadow) = match rule.action {
            rules::Action::Allow => (Reason::RuleAllow, 0),
            rules::Action::Deny => (Reason::RuleDeny, 0),
            rules::Action::Limit(_) => (Reason::Limit, 0),
            rules::Action::Shadow(None) => (Reason::RuleDeny, 1),
            rules::Action::Shadow(Some(_)) => (Reason::Limit, 1),
        };
        Told { rule: slot, reason: reason as u32, shadow, length: step.frame.len() as u32 }
    };
    counting.map(told).collect()
}

/// The change of every counter.
fn expected(step: &Step, rules: &[Rule]) -> Counters {
    let mut counters = Counters::zero(rules.len(), SERVICE_SLOTS as usize, BACKEND_SLOTS as usize);
    let bytes = step.frame.len() as u64;
    let (way, judged) = match step.tunnel {
        None => (None, bytes),
        Some(Tunnel::In) => (Some(TUNNEL_SENT), bytes),
        Some(Tunnel::Out(inner)) => (Some(TUNNEL_RECEIVED), inner as u64),
    };
    if let Some(way) = way {
        counters.tunnels[way as usize] = Counter { packets: 1, bytes };
    }
    let verdict = &mut counters.verdicts[step.reason as usize];
    (verdict.packets, verdict.bytes) = (1, judged);
    for (place, name) in step.rules.iter().enumerate() {
        let index = rules.iter().position(|rule| rule.name == *name).expect("a rule of the world");
        counters.rules[index].packets += 1;
        counters.rules[index].bytes += if place == 0 { bytes } else { judged };
    }
    if let Some(given) = step.traffic {
        counters.failures[given.backend as usize] = step.failures;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::model::Model;
    use crate::packets::network::Network;
    use crate::packets::random::Random;
    use crate::packets::tables;
    use crate::packets::world::RuleSet;

    /// Without root: what the kernel has to do as well is tried by `foobar-packets`.
    #[test]
    fn every_named_case_passes_on_the_host() {
        let mut failed = Vec::new();
        for set in RuleSet::ALL {
            let (mut core, rules) = (Core::new(set, Network::imagined()).unwrap(), set.rules());
            for case in tables::all().iter().filter(|case| case.rules == set) {
                let faults = check(case, &rules, &mut core, None).unwrap();
                if !faults.is_empty() {
                    failed.push(format!("{}: {}", case.name, faults.join("; ")));
                }
            }
        }
        assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
    }

    #[test]
    fn the_host_agrees_with_the_model() {
        let set = RuleSet::Everything;
        let mut core = Core::new(set, Network::imagined()).unwrap().firewall_only();
        let (mut model, mut random) = (Model::new(set.rules()), Random::new(1));
        let before = core.counters().unwrap();
        let (mut packets, mut counted) = (vec![0; before.verdicts.len()], vec![0; before.rules.len()]);
        for _ in 0..50_000 {
            let (wire, frame) = random.frame();
            let opinion = model.judge(wire, &frame);
            packets[opinion.reason as usize] += 1;
            opinion.rules.iter().for_each(|rule| counted[*rule] += 1);
            let done = core.run(wire, &frame).unwrap();
            let dropped = opinion.reason.verdict() == "drop";
            assert_eq!(done.action == XDP_DROP, dropped, "{wire:?} {frame:02x?}: {opinion:?}");
        }
        let after = core.counters().unwrap().since(&before);
        for reason in Reason::ALL {
            assert_eq!(after.verdicts[*reason as usize].packets, packets[*reason as usize], "{reason:?}");
        }
        assert_eq!(after.rules.iter().map(|counter| counter.packets).collect::<Vec<_>>(), counted);
    }
}
