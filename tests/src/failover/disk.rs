//! A small disk in memory, which can be filled.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Its size: room for a database, its log, and the log that is kept for a replica.
const SIZE: &str = "size=768m,mode=755";

/// A file system in memory at a folder. Dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(super) server: &'static str,
    folder: PathBuf,
}

impl Disk {
    /// Mounts one at `folder`.
    pub(super) fn mount(server: &'static str, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (flags, kind) = (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "tmpfs");
        mount(Some(kind), folder, Some(kind), flags, Some(SIZE))
            .with_context(|| format!("cannot mount a disk at {}", folder.display()))?;
        Ok(Self { server, folder: folder.to_owned() })
    }

    /// Leaves no byte free.
    pub(super) fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler()).context("cannot fill the disk")?;
        for size in [1 << 20, 4096] {
            let bytes = vec![0_u8; size];
            while file.write_all(&bytes).is_ok() {}
        }
        Ok(())
    }

    /// Makes room again.
    pub(super) fn empty(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("cannot make room on the disk")
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process of the bed may still be dying.
        if let Err(error) = umount2(&self.folder, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.folder.display());
        }
    }
}
