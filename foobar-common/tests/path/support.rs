//! Frames and tables for the properties; checksums are recomputed from scratch, with nothing of the crate's own.

use std::cell::Cell;
use std::net::IpAddr;

use foobar_common::abi::Service;
use foobar_common::address::Be16;
use foobar_common::generation::USES_BALANCER;
use foobar_common::held::{Held, Holder};
use foobar_common::host::HostTables;
use foobar_common::rules::compile::{Surroundings, compile};
use foobar_common::rules::{Action, Rule};

/// A socket's own memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) word: Cell<Held>,
    /// It has no room.
    pub(crate) refuses: bool,
}

impl Holder for Memory {
    fn held(&self) -> Held {
        self.word.get()
    }
    fn exchange(&self, held: Held) -> Option<Held> {
        (!self.refuses).then(|| self.word.replace(held))
    }
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
}

/// A frame of TCP (6) or UDP (17) with right checksums.
pub(crate) fn frame(ends: Ends, protocol: u8, data: &[u8]) -> Vec<u8> {
    let mut payload = [ends.source.1.to_be_bytes(), ends.destination.1.to_be_bytes()].concat();
    if protocol == 6 {
        payload.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        payload.extend((8 + data.len() as u16).to_be_bytes());
        payload.extend([0, 0]);
    }
    payload.extend(data);
    let mut frame = vec![0; 12];
    match (ends.source.0, ends.destination.0) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + payload.len() as u16).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            frame.extend(a.octets());
            frame.extend(b.octets());
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((payload.len() as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(a.octets());
            frame.extend(b.octets());
        }
        _ => panic!("two families"),
    }
    frame.extend(payload);
    seal(&mut frame);
    frame
}

fn transport(frame: &[u8]) -> usize {
    if frame[12] == 8 { 34 } else { 54 }
}

fn protocol(frame: &[u8]) -> u8 {
    if frame[12] == 8 { frame[23] } else { frame[20] }
}

/// Recomputes all checksums of a frame in full.
pub(crate) fn seal(frame: &mut [u8]) {
    let (at, protocol) = (transport(frame), protocol(frame));
    let field = at + if protocol == 6 { 16 } else { 6 };
    frame[field..field + 2].fill(0);
    let addresses = if at == 34 { 26..34 } else { 22..54 };
    let length = (frame.len() - at) as u32;
    let pseudo = [&frame[addresses], &length.to_be_bytes(), &[0, 0, 0, protocol]].concat();
    let mut sum = checksum(&[&pseudo, &frame[at..]].concat());
    if protocol == 17 && sum == 0 {
        sum = 0xffff;
    }
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    if at == 34 {
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u64 = bytes.chunks(2).map(|w| u64::from(w[0]) * 256 + u64::from(*w.get(1).unwrap_or(&0))).sum();
    // What is left after casting out 0xffff; zero only for a sum of nothing but zeroes.
    !(if sum == 0 { 0 } else { (sum - 1) % 0xffff + 1 } as u16)
}

/// The ends of a frame, read at fixed offsets.
pub(crate) fn ends(frame: &[u8]) -> Ends {
    let at = transport(frame);
    let address = |from: usize| -> IpAddr {
        if at == 34 {
            IpAddr::from(<[u8; 4]>::try_from(&frame[from..from + 4]).expect("four bytes"))
        } else {
            IpAddr::from(<[u8; 16]>::try_from(&frame[from..from + 16]).expect("sixteen bytes"))
        }
    };
    let port = |from: usize| u16::from_be_bytes([frame[from], frame[from + 1]]);
    let (source, destination) = if at == 34 { (26, 30) } else { (22, 38) };
    Ends { source: (address(source), port(at)), destination: (address(destination), port(at + 2)) }
}

/// Tables that allow everything, with one service of one backend and a route to everywhere.
pub(crate) fn balancer(vip: (IpAddr, u16), backend: (IpAddr, u16), protocol: u8) -> HostTables {
    let all = Rule::any("all", Action::Allow);
    let surroundings = Surroundings { number: 1, uses: USES_BALANCER, ..Surroundings::default() };
    let mut tables = HostTables::new(compile(&[all], &surroundings).expect("one rule"));
    let (vip, port) = vip;
    tables.serve(Service::default(), protocol, (vip, Be16::new(port)), (5, backend.0, Be16::new(backend.1)));
    tables.reach_everything(65_535);
    tables
}
