//! The clock of the packet path: the kernel's coarse monotonic one, which its programs can read without cost.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

/// This moment.
///
/// # Errors
/// The kernel has no such clock.
pub fn now() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).context("the kernel has no coarse clock")?))
}

/// This moment in nanoseconds, as flows and generations bear it.
///
/// # Errors
/// As [`now`].
pub fn now_ns() -> Result<u64> {
    Ok(now()?.as_nanos() as u64)
}
