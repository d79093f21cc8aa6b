//! Walks through the flow tables: a flow that goes over from one table to the other under a walk is neither missed nor met twice.

use std::path::Path;

use anyhow::Result;
use foobar_common::abi::FlowTable;
use foobar_user::datapath::flows::FlowTables;

use super::case::Seed;
use super::frame::{ACK, Frame, SYN, Transport};
use super::hosts::{CLIENT, VIP, WEB1, Wire};
use super::kernel::Kernel;
use super::shell::Shell as _;
use super::world::RuleSet;

/// The VIP's port of `www`, and its client's.
const PORT: u16 = 8080;
const CLIENT_PORT: u16 = 2000;
const SAID: u32 = 7;

/// A half-open flow is established while the walk is shown its first flow; what was not as it should be.
pub fn check(kernel: &mut Kernel, pins: &Path) -> Result<Vec<String>> {
    kernel.judge_by(RuleSet::Everything, true)?;
    let mut faults = Vec::new();
    for end in [false, true] {
        begin(kernel)?;
        let mut met = Vec::new();
        let mut moved = None;
        let ended = FlowTables::open(pins)?.walk(|known| {
            moved.get_or_insert_with(|| establish(kernel));
            if known.client.is_ipv4() {
                met.push(known.table);
            }
            end && known.client.is_ipv4()
        })?;
        moved.unwrap_or(Ok(()))?;
        let left = kernel.flows()?.len();
        let wanted = if end {
            (vec![FlowTable::HalfOpen, FlowTable::Established], 1, 1)
        } else {
            (vec![FlowTable::HalfOpen], 0, 2)
        };
        if (&met, ended, left) != (&wanted.0, wanted.1, wanted.2) {
            faults.push(format!("{met:?} were met, {ended} ended, {left} left where {wanted:?} is right"));
        }
    }
    kernel.reset()?;
    Ok(faults)
}

/// A half-open flow of IPv4, and an established one of IPv6 beside it.
fn begin(kernel: &mut Kernel) -> Result<()> {
    kernel.reset()?;
    let beside = Frame::new(true, CLIENT, VIP, Transport::Tcp(CLIENT_PORT, PORT, ACK));
    kernel.seed(&Seed { packet: beside, backend: 0, generation: 0, rule: 0, age_ns: 0 })?;
    kernel.run(Wire::Front, &of_client(SYN)).map(drop)
}

/// The rest of its handshake.
fn establish(kernel: &mut Kernel) -> Result<()> {
    let answer = Frame::new(false, WEB1, CLIENT, Transport::Tcp(PORT + 1000, CLIENT_PORT, SYN | ACK)).numbers(SAID, 2);
    kernel.run(Wire::Back, &answer.bytes())?;
    kernel.run(Wire::Front, &of_client(ACK)).map(drop)
}

fn of_client(flags: u8) -> Vec<u8> {
    Frame::new(false, CLIENT, VIP, Transport::Tcp(CLIENT_PORT, PORT, flags)).numbers(1, SAID + 1).bytes()
}
