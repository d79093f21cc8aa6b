//! The kernel thread that receives for one interface, and the processor time that it has used.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::priority;
use crate::eventually::obtained;

/// The thread.
#[derive(Debug)]
pub(super) struct Napi {
    schedule: PathBuf,
}

impl Napi {
    /// Finds the thread of `interface`, whose name the kernel makes of the interface's, and keeps it on the
    /// generator's processor, before all others: it takes over after every batch, nothing is lost for want of room, and no
    /// cache line goes from one processor to the other.
    pub(super) fn of(interface: &str) -> Result<Self> {
        let name = format!("napi/{interface}-");
        let find = || {
            let entries = fs::read_dir("/proc").context("cannot list processes")?;
            let mut folders = entries.flatten().map(|entry| entry.path());
            Ok(folders.find(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with(&name))))
        };
        let folder = obtained(APPEARS, &format!("the kernel's receive thread {name}…"), find)?;
        let number = folder.file_name().and_then(|name| name.to_str()?.parse().ok());
        let number = number.context("a process has no number")?;
        priority::together(number)?;
        priority::first(number)?;
        Ok(Self { schedule: folder.join("schedstat") })
    }

    /// Nanoseconds on a processor until now.
    pub(super) fn ran_ns(&self) -> Result<u64> {
        let path = &self.schedule;
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let first = text.split_ascii_whitespace().next().and_then(|first| first.parse().ok());
        first.with_context(|| format!("{} tells no time", path.display()))
    }
}

const APPEARS: Duration = Duration::from_secs(5);
