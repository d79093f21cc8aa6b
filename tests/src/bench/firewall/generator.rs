//! The generator of a flood: the kernel itself sends datagrams from a namespace, each from another source.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::addresses::Cycle;
use super::frame::{CLIENT, datagram};
use super::priority;
use super::programs;
use crate::bpf;

/// A generator on an interface.
#[derive(Debug)]
pub(super) struct Generator {
    program: OwnedFd,
    frame: Vec<u8>,
}

impl Generator {
    /// Sends by `interface`.
    pub(super) fn new(cycle: Cycle, interface: u32) -> Result<Self> {
        Ok(Self { program: programs::generator(cycle, interface)?, frame: datagram(CLIENT)? })
    }

    /// Sends as much as it can for `time`; to be called on a thread of its own in the interface's namespace. What finds the cable full is lost.
    pub(super) fn flood(&self, time: Duration) -> Result<()> {
        priority::together(0)?;
        let end = Instant::now() + time;
        while Instant::now() < end {
            bpf::send(self.program.as_fd(), &self.frame, 0, AT_ONCE)?;
        }
        Ok(())
    }
}

/// Packets of one system call: some milliseconds.
const AT_ONCE: u32 = 4096;
