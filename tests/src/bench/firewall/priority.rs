//! Scheduling of what is measured: before all other programs, and the ends of a cable on one processor.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Lets a thread run before all others for the rest of its life; 0 is the calling one.
///
/// A test run's time is that of the clock on the wall; and a receive thread that waits for a compiler loses packets.
pub(super) fn first(thread: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a structure that outlives the call.
    let set = unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameters) };
    Errno::result(set).map(drop).with_context(|| format!("cannot give thread {thread} real-time priority"))
}

/// Keeps a thread on the last processor that this process may use; 0 is the calling one.
pub(super) fn together(thread: i32) -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot read the processors of this process")?;
    let last = (0..CpuSet::count()).rev().find(|number| allowed.is_set(*number).unwrap_or(false));
    let mut set = CpuSet::new();
    set.set(last.context("no processor is allowed")?)?;
    sched_setaffinity(Pid::from_raw(thread), &set)
        .with_context(|| format!("cannot keep thread {thread} on a processor"))
}
