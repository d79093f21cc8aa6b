//! The program around a program: puts back what a rewriting program changes, chooses the next packet's flow, and calls it.
//!
//! Written in instructions, since nothing of it belongs into the product's object. The number of the packet lives in the
//! frame itself, where TCP has its sequence number: the kernel hands the same buffer to every run.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Result;

use super::frame;
use super::prog::{self, Instruction};

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

/// A loaded wrapper.
#[derive(Debug)]
pub(super) struct Wrapper {
    program: OwnedFd,
    _target: OwnedFd,
}

impl Wrapper {
    /// Loads a wrapper that chooses by `flows` and calls `target`.
    pub(super) fn load(flows: Flows, target: BorrowedFd<'_>) -> Result<Self> {
        let array = prog::program_array(target)?;
        let program = prog::load(&instructions(flows, array.as_raw_fd()))?;
        Ok(Self { program, _target: array })
    }

    /// The wrapper itself.
    pub(super) fn program(&self) -> &OwnedFd {
        &self.program
    }
}

/// Registers as the calling convention has them; 2 is the frame, 3 its end, 5 the packet's number.
fn instructions(flows: Flows, array: i32) -> Vec<Instruction> {
    let mut code = vec![
        op(MOV_REGISTER, 6, 1, 0, 0),
        op(LOAD_32, 2, 1, 0, 0),
        op(LOAD_32, 3, 1, 4, 0),
        op(MOV_REGISTER, 4, 2, 0, 0),
        op(ADD, 4, 0, 0, i32::from(frame::HEADERS_END)),
        Instruction::default(), // Set below: to the end when the frame is shorter.
        op(LOAD_32, 5, 2, frame::SEQUENCE, 0),
        op(ADD, 5, 0, 0, 1),
        op(STORE_32, 2, 5, frame::SEQUENCE, 0),
        op(SET_8, 2, 0, frame::HOPS, i32::from(frame::HOP_COUNT)),
        op(SET_32, 2, 0, frame::DESTINATION, wire(frame::VIP)),
        op(SET_16, 2, 0, frame::DESTINATION_PORT, i32::from(frame::VIP_PORT.to_be())),
    ];
    if flows != Flows::One {
        code.push(op(STORE_16, 2, 5, frame::SOURCE_PORT, 0));
    }
    if flows == Flows::New {
        code.extend([op(SHIFT_RIGHT, 5, 0, 0, 16), op(STORE_16, 2, 5, frame::SOURCE, 0)]);
    }
    code.extend([
        op(MOV_REGISTER, 1, 6, 0, 0),
        op(LOAD_64, 2, PSEUDO_MAP, 0, array),
        Instruction::default(), // The upper half of the 64 bits.
        op(MOV, 3, 0, 0, 0),
        op(CALL, 0, 0, 0, TAIL_CALL),
    ]);
    let end = i16::try_from(code.len()).unwrap_or(i16::MAX);
    code[BOUNDS_CHECK] = op(JUMP_GREATER, 4, 3, end - 1 - BOUNDS_CHECK as i16, 0);
    code.extend([op(MOV, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    code
}

const fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

/// An address as a 32-bit store puts it into the frame.
const fn wire(address: Ipv4Addr) -> i32 {
    i32::from_ne_bytes(address.octets())
}

const BOUNDS_CHECK: usize = 5;

// Codes of `linux/bpf.h`.
const ADD: u8 = 0x07;
const LOAD_64: u8 = 0x18;
const JUMP_GREATER: u8 = 0x2d;
const LOAD_32: u8 = 0x61;
const SET_32: u8 = 0x62;
const STORE_32: u8 = 0x63;
const SET_16: u8 = 0x6a;
const STORE_16: u8 = 0x6b;
const SET_8: u8 = 0x72;
const SHIFT_RIGHT: u8 = 0x77;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const MOV: u8 = 0xb7;
const MOV_REGISTER: u8 = 0xbf;
const PSEUDO_MAP: u8 = 1;
const TAIL_CALL: i32 = 12;
