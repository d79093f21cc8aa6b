//! What the packet path would do with a frame, and why: the loaded program, run dry.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use foobar_common::abi::Trace;
use foobar_common::rules::Action;
use foobar_common::verdict::Reason;
use serde::{Deserialize, Serialize};

use super::origin::Origins;
use super::reason::words;
use super::rules::matches;
use super::server::{Server, lock};
use crate::datapath::slots::Slots;
use crate::frame::summary::summary;
use crate::plan::Plan;
use crate::plan::show::rules::rows;

/// An answer to "what happens to this packet, and why".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet in one line.
    pub packet: String,
    /// Interface by which it was taken to come.
    pub interface: String,
    /// `drop`, `pass`, `forward` or `answer`.
    pub verdict: String,
    /// Label of the reason, as in metrics.
    pub reason: String,
    /// The reason in words.
    pub why: String,
    /// The rule that decided.
    pub rule: Option<Step>,
    /// Rules before it that would have counted the packet and let it go on.
    pub steps: Vec<Step>,
    /// The service that it is for.
    pub service: Option<String>,
    /// The backend that it would reach.
    pub backend: Option<String>,
    /// Generation of rules that judged it.
    pub generation: u32,
}

/// A rule on a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its place, from 1.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// `allow`, `deny`, `limit` or `shadow`.
    pub action: String,
    /// What it matches and how it limits.
    pub matches: BTreeMap<String, String>,
    /// The site file's line, or what it is derived from.
    pub origin: String,
}

impl Server {
    /// Runs a frame, given in hexadecimal, dry.
    ///
    /// # Errors
    /// No frame, no such interface, or the program cannot be run.
    pub(super) fn explain(&self, frame: &str, interface: Option<&str>) -> Result<Explanation> {
        let frame = bytes(frame).context("the frame is not written in hexadecimal")?;
        let planned = &self.loaded.plan.interfaces;
        let interface = match interface {
            Some(interface) => {
                ensure!(
                    planned.iter().any(|name| name == interface),
                    "`{interface}` carries no firewall here: this server's interfaces are {}",
                    planned.join(", ")
                );
                interface
            }
            None => planned.first().context("this server has no interface with a firewall")?,
        };
        let (trace, generation) = {
            let mut datapath = lock(&self.datapath);
            let trace = datapath.explain(&frame, interface)?;
            (Traced::of(&trace, datapath.slots())?, datapath.generation())
        };
        let origins = Origins::of_file(&self.options.site);
        Ok(told(&self.loaded.plan, &origins, trace, &frame, interface, generation))
    }
}

/// A dry run's trace, in the plan's names.
#[derive(Clone, Debug)]
struct Traced {
    reason: Reason,
    /// Rules that would count the packet, in order.
    rules: Vec<String>,
    service: Option<String>,
    backend: Option<String>,
}

impl Traced {
    fn of(trace: &Trace, slots: &Slots) -> Result<Self> {
        let reason =
            Reason::numbered(trace.reason).context("the program gives a reason that this agent does not know")?;
        let steps = trace.rules.iter().take(trace.steps as usize);
        let service = slots.services.name(trace.service).and_then(|name| name.rsplit_once('/'));
        let backend = slots.backends.name(trace.backend).and_then(|name| name.split_once('/'));
        Ok(Self {
            reason,
            rules: steps.filter_map(|slot| slots.rules.name(*slot).map(str::to_owned)).collect(),
            service: service.map(|(name, _)| name.to_owned()),
            backend: backend.map(|(_, name)| name.replace('/', " at ")),
        })
    }
}

/// Reads hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

fn told(plan: &Plan, origins: &Origins, trace: Traced, frame: &[u8], interface: &str, generation: u32) -> Explanation {
    let cells = rows(plan);
    let steps = trace.rules.iter().filter_map(|name| {
        let index = plan.rules.iter().position(|planned| planned.rule.name == *name)?;
        let planned = &plan.rules[index];
        let step = Step {
            number: index + 1,
            name: name.clone(),
            action: cells[index][1].clone(),
            matches: matches(&cells[index]),
            origin: origins.of(&planned.origin),
        };
        Some((planned.rule.action, step))
    });
    let mut steps: Vec<(Action, Step)> = steps.collect();
    // A shadow rule never decides: behind it the walk went on to its end without a rule.
    let decided = steps.last().is_some_and(|(action, _)| !matches!(action, Action::Shadow(_)));
    let rule = if decided { steps.pop().map(|(_, step)| step) } else { None };
    Explanation {
        packet: summary(frame),
        interface: interface.to_owned(),
        verdict: trace.reason.verdict().to_owned(),
        reason: trace.reason.label().to_owned(),
        why: words(trace.reason).to_owned(),
        rule,
        steps: steps.into_iter().map(|(_, step)| step).collect(),
        service: trace.service,
        backend: trace.backend,
        generation,
    }
}

impl Explanation {
    /// The verdict for people.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self.verdict.as_str() {
            "pass" => "passed up to this server's own stack",
            "forward" => "forwarded to a service's other end",
            "answer" => "answered by the firewall itself",
            _ => "dropped",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let get = |head: &str| self.matches.get(head).map_or("any", String::as_str);
        write!(f, "rule {} `{}` ({}", self.number, self.name, self.action)?;
        if let Some(limit) = self.matches.get("limit") {
            write!(f, " {limit}")?;
        }
        write!(f, "): {} from {} to {}", get("protocol"), get("from"), get("to"))?;
        for (head, words) in [("from port", "from port"), ("flags", "with flags"), ("interface", "on")] {
            if let Some(cell) = self.matches.get(head) {
                write!(f, ", {words} {cell}")?;
            }
        }
        write!(f, "; it comes from {}", self.origin)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, received on {}", self.packet, self.interface)?;
        writeln!(f, "  would be {}: {} (reason `{}`).", self.outcome(), self.why, self.reason)?;
        for step in &self.steps {
            writeln!(f, "  On its way: {step}; it would be counted there, and goes on.")?;
        }
        if let Some(rule) = &self.rule {
            writeln!(f, "  Decided by: {rule}.")?;
        }
        match (&self.service, &self.backend) {
            (Some(service), Some(backend)) => writeln!(f, "  Service `{service}`, next backend `{backend}`.")?,
            (Some(service), None) => writeln!(f, "  Service `{service}`, no backend.")?,
            _ => {}
        }
        writeln!(f, "  Judged by generation {}; nothing was counted or changed.", self.generation)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::test_site::{SITE, planned, rule};
    use super::*;
    use crate::frame::build::{Kind, Question, SYN, frame};

    fn explanation(reason: Reason, rules: &[&str]) -> Explanation {
        let [trial, no_ssh] =
            [("trial", "shadow"), ("no-ssh", "deny")].map(|(name, action)| rule(name, "any", 22, action));
        let plan = planned(&format!("{SITE}{trial}{no_ssh}"));
        let question = Question {
            from: "203.0.113.9".parse().unwrap(),
            from_port: 40_000,
            to: "10.0.1.41".parse().unwrap(),
            to_port: 22,
            kind: Kind::Tcp(SYN),
            vlan: None,
        };
        let rules = rules.iter().map(ToString::to_string).collect();
        let trace = Traced { reason, rules, service: None, backend: None };
        told(&plan, &Origins::of_file(Path::new("site.toml")), trace, &frame(&question).unwrap(), "eth0", 7)
    }

    #[test]
    fn a_denied_packet_reads_like_an_explanation() {
        let told = explanation(Reason::RuleDeny, &["trial", "no-ssh"]).to_string();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "tcp 203.0.113.9:40000 → 10.0.1.41:22 syn, 54 bytes, received on eth0");
        assert_eq!(lines[1], "  would be dropped: a rule denies it (reason `rule`).");
        assert!(
            lines[2].starts_with("  On its way: rule ") && lines[2].contains("`trial` (shadow): tcp 22 from any"),
            "{told}"
        );
        assert!(lines[3].contains("`no-ssh` (deny)") && lines[3].contains("site.toml:19"), "{told}");
    }

    #[test]
    fn a_shadow_rule_never_decides() {
        let explanation = explanation(Reason::NoRule, &["trial"]);
        assert_eq!((explanation.rule, explanation.steps.len()), (None, 1));
        assert!(explanation.why.contains("no rule allows it"));
    }

    #[test]
    fn frames_come_in_hexadecimal() {
        assert_eq!(bytes("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!((bytes("0"), bytes("zz"), bytes("")), (None, None, Some(Vec::new())));
    }
}
