//! The two shells around the packet path that run the same packets: the host's tables, and the loaded program.

use anyhow::Result;
use foobar_common::abi::{Event, FlowTable};
use foobar_common::address::{Address, Be16, Tuple};
use foobar_common::parse::UDP;
use std::net::IpAddr;

use super::case::{Lease, Seed};
use super::counters::Counters;
use super::frame::Frame;
use super::hosts::Wire;

/// `XDP_DROP`.
pub const XDP_DROP: u32 = 1;
/// `XDP_PASS`.
pub const XDP_PASS: u32 = 2;
/// `XDP_TX`.
pub const XDP_TX: u32 = 3;
/// `XDP_REDIRECT`.
pub const XDP_REDIRECT: u32 = 4;

/// What a shell did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The program's return value.
    pub action: u32,
    /// The frame after.
    pub bytes: Vec<u8>,
}

/// A tuple of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// IPv4.
    V4(Tuple<1>),
    /// IPv6.
    V6(Tuple<4>),
}

impl Key {
    /// The table of established flows of its protocol.
    pub const fn table(self) -> FlowTable {
        let protocol = match self {
            Self::V4(tuple) => tuple.protocol,
            Self::V6(tuple) => tuple.protocol,
        };
        if protocol == UDP { FlowTable::Datagrams } else { FlowTable::Established }
    }

    /// Of a frame.
    pub fn of(frame: &Frame) -> Self {
        let (source, destination) = frame.ports();
        let (source_port, destination_port, protocol) = (Be16::new(source), Be16::new(destination), frame.protocol());
        match (frame.source, frame.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4(Tuple::new(
                (Address::from(source), Address::from(destination)),
                (source_port, destination_port),
                protocol,
            )),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Self::V6(Tuple::new(
                (Address::from(source), Address::from(destination)),
                (source_port, destination_port),
                protocol,
            )),
            _ => panic!("a frame of two families"),
        }
    }
}

/// A shell around the packet path.
pub trait Shell {
    /// Empties the flow tables and sets every cursor to its beginning.
    fn reset(&mut self) -> Result<()>;

    /// Adds a flow; false: this machine has not run for so long as it is old.
    fn seed(&mut self, seed: &Seed) -> Result<bool>;

    /// Has the server's lease end.
    fn set_lease(&mut self, lease: Lease) -> Result<()>;

    /// Runs a frame.
    fn run(&mut self, ingress: Wire, frame: &[u8]) -> Result<Done>;

    /// What was told since the last call, without its times.
    fn events(&mut self) -> Result<Vec<Event>>;

    /// Reads all counters.
    fn counters(&self) -> Result<Counters>;
}
