//! A grace period: after it no packet is on its way that began before it.

use anyhow::{Context, Result};
use nix::errno::Errno;

/// `MEMBARRIER_CMD_GLOBAL`: the kernel waits with `synchronize_rcu`, under which programs run.
const GLOBAL: i32 = 1;

/// Waits until every packet that is on its way has its verdict; some ten milliseconds.
///
/// # Errors
/// A kernel without `membarrier`.
pub(super) fn wait() -> Result<()> {
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    Errno::result(result).map(drop).context("cannot wait for packets on their way (membarrier)")
}
