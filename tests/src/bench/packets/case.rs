//! The cases: which packet, which flow, what must become of it; and how one round of a case is measured.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use foobar_common::abi::DEFAULT_FLOWS;
use foobar_common::verdict::Reason;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::datapath::Datapath;
use super::frame::{
    ALLOWED_PORT, BACKEND, BACKEND6, CLIENT, CLIENT_PORT, CLIENT6, DENIED_PORT, DIRECT_PORT, End, VIP, VIP_PORT, VIP6,
    frame,
};
use super::wrapper::{self, Flows, Restored};
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
    v6: bool,
    /// Whether it is a backend's packet to the client.
    reply: bool,
    /// Through a wrapper: what the program forwards, it rewrites.
    flows: Option<Flows>,
    /// Established flows that the table can hold.
    table: u32,
    /// Flows of others that are written before: more than the table holds have filled it, and driven each other out.
    others: u32,
    /// How many CPUs do the same at once.
    cpus: usize,
    /// What every packet must come to.
    reason: Reason,
}

/// A packet of a client to the VIP, of the flow that is always there.
const KNOWN: Case = Case {
    name: "established flow",
    target: Some(Target::AtMost(3.2)),
    port: VIP_PORT,
    v6: false,
    reply: false,
    flows: Some(Flows::One),
    table: DEFAULT_FLOWS,
    others: 0,
    cpus: 1,
    reason: Reason::Flow,
};
const IN_TURN: Case = Case { target: Some(Target::AtMost(6.5)), flows: Some(Flows::Ports), ..KNOWN };
const NEW: Case = Case {
    target: Some(Target::AtMost(17.0)),
    flows: Some(Flows::New),
    others: CHURNED,
    reason: Reason::NewFlow,
    ..KNOWN
};
const RULES: Case = Case { target: None, flows: None, reason: Reason::RuleDeny, ..KNOWN };

const MILLION: u32 = 1 << 20;
/// So many flows leave nothing of a table's first order.
const CHURNED: u32 = 2 * DEFAULT_FLOWS;

/// Every case.
pub(super) const CASES: [Case; 18] = [
    Case { name: "drop by the 998th of 1,000 rules", port: DENIED_PORT, ..RULES },
    Case { name: "allow by the 999th of 1,000 rules", port: ALLOWED_PORT, reason: Reason::RuleAllow, ..RULES },
    Case { name: "nat, established flow", ..KNOWN },
    Case { name: "nat, established flow, reply", reply: true, reason: Reason::FlowReply, ..KNOWN },
    Case { name: "nat, established flow, IPv6", v6: true, ..KNOWN },
    Case { name: "nat, established flow, reply, IPv6", v6: true, reply: true, reason: Reason::FlowReply, ..KNOWN },
    Case { name: "direct, established flow", port: DIRECT_PORT, ..KNOWN },
    Case { name: "direct, established flow, IPv6", port: DIRECT_PORT, v6: true, ..KNOWN },
    Case { name: "nat, established flow, 2 CPUs at once", cpus: 2, ..KNOWN },
    Case { name: "nat, 65,536 flows in turn", ..IN_TURN },
    Case { name: "nat, 65,536 flows in turn, churned table", others: CHURNED, ..IN_TURN },
    Case { name: "nat, 65,536 flows in turn of a million", table: MILLION, others: MILLION - 65_536, ..IN_TURN },
    Case { name: "nat, 65,536 flows in turn, IPv6", v6: true, ..IN_TURN },
    Case { name: "nat, 65,536 flows in turn, 2 CPUs at once", cpus: 2, ..IN_TURN },
    Case { name: "nat, new flow, fresh table", others: 0, ..NEW },
    Case { name: "nat, new flow, churned table", ..NEW },
    Case { name: "nat, new flow, churned table, IPv6", v6: true, ..NEW },
    Case { name: "nat, new flow, churned table, 2 CPUs at once", cpus: 2, ..NEW },
];

/// Nanoseconds a packet, round by round.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// The packet path.
    pub(super) ours: Samples,
    /// The program that parses and sends back.
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
        let mut datapath = Datapath::load(self.table)?;
        let mut program = |name| anyhow::Ok(datapath.programs().xdp(name)?.fd()?.try_clone()?);
        let (ours, baseline) = (program("foobar")?, program("baseline")?);
        let (from, to) = self.ends();
        let restored = Restored { v6: self.v6, source: self.reply, end: if self.reply { from } else { to } };
        let wrap = |flows| {
            anyhow::Ok((
                wrapper::load(flows, restored, ours.as_fd())?,
                wrapper::load(flows, restored, baseline.as_fd())?,
            ))
        };
        let wrappers = self.flows.map(wrap).transpose()?;
        let interface = if self.reply { super::EGRESS } else { super::INGRESS };
        let mut rig = Rig { case: self, datapath, ours, baseline, wrappers, ingress: lab::index(interface)? };
        rig.datapath.fill(self.v6, self.others)?;
        if self.is_known() {
            rig.datapath.establish(self.port, self.v6)?;
        } else if self.others > 0 {
            // Half of the numbers above those that are measured.
            rig.time(rig.subject(), u32::MAX / 2, CHURNED)?;
        }
        Ok(rig)
    }

    fn ends(&self) -> (End, End) {
        let client = End(CLIENT, CLIENT6, CLIENT_PORT);
        if self.reply {
            return (End(BACKEND, BACKEND6, self.port), client);
        }
        (client, End(VIP, VIP6, self.port))
    }

    /// Whether its flows are there before.
    fn is_known(&self) -> bool {
        matches!(self.flows, Some(Flows::One | Flows::Ports))
    }

    /// Packets of one measurement: a few milliseconds, in which the machine's speed seldom changes; or once round all flows.
    fn repeat(&self) -> u32 {
        if self.flows == Some(Flows::Ports) { 65_536 } else { 16_384 }
    }
}

impl Rig<'_> {
    /// Measures once: baseline, wrapped baseline, ours, and the references again.
    pub(super) fn round(&self, round: u32, figures: &mut Figures) -> Result<()> {
        let (repeat, cpus) = (self.case.repeat(), self.case.cpus as u64);
        let start = round * repeat;
        let before = self.references(start)?;
        if self.case.is_known() {
            // Flows are met again as soon as a flow of packets would meet them, and not only after the references' time.
            self.time(self.subject(), start, repeat)?;
        }
        let counted = self.datapath.counts()?;
        let ours = self.time(self.subject(), start, repeat)?;
        let met = since(&counted, &self.datapath.counts()?);
        ensure!(
            met == [(self.case.reason, u64::from(repeat) * cpus)],
            "{}: {repeat} packets on {cpus} CPUs should all meet {:?}, and met {met:?}",
            self.case.name,
            self.case.reason
        );
        let after = self.references(start)?;
        let (baseline, wrapped) = (f64::midpoint(before.0, after.0), f64::midpoint(before.1, after.1));
        figures.baseline.add(baseline);
        figures.ours.add(ours - wrapped + baseline);
        Ok(())
    }

    /// Nanoseconds of the baseline, alone and wrapped (the same where nothing is wrapped).
    fn references(&self, start: u32) -> Result<(f64, f64)> {
        let repeat = self.case.repeat();
        let baseline = self.time(self.baseline.as_fd(), start, repeat)?;
        match &self.wrappers {
            Some((_, wrapped)) => Ok((baseline, self.time(wrapped.program().as_fd(), start, repeat)?)),
            None => Ok((baseline, baseline)),
        }
    }

    fn subject(&self) -> BorrowedFd<'_> {
        self.wrappers.as_ref().map_or_else(|| self.ours.as_fd(), |(wrapped, _)| wrapped.program().as_fd())
    }

    /// Nanoseconds a packet, on as many CPUs at once as the case wants: their mean.
    fn time(&self, program: BorrowedFd<'_>, start: u32, repeat: u32) -> Result<f64> {
        let (from, to) = self.case.ends();
        let opens = self.case.flows.is_none_or(|flows| flows == Flows::New);
        let run = |cpu: usize| {
            // Each CPU's packets are of flows of its own.
            let start = start.wrapping_add((u32::MAX / 4).wrapping_mul(cpu as u32));
            let frame = frame(self.case.v6, from, to, opens, start)?;
            bpf::time(program, &frame, self.ingress, repeat)
        };
        if self.case.cpus == 1 {
            return run(0);
        }
        let together = Barrier::new(self.case.cpus);
        let times = thread::scope(|scope| {
            let on = |cpu| {
                let (run, together) = (&run, &together);
                scope.spawn(move || {
                    let bound = bind(cpu);
                    together.wait();
                    bound.and_then(|()| run(cpu))
                })
            };
            let threads: Vec<_> = (0..self.case.cpus).map(on).collect();
            threads.into_iter().map(|thread| thread.join().expect("a measuring thread")).collect::<Result<Vec<_>>>()
        })?;
        Ok(times.iter().sum::<f64>() / times.len() as f64)
    }
}

/// How many packets more have met each reason; only those that any has met.
fn since(before: &[(Reason, u64)], after: &[(Reason, u64)]) -> Vec<(Reason, u64)> {
    let more = before.iter().zip(after).map(|((reason, before), (_, after))| (*reason, after - before));
    more.filter(|(_, packets)| *packets > 0).collect()
}

/// Binds the calling thread to the `number`th of the CPUs that it may run on.
fn bind(number: usize) -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let cpu = cpus.nth(number).with_context(|| format!("this bench needs {} CPUs", number + 1))?;
    let mut one = CpuSet::new();
    one.set(cpu)?;
    Ok(sched_setaffinity(this, &one)?)
}
