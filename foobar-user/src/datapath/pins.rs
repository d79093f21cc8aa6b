//! The folder in bpffs where one server's maps and links outlive its agent.
//!
//! bpffs itself is often world-writable, so the folder is ours alone: mode 0700, owned by root, checked at each start.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use foobar_common::abi::ABI_VERSION;
use nix::sys::statfs::{FsType, statfs};

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Begin of the names of folders with the maps of one loading.
const LOADING: &str = "loading-";

/// One server's folder of pins.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The folder of `server` below the bpffs at `bpffs`; nothing is touched.
    #[must_use]
    pub fn new(bpffs: &Path, server: &str) -> Self {
        Self { root: bpffs.join("foobar").join(server) }
    }

    /// Makes the folder, or checks the one that is there.
    ///
    /// # Errors
    /// bpffs is not mounted, the folder is not ours, or its pins are of another version of the ABI.
    pub fn open(&self) -> Result<()> {
        let shared = self.root.parent().context("the folder of pins has no parent")?;
        let bpffs = shared.parent().context("the folder of pins has no file system")?;
        fs::create_dir_all(bpffs).ok();
        let kind = statfs(bpffs)
            .with_context(|| format!("cannot look at {}: is bpffs mounted there?", bpffs.display()))?
            .filesystem_type();
        ensure!(
            kind == BPF_FS,
            "{} is not a bpffs: mount one with `mount -t bpf bpf /sys/fs/bpf`, or name another with --bpffs",
            bpffs.display()
        );
        private(shared)?;
        private(&self.root)?;
        self.refuse_other_versions()?;
        private(&self.state())?;
        private(&self.links())
    }

    /// Folder of state maps.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join(version_folder())
    }

    /// Folder of the maps of one loading of the programs, by the number of its first generation.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn loading(&self, number: u32) -> Result<PathBuf> {
        let folder = self.root.join(format!("{LOADING}{number}"));
        private(&folder)?;
        Ok(folder)
    }

    /// Removes the maps of every other loading; those in use live on until their programs go.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn retain_loading(&self, number: Option<u32>) -> Result<()> {
        let kept = number.map(|number| format!("{LOADING}{number}"));
        for entry in fs::read_dir(&self.root).with_context(|| format!("cannot read {}", self.root.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(LOADING) && Some(&name) != kept.as_ref() {
                let path = entry.path();
                fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Folder of links.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Whether an agent has left something here.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.state().join("verdicts").exists()
    }

    /// Removes every pin, links first: from then on the interfaces carry no program of ours.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(&self) -> Result<()> {
        for folder in [self.links(), self.root.clone()] {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
                }
                _ => {}
            }
        }
        // The folder that servers share goes with the last of them.
        if let Some(shared) = self.root.parent() {
            fs::remove_dir(shared).ok();
        }
        Ok(())
    }

    fn refuse_other_versions(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root).with_context(|| format!("cannot read {}", self.root.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("abi") && name != version_folder() {
                bail!(
                    "{} holds maps of another version ({name}, this binary has {}). Nothing was changed, and what is in the \
                     kernel goes on: start the old binary again, or remove it all with `foobar detach` and start this one; \
                     established flows are lost by that, and the server is open until then",
                    self.root.display(),
                    version_folder()
                );
            }
        }
        Ok(())
    }
}

fn version_folder() -> String {
    format!("abi{ABI_VERSION}")
}

/// Makes a folder that only root can enter, or checks that the one there is such.
fn private(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make {}", folder.display()));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    let uid = nix::unistd::geteuid().as_raw();
    ensure!(
        metadata.is_dir() && metadata.uid() == uid && metadata.mode() & 0o077 == 0,
        "{} is not ours alone (owner {}, mode {:o}): find out who made it, and remove it",
        folder.display(),
        metadata.uid(),
        metadata.mode() & 0o7777
    );
    Ok(())
}
