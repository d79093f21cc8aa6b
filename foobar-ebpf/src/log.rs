//! Messages about single packets, for debugging the program: off unless the agent runs with `--log-drops`.
//!
//! The level is a constant of the loaded program, so that the verifier removes what is off, and it costs nothing.

use aya_log_ebpf::info;
use foobar_common::verdict::Verdict;

/// Tells about a packet that is dropped.
#[inline(always)]
pub(crate) fn verdict(verdict: Verdict, bytes: u64) {
    if let Verdict::Drop(reason) = verdict {
        dropped(reason as u32, bytes);
    }
}

/// A frame of its own: the message needs stack that the packet path has no room for.
#[inline(never)]
fn dropped(reason: u32, bytes: u64) -> u32 {
    info!(&(), "drop, reason {}, {} bytes", reason, bytes);
    reason
}
