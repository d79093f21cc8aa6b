//! The program around a program: puts back what a rewriting program changes, chooses the next packet's flow, and calls it.
//!
//! Written in instructions, since nothing of it belongs into the product's object. The number of the packet lives in the
//! frame itself, where TCP has its sequence number: the kernel hands the same buffer to every run.

use std::os::fd::BorrowedFd;

use anyhow::Result;

use super::frame::{self, End, Layout};
use crate::bpf::caller::Caller;
use crate::bpf::code::{self, Instruction, op};

/// Which flow the next packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flows {
    /// Always the frame's own.
    One,
    /// One source port after the other: 65,536 flows in turn.
    Ports,
    /// One source port after the other, then the next address: 4 milliards.
    New,
}

/// What the wrapper puts back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restored {
    /// Whether the frame is of IPv6.
    pub(super) v6: bool,
    /// Whether it is the source that was replaced, and not the destination.
    pub(super) source: bool,
    /// That end.
    pub(super) end: End,
}

/// Loads a wrapper that chooses by `flows` and calls `target`.
pub(super) fn load(flows: Flows, restored: Restored, target: BorrowedFd<'_>) -> Result<Caller> {
    Caller::load(target, |array| instructions(flows, restored, array))
}

/// Register 2 is the frame, 5 the packet's number.
fn instructions(flows: Flows, restored: Restored, array: i32) -> Vec<Instruction> {
    let layout = if restored.v6 { frame::V6 } else { frame::V4 };
    let number = layout.ports + 4;
    let mut body = vec![
        op(code::LOAD_32, 5, 2, number, 0),
        op(code::ADD, 5, 0, 0, 1),
        op(code::STORE_32, 2, 5, number, 0),
        op(code::SET_8, 2, 0, layout.hops, i32::from(frame::HOP_COUNT)),
    ];
    body.extend(put_back(layout, restored));
    if flows != Flows::One {
        body.push(op(code::STORE_16, 2, 5, layout.ports, 0));
    }
    if flows == Flows::New {
        // The last two bytes of the address.
        let low = layout.source + if restored.v6 { 14 } else { 2 };
        body.extend([op(code::SHIFT_RIGHT, 5, 0, 0, 16), op(code::STORE_16, 2, 5, low, 0)]);
    }
    body.extend(code::tail_call(array));
    code::packet_program(layout.end, &body)
}

/// The instructions that write an end's address and port.
fn put_back(layout: Layout, Restored { v6, source, end }: Restored) -> Vec<Instruction> {
    let (place, port) = if source { (layout.source, layout.ports) } else { (layout.destination, layout.ports + 2) };
    let octets = if v6 { end.1.octets().to_vec() } else { end.0.octets().to_vec() };
    let words = octets.as_chunks::<4>().0;
    let address =
        (0..).zip(words).map(|(word, bytes)| op(code::SET_32, 2, 0, place + 4 * word, i32::from_ne_bytes(*bytes)));
    address.chain([op(code::SET_16, 2, 0, port, i32::from(end.2.to_be()))]).collect()
}
