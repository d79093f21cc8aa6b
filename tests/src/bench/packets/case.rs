//! The cases: which packet, which flow, what must become of it; and how one round of a case is measured.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use foobar_common::abi::MAX_FLOWS;
use foobar_common::verdict::Reason;

use super::datapath::Datapath;
use super::frame::{ALLOWED_PORT, DENIED_PORT, VIP_PORT, frame};
use super::wrapper::{self, Flows};
use crate::bench::lab;
use crate::bench::row::Target;
use crate::bench::samples::Samples;
use crate::bpf;
use crate::bpf::caller::Caller;

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// Its name in the table.
    pub(super) name: &'static str,
    /// Bound of its cost in baselines.
    pub(super) target: Option<Target>,
    port: u16,
    /// Through a wrapper: what the program forwards, it rewrites.
    flows: Option<Flows>,
    /// What every packet must come to.
    reason: Reason,
}

/// Every case.
pub(super) const CASES: [Case; 5] = [
    Case {
        name: "drop by the 998th of 1,000 rules",
        target: None,
        port: DENIED_PORT,
        flows: None,
        reason: Reason::RuleDeny,
    },
    Case {
        name: "allow by the 999th of 1,000 rules",
        target: None,
        port: ALLOWED_PORT,
        flows: None,
        reason: Reason::RuleAllow,
    },
    Case {
        name: "established L4 flow",
        target: Some(Target::AtMost(3.2)),
        port: VIP_PORT,
        flows: Some(Flows::One),
        reason: Reason::Flow,
    },
    Case {
        name: "established L4 flow, 65,536 in turn",
        target: None,
        port: VIP_PORT,
        flows: Some(Flows::Ports),
        reason: Reason::Flow,
    },
    Case {
        name: "new L4 flow, table full",
        target: Some(Target::AtMost(17.0)),
        port: VIP_PORT,
        flows: Some(Flows::New),
        reason: Reason::NewFlow,
    },
];

/// Nanoseconds a packet, round by round.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// The packet path.
    pub(super) ours: Samples,
    /// The program that parses and returns.
    pub(super) baseline: Samples,
}

/// A case ready to be measured.
pub(super) struct Rig<'a> {
    case: &'a Case,
    datapath: Datapath,
    ours: ProgramFd,
    baseline: ProgramFd,
    /// Around ours and around the baseline.
    wrappers: Option<(Caller, Caller)>,
    ingress: u32,
}

impl Case {
    /// Loads what the case needs and brings the flow table into the state that it names; to be called inside the place.
    pub(super) fn rig(&self) -> Result<Rig<'_>> {
        let mut datapath = Datapath::load()?;
        let mut program = |name| anyhow::Ok(datapath.programs().xdp(name)?.fd()?.try_clone()?);
        let (ours, baseline) = (program("foobar")?, program("baseline")?);
        let wrap = |flows| anyhow::Ok((wrapper::load(flows, ours.as_fd())?, wrapper::load(flows, baseline.as_fd())?));
        let wrappers = self.flows.map(wrap).transpose()?;
        let mut rig = Rig { case: self, datapath, ours, baseline, wrappers, ingress: lab::index(super::INGRESS)? };
        match self.flows {
            Some(Flows::One | Flows::Ports) => rig.datapath.establish()?,
            // Half of the numbers above those that are measured: twice as many as the table holds.
            Some(Flows::New) => {
                rig.time(rig.subject(), true, u32::MAX / 2, 2 * MAX_FLOWS)?;
            }
            None => {}
        }
        Ok(rig)
    }
}

impl Rig<'_> {
    /// Measures once: baseline, wrapped baseline, ours, and the references again.
    pub(super) fn round(&self, round: u32, figures: &mut Figures) -> Result<()> {
        let opens = self.case.flows != Some(Flows::One) && self.case.flows != Some(Flows::Ports);
        let start = round * REPEAT;
        let before = self.references(opens, start)?;
        let counted = self.datapath.count(self.case.reason)?;
        let ours = self.time(self.subject(), opens, start, REPEAT)?;
        let met = self.datapath.count(self.case.reason)? - counted;
        ensure!(
            met == u64::from(REPEAT),
            "{}: of {REPEAT} packets only {met} met \"{}\"",
            self.case.name,
            self.case.reason.label()
        );
        let after = self.references(opens, start)?;
        let (baseline, wrapped) = (f64::midpoint(before.0, after.0), f64::midpoint(before.1, after.1));
        figures.baseline.add(baseline);
        figures.ours.add(ours - wrapped + baseline);
        Ok(())
    }

    /// Nanoseconds of the baseline, alone and wrapped (the same where nothing is wrapped).
    fn references(&self, opens: bool, start: u32) -> Result<(f64, f64)> {
        let baseline = self.time(self.baseline.as_fd(), opens, start, REPEAT)?;
        match &self.wrappers {
            Some((_, wrapped)) => Ok((baseline, self.time(wrapped.program().as_fd(), opens, start, REPEAT)?)),
            None => Ok((baseline, baseline)),
        }
    }

    fn subject(&self) -> BorrowedFd<'_> {
        self.wrappers.as_ref().map_or_else(|| self.ours.as_fd(), |(wrapped, _)| wrapped.program().as_fd())
    }

    fn time(&self, program: BorrowedFd<'_>, opens: bool, start: u32, repeat: u32) -> Result<f64> {
        let frame = frame(self.case.port, opens, start)?;
        bpf::time(program, &frame, self.ingress, repeat)
    }
}

/// Packets of one measurement: a few milliseconds, in which the machine's speed seldom changes; four go round all flows.
const REPEAT: u32 = 16_384;
