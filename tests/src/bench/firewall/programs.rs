//! The bench's own packet programs: the reference, the kernel's trie, the cycler of sources, the generator of datagrams.
//!
//! In instructions, by hand: nothing of this belongs into the product's object, and no compiler decides how fast a peer is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use ipnet::IpNet;

use super::addresses::{Cycle, choose};
use super::frame;
use crate::bpf::caller::Caller;
use crate::bpf::code::{self, Instruction, XDP_DROP, op, packet_program};
use crate::bpf::{self, map};

/// Looks at the frame, computes a while, and lets it pass: how fast the machine is at this moment.
pub(super) fn reference() -> Result<OwnedFd> {
    let mut body = vec![op(code::LOAD_32, 5, 2, frame::SOURCE, 0)];
    for _ in 0..REFERENCE_STEPS {
        body.push(op(code::MULTIPLY_32, 5, 0, 0, REFERENCE_FACTOR));
        body.push(op(code::ADD, 5, 0, 0, 1));
    }
    bpf::load(&packet_program(frame::LEAST, &body))
}

/// Drops what comes from one of `prefixes`, by the kernel's own trie and nothing else; the map belongs to the program.
pub(super) fn trie(prefixes: &[IpNet]) -> Result<OwnedFd> {
    let keys: Vec<(u32, [u8; 4])> = prefixes
        .iter()
        .filter_map(|prefix| match prefix {
            IpNet::V4(prefix) => Some((u32::from(prefix.prefix_len()), prefix.network().octets())),
            IpNet::V6(_) => None,
        })
        .collect();
    let map = map::trie(u32::try_from(keys.len())?)?;
    map::fill(map.as_fd(), &keys, &vec![1_u32; keys.len()])?;
    let [low, high] = code::map(1, map.as_raw_fd());
    let [drop, exit] = code::leave(XDP_DROP);
    bpf::load(&packet_program(
        frame::LEAST,
        &[
            op(code::LOAD_32, 5, 2, frame::SOURCE, 0),
            op(code::SET_32, 10, 0, -8, 32),
            op(code::STORE_32, 10, 5, -4, 0),
            low,
            high,
            op(code::MOV_REGISTER, 2, 10, 0, 0),
            op(code::ADD, 2, 0, 0, -8),
            op(code::CALL, 0, 0, 0, code::MAP_LOOKUP),
            op(code::JUMP_EQUAL, 0, 0, 2, 0),
            drop,
            exit,
        ],
    ))
}

/// Gives each packet the next source of `cycle`, then calls `target`. It counts in the frame: every run has the same buffer.
pub(super) fn cycler(cycle: Cycle, target: BorrowedFd<'_>) -> Result<Caller> {
    let mut body = vec![
        op(code::LOAD_32, 5, 2, frame::SEQUENCE, 0),
        op(code::ADD, 5, 0, 0, 1),
        op(code::STORE_32, 2, 5, frame::SEQUENCE, 0),
    ];
    body.extend(choose(cycle));
    body.extend([op(code::TO_BIG_ENDIAN, 5, 0, 0, 32), op(code::STORE_32, 2, 5, frame::SOURCE, 0)]);
    Caller::load(target, |array| {
        body.extend(code::tail_call(array));
        packet_program(frame::LEAST, &body)
    })
}

/// Gives each datagram the next source of `cycle` with the right checksum, and sends it by `interface`.
pub(super) fn generator(cycle: Cycle, interface: u32) -> Result<OwnedFd> {
    let counter = map::counter()?;
    let [low, high] = code::map(1, counter.as_raw_fd());
    let mut code = vec![
        op(code::MOV_REGISTER, 8, 1, 0, 0),
        op(code::SET_32, 10, 0, -4, 0),
        low,
        high,
        op(code::MOV_REGISTER, 2, 10, 0, 0),
        op(code::ADD, 2, 0, 0, -4),
        op(code::CALL, 0, 0, 0, code::MAP_LOOKUP),
        op(code::JUMP_NOT_EQUAL, 0, 0, 2, 0),
    ];
    code.extend(code::leave(XDP_DROP));
    code.extend([
        op(code::LOAD_32, 7, 0, 0, 0),
        op(code::MOV_REGISTER, 5, 7, 0, 0),
        op(code::ADD, 5, 0, 0, 1),
        op(code::STORE_32, 0, 5, 0, 0),
        op(code::MOV_REGISTER, 1, 8, 0, 0),
    ]);
    let mut body = vec![op(code::MOV_REGISTER, 5, 7, 0, 0)];
    body.extend(choose(cycle));
    body.extend(checksum()?);
    body.extend([op(code::TO_BIG_ENDIAN, 5, 0, 0, 32), op(code::STORE_32, 2, 5, frame::SOURCE, 0)]);
    body.extend([
        op(code::MOV, 1, 0, 0, interface.cast_signed()),
        op(code::MOV, 2, 0, 0, 0),
        op(code::CALL, 0, 0, 0, code::REDIRECT),
        op(code::EXIT, 0, 0, 0, 0),
    ]);
    code.extend(packet_program(frame::LEAST, &body));
    bpf::load(&code)
}

/// Header checksum of a datagram from the address in register 5 (RFC 1071): the sum, its carries, its complement.
fn checksum() -> Result<Vec<Instruction>> {
    let mut code = vec![
        op(code::MOV_REGISTER, 3, 5, 0, 0),
        op(code::SHIFT_RIGHT, 3, 0, 0, 16),
        op(code::MOV_REGISTER, 4, 5, 0, 0),
        op(code::AND, 4, 0, 0, 0xffff),
        op(code::ADD_REGISTER, 3, 4, 0, 0),
        op(code::ADD, 3, 0, 0, frame::header_sum()?.cast_signed()),
    ];
    for _ in 0..2 {
        code.extend([
            op(code::MOV_REGISTER, 4, 3, 0, 0),
            op(code::SHIFT_RIGHT, 4, 0, 0, 16),
            op(code::AND, 3, 0, 0, 0xffff),
            op(code::ADD_REGISTER, 3, 4, 0, 0),
        ]);
    }
    code.extend([
        op(code::EXCLUSIVE_OR, 3, 0, 0, 0xffff),
        op(code::TO_BIG_ENDIAN, 3, 0, 0, 16),
        op(code::STORE_16, 2, 3, frame::CHECKSUM, 0),
    ]);
    Ok(code)
}

/// About 100 ns on a machine of these years: the kernel's figures are whole nanoseconds.
const REFERENCE_STEPS: usize = 64;
const REFERENCE_FACTOR: i32 = 0x19_660d;
