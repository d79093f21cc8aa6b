//! Grace periods: after one, no packet is on its way that began before it.

use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
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

/// A grace period that passes beside other work.
#[derive(Debug)]
pub(super) struct Grace(JoinHandle<Result<()>>);

impl Grace {
    /// Begins one now.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn begin() -> Result<Self> {
        let waits = thread::Builder::new().name("grace".to_owned()).spawn(wait);
        waits.map(Self).context("cannot wait for packets on their way beside other work")
    }

    /// Returns when it has passed.
    ///
    /// # Errors
    /// As [`wait`].
    pub(super) fn end(self) -> Result<()> {
        self.0.join().map_err(|_| anyhow!("waiting for packets on their way ended with a panic"))?
    }
}
