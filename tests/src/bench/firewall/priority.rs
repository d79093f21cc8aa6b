//! Scheduling of what is measured: before all other programs, on processors of their own.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::progress::Progress;

/// Lets the calling thread run before all others for the rest of its life: a test run's time is that of the clock on the wall.
pub(super) fn first(progress: &dyn Progress) {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a structure that outlives the call; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } != 0 {
        progress.note("no real-time priority: other programs are in the figures");
    }
}

/// A processor to stay on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processor {
    /// The first that this process may use.
    First,
    /// The last; with one processor the same.
    Last,
}

/// Keeps a thread on a processor; 0 is the calling one.
pub(super) fn keep(thread: i32, processor: Processor) -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot read the processors of this process")?;
    let mut numbers = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false));
    let number = match processor {
        Processor::First => numbers.next(),
        Processor::Last => numbers.last(),
    };
    let mut set = CpuSet::new();
    set.set(number.context("no processor is allowed")?)?;
    sched_setaffinity(Pid::from_raw(thread), &set)
        .with_context(|| format!("cannot keep thread {thread} on a processor"))
}
