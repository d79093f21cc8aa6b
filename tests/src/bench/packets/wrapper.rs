//! The program around a program: puts back what a rewriting program changes, chooses the next packet's flow, and calls it.
//!
//! Written in instructions, since nothing of it belongs into the product's object. The number of the packet lives in the
//! frame itself, where TCP has its sequence number: the kernel hands the same buffer to every run.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use anyhow::Result;

use super::frame;
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

/// Loads a wrapper that chooses by `flows` and calls `target`.
pub(super) fn load(flows: Flows, target: BorrowedFd<'_>) -> Result<Caller> {
    Caller::load(target, |array| instructions(flows, array))
}

/// Register 2 is the frame, 5 the packet's number.
fn instructions(flows: Flows, array: i32) -> Vec<Instruction> {
    let mut body = vec![
        op(code::LOAD_32, 5, 2, frame::SEQUENCE, 0),
        op(code::ADD, 5, 0, 0, 1),
        op(code::STORE_32, 2, 5, frame::SEQUENCE, 0),
        op(code::SET_8, 2, 0, frame::HOPS, i32::from(frame::HOP_COUNT)),
        op(code::SET_32, 2, 0, frame::DESTINATION, wire(frame::VIP)),
        op(code::SET_16, 2, 0, frame::DESTINATION_PORT, i32::from(frame::VIP_PORT.to_be())),
    ];
    if flows != Flows::One {
        body.push(op(code::STORE_16, 2, 5, frame::SOURCE_PORT, 0));
    }
    if flows == Flows::New {
        body.extend([op(code::SHIFT_RIGHT, 5, 0, 0, 16), op(code::STORE_16, 2, 5, frame::SOURCE, 0)]);
    }
    body.extend(code::tail_call(array));
    code::packet_program(frame::HEADERS_END, &body)
}

/// An address as a 32-bit store puts it into the frame.
const fn wire(address: Ipv4Addr) -> i32 {
    i32::from_ne_bytes(address.octets())
}
