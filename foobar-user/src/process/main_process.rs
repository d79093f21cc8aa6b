//! The main process of a supervised program: our own child, or one that an earlier agent started.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// A running main process.
#[derive(Debug)]
pub(super) enum MainProcess {
    /// Started by this agent.
    Own {
        /// Its handle, which reaps it.
        child: Child,
        /// Its id.
        pid: Pid,
    },
    /// Started by an earlier agent.
    Adopted {
        /// Readable when the process has ended.
        pidfd: AsyncFd<OwnedFd>,
        /// Its id.
        pid: Pid,
    },
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// In words.
    pub(super) how: String,
    /// Whether it gave up by itself: no signal ended it.
    pub(super) by_itself: bool,
}

impl MainProcess {
    /// Takes a child just spawned.
    pub(super) fn own(child: Child) -> Result<Self> {
        let raw = child.id().context("the process ended before it could be watched")?;
        let pid = Pid::from_raw(i32::try_from(raw).context("the process id does not fit")?);
        Ok(Self::Own { child, pid })
    }

    /// Takes a process that started at `start_ticks`; `None` when it is gone or another has its id now.
    pub(super) fn adopt(pid: Pid, start_ticks: u64) -> Result<Option<Self>> {
        let pidfd = match open_pidfd(pid) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot watch process {pid}")),
        };
        // Compared after opening: what the descriptor names cannot be replaced any more.
        if start_ticks_of(pid) != Some(start_ticks) {
            return Ok(None);
        }
        // SAFETY: an OwnedFd is open, and names the same process, until the AsyncFd that owns it drops it.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        let pidfd = pidfd.with_context(|| format!("cannot watch process {pid}"))?;
        Ok(Some(Self::Adopted { pidfd, pid }))
    }

    pub(super) fn pid(&self) -> Pid {
        match self {
            Self::Own { pid, .. } | Self::Adopted { pid, .. } => *pid,
        }
    }

    pub(super) fn adopted(&self) -> bool {
        matches!(self, Self::Adopted { .. })
    }

    /// Waits for the end and tells how it came; may be cancelled and called again.
    pub(super) async fn ended(&mut self) -> Ended {
        let (how, by_itself) = match self {
            Self::Own { child, .. } => match child.wait().await {
                Ok(status) => (format!("ended with {status}"), status.code().is_some_and(|code| code != 0)),
                Err(error) => (format!("ended, and its status is unknown: {error}"), false),
            },
            Self::Adopted { pidfd, .. } => match pidfd.readable().await {
                Ok(_) => ("ended; an earlier agent started it, so its status is unknown".to_owned(), false),
                Err(error) => (format!("cannot be watched any more: {error}"), false),
            },
        };
        Ended { how, by_itself }
    }

    /// Sends a signal to the main process alone.
    pub(super) fn signal(&self, signal: Signal) {
        // An id that is gone is an end that `ended` tells.
        if let Err(error) = kill(self.pid(), signal)
            && error != nix::errno::Errno::ESRCH
        {
            tracing::warn!(pid = %self.pid(), %signal, %error, "cannot signal the process");
        }
    }
}

fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours; the descriptor it returns is new, owned by
    // nobody else and close-on-exec.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// When a living process started, in clock ticks after boot (field 22 of `/proc/<pid>/stat`); `None` for a zombie.
pub(super) fn start_ticks_of(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses: fields count from the last one.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_ticks_of_this_process_are_known() {
        assert!(start_ticks_of(Pid::this()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_ticks_of(Pid::from_raw(i32::MAX)), None);
    }
}
