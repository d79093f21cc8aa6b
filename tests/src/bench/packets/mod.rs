//! Nanoseconds a packet of the packet path, by `BPF_PROG_TEST_RUN`, beside a program that only parses and sends back.
//!
//! The kernel runs a program again and again on one buffer, so a program that rewrites would see its own output. Flows
//! therefore go through a [`wrapper`]: a few instructions that put the destination and the hop count back, choose the
//! flow, and call the program. The same wrapper around the baseline tells what the wrapper costs:
//!
//! ours = (wrapper + ours) − (wrapper + baseline) + baseline
//!
//! Every run of a case lies between two runs of its references, whose mean counts. Time is the kernel's own figure, whole
//! nanoseconds: seen from outside, each system call also costs some 200 µs, in which the kernel patches the program into
//! its dispatcher. The verdict counters prove that each packet took the way that the case is named for.

mod case;
mod datapath;
mod frame;
mod wrapper;

use anyhow::Result;

use self::case::{CASES, Case, Figures};
use super::lab::Lab;
use super::row::{Measured, Row};
use crate::progress::{Progress, check, step};

/// Measures every case.
pub(super) fn run(progress: &dyn Progress) -> Result<Vec<Row>> {
    let lab = Lab::create()?;
    let place = step(progress, "a namespace with routes", || lab.namespace("packets", FORWARDING, CABLES))?;
    place.run(|| CASES.iter().map(|case| measured(case, progress)).collect())?
}

fn measured(case: &Case, progress: &dyn Progress) -> Result<Row> {
    let figures = step(progress, case.name, || {
        let mut figures = Figures::default();
        let rig = case.rig()?;
        for round in 0..ROUNDS {
            check(progress)?;
            rig.round(round, &mut figures)?;
        }
        Ok(figures)
    })?;
    let peer = Measured { name: "baseline", samples: &figures.baseline };
    Ok(Row::new(("packets", "ns/packet"), case.name, &figures.ours, peer, case.target))
}

const ROUNDS: u32 = 64;

/// Interface by which packets come.
const INGRESS: &str = "in0";
/// Interface by which replies come.
const EGRESS: &str = "out0";
const FORWARDING: &[(&str, &str)] = &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];
/// The kernel can route what the programs forward. Both ends of each cable are here: nothing is sent, only looked up.
const CABLES: &str = "\
link add in0 type veth peer name in1
link add out0 type veth peer name out1
link set in0 up
link set in1 up
link set out0 up
link set out1 up
addr add 10.0.0.1/24 dev in0
addr add 10.0.1.1/24 dev out0
route add 198.18.0.0/15 via 10.0.0.2
neigh replace 10.0.0.2 lladdr 02:00:00:00:00:02 dev in0 nud permanent
neigh replace 10.0.1.11 lladdr 02:00:00:00:01:0b dev out0 nud permanent
neigh replace 10.0.1.12 lladdr 02:00:00:00:01:0c dev out0 nud permanent
addr add fd00::1/64 dev in0 nodad
addr add fd00:1::1/64 dev out0 nodad
route add 2001:2::/48 via fd00::2
neigh replace fd00::2 lladdr 02:00:00:00:00:02 dev in0 nud permanent
neigh replace fd00:1::b lladdr 02:00:00:00:01:0b dev out0 nud permanent
neigh replace fd00:1::c lladdr 02:00:00:00:01:0c dev out0 nud permanent
";
