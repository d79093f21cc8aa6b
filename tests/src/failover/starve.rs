//! A server without a processor: its agent and its PostgreSQL have one that a busy loop at real-time priority takes.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, alarm, setsid};

/// How long it lasts: the loops end by themselves, whatever becomes of the test.
pub(super) const LASTING: Duration = Duration::from_secs(10);
/// Loops that take what the kernel keeps from those of real-time priority: a twentieth of each second.
const GREEDY: usize = 4;

/// A processor that is taken. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Starving {
    loops: Vec<Loop>,
    moved: Vec<Pid>,
    processors: CpuSet,
}

#[derive(Debug)]
struct Loop(Child);

impl Drop for Loop {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Starving {
    /// Leaves the last processor to those of `starved` and to the loops, and the first ones to `others` and the test.
    pub(super) fn start(starved: impl Fn() -> Vec<i32>, others: impl Fn() -> Vec<i32>) -> Result<Self> {
        let processors = sched_getaffinity(Pid::from_raw(0)).context("which processors there are")?;
        let last = (0..CpuSet::count()).rev().find(|cpu| processors.is_set(*cpu) == Ok(true)).context("a processor")?;
        let (mut taken, mut left) = (CpuSet::new(), processors);
        taken.set(last)?;
        left.unset(last)?;
        let more = (0..last).any(|cpu| left.is_set(cpu) == Ok(true));
        ensure!(more, "this needs two processors: one of them is taken");
        let mut starving = Self { loops: Vec::new(), moved: Vec::new(), processors };
        // Twice: what was begun meanwhile by somebody who had not been moved yet.
        for _ in 0..2 {
            starving.put(&starved(), taken);
            starving.put(&others(), left);
            starving.put(&[std::process::id().cast_signed()], left);
        }
        starving.loops = (0..GREEDY).map(|_| spin(taken, false)).collect::<Result<_>>()?;
        starving.loops.push(spin(taken, true)?);
        Ok(starving)
    }

    /// Puts all threads of these processes there; who has ended needs none.
    fn put(&mut self, processes: &[i32], there: CpuSet) {
        for thread in processes.iter().flat_map(|pid| threads(*pid)) {
            let _ = sched_setaffinity(thread, &there);
            self.moved.push(thread);
        }
    }

    /// Waits until the loops have ended.
    pub(super) fn end(mut self) -> Result<()> {
        for Loop(child) in &mut self.loops {
            child.wait().context("a loop does not end")?;
        }
        Ok(())
    }
}

impl Drop for Starving {
    fn drop(&mut self) {
        self.loops.clear();
        for thread in &self.moved {
            let _ = sched_setaffinity(*thread, &self.processors);
        }
    }
}

fn threads(pid: i32) -> Vec<Pid> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw).collect()
}

/// Starts a loop on these processors: at the highest real-time priority, or else at the highest of all others.
fn spin(there: CpuSet, real_time: bool) -> Result<Loop> {
    let mut command = Command::new("sh");
    command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
    let seconds = u32::try_from(LASTING.as_secs())?;
    // SAFETY: between fork and exec only system calls are made, on values that the closure owns.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // Its default action ends the loop: by the kernel's timer, which needs nobody else to run.
            alarm::set(seconds);
            setsid()?;
            sched_setaffinity(Pid::from_raw(0), &there)?;
            let changed = if real_time {
                let priority = libc::sched_param { sched_priority: 99 };
                libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority)
            } else {
                libc::setpriority(libc::PRIO_PROCESS, 0, -20)
            };
            Errno::result(changed).map(drop).map_err(Into::into)
        });
    }
    let child = command.spawn().context("the kernel lets no loop run at such a priority")?;
    // Where each session is a group of its own, that has a priority, too.
    let _ = fs::write(format!("/proc/{}/autogroup", child.id()), "-20");
    Ok(Loop(child))
}
