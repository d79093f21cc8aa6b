//! The BPF file system: mounted when it is missing, one folder a run, removed with every pin in it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::progress::Progress;

/// Where it is mounted.
pub const MOUNT: &str = "/sys/fs/bpf";

/// Mounts the BPF file system when it is missing, and says so.
pub fn ensure(progress: &dyn Progress) -> Result<()> {
    let mounted = statfs(MOUNT).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if mounted {
        return Ok(());
    }
    mount(Some("bpf"), MOUNT, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .with_context(|| format!("cannot mount the BPF file system; try `mount -t bpf bpf {MOUNT}`"))?;
    progress.note(&format!("mounted the BPF file system at {MOUNT}; it stays"));
    Ok(())
}

/// Makes the folder of the run called `name`.
pub fn create(name: &str) -> Result<PathBuf> {
    let path = Path::new(MOUNT).join(name);
    fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// Removes the folder of the run called `name`: with their pins go its links, maps and programs.
pub fn remove(name: &str) -> Result<()> {
    let path = Path::new(MOUNT).join(name);
    if !path.exists() {
        return Ok(());
    }
    fs::remove_dir_all(&path).with_context(|| format!("cannot remove the pins in {}", path.display()))
}
