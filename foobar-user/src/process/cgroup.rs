//! The cgroup v2 folder of one process: who belongs to it, what it uses, and how all of it ends.
//!
//! Works without controllers too (a v2 mount beside v1 hierarchies): grouping and `cpu.stat` need none. Limits are then
//! in groups of the same name in those hierarchies.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::limits::{Limiter, Pressure};
use crate::plan::Limits;

/// Time that a killed group may take to be gone, in milliseconds.
const EMPTY_TIMEOUT_MS: u64 = 10_000;
/// Time between two looks at a group that should become empty, in milliseconds.
const EMPTY_POLL_MS: u64 = 5;

/// The cgroup of one process and all its descendants.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    folder: PathBuf,
    limiter: Limiter,
}

impl Cgroup {
    /// Makes the folder `<parent>/<name>`.
    pub(super) fn create(parent: &Path, name: &str) -> Result<Self> {
        let folder = parent.join(name);
        fs::create_dir_all(&folder).with_context(|| {
            format!("cannot make the cgroup {}: is {} on a cgroup v2 mount?", folder.display(), parent.display())
        })?;
        if !folder.join("cgroup.procs").exists() {
            bail!("{} is not on a cgroup v2 mount: give one with --cgroup", folder.display());
        }
        let limiter = Limiter::of(&folder);
        Ok(Self { folder, limiter })
    }

    /// The files through which a process joins, to be opened before a fork.
    pub(super) fn doors(&self) -> Result<Vec<File>> {
        let mut paths = self.limiter.doors();
        paths.push(self.folder.join("cgroup.procs"));
        let open = |path: PathBuf| {
            OpenOptions::new().write(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
        };
        paths.into_iter().map(open).collect()
    }

    /// Puts limits in force, also for what runs; says what cannot be kept.
    pub(super) fn limit(&self, limits: &Limits) -> Result<(), String> {
        self.limiter.apply(limits, || self.pids())
    }

    /// What the group has run into since it was made.
    pub(super) fn pressure(&self) -> Pressure {
        self.limiter.pressure()
    }

    /// Puts a process that somebody else spawned into the group.
    pub(super) fn adopt(&self, pid: Pid) -> Result<()> {
        let path = self.folder.join("cgroup.procs");
        fs::write(&path, pid.to_string()).with_context(|| format!("cannot put pid {pid} into {}", path.display()))
    }

    /// Living processes of the group.
    pub(super) fn pids(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect()
    }

    fn populated(&self) -> bool {
        fs::read_to_string(self.folder.join("cgroup.events"))
            .is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
    }

    /// Kills everything in the group and returns when nothing is left.
    pub(super) async fn clear(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_millis(EMPTY_TIMEOUT_MS);
        while self.populated() {
            self.kill();
            if Instant::now() >= deadline {
                bail!(
                    "processes {:?} of {} do not die within {EMPTY_TIMEOUT_MS} ms of SIGKILL",
                    self.pids(),
                    self.folder.display()
                );
            }
            sleep(Duration::from_millis(EMPTY_POLL_MS)).await;
        }
        Ok(())
    }

    /// Sends SIGKILL to all: in one step where the kernel can (5.14), else one by one, again and again by the caller.
    pub(super) fn kill(&self) {
        if fs::write(self.folder.join("cgroup.kill"), "1").is_err() {
            for pid in self.pids() {
                // Gone in between is as good as killed.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }

    /// Removes the folder of an empty group.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_dir(&self.folder)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(cgroup = %self.folder.display(), %error, "cannot remove the cgroup");
        }
        self.limiter.remove();
    }

    /// CPU time used by the group since it was made.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let text = fs::read_to_string(self.folder.join("cpu.stat")).unwrap_or_default();
        let microseconds = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))
            .and_then(|value| value.trim().parse::<u64>().ok())
            .unwrap_or(0);
        Duration::from_micros(microseconds).as_secs_f64()
    }

    /// Resident memory of the group: each process's own pages, and the largest shared part once.
    pub(super) fn memory_bytes(&self) -> u64 {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(4096);
        let (own, shared) =
            self.pids().into_iter().filter_map(statm).fold((0, 0), |(own, most), (resident, shared)| {
                (own + resident.saturating_sub(shared), shared.max(most))
            });
        (own + shared) * page
    }
}

/// Resident and shared pages of a process.
fn statm(pid: Pid) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(1).map(|field| field.parse().ok());
    Some((fields.next()??, fields.next()??))
}
