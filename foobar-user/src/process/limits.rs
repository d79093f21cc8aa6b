//! Limits of one process's cgroup: put in force, changed while it runs, and told apart from what cannot be kept.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::controllers::{self, Controller, Home};
use crate::plan::Limits;

/// Period of CPU quotas, in microseconds; the kernel's own.
const PERIOD_US: u64 = 100_000;
/// Share of CPUs in v1 that equals a weight of 100 in v2.
const SHARES: u64 = 1024;
/// Rounds in which processes are moved to their limits: each round's forks come with the next.
const ROUNDS: usize = 16;

/// The groups in which a process's limits are.
#[derive(Clone, Debug)]
pub(super) struct Limiter {
    v2: PathBuf,
    root: PathBuf,
    homes: [(Controller, Option<Home>); 3],
}

/// What a group has run into.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pressure {
    /// Periods of 100 ms in which it was held up by its quota.
    pub(super) throttled_periods: u64,
    /// Time for which it was held up, over all CPUs, in seconds.
    pub(super) throttled_seconds: f64,
    /// Processes of it that were killed because its memory was used up.
    pub(super) oom_kills: u64,
}

impl Limiter {
    /// Of a group of the v2 tree.
    pub(super) fn of(v2: &Path) -> Self {
        let root = controllers::v2_root(v2);
        let homes = Controller::ALL.map(|controller| (controller, controllers::home(controller, &root)));
        Self { v2: v2.to_owned(), root, homes }
    }

    /// Puts limits in force, lifting those that are not asked for; says what cannot be kept.
    pub(super) fn apply(&self, limits: &Limits, pids: impl Fn() -> Vec<Pid>) -> Result<(), String> {
        let mut faults: Vec<String> = Vec::new();
        for (controller, home) in &self.homes {
            let (controller, wanted) = (*controller, controller.serves(limits));
            let put = match home {
                Some(Home::Unified) => self.unified(controller, limits, wanted),
                Some(Home::Legacy(own)) => legacy(controller, limits, wanted, &self.twin(own), &pids),
                None if wanted => Err(io::Error::other("this machine's kernel has no such controller")),
                None => Ok(()),
            };
            if let Err(error) = put {
                faults.push(format!("{}: {error}", controller.name()));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(format!("limits are not all kept: {}", faults.join("; "))) }
    }

    fn unified(&self, controller: Controller, limits: &Limits, wanted: bool) -> io::Result<()> {
        let probe = match controller {
            Controller::Cpu => "cpu.max",
            Controller::Memory => "memory.max",
            Controller::Pids => "pids.max",
        };
        if !self.v2.join(probe).exists() {
            if !wanted {
                return Ok(());
            }
            self.enable(controller)?;
        }
        let put = |file: &str, value: String| write(&self.v2.join(file), &value);
        let or_max = |value: Option<u64>| value.map_or_else(|| "max".to_owned(), |value| value.to_string());
        match controller {
            Controller::Cpu => {
                put("cpu.weight", limits.cpu_weight.unwrap_or(100).to_string())?;
                put("cpu.max", format!("{} {PERIOD_US}", or_max(limits.cpu_milli.map(quota_us))))
            }
            Controller::Memory => {
                // Swap would only move the need for memory to the disk, which others use too.
                let swap = if limits.memory_bytes.is_some() { "0" } else { "max" };
                unless_absent(put("memory.swap.max", swap.to_owned()))?;
                put("memory.max", or_max(limits.memory_bytes))
            }
            Controller::Pids => put("pids.max", or_max(limits.processes.map(u64::from))),
        }
    }

    /// Has every group on the way down hand the controller on.
    fn enable(&self, controller: Controller) -> io::Result<()> {
        let above: Vec<&Path> = self.v2.ancestors().skip(1).take_while(|path| path.starts_with(&self.root)).collect();
        for folder in above.into_iter().rev() {
            fs::write(folder.join("cgroup.subtree_control"), format!("+{}", controller.name())).map_err(|error| {
                let hint = if error.raw_os_error() == Some(libc::EBUSY) {
                    "; processes in that group itself keep it from having limited groups below: move them, or leave --cgroup out"
                } else {
                    ""
                };
                io::Error::other(format!("{} does not hand it on: {error}{hint}", folder.display()))
            })?;
        }
        Ok(())
    }

    /// The group of the same name in a v1 hierarchy.
    fn twin(&self, own: &Path) -> PathBuf {
        own.join(self.v2.strip_prefix(&self.root).unwrap_or(&self.v2))
    }

    /// Groups in v1 hierarchies that are there now.
    fn twins(&self) -> impl Iterator<Item = (Controller, PathBuf, PathBuf)> {
        self.homes.iter().filter_map(|(controller, home)| match home {
            Some(Home::Legacy(own)) => Some((*controller, self.twin(own), own.clone())),
            _ => None,
        })
    }

    /// Where a process that is to be limited joins, beside the v2 group.
    pub(super) fn doors(&self) -> Vec<PathBuf> {
        self.twins().map(|(_, twin, _)| twin.join("cgroup.procs")).filter(|door| door.exists()).collect()
    }

    /// Removes the v1 groups of an empty group, and those above them that are empty with them.
    pub(super) fn remove(&self) {
        for (_, twin, own) in self.twins() {
            for folder in twin.ancestors().take_while(|folder| *folder != own) {
                // Others have groups in it: they remove it.
                if fs::remove_dir(folder).is_err_and(|error| error.kind() != ErrorKind::NotFound) {
                    break;
                }
            }
        }
    }

    /// What the group has run into since it was made.
    pub(super) fn pressure(&self) -> Pressure {
        let twin =
            |wanted: Controller| self.twins().find(|(controller, ..)| *controller == wanted).map(|(_, twin, _)| twin);
        let cpu = twin(Controller::Cpu);
        let cpu_stat = read(&cpu.as_deref().unwrap_or(&self.v2).join("cpu.stat"));
        let throttled_seconds = match value(&cpu_stat, "throttled_usec") {
            #[expect(clippy::cast_precision_loss, reason = "exact for 285 years")]
            Some(microseconds) => microseconds as f64 / 1e6,
            #[expect(clippy::cast_precision_loss, reason = "exact for 104 days, and near enough after")]
            None => value(&cpu_stat, "throttled_time").unwrap_or(0) as f64 / 1e9,
        };
        let memory = match twin(Controller::Memory) {
            Some(twin) => read(&twin.join("memory.oom_control")),
            None => read(&self.v2.join("memory.events")),
        };
        Pressure {
            throttled_periods: value(&cpu_stat, "nr_throttled").unwrap_or(0),
            throttled_seconds,
            oom_kills: value(&memory, "oom_kill").unwrap_or(0),
        }
    }
}

fn legacy(
    controller: Controller,
    limits: &Limits,
    wanted: bool,
    twin: &Path,
    pids: &impl Fn() -> Vec<Pid>,
) -> io::Result<()> {
    if !twin.exists() {
        if !wanted {
            return Ok(());
        }
        fs::create_dir_all(twin)?;
    }
    let put = |file: &str, value: String| write(&twin.join(file), &value);
    match controller {
        Controller::Cpu => {
            let shares = u64::from(limits.cpu_weight.unwrap_or(100)) * SHARES / 100;
            put("cpu.shares", shares.max(2).to_string())?;
            put("cpu.cfs_period_us", PERIOD_US.to_string())?;
            put(
                "cpu.cfs_quota_us",
                limits.cpu_milli.map_or_else(|| "-1".to_owned(), |milli| quota_us(milli).to_string()),
            )?;
        }
        Controller::Memory => {
            let bytes = limits.memory_bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
            // The sum with swap may never be the smaller one.
            unless_absent(put("memory.memsw.limit_in_bytes", "-1".to_owned()))?;
            put("memory.limit_in_bytes", bytes.clone())?;
            unless_absent(put("memory.memsw.limit_in_bytes", bytes))?;
        }
        Controller::Pids => {
            put("pids.max", limits.processes.map_or_else(|| "max".to_owned(), |processes| processes.to_string()))?;
        }
    }
    join(twin, pids)
}

/// Moves what runs already.
fn join(twin: &Path, pids: &impl Fn() -> Vec<Pid>) -> io::Result<()> {
    let procs = twin.join("cgroup.procs");
    for _ in 0..ROUNDS {
        let there = read(&procs);
        let inside = |pid: &Pid| there.lines().any(|line| line.parse() == Ok(pid.as_raw()));
        let outside: Vec<Pid> = pids().into_iter().filter(|pid| !inside(pid)).collect();
        if outside.is_empty() {
            return Ok(());
        }
        for pid in outside {
            match fs::write(&procs, pid.to_string()) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                _ => {}
            }
        }
    }
    Err(io::Error::other("its processes fork faster than they can be moved; restart it"))
}

fn quota_us(milli: u32) -> u64 {
    u64::from(milli) * PERIOD_US / 1000
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) if path.ends_with("memory.limit_in_bytes") => io::Error::other(format!(
            "it uses more than {value} bytes now, and the kernel cannot take it back; restart it"
        )),
        _ => io::Error::new(error.kind(), format!("{value} into {}: {error}", path.display())),
    })
}

/// Files that some kernels are built without.
fn unless_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A number of a file of keys and numbers.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
